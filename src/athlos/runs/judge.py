"""Pairs of premise and hypothesis through a judge, and how well it agrees with their labels."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athlos.config.schema import EvalConfig, RunConfig
from athlos.data.records import LongAnswerRecord
from athlos.data.source import build_source, parse_json_line, read_json, read_lines, require, test_split
from athlos.errors import ConfigError, DataError
from athlos.evaluation.agreement import agreement
from athlos.judging.building import build_judge
from athlos.judging.config import LexicalJudgeConfig, ScoringJudgeConfig
from athlos.judging.interface import Judge, Pair
from athlos.judging.lexical import LexicalJudge
from athlos.judging.validation import Agreement
from athlos.stages import StageStore, cache_dir, content_hash

CHUNK = 64
"""Pairs between two reports of progress."""
SCORE_DIGITS = 6
"""Of the scores that a table keeps."""
OVERLAP = LexicalJudgeConfig(_target_="", language="en", strict=False, window_words=400)
"""What every judge is compared with: plain word overlap, as `judge=overlap`."""


@dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """A pair, and whether people saw the premise support the hypothesis; None where nobody says."""

    pair: Pair
    label: bool | None
    row: dict[str, Any]
    """What stands beside the score in the file that is written."""


@dataclass(kw_only=True)
class Judged:
    """The scores of a judge, and what is known of them."""

    judge: Judge
    threshold: float
    pairs: list[LabelledPair]
    scores: list[float]
    seconds: float
    agreement: Agreement | None = None
    """With the labels; None where not both of them are there."""

    def rows(self) -> Iterator[dict[str, Any]]:
        for pair, score in zip(self.pairs, self.scores, strict=True):
            yield {**pair.row, "score": score, "is_supported": score >= self.threshold, "judge": self.judge.id}

    def table_row(self) -> dict[str, Any]:
        """The agreement with what it was computed of: scores and labels, and a hash of the texts."""
        assert self.agreement is not None
        return {
            "identity": dict(self.judge.identity),
            "agreement": self.agreement.as_dict(),
            "counters": dict(self.judge.counters),
            "pairs": content_hash([list(pair.pair) for pair in self.pairs]),
            "labels": [pair.label for pair in self.pairs],
            "scores": [round(score, SCORE_DIGITS) for score in self.scores],
        }


def pairs_of_file(path: Path) -> list[LabelledPair]:
    """The lines of a JSONL file with `premise`, `hypothesis` and, where people judged them, `label` (true or false).

    Raises `DataError` with file, line and field.
    """
    pairs = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        row = parse_json_line(line, file=path, number=number)
        premise, hypothesis = (require(row, key, str, file=path, line=number) for key in Pair._fields)
        if not hypothesis.strip():
            raise DataError("empty", file=path, line=number, field="hypothesis")
        label = row.get("label")
        if label not in (None, 0, 1):
            raise DataError(f"got {label!r}, expected true or false", file=path, line=number, field="label")
        pairs.append(
            LabelledPair(pair=Pair(premise, hypothesis), label=None if label is None else bool(label), row=row)
        )
    if not pairs:
        raise DataError("no pairs in it", file=path)
    return pairs


def pairs_of_data(run: RunConfig) -> list[LabelledPair]:
    """The claims of the run's test split that people judged, each with its evidence."""
    source, split = build_source(run), test_split(run.data)
    pairs = [
        LabelledPair(
            pair=Pair("\n".join(claim.evidence), claim.text),
            label=claim.is_supported,
            row={"id": f"{record.identifier}#{number}", "label": claim.is_supported},
        )
        for record in source.records(split, limit=run.data.limit_test)
        if isinstance(record, LongAnswerRecord)
        for number, claim in enumerate(record.claims, start=1)
        if claim.is_supported is not None
    ]
    if not pairs:
        raise DataError(f"data={run.data.name}: split '{split}' has no claims that people judged; name a FILE of pairs")
    return pairs


def some_of(pairs: Sequence[LabelledPair], *, most: int) -> list[LabelledPair]:
    """At most so many pairs of each label, in their order: those whose texts have the lowest sha256.

    So the choice is a function of the texts alone, and a smaller one lies within a greater.
    """
    kept: set[int] = set()
    for label in (True, False, None):
        of_label = [number for number, pair in enumerate(pairs) if pair.label is label]
        kept |= set(sorted(of_label, key=lambda number: content_hash(list(pairs[number].pair)))[:most])
    return [pair for number, pair in enumerate(pairs) if number in kept]


def judged(
    run: RunConfig, pairs: Sequence[LabelledPair], *, progress: Callable[[int, int], Any] | None = None
) -> Judged:
    """All pairs through the run's judge, and its agreement with the labels. Raises `ConfigError` for no judge."""
    if not isinstance(run.judge, ScoringJudgeConfig):
        raise ConfigError("judge: got none, expected one, such as judge=lexical")
    judge = build_judge(run.judge, stages=StageStore(cache_dir(run.cache_dir)))
    asked = [pair.pair for pair in pairs]
    scores: list[float] = []
    begun = time.monotonic()
    for start in range(0, len(asked), CHUNK):
        scores += judge.scores(asked[start : start + CHUNK])
        if progress:
            progress(len(scores), len(asked))
    return Judged(
        judge=judge,
        threshold=run.judge.threshold,
        pairs=list(pairs),
        scores=scores,
        seconds=time.monotonic() - begun,
        agreement=_agreement(pairs, scores, run.eval),
    )


def _agreement(pairs: Sequence[LabelledPair], scores: Sequence[float], evaluation: EvalConfig) -> Agreement | None:
    labelled = [(pair, score) for pair, score in zip(pairs, scores, strict=True) if pair.label is not None]
    if len({pair.label for pair, _ in labelled}) < 2:
        return None
    return agreement(
        [score for _, score in labelled],
        LexicalJudge(OVERLAP).scores([pair.pair for pair, _ in labelled]),
        [bool(pair.label) for pair, _ in labelled],
        resamples=evaluation.bootstrap,
        seed=evaluation.bootstrap_seed,
    )


def write_rows(result: Judged, path: Path) -> None:
    """The pairs with their scores, one JSON object a line."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows()]
    _write(path, "".join(lines))


def write_to_table(result: Judged, path: Path) -> None:
    """The judge's row of a table of judges; a row that it has there already is replaced.

    Raises `DataError` where the pairs have no labels to agree with.
    """
    if result.agreement is None:
        raise DataError("the pairs have not both labels, true and false, so there is no agreement to keep", file=path)
    judges = read_json(path)["judges"] if path.exists() else {}
    judges[result.judge.id] = result.table_row()
    _write(path, json.dumps({"judges": dict(sorted(judges.items()))}, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write: {error.strerror or error}", file=path) from error
