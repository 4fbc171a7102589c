"""`data=groundbench`: questions whose documents suffice, as a judge sees it, in the order of the official files.

A record is a question, at most `max_documents` documents, and a reference whose citations, where it has some, are the
numbers of these documents.
"""

import logging
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from athlos.data.json_lines import read_rows, write_rows
from athlos.data.records import LongAnswerRecord, Passage, Record
from athlos.data.source import Source, files_hash
from athlos.data.sources.groundbench import GroundBenchConfig, source_of
from athlos.data.sources.quotesum import QUOTATION
from athlos.errors import DataError
from athlos.judging.answers import passage_text
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge, Pair
from athlos.judging.support import joint_scores, scores_of
from athlos.judging.windows import windows
from athlos.retrieval.analysers import analyser
from athlos.stages import Stage, StageStore, cache_dir
from athlos.text.citations import (
    BY_LANGUAGE,
    CitedAnswer,
    read_citations,
    renumbered,
    with_citations,
    without_citations,
)

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same files and judge give other records."""
_ADDRESS = re.compile(r"\s*\[(\d+)\]\s*(?:https?://\S+)?\s*")
"""What stands before the text of a piece of evidence of ExpertQA: its number, and where it was found."""
SOURCE = "source"
"""Key of `meta`: the data set that a question is from."""
RECORDS = "records.jsonl"
SHAPES = ("max_documents", "num_documents", "max_words")
"""Keys of the config that say how a record looks."""
MAX_CLOSE = 50
"""Passages that are looked at, the closest first, for those to put beside a document."""


class GroundBenchSource(Source[GroundBenchConfig]):
    """Which documents suffice is a stage product in the default cache. `DataError` where no data set is there."""

    record_type = LongAnswerRecord

    def __init__(self, config: GroundBenchConfig) -> None:
        super().__init__(config)
        if not isinstance(config.judge, ScoringJudgeConfig):
            raise DataError("data.judge: got none, expected one, such as judge@data.judge=lexical")
        self.threshold = config.judge.threshold
        self.stages = StageStore(cache_dir())
        self.judge: Judge = build_judge(config.judge, stages=self.stages)

    def files(self, split: str) -> list[Path]:
        return [file for name in self._present(split) for file in source_of(name, self.config, split).files(split)]

    def fingerprint(self, split: str) -> str:
        return self._stage(split).key

    def read(self, split: str) -> Iterator[Record]:
        for values in read_rows(self.stages.get(self._stage(split)).path / RECORDS):
            passages = [Passage(**passage) for passage in values.pop("passages")]
            yield LongAnswerRecord(passages=passages, **values)

    def _stage(self, split: str) -> Stage:
        config = self.config

        def build(folder: Path) -> None:
            records = (record for name in self._present(split) for record in self._of(name, split))
            write_rows(folder / RECORDS, map(asdict, records))

        return Stage(
            name="groundbench",
            version=VERSION,
            inputs={"files": files_hash(self.files(split)), "judge": self.judge.id},
            config={
                "split": split,
                "threshold": self.threshold,
                **{name: vars(config)[name] for name in (*SHAPES, "min_supported")},
            },
            build=build,
        )

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
        records = [
            replace(record, passages=[self._cut(passage) for passage in record.passages])
            for record in unified(source.records(split), name, max_documents=config.max_documents)
        ]
        self.num_bad += source.num_bad
        kept = sufficient(records, judge=self.judge, threshold=self.threshold, least=config.min_supported)
        log.info("groundbench: %s: %d of %d questions are answered by their documents", name, len(kept), len(records))
        return with_distractors(kept, num_documents=config.num_documents, judge=self.judge, threshold=self.threshold)

    def _cut(self, passage: Passage) -> Passage:
        return replace(passage, text=windows(passage.text, num_words=self.config.max_words)[0], sentences=[])


def unified(records: Iterator[Record], name: str, *, max_documents: int) -> Iterator[LongAnswerRecord]:
    """Records of a data set in the one schema; those without a reference or a document are left out."""
    for record in records:
        assert isinstance(record, LongAnswerRecord)
        form = {"expertqa": _expertqa, "quotesum": _quotesum}.get(name, lambda same: same)(record)
        documents = [passage for passage in form.passages if passage.text.strip()][:max_documents]
        answer = form.answer.strip()
        if not (answer and documents):
            continue
        numbers = {int(document.identifier or place): place for place, document in enumerate(documents, start=1)}
        try:
            answer = renumbered(answer, numbers)
        except DataError:  # it cites what is not there as text
            answer = without_citations(answer)
        yield LongAnswerRecord(
            identifier=f"{name}/{record.identifier}",
            language=record.language,
            question=record.question,
            answer=answer,
            passages=[replace(document, identifier=str(place)) for place, document in enumerate(documents, start=1)],
            short_answers=record.short_answers,
            meta={SOURCE: name},
        )


def _expertqa(record: LongAnswerRecord) -> LongAnswerRecord:
    """The answer as the expert revised it, over the evidence of its claims: that which has a text below its address."""
    texts: dict[str, str] = {}
    for evidence in (text for claim in record.claims for text in claim.evidence):
        address = _ADDRESS.match(evidence)
        if address and evidence[address.end() :].strip():
            texts.setdefault(address[1], evidence[address.end() :])
    passages = [Passage(title="", text=text, identifier=number) for number, text in texts.items()]
    return replace(record, answer=record.meta["revised_answer"], passages=passages)


def _quotesum(record: LongAnswerRecord) -> LongAnswerRecord:
    """Each sentence with the sources that it quotes, which `[ 2 these words ]` marks, as citations."""
    sentences = []
    for piece in BY_LANGUAGE.split(record.answer, record.language):
        quoted = [int(number) for number in QUOTATION.findall(piece)]
        words = QUOTATION.sub(lambda mark: mark.group()[1:-1].split(maxsplit=1)[1].strip(), piece)
        sentences.append(with_citations(words, quoted))
    return replace(record, answer="".join(sentences))


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
    waiting = [
        [Passage(title=others[place][0], text=others[place][1]) for place in places if others[place] != _only(record)]
        for record, places in zip(alone, close, strict=True)
    ]
    beside: list[list[Passage]] = [[] for _ in alone]
    # In rounds, so that no more pairs are judged than are needed, and those of all records together.
    while any(len(kept) < num_documents - 1 and left for kept, left in zip(beside, waiting, strict=True)):
        tried = []
        for kept, left in zip(beside, waiting, strict=True):
            num_tried = num_documents - 1 - len(kept)
            tried.append(left[:num_tried])
            del left[:num_tried]
        for kept, of_record in zip(beside, _unsupportive(alone, tried, judge, threshold), strict=True):
            kept += of_record
    by_record = {record.identifier: kept for record, kept in zip(alone, beside, strict=True)}
    return [_shuffled(record, by_record.get(record.identifier, [])) for record in records]


def _only(record: LongAnswerRecord) -> tuple[str, str]:
    [passage] = record.passages
    return passage.title, passage.text


def _close(texts: Sequence[str], queries: Sequence[str]) -> list[list[int]]:
    """For each query the places of texts, the closest first, `MAX_CLOSE` at most."""
    from bm25s import BM25

    analyse = analyser("en")
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets its own to DEBUG
    model = BM25(method="lucene")
    model.index([analyse(text) for text in texts], show_progress=False)
    most = min(MAX_CLOSE, len(texts))
    return [list(map(int, (-model.get_scores(analyse(query))).argsort(kind="stable")[:most])) for query in queries]


def _unsupportive(
    records: Sequence[LongAnswerRecord], tried: Sequence[Sequence[Passage]], judge: Judge, threshold: float
) -> list[list[Passage]]:
    """Of the passages tried for each record, those that support no sentence of its reference."""
    references = [[sentence.text for sentence in _reference(record).sentences] for record in records]
    asked = [
        [[Pair(passage_text(passage), text) for text in texts] for passage in passages]
        for texts, passages in zip(references, tried, strict=True)
    ]
    score = scores_of(judge, (pair for of_record in asked for of_passage in of_record for pair in of_passage))
    return [
        [
            passage
            for passage, pairs in zip(passages, of_record, strict=True)
            if all(score[pair] < threshold for pair in pairs)
        ]
        for passages, of_record in zip(tried, asked, strict=True)
    ]


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
