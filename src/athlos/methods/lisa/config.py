"""Schemas of LISA: the surgery, those it is compared with, and the selection of what it added."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from athlos.config.fields import above, at_least, stepped
from athlos.config.registry import Part, part_names
from athlos.config.schema import MISSING, MethodConfig, Phase, SelectionConfig, SurgeryConfig
from athlos.objectives.config import NextTokenConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


class Select(StrEnum):
    """How the shared layers are chosen."""

    similarity = "similarity"
    last_k = "last_k"
    alternate = "alternate"
    explicit = "explicit"


class AlignInit(StrEnum):
    """Where the fixed head map M comes from."""

    identity = "identity"
    hungarian = "hungarian"
    lstsq = "lstsq"


class LowRankInit(StrEnum):
    """Weights the low-rank part begins with."""

    zero_q = "zero_q"
    energy_pairs = "energy_pairs"
    random = "random"


class SharePoint(StrEnum):
    """What is aligned: scores before the softmax, or logarithms of the weights after it."""

    logits = "logits"
    probs = "probs"


Activation = StrEnum("Activation", ["gelu", "silu", "relu", "none"])
Gate = StrEnum("Gate", ["none", "sigmoid", "free"])


@dataclass(kw_only=True)
class LayersConfig:
    select: Select = MISSING
    count: int = at_least(0)
    """Shared layers; 0 = ceil(0.53 L)."""
    explicit: list[int] = field(default_factory=list)
    """Layer indices for `select=explicit`, negative ones from the end."""


@dataclass(kw_only=True)
class AlignConfig:
    enabled: bool = MISSING
    """False: the scores of the layer below are left out."""
    hidden: int = at_least(0)
    """Hidden units of the aligner; 0 = M alone."""
    act: Activation = MISSING
    residual: bool = MISSING
    """Whether the M term is there."""
    init: AlignInit = MISSING


@dataclass(kw_only=True)
class LowRankConfig:
    enabled: bool = MISSING
    rank: int = at_least(0)
    """Even, at most the head size; 0 = the largest even number <= head size / 6."""
    init: LowRankInit = MISSING


@dataclass(kw_only=True)
class CalibrationConfig:
    tokens: int = at_least(1)
    """Training tokens that similarity and M are measured on."""


@dataclass(kw_only=True)
class LisaSurgeryConfig(SurgeryConfig):
    layers: LayersConfig = field(default_factory=LayersConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    lowrank: LowRankConfig = field(default_factory=LowRankConfig)
    share_point: SharePoint = MISSING
    gate: Gate = MISSING
    """Factor a head on the low-rank part: none, sigmoid (begins at 1/2) or free (begins at 1)."""
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    allow_mixed: bool = False
    """Let a sliding layer take the scores of a global one below it."""
    shuffle_heads: int = at_least(0, default=0)
    """Seed of a permutation of every layer's heads before all else, which leaves the model's function; 0 = none."""


@dataclass(kw_only=True)
class ClaConfig(SurgeryConfig):
    group: int = at_least(1)
    """Neighbouring layers that have one set of keys and values; 1 = none is shared."""


@dataclass(kw_only=True)
class LckvConfig(SurgeryConfig):
    passes: int = at_least(2)
    """Passes over several tokens at once; as many as tokens are exact."""
    gradient_passes: int = at_least(1)
    """The last passes, through which gradients flow, at most `passes`."""


@dataclass(kw_only=True)
class YocoConfig(SurgeryConfig):
    window: int = at_least(1)
    """Tokens that a layer of the lower half sees."""


@dataclass(kw_only=True)
class MeanpoolConfig(SurgeryConfig):
    groups: int = at_least(1)
    """Key-value heads that are left, a divisor of those there are."""


@dataclass(kw_only=True)
class LisaSelectionConfig(SelectionConfig):
    """No values: exactly what the surgery added trains."""

    def misfits(self) -> Iterator[str]:
        yield "selection=lisa"


class Stage(StrEnum):
    """`local`: each shared layer alone learns the teacher's attention. `end2end`: the student as a whole learns."""

    local = "local"
    end2end = "end2end"


@dataclass(kw_only=True)
class LossWeights:
    attn: float = at_least(0)
    """Weight of the mean KL between the teacher's and the student's attention rows, in both stages."""
    hidden: float = at_least(0)
    """Weight of the mean squared difference of attention outputs, in the second stage."""


@dataclass(kw_only=True)
class LisaConfig(MethodConfig):
    """The two-stage recipe. Cross-entropy and divergence of the logits are the objective's: `objective=distill`."""

    evaluation_only: ClassVar[tuple[str, ...]] = ("variants", "other_text", "noise_sigma")

    stages: list[Stage] = MISSING
    """Any of local and end2end, in this order."""
    local_steps: int = stepped(at_least(0))
    """Steps of the local stage where both are there, 1 .. train.max_steps - 1."""
    local_lr: float = above(0)
    """Peak learning rate of the local stage; `train.lr` is that of end2end."""
    loss: LossWeights = field(default_factory=LossWeights)
    variants: bool = True
    """Also evaluate direct sharing and sharing by the calibrated M alone: test/ppl_direct, test/ppl_align."""
    other_text: str | None = None
    """A text file of another kind, to read after the test: test/ppl_other, test/ppl_base_other; empty = none."""
    noise_sigma: float = at_least(0, default=0.0)
    """Standard deviation of noise on one layer's scores at a time: diag/noise_ppl/<layer>; 0 = not measured."""

    def phases(self, run: "RunConfig") -> Iterator[Phase]:
        """A phase a stage: the local one at its own rate, then the other on the weights that it left."""
        both = len(self.stages) == 2
        for stage in self.stages:
            method, objective = replace(self, stages=[stage]), run.objective
            steps, lr, drawn = run.train.max_steps, run.train.lr, 0
            # What only the other stage reads must not make this one's training another.
            if stage is Stage.local:
                method = replace(method, loss=replace(self.loss, hidden=0.0))
                objective = NextTokenConfig(_target_="athlos.objectives.next_token.NextTokenObjective")
                steps, lr = (self.local_steps if both else steps), self.local_lr
            elif both:
                steps, drawn = steps - self.local_steps, self.local_steps
            method = replace(method, local_steps=0, local_lr=0.0)
            train = replace(run.train, max_steps=steps, lr=lr, rows_start=drawn)
            yield Phase(name=stage.value, run=replace(run, method=method, objective=objective, train=train))


def _surgery_errors(config: "RunConfig") -> Iterable[str]:
    node = config.surgery
    assert isinstance(node, LisaSurgeryConfig)
    is_explicit = node.layers.select is Select.explicit
    if is_explicit != bool(node.layers.explicit):
        yield f"surgery.layers.explicit: got {node.layers.explicit} with select={node.layers.select.value}"
    if is_explicit and any(index == 0 for index in node.layers.explicit):
        yield "surgery.layers.explicit: layer 0 has no layer below it"
    needs_text = node.layers.select is Select.similarity or (
        node.align.enabled and node.align.init is not AlignInit.identity
    )
    if needs_text and config.data.train_split is None and not config.dry_run:
        yield f"surgery.calibration: needs a training split, and data={config.data.name} names none"

    if node.lowrank.rank % 2:
        yield f"surgery.lowrank.rank: got {node.lowrank.rank}, expected an even number >= 2, or 0"
    if not node.align.enabled and not node.lowrank.enabled:
        yield "surgery: align.enabled and lowrank.enabled are both false, so a shared layer would have no scores"
    if node.align.enabled and not node.align.residual and not node.align.hidden:
        yield "surgery.align: without residual and hidden units the aligner is nothing"
    counts_twice = node.align.enabled and node.align.residual and node.lowrank.init is LowRankInit.energy_pairs
    if node.lowrank.enabled and counts_twice:
        yield "surgery.lowrank.init: energy_pairs beside align.residual counts the scores twice; use zero_q"
    selection = part_names(config).get("selection", "")
    if config.num_steps and selection in ("slam", "plast"):
        yield f"selection: got {selection}, but LISA freezes the backbone in its own stage; use selection=lisa"


def _lckv_errors(config: "RunConfig") -> Iterable[str]:
    node = config.surgery
    assert isinstance(node, LckvConfig)
    if node.gradient_passes > node.passes:
        yield f"surgery.gradient_passes: got {node.gradient_passes}, expected at most passes = {node.passes}"


def _selection_errors(config: "RunConfig") -> Iterable[str]:
    node = config.surgery
    if not isinstance(node, LisaSurgeryConfig):
        yield "selection=lisa: trains what surgery=lisa added, and this run has another surgery"
    elif not node.lowrank.enabled and not (node.align.enabled and node.align.hidden):
        yield "selection=lisa: without a low-rank part and hidden units surgery=lisa adds nothing that trains"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, LisaConfig)
    if not isinstance(config.surgery, LisaSurgeryConfig):
        yield "method=lisa: trains what surgery=lisa added, and this run has another surgery"
    if node.stages not in ([Stage.local], [Stage.end2end], [Stage.local, Stage.end2end]):
        got = ", ".join(stage.value for stage in node.stages)
        yield f"method.stages: got [{got}], expected [local], [end2end] or [local, end2end]"
    if len(node.stages) == 2 and config.num_steps and not 1 <= node.local_steps < config.train.max_steps:
        yield (
            f"method.local_steps: got {node.local_steps}, expected 1 .. train.max_steps - 1 = "
            f"{config.train.max_steps - 1}"
        )
    if node.other_text and config.eval.running_text is None:
        yield "method.other_text: no suite says in which windows to read it; +suite@eval.suites.perplexity=perplexity"
    if Stage.local in node.stages and node.loss.attn == 0 and config.num_steps:
        yield "method.loss.attn: the local stage has no other loss; set it above 0, or stages=[end2end]"
    if config.num_steps and config.model.source == "random" and (node.loss.attn or node.loss.hidden):
        yield "method=lisa: a model with random weights has no attention worth learning from; use a trained one"


PARTS = [
    Part(
        group="method",
        name="lisa",
        schema=LisaConfig,
        target="athlos.methods.lisa.module.LisaModule",
        summary="two-stage distillation of shared attention: layer by layer, then end to end",
        check=_method_errors,
    ),
    Part(
        group="surgery",
        name="lisa",
        schema=LisaSurgeryConfig,
        target="athlos.methods.lisa.surgery.LisaSurgery",
        summary="attention scores from the layer below, aligned, plus a low-rank part",
        check=_surgery_errors,
    ),
    Part(
        group="surgery",
        name="cla",
        schema=ClaConfig,
        target="athlos.methods.lisa.kv_sharing.ClaSurgery",
        summary="groups of layers with one set of keys and values",
    ),
    Part(
        group="surgery",
        name="lckv",
        schema=LckvConfig,
        target="athlos.methods.lisa.kv_sharing.LckvSurgery",
        summary="inner layers that read the keys and values of the last but one",
        check=_lckv_errors,
    ),
    Part(
        group="surgery",
        name="yoco",
        schema=YocoConfig,
        target="athlos.methods.lisa.kv_sharing.YocoSurgery",
        summary="a sliding window below, one set of keys and values above",
    ),
    Part(
        group="surgery",
        name="gqa_meanpool",
        schema=MeanpoolConfig,
        target="athlos.methods.lisa.head_pooling.MeanpoolSurgery",
        summary="fewer key-value heads, each the mean of several",
    ),
    Part(
        group="selection",
        name="lisa",
        schema=LisaSelectionConfig,
        target="athlos.methods.lisa.selection.LisaSelection",
        summary="exactly what surgery=lisa added trains",
        check=_selection_errors,
    ),
]
