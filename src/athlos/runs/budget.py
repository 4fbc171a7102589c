"""What a run will need, before anything is loaded: parameters, memory by kind, operations, hardware.

The model is built on the meta device, where tensors have shapes but no values, and the run's surgery, selection and
tuning are applied to it.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_class

from athlos.config.schema import RunConfig
from athlos.models.config import NoSurgeryConfig
from athlos.models.flops import is_counted, step_flops
from athlos.models.freeze import TrainableShare, trainable_share
from athlos.models.memory import Memory, memory_of, meta_model
from athlos.models.sites import backbone, check_operable, vision_parts
from athlos.parts import PartContext
from athlos.stages import StageStore, cache_dir

GIB = 2**30
CARDS_GB = (12, 16, 24, 40, 48, 80, 141)
"""Memory of common cards."""
SHARD_CARDS_GB = (80, 141)
SHARD_COUNTS = (2, 4, 8, 16, 32, 64)
NOT_COUNTED = "not counted for this architecture"
USABLE = 0.9
"""Share of a card that a run can fill: the rest goes to the driver, workspaces and fragments."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The needs of one run."""

    model: str
    parts: str
    """What the surgery and the tuning said they did."""
    share: TrainableShare
    memory: Memory | None
    """On one device; None for layers that are not counted."""
    tokens_per_step: int
    flops_per_step: float | None
    hardware: str
    metrics: dict[str, float]
    """What the surgery, the selection and the tuning count themselves."""

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line, for a panel."""
        memory = self.memory
        kinds = ("weights", "gradients", "optimizer", "activations", "logits", "kv_cache")
        return [
            ("model", self.model),
            ("parts", self.parts),
            ("parameters", f"{self.share.total:,}"),
            ("trainable", f"{self.share.trainable:,} ({self.share.share:.2%})"),
            ("trainable without embeddings", f"{self.share.share_without_embeddings:.2%}"),
            *((f"memory: {kind.replace('_', ' ')}", _size(vars(memory)[kind])) for kind in kinds if memory),
            ("memory: training", _size(memory.training) if memory else NOT_COUNTED),
            ("memory: evaluation", _size(memory.evaluation) if memory else NOT_COUNTED),
            ("tokens a step", f"{self.tokens_per_step:,}"),
            ("FLOPs a step", NOT_COUNTED if self.flops_per_step is None else f"{self.flops_per_step:.3g}"),
            *((name, f"{value:,.6g}") for name, value in self.metrics.items()),
            ("hardware", self.hardware),
        ]


def budget(config: RunConfig, *, logit_tokens: int | None = None) -> Budget:
    """The needs of a run. `logit_tokens` = positions whose logits exist at one time, where the loss works in chunks.

    A vision-language model is counted with one picture a row. Surgery and selection see a meta model, no data and no
    weights to start from; one that must measure values cannot run and says so itself.
    """
    model: Any = meta_model(config.model)
    context = PartContext(config=config, stages=StageStore(cache_dir(config.cache_dir)))
    if not isinstance(config.surgery, NoSurgeryConfig):
        check_operable(model)
    model, operated = get_class(config.surgery._target_)(config.surgery).apply(model, context=context)
    chosen = get_class(config.selection._target_)(config.selection).choose(model, context=context)
    model, tuned = get_class(config.tuning._target_)(config.tuning).apply(model, chosen, context=context)
    rows, length = config.train.batch_size * config.rows_an_item, config.train.max_length
    pictures = rows if vision_parts(model) is not None else 0
    memory, flops, layers = None, None, ""
    if is_counted(model):
        layers = f", {len(backbone(model).layers)} layers"
        flops = step_flops(model, num_rows=rows, length=length, num_pictures=pictures)
        memory = memory_of(model, config=config, logit_tokens=logit_tokens)
    return Budget(
        model=f"{config.model.name} ({model.config.model_type}{layers})",
        parts=f"{operated.summary}; {tuned.summary}",
        share=trainable_share(model),
        memory=memory,
        tokens_per_step=rows * length,
        flops_per_step=flops,
        hardware=_hardware(memory, config=config),
        metrics=operated.metrics | tuned.metrics,
    )


def _hardware(memory: Memory | None, *, config: RunConfig) -> str:
    """The smallest plain hardware that holds the peak, in words."""
    if memory is None:
        return NOT_COUNTED
    devices = config.hardware.devices * config.hardware.num_nodes
    if config.hardware.accelerator == "cpu":
        return f"{devices} x CPU with {math.ceil(memory.peak * devices / GIB / USABLE)} GB of memory in all"
    card = next((size for size in CARDS_GB if memory.peak <= size * GIB * USABLE), None)
    if card is not None:
        return f"{devices} x {card} GB"
    if config.hardware.strategy == "fsdp2":
        return f"more than {devices} x {CARDS_GB[-1]} GB; raise hardware.devices or lower train.micro_batch_size"
    state = memory.weights + memory.gradients + memory.optimizer
    for card, count in itertools.product(SHARD_CARDS_GB, SHARD_COUNTS):
        if state // count + (memory.peak - state) <= card * GIB * USABLE:
            return f"{count} x {card} GB with hardware=fsdp2 hardware.devices={count}"
    return "no common machine; lower train.micro_batch_size or train.max_length, or set activation_checkpointing"


def _size(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"
