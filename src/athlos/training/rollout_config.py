"""Schema of the methods that learn from rewards of their own responses, and what it asks of a run. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from athlos.config.fields import at_least
from athlos.config.schema import MethodConfig
from athlos.generation.config import NumberFormat
from athlos.objectives.config import PolicyConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class RolloutMethodConfig(MethodConfig):
    """Base of a method whose LightningModule is a `RolloutModule`."""

    makes_rollouts: ClassVar[bool] = True

    prompts_per_step: int = at_least(1)
    """Prompts of an RL step over all devices; `train.batch_size` counts responses, so the updates of a step are
    prompts_per_step x objective.group_size / train.batch_size."""
    chunk_prompts: int = at_least(1)
    """Prompts sampled together on a device; the responses of a chunk are judged while the next is sampled."""
    rollout_dtype: NumberFormat = NumberFormat.float32
    """As `engine.dtype`, for the responses alone: the old log-probabilities of the clipped ratio are computed once in
    the precision of the training, and `train/sampler_ratio_mean` and `_max` say how far the sampling was from that."""


def num_updates(config: "RunConfig") -> int:
    """Optimizer steps of an RL step."""
    assert isinstance(config.method, RolloutMethodConfig)
    assert isinstance(config.objective, PolicyConfig)
    return max(1, config.method.prompts_per_step * config.objective.group_size // config.train.batch_size)


def num_policy_steps(config: "RunConfig") -> int:
    """RL steps of a run: T of schedules."""
    return config.num_steps // num_updates(config)


def rollout_errors(config: "RunConfig", *, slug: str) -> Iterable[str]:
    """One line for each reason why the method `slug` cannot run its policy loop with this config."""
    method, objective = config.method, config.objective
    assert isinstance(method, RolloutMethodConfig)
    if not isinstance(objective, PolicyConfig):
        if config.num_steps or config.dry_run:
            name = type(objective).__name__.removesuffix("Config")
            yield f"objective: got {name}, but method={slug} learns from rewards: use objective=policy"
    elif config.num_steps:
        yield from _size_errors(config, method, objective)
    if config.hardware.strategy == "fsdp2":
        yield "hardware.strategy: got 'fsdp2', expected auto or ddp: rollouts need whole weights on each device"


def _size_errors(config: "RunConfig", method: RolloutMethodConfig, objective: PolicyConfig) -> Iterable[str]:
    batch, size, devices = config.train.batch_size, objective.group_size, config.num_devices
    if batch % (size * devices):
        yield (
            f"train.batch_size: got {batch}, expected a multiple of objective.group_size x devices = {size * devices}: "
            "a mini-batch holds whole groups"
        )
    if method.prompts_per_step * size % batch:
        yield (
            f"method.prompts_per_step: got {method.prompts_per_step}, expected groups that fill whole mini-batches: "
            f"{method.prompts_per_step} x {size} responses are no multiple of train.batch_size = {batch}"
        )
        return
    updates = num_updates(config)
    if config.num_steps < updates:
        yield f"train.max_steps: got {config.num_steps}, expected at least {updates}, the updates of one RL step"
    if config.train.checkpoint_every % updates:
        yield (
            f"train.checkpoint_every: got {config.train.checkpoint_every}, expected a multiple of {updates}: rollouts "
            "are not stored, so a run resumes at the beginning of an RL step"
        )
