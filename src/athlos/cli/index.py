"""`athlos index`: makes a corpus ready to be searched, so that no question waits for it."""

from collections.abc import Sequence

from athlos.config.compose import run_config

DEFAULT_INDEX = "index=lexical"
"""What is built where the command names no index: it needs no encoder."""


def print_index(overrides: Sequence[str]) -> None:
    """Build the index of the corpus that the overrides choose; the last line has its size, key and place."""
    chooses = any(override.startswith("index=") for override in overrides)
    run = run_config([*([] if chooses else [DEFAULT_INDEX]), *overrides])

    from athlos.data.source import build_source
    from athlos.retrieval.building import build_index
    from athlos.stages import StageStore, cache_dir

    stages = StageStore(cache_dir(run.cache_dir))
    index = build_index(run, source=build_source(run), stages=stages)
    sizes = index.make_ready()
    languages = ", ".join(f"{language} {size:,}" for language, size in sizes.items())
    print(f"{sum(sizes.values()):,} passages ({languages}), index {index.key}, in {stages.root}")
