"""`athlos judge`: pairs of premise and hypothesis through a judge, and how well it agrees with people."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from athlos.cli.panels import pairs_progress, readable_time, visible
from athlos.config.compose import run_config
from athlos.errors import ConfigError

if TYPE_CHECKING:
    from athlos.runs.judge import Judged

DEFAULT_JUDGE = "judge=lexical"
"""What judges where the command names nothing else: it needs no model."""
OVERRIDE = re.compile(r"[+~]?[\w./@]+=")


def print_judged(
    words: Sequence[str], *, out: Path | None = None, table: Path | None = None, limit: int | None = None
) -> None:
    """Judge the pairs of a file, or the judged claims of `data=`; print what came of it.

    `words` are the file, where there is one, and overrides. Raises `ConfigError` for several files, for neither file
    nor data, and for a limit below 1.
    """
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    files = [Path(word).expanduser() for word in words if word not in overrides]
    names_data = any(override.startswith("data=") for override in overrides)
    if len(files) > 1 or bool(files) == names_data:
        names = ", ".join(map(str, files)) or "none"
        raise ConfigError(f"FILE: got {names}, expected one file of pairs, or data=... whose claims people judged")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: got {limit}, expected an integer >= 1")
    names_judge = any(override.startswith("judge=") for override in overrides)
    run = run_config([*([] if names_judge else [DEFAULT_JUDGE]), "train.max_steps=0", *overrides])

    from athlos.runs import judge

    pairs = judge.pairs_of_data(run) if names_data else judge.pairs_of_file(files[0])
    chosen = pairs if limit is None else judge.some_of(pairs, most=limit)
    result = judge.judged(run, chosen, progress=pairs_progress("judge") if run.progress else None)
    if out is not None:
        judge.write_rows(result, out)
    if table is not None:
        judge.write_to_table(result, table)
    for line in told(result, num_all=len(pairs)):
        print(visible(line))


def told(result: "Judged", *, num_all: int) -> Iterator[str]:
    """The lines of the summary."""
    from athlos.judging.validation import caveat

    judge, scores = result.judge, result.scores
    facts = ", ".join(f"{name} {value}" for name, value in judge.identity.items() if name != "judge")
    yield f"judge      {judge.id}{f' ({facts})' if facts else ''}"
    labels = [pair.label for pair in result.pairs]
    of_all = f" of {num_all}" if num_all > len(scores) else ""
    yield f"pairs      {len(scores)}{of_all}; labelled true {labels.count(True)}, false {labels.count(False)}"
    share = sum(score >= result.threshold for score in scores) / len(scores)
    yield f"scores     mean {sum(scores) / len(scores):.3f}; {share:.1%} are {result.threshold} or more"
    if result.agreement is not None:
        yield f"agreement  {result.agreement}"
    else:
        yield f"agreement  no labels here; {caveat(judge.id)}"
    counts = ", ".join(f"{name} {count}" for name, count in judge.counters.items() if name != "pairs")
    yield f"cost       {readable_time(result.seconds)}{f'; {counts}' if counts else ''}"
