"""`data=groundbench`: questions whose documents suffice, as a judge sees it, in the order of the official files."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from athlos.data.records import LongAnswerRecord, Passage, Record
from athlos.data.source import Source, files_hash
from athlos.data.sources.groundbench import GroundBenchConfig, source_of, unified
from athlos.errors import DataError
from athlos.judging.answers import passage_text
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge, Pair
from athlos.judging.support import joint_scores, scores_of
from athlos.retrieval.analysers import analyser
from athlos.stages import StageStore, cache_dir, content_hash
from athlos.text.citations import CitedAnswer, read_citations, renumbered

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same files and judge give other records."""
MAX_CLOSE = 50
"""Passages that are looked at, the closest first, for those to put beside a document."""


class GroundBenchSource(Source[GroundBenchConfig]):
    """Which questions suffice is found out once a split. Raises `DataError` where no data set of it is there."""

    record_type = LongAnswerRecord

    def __init__(self, config: GroundBenchConfig) -> None:
        super().__init__(config)
        if not isinstance(config.judge, ScoringJudgeConfig):
            raise DataError("data.judge: got none, expected one, such as judge@data.judge=lexical")
        self.threshold = config.judge.threshold
        self.judge: Judge = build_judge(config.judge, stages=StageStore(cache_dir()))
        self._kept: dict[str, list[LongAnswerRecord]] = {}

    def files(self, split: str) -> list[Path]:
        return [file for name in self._present(split) for file in source_of(name, self.config, split).files(split)]

    def fingerprint(self, split: str) -> str:
        config = self.config
        shape = [config.max_documents, config.num_documents, config.min_supported, self.threshold]
        return content_hash([VERSION, files_hash(self.files(split)), self.judge.id, shape])

    def read(self, split: str) -> Iterator[Record]:
        if split not in self._kept:
            self._kept[split] = [record for name in self._present(split) for record in self._of(name, split)]
        yield from self._kept[split]

    def _present(self, split: str) -> list[str]:
        """The data sets that have the split and whose file is there; the others are named in a warning."""
        files = {name: files[split] for name, files in self.config.files.items() if split in files}
        if not files:
            raise DataError(f"data=groundbench has no split '{split}'")
        absent = [name for name, file in files.items() if not (self.folder / file).is_file()]
        if len(absent) == len(files):
            raise DataError(f"none of {', '.join(files.values())} is there", file=self.folder)
        if absent:
            log.warning("groundbench: not in data.dir, so not in the data: %s", ", ".join(absent))
        return [name for name in files if name not in absent]

    def _of(self, name: str, split: str) -> list[LongAnswerRecord]:
        config = self.config
        source = source_of(name, config, split)
        records = list(unified(source.records(split), name, max_documents=config.max_documents))
        self.num_bad += source.num_bad
        kept = sufficient(records, judge=self.judge, threshold=self.threshold, least=config.min_supported)
        log.info("groundbench: %s: %d of %d questions are answered by their documents", name, len(kept), len(records))
        return with_distractors(kept, num_documents=config.num_documents, judge=self.judge, threshold=self.threshold)


def _reference(record: LongAnswerRecord) -> CitedAnswer:
    return read_citations(record.answer, num_documents=len(record.passages), language=record.language)


def sufficient(
    records: Sequence[LongAnswerRecord], *, judge: Judge, threshold: float, least: float
) -> list[LongAnswerRecord]:
    """The records of whose reference at least this share of sentences is supported by the documents, joined."""
    answers = [_reference(record) for record in records]
    documents = [[passage_text(passage) for passage in record.passages] for record in records]
    by_record = joint_scores(judge, answers, documents)
    return [
        record
        for record, scores in zip(records, by_record, strict=True)
        if scores and sum(score >= threshold for score in scores) >= least * len(scores)
    ]


def with_distractors(
    records: Sequence[LongAnswerRecord], *, num_documents: int, judge: Judge, threshold: float
) -> list[LongAnswerRecord]:
    """Records with a single document have close passages of others' beside it, in an order drawn by their identifier.

    The closest by BM25 to the question that support no sentence of the reference, as the judge sees it; fewer where
    there are no more. Citations follow their documents.
    """
    others = list(dict.fromkeys((passage.title, passage.text) for record in records for passage in record.passages))
    alone = [record for record in records if len(record.passages) == 1]
    if num_documents == 1 or not alone or len(others) == 1:
        return list(records)
    close = _close([f"{title} {text}" for title, text in others], [record.question for record in alone])
    beside = {
        record.identifier: _unsupportive(
            record, [others[place] for place in places], most=num_documents - 1, judge=judge, threshold=threshold
        )
        for record, places in zip(alone, close, strict=True)
    }
    return [_shuffled(record, beside.get(record.identifier, [])) for record in records]


def _close(texts: Sequence[str], queries: Sequence[str]) -> list[list[int]]:
    """For each query the places of texts, the closest first, `MAX_CLOSE` at most."""
    from bm25s import BM25

    analyse = analyser("en")
    model = BM25(method="lucene")
    model.index([analyse(text) for text in texts], show_progress=False)
    most = min(MAX_CLOSE, len(texts))
    return [list(map(int, (-model.get_scores(analyse(query))).argsort(kind="stable")[:most])) for query in queries]


def _unsupportive(
    record: LongAnswerRecord, candidates: Sequence[tuple[str, str]], *, most: int, judge: Judge, threshold: float
) -> list[Passage]:
    own = {(passage.title, passage.text) for passage in record.passages}
    passages = [Passage(title=title, text=text) for title, text in candidates if (title, text) not in own]
    sentences = [sentence.text for sentence in _reference(record).sentences]
    score = scores_of(judge, (Pair(passage_text(one), text) for one in passages for text in sentences))
    harmless = (one for one in passages if all(score[Pair(passage_text(one), text)] < threshold for text in sentences))
    return [passage for passage, _ in zip(harmless, range(most), strict=False)]


def _shuffled(record: LongAnswerRecord, beside: Sequence[Passage]) -> LongAnswerRecord:
    if not beside:
        return record
    documents = [*record.passages, *beside]
    order = list(range(len(documents)))
    random.Random(record.identifier).shuffle(order)
    return replace(
        record,
        answer=renumbered(record.answer, {old + 1: new for new, old in enumerate(order, start=1)}),
        passages=[replace(documents[old], identifier=str(new)) for new, old in enumerate(order, start=1)],
    )
