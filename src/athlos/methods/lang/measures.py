"""What an RL step finds in its rollouts: judged responses, which prompts carry signal, and the sums of its metrics.

P prompts, G responses a prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from athlos.generation.rollouts import Rollouts
from athlos.methods.lang.config import RewardConfig, SwitchSignal
from athlos.methods.lang.prompts import HintedPrompt
from athlos.methods.lang.rewards import Judged, group_rewards, is_right, judge, repeated_share
from athlos.text.language import Detector

PER_RESPONSE = ("reward", "lc", "format", "acc", "repetition", "truncated")


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The judged responses of a chunk of prompts: one list a prompt, of one entry a response."""

    judged: list[list[Judged]]
    rewards: list[list[float]]
    is_right: list[list[bool]]
    repetition: list[float]
    """Of every response, in the order of the rollouts' rows."""


Chunk = tuple[Rollouts, Verdicts]


def judged_chunk(
    prompts: Sequence[HintedPrompt], rollouts: Rollouts, *, detector: Detector, config: RewardConfig, progress: float
) -> Verdicts:
    """Judge the responses to a chunk of prompts; the hint is part of the prompt and is not looked at."""
    size, truncated = rollouts.group_size, rollouts.truncated.tolist()
    judged = [
        [
            judge(
                rollouts.texts[row], language=prompt.record.language, answer=prompt.record.answer, detector=detector,
                config=config, truncated=truncated[row], english=prompt.record.english_solution,
            )
            for row in range(index * size, (index + 1) * size)
        ]
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip
    lengths = rollouts.response_mask.sum(dim=1).tolist()
    ids = [row[:length] for row, length in zip(rollouts.response_ids.tolist(), lengths, strict=True)]
    return Verdicts(
        judged=judged,
        rewards=[
            group_rewards(group, language=prompt.record.language, config=config, progress=progress)
            for group, prompt in zip(judged, prompts, strict=True)
        ],
        is_right=[[is_right(one, config) for one in group] for group in judged],
        repetition=[repeated_share(row) for row in ids],
    )


def signals(chunks: Sequence[Chunk], advantages_PG: Tensor, *, signal: SwitchSignal) -> list[bool]:
    """Whether each prompt carries signal: a response of positive advantage, or a right one."""
    if signal is SwitchSignal.pos_adv:
        found: list[bool] = (advantages_PG > 0).any(dim=1).tolist()
        return found
    return [any(group) for _, verdicts in chunks for group in verdicts.is_right]


def collected(prompts: Sequence[HintedPrompt], chunks: Sequence[Chunk], advantages_PG: Tensor) -> dict[str, float]:
    """Sums over the responses and prompts of one device; they add up over devices."""
    judged = [one for _, verdicts in chunks for group in verdicts.judged for one in group]
    rollouts = [one for one, _ in chunks]
    return {
        "responses": float(len(judged)),
        "reward": sum(sum(group) for _, verdicts in chunks for group in verdicts.rewards),
        "lc": float(sum(one.lc for one in judged)),
        "format": float(sum(one.format for one in judged)),
        "acc": float(sum(one.acc for one in judged)),
        "repetition": sum(sum(verdicts.repetition) for _, verdicts in chunks),
        "truncated": float(sum(int(one.truncated.sum()) for one in rollouts)),
        "tokens": float(sum(one.num_tokens for one in rollouts)),
        "nats": -sum(float(one.log_probs.double().sum()) for one in rollouts),
        "prompts": float(len(prompts)),
        "units": float(sum(prompt.num_units for prompt in prompts)),
        "signal": float(sum(signals(chunks, advantages_PG, signal=SwitchSignal.pos_adv))),
        "any_correct": float(sum(signals(chunks, advantages_PG, signal=SwitchSignal.any_correct))),
    }


def ratios(sums: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an RL step; the entropy is the mean of -log p over the sampled tokens, an unbiased estimate."""
    return {name: sums[name] / sums["responses"] for name in PER_RESPONSE} | {
        "response_len": sums["tokens"] / sums["responses"],
        "entropy": sums["nats"] / sums["tokens"],
        "signal_share": sums["signal"] / sums["prompts"],
        "any_correct_share": sums["any_correct"] / sums["prompts"],
        "hint_units": sums["units"] / sums["prompts"],
    }
