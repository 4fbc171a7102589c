"""Questions with several answers each from a known source, as text: one character a symbol (`athlos.lab.streams`).

`meta.next_probs` of an evaluation record is the true distribution of every answer token, so that a model's distance to
the truth is exact (suite `completions`). Splits `mono` and `mono_other` hold answers without questions, of this source
and of another one. Nothing is read; licence: generated.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import ContinuationRecord, Record
from athlos.data.source import GeneratedSource, data_part
from athlos.data.sources.lab_streams import MAX_CHARACTERS, text_of
from athlos.errors import ConfigError
from athlos.lab.answers_config import AnswersConfig, check_answers
from athlos.lab.stream_config import SPLITS

MONO = {"mono": True, "mono_other": False}
"""Splits without questions -> whether they are of this source."""


@dataclass(kw_only=True)
class LabAnswersConfig(DataConfig):
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    num_train: int = at_least(1, default=256)
    """Questions of the training split."""
    num_val: int = at_least(1, default=32)
    num_test: int = at_least(1, default=128)
    num_mono: int = at_least(1, default=4096)
    """Answers of the splits without questions."""


class LabAnswersSource(GeneratedSource[LabAnswersConfig]):
    """One record an answer: the question is the context, the answer the text."""

    record_type = ContinuationRecord
    splits = (*SPLITS, *MONO)

    def decides(self, split: str) -> dict[str, Any]:
        return {"answers": asdict(self.config.answers), "records": self._size(split)}

    def read(self, split: str) -> Iterator[Record]:
        from athlos.lab.streams import Answers  # loads numpy, which a check of a config does without

        size, source = self._size(split), Answers(self.config.answers)
        if split in MONO:
            for index, answer in enumerate(source.mono(size, is_in_domain=MONO[split])):
                text = text_of(answer[:-1])
                yield ContinuationRecord(identifier=f"{split}-{index}", language="lab", context="", text=text)
            return
        for index, (question, answers) in enumerate(source.samples(size, split=split)):
            for number, answer in enumerate(answers):
                truth = [source.next_probs(question, answer[:at]).tolist() for at in range(len(answer))]
                yield ContinuationRecord(
                    identifier=f"{split}-{index}.{number}",
                    language="lab",
                    context=text_of(question),
                    text=text_of(answer[:-1]),
                    meta={"symbols": symbols(source.end), "next_probs": truth},
                )

    def _size(self, split: str) -> int:
        self.files(split)
        config = self.config
        sizes = {"train": config.num_train, "val": config.num_val, "test": config.num_test}
        return sizes.get(split, config.num_mono)


def symbols(end: int) -> Sequence[str]:
    """The text of each symbol, the end (which is the end of the text) last and empty."""
    return [*text_of(range(end)), ""]


def _errors(data: LabAnswersConfig, config: RunConfig) -> Iterable[str]:
    try:
        check_answers(data.answers)
    except ConfigError as error:
        yield str(error).replace("lab.answers", "data.answers", 1)
        return
    if data.answers.num_symbols + data.answers.num_topics > MAX_CHARACTERS:
        yield (
            f"data.answers.num_symbols: got {data.answers.num_symbols}, expected at most "
            f"{MAX_CHARACTERS - data.answers.num_topics} (one printable character each)"
        )


PARTS = [
    data_part(
        "lab_answers",
        LabAnswersConfig,
        LabAnswersSource,
        "questions with several answers from a known source",
        check=_errors,
    )
]
