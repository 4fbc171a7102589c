"""The profile: K answers to each question, a prompt read once, with their uncertainty under the plain model.

Draws are at temperature 1 from the whole distribution, and U comes from the log-probabilities of that distribution
before any temperature or truncation: those of a tempered one would make every answer look surer than it is.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from athlos.data.json_lines import read_rows, write_rows
from athlos.data.records import Record
from athlos.errors import DataError
from athlos.generation.decoding import encoded
from athlos.generation.interface import Engine, Prompt, Request, Sample, SamplingRule
from athlos.generation.local import LocalEngine
from athlos.generation.rollouts import joined_samples, response_entropies
from athlos.methods.kmkc.answers import is_right, normalised
from athlos.methods.kmkc.config import ProfileConfig
from athlos.methods.kmkc.regions import Profile, mean_nats
from athlos.text.prompts import read_answer, stop_strings

CHUNK = 16
"""Questions whose answers are looked at together for their entropies."""


def profiled(
    engine: Engine,
    records: Sequence[Record],
    prompts: Sequence[str],
    *,
    config: ProfileConfig,
    style: str,
    seed: int,
    has_entropies: bool = False,
    progress: Any = None,
) -> list[Profile]:
    """One profile a record, in order, of `num_samples` answers to its prompt.

    `has_entropies`: with the entropies of the answers, which take a forward pass more.

    Raises `DataError` for a question whose answers are all empty, and for an engine without log-probabilities.
    """
    requests = [
        Request(
            identifier=record.identifier,
            prompt=prompt,
            record=record,
            seed=zlib.crc32(f"{seed}/profile/{record.identifier}".encode()),
        )
        for record, prompt in zip(records, prompts, strict=True)
    ]
    asked = [encoded(engine, request, max_new_tokens=config.max_new_tokens) for request in requests]
    samples = engine.generate(
        asked,
        rule=SamplingRule(temperature=1.0),
        num_samples=config.num_samples,
        stop=sorted({stop for record in records for stop in stop_strings(record, style)}),
        progress=progress,
    )
    entropies = _entropies(engine, asked, samples) if has_entropies else [[] for _ in asked]
    return [
        profile_of(record, of_question, entropies=of_samples, max_tokens=config.max_answer_tokens, style=style)
        for record, of_question, of_samples in zip(records, samples, entropies, strict=True)
    ]


def profile_of(
    record: Record, samples: Sequence[Sample], *, entropies: Sequence[float], max_tokens: int, style: str
) -> Profile:
    """The profile of one question from its answers.

    Raises `DataError` where all of them are empty, or come without log-probabilities.
    """
    texts = [read_answer(sample.text, record, style=style) for sample in samples]
    if not any(texts):
        raise DataError(f"profile: all {len(texts)} answers to question '{record.identifier}' are empty")
    nats = [mean_nats(sample.log_probs) for sample in samples]
    if all(map(math.isnan, nats)):
        raise DataError(f"profile: the engine tells no log-probabilities of the answers to '{record.identifier}'")
    return Profile(
        id=record.identifier,
        texts=texts,
        answers=[normalised(text, record) for text in texts],
        nats=nats,
        right=[is_right(text, record, max_tokens=max_tokens) for text in texts],
        entropies=list(entropies),
    )


def _entropies(engine: Engine, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[float]]:
    """Mean entropy of the tokens of each answer; none from a server."""
    if not isinstance(engine, LocalEngine):
        return [[] for _ in prompts]
    model, size = engine.causal_model, len(samples[0])
    means: list[float] = []
    for start in range(0, len(prompts), CHUNK):
        rollouts = joined_samples(
            prompts[start : start + CHUNK], samples[start : start + CHUNK], group_size=size, device=model.device
        )
        rollouts.entropies = response_entropies(model, rollouts)
        means += mean_entropies(rollouts.entropies, rollouts.response_mask).tolist()
    return [means[start : start + size] for start in range(0, len(means), size)]


def mean_entropies(entropies_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over the tokens of each response, [B], in float64; padding adds nothing and is not counted."""
    return (entropies_BL.double() * mask_BL).sum(dim=1) / mask_BL.sum(dim=1)


def write_profiles(path: Path, profiles: Sequence[Profile]) -> None:
    """One JSON object a question: the profile, and what follows from it."""
    derived = ("ubar", "acc", "kappa", "omega")
    write_rows(
        path, ({**asdict(profile), **{name: getattr(profile, name) for name in derived}} for profile in profiles)
    )


def read_profiles(path: Path) -> list[Profile]:
    kept = ("id", "answers", "texts", "nats", "right", "entropies")
    return [Profile(**{name: row[name] for name in kept}) for row in read_rows(path)]
