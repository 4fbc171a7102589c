"""QuoteSum: answers that quote several sources, each quotation marked `[ n span ]` (SEMQA, arXiv:2311.04886).

Official files are JSON lines with one human answer a line; lines of one `qid` answer the same question. The marks stay
in `answer`, because the metrics read them; `n` is the `identifier` of the quoted passage.

The format was checked against parts of the published `v1/dev.jsonl`, not against the complete files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from athlos.config.registry import Part
from athlos.config.schema import DataConfig
from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.source import Source, read_json_lines, require
from athlos.errors import DataError

NUM_SOURCES = 8
"""Columns `title1` .. `title8`, `source1` .. `source8`, `short_ans_1` .. `short_ans_8`; unused ones are empty."""
QUOTATION = re.compile(r"\[ (\d+) [^\[\]]* \]")


@dataclass(kw_only=True)
class QuoteSumConfig(DataConfig):
    files: dict[str, str] = field(default_factory=dict)
    """File name below `data.dir` of each split."""


class QuoteSumSource(Source[QuoteSumConfig]):
    record_type = LongAnswerRecord

    def files(self, split: str) -> list[Path]:
        if split not in self.config.files:
            raise DataError(f"split '{split}' is unknown; accepted: {', '.join(self.config.files)}")
        return [self.file(self.config.files[split])]

    def read(self, split: str) -> Iterator[LongAnswerRecord]:
        [path] = self.files(split)
        yield from read_json_lines(self, path, lambda row, line: _record(row, file=path, line=line))


def _record(row: dict[str, Any], *, file: Path, line: int) -> LongAnswerRecord:
    summary = require(row, "summary", str, file=file, line=line)
    quoted = set(QUOTATION.findall(summary))
    numbers = [n for n in range(1, NUM_SOURCES + 1) if require(row, f"source{n}", str, file=file, line=line)]
    passages = [
        Passage(
            title=require(row, f"title{n}", str, file=file, line=line),
            text=row[f"source{n}"],
            is_supporting=str(n) in quoted,
            identifier=str(n),
        )
        for n in numbers
    ]
    unknown = quoted - {passage.identifier for passage in passages}
    if unknown:
        raise DataError(f"quotes source {min(unknown)}, which is empty", file=file, line=line, field="summary")
    short = [require(row, f"short_ans_{n}", str, file=file, line=line) for n in numbers]
    disambiguated = require(row, "disambig_questions", str, file=file, line=line)
    return LongAnswerRecord(
        identifier=require(row, "unique_id", str, file=file, line=line),
        question=require(row, "question", str, file=file, line=line),
        answer=summary,
        passages=passages,
        short_answers=[[answer] for answer in short if answer],
        meta={
            "qid": require(row, "qid", str, file=file, line=line),
            "covered_short_answers": require(row, "covered_short_answers", str, file=file, line=line),
            "disambig_questions": [part.strip() for part in disambiguated.split("|") if part.strip()],
        },
    )


PARTS = [
    Part(
        group="data",
        name="quotesum",
        schema=QuoteSumConfig,
        target=f"{__name__}.QuoteSumSource",
        summary="QuoteSum (SEMQA): answers that quote several sources, each quotation marked",
    )
]
