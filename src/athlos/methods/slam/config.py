"""Schemas of SLAM: the selection of layers that handle language, and the recipe."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import any_of, at_least, sized, stepped
from athlos.config.registry import Part
from athlos.config.schema import MISSING, MethodConfig, Phase
from athlos.models.config import PROBING, ProbeConfig, ProbedConfig, Selector, Trained, probed_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SMALLEST_PROBE = 20
"""Fewer questions a language than this say little about a neuron."""


class Position(StrEnum):
    """`auto`: where the selector says. Else as many layers as it says, at the bottom, in the middle or at the top."""

    auto = "auto"
    low = "low"
    mid = "mid"
    high = "high"


class Statistic(StrEnum):
    """What is compared between languages, by neuron."""

    positive_share = "positive_share"
    positive_share_by_text = "positive_share_by_text"
    mean = "mean"


class ProbeTokens(StrEnum):
    """Tokens that count: those of the question, or also the begin-of-sequence token before it."""

    question = "question"
    all = "all"


Fallback = StrEnum("Fallback", ["top_k", "none"])
"""What is taken when no layer stands out: the k (or k_max) of highest score, or nothing, which stops the run."""
NeuronMask = StrEnum("NeuronMask", ["none", "top50_change", "random50"])
"""Which neurons of a chosen layer train: all, the half whose firing differs most between languages, a random half."""


@dataclass(kw_only=True)
class TextProbeConfig(ProbeConfig):
    num_questions: int = sized(at_least(SMALLEST_PROBE))
    """Texts a language, the same in all."""
    tokens: ProbeTokens = MISSING
    data: list[str] = field(default_factory=list)
    """Overrides that name other data than the run's: ['data=msvamp','data.dir=<folder>']; empty = the run's own."""
    blocks: int = at_least(2)
    """Groups of texts that the bootstrap draws from, at most `num_questions`."""
    resamples: int = at_least(1)
    """Bootstrap draws of the blocks."""


@dataclass(kw_only=True)
class SlamConfig(ProbedConfig):
    reference: str = MISSING
    """The language that the others are compared with."""
    k_max: int = at_least(1)
    """Most layers with k = 0."""
    fallback: Fallback = MISSING
    position: Position = MISSING
    statistic: Statistic = MISSING
    ffn_parts: list[str] = any_of("up", "down", "gate")
    """For `parts=ffn`."""
    train_emb: bool = False
    """Also train the input embedding, which is the head as well where they are tied."""
    neuron_mask: NeuronMask = MISSING
    probe: TextProbeConfig = field(default_factory=TextProbeConfig)
    seed_random_layers: int | None = None
    """Seed of `selector=random` and `neuron_mask=random50`; empty = the run's."""

    @property
    def site_names(self) -> tuple[str, ...]:
        return tuple(self.ffn_parts) if self.parts is Trained.ffn else super().site_names

    @property
    def needs_counts(self) -> bool:
        return self.selector in PROBING or self.neuron_mask.name == "top50_change"

    def misfits(self) -> Iterator[str]:
        if self.train_emb:
            yield "selection.train_emb=true"
        if self.neuron_mask.name != "none":
            yield f"selection.neuron_mask={self.neuron_mask.name}"


@dataclass(kw_only=True)
class SlamMethodConfig(MethodConfig):
    """Translation first; with `reason_steps`, the two-stage recipe that SLAM is compared with."""

    reason_steps: int = stepped(at_least(0))
    """Last optimizer steps, fewer than `train.max_steps`, which train on `reason_split` in place of the pairs."""
    reason_split: str = MISSING
    """Split of the run's data with worked problems in the reference language."""
    align_items: int = sized(at_least(0), least=SMALLEST_PROBE)
    """Parallel texts whose alignment is measured before and after training, layer by layer; 0 = none."""
    align_split: str = MISSING
    """Split of the run's data that they come from."""
    reference: str = MISSING
    """The language that alignment is measured with."""

    def phases(self, run: "RunConfig") -> Iterator[Phase]:
        """Translation; with `reason_steps`, worked problems in the reference language after it, on its weights.

        Both are parts of one schedule of the learning rate, which falls over all steps.
        """
        if not self.reason_steps:
            yield Phase(name="train", run=run)
            return
        steps = run.train.max_steps - self.reason_steps
        train = replace(run.train, schedule_steps=run.train.max_steps)
        yield Phase(
            name="translate",
            run=replace(
                run,
                method=replace(self, reason_steps=0, reason_split=""),  # so that sweeps over them share this training
                train=replace(train, max_steps=steps),
            ),
        )
        yield Phase(
            name="reason",
            run=replace(
                run,
                data=replace(run.data, train_split=self.reason_split),
                train=replace(train, max_steps=self.reason_steps, schedule_start=steps),
            ),
        )


def _selection_errors(config: "RunConfig") -> Iterable[str]:
    node = config.selection
    assert isinstance(node, SlamConfig)
    yield from probed_errors(config)
    if node.probe.blocks > node.probe.num_questions:
        yield f"selection.probe.blocks: got {node.probe.blocks}, expected at most num_questions"
    if node.parts is Trained.ffn and not node.ffn_parts:
        yield "selection.ffn_parts: got [], expected at least one of up, down, gate, or parts=attn or all"
    is_masked = node.neuron_mask.name != "none"
    if is_masked and node.parts is not Trained.ffn:
        yield "selection.neuron_mask: neurons are rows and columns of the FFN: use parts=ffn"
    if is_masked and config.train.weight_decay:
        yield (
            f"selection.neuron_mask: got train.weight_decay={config.train.weight_decay}, expected 0: decay would move "
            "the neurons that are left out"
        )
    if node.selector is Selector.grad and config.data.train_split is None and not config.dry_run:
        yield f"selection.selector: grad reads training rows, and data={config.data.name} names no training split"
    if node.needs_counts and not node.probe.data and node.probe.split == config.data.test_split:
        yield f"selection.probe.split: got '{node.probe.split}', the split that the run is tested on"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, SlamMethodConfig)
    if node.reason_steps >= max(1, config.train.max_steps):
        yield (
            f"method.reason_steps: got {node.reason_steps}, expected 0 .. train.max_steps - 1 = "
            f"{config.train.max_steps - 1}"
        )
    if node.reason_steps and node.reason_split == config.data.test_split:
        yield f"method.reason_split: got '{node.reason_split}', the split that the run is tested on"
    if node.align_items and node.align_split == config.data.test_split:
        yield f"method.align_split: got '{node.align_split}', the split that the run is tested on"


PARTS = [
    Part(
        group="selection",
        name="slam",
        schema=SlamConfig,
        target="athlos.methods.slam.selection.SlamSelection",
        summary="the FFNs of the few low layers whose neurons fire by language",
        check=_selection_errors,
    ),
    Part(
        group="method",
        name="slam",
        schema=SlamMethodConfig,
        target="athlos.methods.slam.module.SlamModule",
        summary="translation into one language, tuned in the layers that handle language",
        check=_method_errors,
    ),
]
