"""Records -> prompts -> answers: the first half of every suite that asks a model something."""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from athlos.config.compose import engine_signature
from athlos.config.schema import RunConfig
from athlos.data.records import LongAnswerRecord, QuestionRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.sharding import in_shares
from athlos.evaluation.suite import Answerer
from athlos.generation.config import CadConfig
from athlos.generation.http_config import Api, HTTPEngineConfig
from athlos.generation.interface import Prediction, Request
from athlos.text import prompts

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[RecordT]):
    """Test items with their answers, in order. The text of a prediction is cut at the style's stop strings."""

    records: list[RecordT]
    requests: list[Request]
    predictions: list[Prediction]
    answers: list[str]
    """What was read from each text, without the style's writing conventions."""
    signatures: dict[str, str]

    @property
    def languages(self) -> list[str]:
        return [record.language for record in self.records]

    @property
    def num_tokens(self) -> list[float]:
        return [float(prediction.num_tokens) for prediction in self.predictions]

    @property
    def runaway(self) -> list[float]:
        """1 for an answer that only its length ended."""
        return [float(not prediction.finished) for prediction in self.predictions]

    def rows(self, golds: Sequence[Any], **scores: Sequence[Any]) -> list[dict[str, Any]]:
        """The prediction file: one row an item, with each named score. A value of nan is stored as null."""
        rows = []
        for index, (request, prediction) in enumerate(zip(self.requests, self.predictions, strict=True)):
            rows.append(
                {
                    "id": request.identifier,
                    "language": self.records[index].language,
                    "prompt": request.prompt,
                    "prediction": self.answers[index],
                    "gold": golds[index],
                    **{name: _storable(values[index]) for name, values in scores.items()},
                    "num_prompt_tokens": prediction.num_prompt_tokens,
                    "num_tokens": prediction.num_tokens,
                    "log_prob": _storable(prediction.log_prob),
                    "finished": prediction.finished,
                    **({"trace": prediction.trace} if prediction.trace else {}),
                }
            )
        return rows


def _storable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ask(
    config: RunConfig,
    answerer: Answerer,
    records: Sequence[Record],
    *,
    record_type: type[RecordT],
    suite: str,
    shots_pool: Sequence[Record],
    progress: Any,
    samples: int = 1,
) -> Asked[RecordT]:
    """Ask a question for each record of a type, with `eval.shots` worked examples in the style `prompt_style`.

    Each is asked `samples` times, the answers of one item together, drawn by seeds of their own.

    The examples come from the style itself where it has some, else from `shots_pool` (the training split), else from
    the front of each language's records, which then are no test items. Raises `ConfigError` when there are too few, or
    no record of the type.
    """
    of_type = [record for record in records if isinstance(record, record_type)]
    if not of_type:
        raise ConfigError(f"eval.suites: {suite} needs a {record_type.__name__}, data={config.data.name} has none")
    style = prompts.style_name(record_type, config.prompt_style)
    items, shots, origin = _shots(config, of_type, record_type=record_type, style=style, pool=shots_pool)
    items = [record for record in items for _ in range(samples)]
    is_chat = isinstance(config.engine, HTTPEngineConfig) and config.engine.api is Api.chat
    is_contrast = isinstance(config.decoding, CadConfig)
    requests = [
        Request(
            identifier=_identifier(record, index % samples),
            prompt=prompts.build_prompt(record, shots=shots[record.language], style=style),
            record=record,
            seed=zlib.crc32(f"{config.seed}/{record.language}/{_identifier(record, index % samples)}".encode()),
            stop=list(prompts.stop_strings(record, style, is_chat=is_chat)),
            without=_without_passages(record, shots[record.language], style=style) if is_contrast else "",
        )
        for index, record in enumerate(items)
    ]
    answered = in_shares(requests, lambda share: answerer.answer(share, progress=progress))
    predictions = [_cut(prediction, request.stop) for prediction, request in zip(answered, requests, strict=True)]
    return Asked(
        records=items,
        requests=requests,
        predictions=predictions,
        answers=[
            prompts.read_answer(prediction.text, record, style=style, is_chat=is_chat)
            for prediction, record in zip(predictions, items, strict=True)
        ],
        signatures={
            f"{suite}_prompt": f"{record_type.__name__}.{style}|shots:{config.eval.shots}|{origin}"
            + (f"|samples:{samples}" if samples > 1 else ""),
            f"{suite}_engine": engine_signature(config),
            f"{suite}_prompt_hash": prompts.prompt_hash(request.prompt for request in requests),
        },
    )


def _without_passages(record: Record, shots: Sequence[Record], *, style: str) -> str:
    """The prompt as it would be had the data no passages; empty where that changes nothing."""

    def bare(record: Record) -> Record:
        return (
            dataclasses.replace(record, passages=[])
            if isinstance(record, QuestionRecord | LongAnswerRecord)
            else record
        )

    whole = prompts.build_prompt(record, shots=shots, style=style)
    less = prompts.build_prompt(bare(record), shots=[bare(shot) for shot in shots], style=style)
    return less if less != whole else ""


def _identifier(record: Record, sample: int) -> str:
    """The record's; from the second answer on with the answer's number."""
    return record.identifier if sample == 0 else f"{record.identifier}#{sample + 1}"


def _shots(
    config: RunConfig, records: list[RecordT], *, record_type: type[RecordT], style: str, pool: Sequence[Record]
) -> tuple[list[RecordT], dict[str, list[Record]], str]:
    """(test items, worked examples of each language, where they come from)."""
    num_shots = config.eval.shots
    languages = list(dict.fromkeys(record.language for record in records))
    if num_shots == 0:
        return records, {language: [] for language in languages}, "none"
    if prompts.has_built_in_shots(record_type, style):
        shots = {
            language: prompts.built_in_shots(record_type, style, language=language, num_shots=num_shots)
            for language in languages
        }
        return records, shots, "built-in"
    candidates: list[Record] = [record for record in pool if isinstance(record, record_type)]
    if candidates:
        asked = [prompts.build_prompt(record, shots=(), style=style) for record in records]
        shots = {
            language: prompts.drawn_shots(
                candidates, language=language, style=style, num_shots=num_shots, seed=config.seed, exclude=asked
            )
            for language in languages
        }
        return records, shots, f"train split, seed {config.seed}"
    held_out, rest = prompts.split_shots(records, num_shots)
    missing = [language for language in languages if not any(record.language == language for record in rest)]
    if missing:
        raise ConfigError(
            f"eval.shots: got {num_shots}; without a training split they come from the front of the test items, "
            f"which leaves none in {', '.join(missing)}: raise data.limit_test or lower eval.shots"
        )
    shots = {language: [record for record in held_out if record.language == language] for language in languages}
    return [record for record in rest if isinstance(record, record_type)], shots, "front of the test split"


def _cut(prediction: Prediction, stops: Sequence[str]) -> Prediction:
    """The text up to the style's stop; an answer that reached it is finished even if decoding went on."""
    end = prompts.answer_end(prediction.text, stops)
    return prediction if end is None else dataclasses.replace(prediction, text=prediction.text[:end], finished=True)
