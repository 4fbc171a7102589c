"""QuoteSum: answers that quote several sources, each quotation marked `[ n span ]` (SEMQA, arXiv:2311.04886).

Official files are JSON lines with one human answer a line; lines of one `qid` answer the same question. The marks stay
in `answer`, because the metrics read them; `n` is the `identifier` of the quoted passage.

The format was checked against parts of the published `v1/dev.jsonl`, not against the complete files.
"""

import re
from dataclasses import dataclass

from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part

NUM_SOURCES = 8
"""Columns `title1` .. `title8`, `source1` .. `source8`, `short_ans_1` .. `short_ans_8`; unused ones are empty."""
QUOTATION = re.compile(r"\[ (\d+) [^\[\]]* \]")


@dataclass(kw_only=True)
class QuoteSumConfig(SplitFilesConfig):
    """Nothing beyond the files."""


class QuoteSumSource(RowSource[QuoteSumConfig]):
    record_type = LongAnswerRecord

    def parse(self, row: Row, split: str) -> LongAnswerRecord:
        summary = row.need("summary", str)
        quoted = set(QUOTATION.findall(summary))
        numbers = [n for n in range(1, NUM_SOURCES + 1) if row.need(f"source{n}", str)]
        if unknown := quoted - set(map(str, numbers)):
            raise row.error(f"quotes source {min(unknown)}, which is empty", field="summary")
        short = [row.need(f"short_ans_{n}", str) for n in numbers]
        return LongAnswerRecord(
            identifier=row.need("unique_id", str),
            language=self.config.language,
            question=row.need("question", str),
            answer=summary,
            passages=[
                Passage(
                    title=row.need(f"title{n}", str),
                    text=row.values[f"source{n}"],
                    is_supporting=str(n) in quoted,
                    identifier=str(n),
                )
                for n in numbers
            ],
            short_answers=[[answer] for answer in short if answer],
            meta={
                "qid": row.need("qid", str),
                "covered_short_answers": row.need("covered_short_answers", str),
                "disambig_questions": [
                    part.strip() for part in row.need("disambig_questions", str).split("|") if part.strip()
                ],
            },
        )


PARTS = [
    data_part(
        "quotesum",
        QuoteSumConfig,
        QuoteSumSource,
        "QuoteSum (SEMQA): answers that quote several sources, each quotation marked",
    )
]
