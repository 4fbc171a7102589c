"""The key of a training holds what its corpus says, and not where the corpus lies."""

from pathlib import Path

from athlos.config.compose import run_config
from athlos.runs.train import Start, training_stage


def key(tiny: list[str], corpus: Path, *overrides: str) -> str:
    run = run_config([*tiny, "index=lexical", "corpus=passages", f"corpus.path={corpus}", *overrides])
    return training_stage(run, start=Start(model=run.model, key="x"), build=lambda folder: None).key


def test_a_moved_corpus_trains_nothing_anew_and_a_changed_one_does(tiny: list[str], tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text('{"text": "one"}\n')
    before = key(tiny, path)
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "passages.jsonl")
    assert key(tiny, moved) == before
    assert key(tiny, moved, "corpus.language=de") != before
    moved.write_text('{"text": "two"}\n')
    assert key(tiny, moved) != before
