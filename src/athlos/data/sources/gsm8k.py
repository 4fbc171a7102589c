"""GSM8K: grade-school word problems with worked answers. JSON lines `question`, `answer` that ends in `#### N`."""

import re
from dataclasses import dataclass

from athlos.data.records import MathRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part

MARK = "####"
CALCULATION = re.compile(r"<<[^<>]*>>")
"""Calculator annotation inside a worked answer, such as `<<16-3-4=9>>`."""
NUMBER = re.compile(r"-?(\d+(\.\d+)?|\.\d+)")


@dataclass(kw_only=True)
class Gsm8kConfig(SplitFilesConfig):
    keep_calculations: bool = False
    """Leave the annotations `<<48/2=24>>` in the worked answer."""


class Gsm8kSource(RowSource[Gsm8kConfig]):
    """`solution` is the worked text up to the mark `####`, `answer` the number after it without commas."""

    record_type = MathRecord
    hub = "openai/gsm8k"
    hub_config = "main"

    def parse(self, row: Row, split: str) -> MathRecord:
        worked, mark, last = row.need("answer", str).rpartition(MARK)
        if not mark:
            raise row.error(f"no '{MARK}' before the final number", field="answer")
        answer = last.strip().replace(",", "")
        if not NUMBER.fullmatch(answer):
            raise row.error(f"got '{last.strip()}' after '{MARK}', expected a number", field="answer")
        solution = worked if self.config.keep_calculations else CALCULATION.sub("", worked)
        question = row.need("question", str)
        return MathRecord(
            identifier=f"{split}-{row.index}",
            language=self.config.language,
            question=question,
            answer=answer,
            solution=solution.rstrip(),
            english=question if self.config.language == "en" else "",
        )


PARTS = [data_part("gsm8k", Gsm8kConfig, Gsm8kSource, "grade-school word problems with worked answers, English")]
