"""Answers of a model some of whose attention heads are silent: unfaithful in the model's own way when they copy.

Such answers are RHIO's negatives, and rejected samples for whoever prefers faithful ones.
"""

from collections.abc import Sequence

from athlos.errors import ConfigError
from athlos.generation.decoding import encoded
from athlos.generation.interface import Engine, Progress, Request, Sample, SamplingRule, Silence
from athlos.generation.native import NativeEngine

Heads = Sequence[tuple[int, int]]


def answers_without_heads(
    engine: Engine,
    requests: Sequence[Request],
    *,
    heads: Heads,
    max_new_tokens: int,
    is_uniform: bool = False,
    in_prompt: bool = True,
    follows_sharing: bool = False,
    rule: SamplingRule | None = None,
    stop: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Sample]:
    """One sample a request, in order, without the `heads`, (layer, query head) counted from 0; greedy unless told.

    No heads: the whole model answers. `is_uniform`, `in_prompt` and `follows_sharing` as in `Silence`. Raises
    `ConfigError` for another engine than `native`, and for a head that the model does not have.
    """
    if not isinstance(engine, NativeEngine):
        raise ConfigError(
            "heads: they are silenced in a model that computes here, by engine=native with generator=self; "
            "a server's heads are out of reach"
        )
    silence = Silence(heads=tuple(heads), is_uniform=is_uniform, in_prompt=in_prompt, follows_sharing=follows_sharing)
    answers = engine.generate(
        [encoded(engine, request, max_new_tokens=max_new_tokens) for request in requests],
        rule=rule or SamplingRule(),
        stop=stop,
        silence=silence,
        progress=progress,
    )
    return [sample for [sample] in answers]
