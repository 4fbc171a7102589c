"""WebGPT's comparisons: a question, and two answers with the quotes that each was written from (arXiv:2112.09332).

The official file is JSON lines: `question` (`dataset`, `id`, `full_text`), and for each of two answers `quotes_0`
(parallel lists `title` and `extract`), `answer_0` with citations `[1]` or `[1, 2]`, and `score_0`, how much people
prefer it. A question is a record once, with the preferred answer of its first comparison, the first of a tie.

The format was checked against the published card and loader, not against the file itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from athlos.data.records import LongAnswerRecord, Passage, Record
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part


@dataclass(kw_only=True)
class WebGptConfig(SplitFilesConfig):
    dataset: str = ""
    """Questions of this data set alone, such as `eli5`; empty = all."""


class WebGptSource(RowSource[WebGptConfig]):
    record_type = LongAnswerRecord
    hub = "openai/webgpt_comparisons"

    def read(self, split: str) -> Iterator[Record]:
        asked: set[str] = set()
        for record in super().read(split):
            is_wanted = self.config.dataset in ("", record.meta["dataset"])
            if is_wanted and record.identifier not in asked:
                asked.add(record.identifier)
                yield record

    def parse(self, row: Row, split: str) -> LongAnswerRecord:
        question = row.below("question")
        scores = [row.need(f"score_{number}", (int, float)) for number in (0, 1)]
        best = int(scores[1] > scores[0])
        quotes = row.pairs(f"quotes_{best}", "title", "extract")
        if not all(isinstance(text, str) for quote in quotes for text in quote):
            raise row.error("expected lists of texts", field=f"quotes_{best}")
        return LongAnswerRecord(
            identifier=question.need("id", str),
            language=self.config.language,
            question=question.need("full_text", str),
            answer=row.need(f"answer_{best}", str),
            passages=[
                Passage(title=title, text=extract, identifier=str(place))
                for place, (title, extract) in enumerate(quotes, start=1)
            ],
            meta={"dataset": question.need("dataset", str)},
        )


PARTS = [
    data_part(
        "webgpt", WebGptConfig, WebGptSource, "WebGPT: long answers with the quotes they cite, and people's choice"
    )
]
