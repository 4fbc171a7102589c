"""HAGRID: questions of MIRACL with quotes and answers of a language model that cite them (arXiv:2307.16883).

Official files are JSON lines: `query`, `quotes` (`idx`, `docid`, `text`) and `answers`, which people judged to be
informative and attributable. The record has the first answer that is informative and not found unattributable; `[n]` in
it cites the passage with the identifier n: the quote with `idx` n, or n - 1 where quotes are counted from 0.

The format was checked against the published card and loader, not against the files themselves.
"""

from dataclasses import dataclass

from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part


@dataclass(kw_only=True)
class HagridConfig(SplitFilesConfig):
    """Nothing beyond the files."""


class HagridSource(RowSource[HagridConfig]):
    record_type = LongAnswerRecord
    hub = "miracl/hagrid"

    def parse(self, row: Row, split: str) -> LongAnswerRecord:
        quotes = list(row.children("quotes"))
        numbers = [quote.need("idx", int) for quote in quotes]
        first = 0 if 0 in numbers else 1
        answers = [answer.need("answer", str) for answer in row.children("answers") if _is_good(answer)]
        if not answers:
            raise row.error("no answer in it is informative and attributable", field="answers")
        return LongAnswerRecord(
            identifier=str(row.need("query_id", (str, int))),
            language=self.config.language,
            question=row.need("query", str),
            answer=answers[0],
            passages=[
                Passage(title="", text=quote.need("text", str), identifier=str(number + 1 - first))
                for number, quote in zip(numbers, quotes, strict=True)
            ],
            meta={"docids": [quote.need("docid", str) for quote in quotes]},
        )


def _is_good(answer: Row) -> bool:
    """`attributable` is null where nobody judged it."""
    informative, attributable = (answer.need(key, (int, type(None))) for key in ("informative", "attributable"))
    return bool(informative) and attributable != 0


PARTS = [data_part("hagrid", HagridConfig, HagridSource, "HAGRID: answers that cite quotes, judged by people")]
