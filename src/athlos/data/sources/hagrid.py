"""HAGRID: questions of MIRACL with quotes and answers of a language model that cite them (arXiv:2307.16883).

Official files are JSON lines: `query`, `quotes` (`idx`, `docid`, `text`) and `answers`, which people judged to be
informative and attributable. The record has the first answer that is informative and not found unattributable; `[n]` in
it is the quote with `idx` n, or n - 1 in a file that counts from 0, and is written as the place of the quote.

The format was checked against the published card and loader, not against the files themselves.
"""

from dataclasses import dataclass

from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part
from athlos.errors import DataError
from athlos.text.citations import renumbered


@dataclass(kw_only=True)
class HagridConfig(SplitFilesConfig):
    """Nothing beyond the files."""


class HagridSource(RowSource[HagridConfig]):
    record_type = LongAnswerRecord
    hub = "miracl/hagrid"

    def parse(self, row: Row, split: str) -> LongAnswerRecord:
        quotes = list(row.children("quotes"))
        numbers = [quote.need("idx", int) for quote in quotes]
        from_zero = 0 in numbers
        places = {number + from_zero: place for place, number in enumerate(numbers, start=1)}
        answers = [answer.need("answer", str) for answer in row.children("answers") if _is_good(answer)]
        if not answers:
            raise row.error("no answer in it is informative and attributable", field="answers")
        try:
            answer = renumbered(answers[0], places)
        except DataError as error:
            raise row.error(error.reason, field="answers") from error
        return LongAnswerRecord(
            identifier=str(row.need("query_id", (str, int))),
            language=self.config.language,
            question=row.need("query", str),
            answer=answer,
            passages=[
                Passage(title="", text=quote.need("text", str), identifier=str(place))
                for place, quote in enumerate(quotes, start=1)
            ],
            meta={"docids": [quote.need("docid", str) for quote in quotes]},
        )


def _is_good(answer: Row) -> bool:
    """`attributable` is null where nobody judged it."""
    informative, attributable = (answer.need(key, (int, type(None))) for key in ("informative", "attributable"))
    return bool(informative) and attributable != 0


PARTS = [data_part("hagrid", HagridConfig, HagridSource, "HAGRID: answers that cite quotes, judged by people")]
