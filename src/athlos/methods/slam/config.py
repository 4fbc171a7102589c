"""Schemas of SLAM: the selection of layers that handle language, and the recipe."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import any_of, at_least, bounded, sized, stepped
from athlos.config.registry import Part
from athlos.config.schema import MISSING, MethodConfig, Phase, SelectionConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SMALLEST_PROBE = 20
"""Fewer questions a language than this say little about a neuron."""


class Selector(StrEnum):
    """How layers are chosen. Only activation_gap, lape and grad look at the model."""

    activation_gap = "activation_gap"
    lape = "lape"
    grad = "grad"
    manual = "manual"
    random = "random"
    top = "top"
    all = "all"


PROBING = (Selector.activation_gap, Selector.lape)
SCORING = (*PROBING, Selector.grad)


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


class Trained(StrEnum):
    """What of a chosen layer trains: the FFN's `ffn_parts`, the attention's four matrices, or the whole layer."""

    ffn = "ffn"
    attn = "attn"
    all = "all"


class ProbeTokens(StrEnum):
    """Tokens that count: those of the question, or also the begin-of-sequence token before it."""

    question = "question"
    all = "all"


# Made by a call because `none` reads better in YAML than a null.
Fallback = Enum("Fallback", [(name, name) for name in ("top_k", "none")], type=str)
"""What is taken when no layer stands out: the k (or k_max) of highest score, or nothing, which stops the run."""
NeuronMask = Enum("NeuronMask", [(name, name) for name in ("none", "top50_change", "random50")], type=str)
"""Which neurons of a chosen layer train: all, the half whose firing differs most between languages, a random half."""


@dataclass(kw_only=True)
class LoraPartConfig:
    enabled: bool = False
    """Low-rank updates inside the chosen layers in place of their matrices themselves."""
    rank: int = at_least(1)
    alpha: float = MISSING
    """The update is scaled by alpha / rank."""


@dataclass(kw_only=True)
class LapeConfig:
    percentile: float = bounded("(0, 100)")
    """Of the firing shares over all layers."""
    entropy_share: float = bounded("(0, 1]")
    """Share of the neurons that are taken, those of lowest entropy."""
    living_only: bool = MISSING
    """Take the share of the neurons that ever fire, and the percentile between two ranks."""


@dataclass(kw_only=True)
class ProbeConfig:
    num_questions: int = sized(at_least(SMALLEST_PROBE))
    """Texts a language, the same in all."""
    tokens: ProbeTokens = MISSING
    data: list[str] = field(default_factory=list)
    """Overrides that name other data than the run's: ['data=msvamp','data.dir=<folder>']; empty = the run's own."""
    split: str = MISSING
    """Split of that data; never the run's test split."""
    languages: list[str] = field(default_factory=list)
    """Languages to compare; empty = all that the split has."""
    blocks: int = at_least(2)
    """Groups of texts that the bootstrap draws from, at most `num_questions`."""
    resamples: int = at_least(1)
    """Bootstrap draws of the blocks."""
    batch_size: int = at_least(1)
    """Texts a forward pass."""


@dataclass(kw_only=True)
class SlamConfig(SelectionConfig):
    selector: Selector = MISSING
    reference: str = MISSING
    """The language that the others are compared with."""
    k: int = at_least(0)
    """Number of layers; 0 = as many as stand out."""
    k_max: int = at_least(1)
    """Most layers with k = 0."""
    layers: list[int] = field(default_factory=list)
    """Indices for `selector=manual`, negative ones from the end."""
    fallback: Fallback = MISSING  # type: ignore[valid-type]
    position: Position = MISSING
    statistic: Statistic = MISSING
    parts: Trained = MISSING
    ffn_parts: list[str] = any_of("up", "down", "gate")
    """For `parts=ffn`."""
    train_emb: bool = False
    """Also train the input embedding, which is the head as well where they are tied."""
    neuron_mask: NeuronMask = MISSING  # type: ignore[valid-type]
    lora: LoraPartConfig = field(default_factory=LoraPartConfig)
    lape: LapeConfig = field(default_factory=LapeConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    seed_random_layers: int | None = None
    """Seed of `selector=random` and `neuron_mask=random50`; empty = the run's."""

    @property
    def needs_counts(self) -> bool:
        return self.selector in PROBING or self.neuron_mask.name == "top50_change"  # type: ignore[attr-defined]


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
    if node.probe.blocks > node.probe.num_questions:
        yield f"selection.probe.blocks: got {node.probe.blocks}, expected at most num_questions"
    is_manual = node.selector is Selector.manual
    if is_manual != bool(node.layers):
        yield f"selection.layers: got {node.layers} with selector={node.selector.value}; they go with selector=manual"
    if len(set(node.layers)) < len(node.layers):
        yield f"selection.layers: got {node.layers}, which names a layer twice"
    if is_manual and node.k:
        yield f"selection.k: got {node.k} with selector=manual, expected 0: the named layers are all"
    if node.selector in (Selector.random, Selector.top) and not node.k:
        yield f"selection.k: got 0 with selector={node.selector.value}, expected an integer >= 1: nothing is measured"
    if node.parts is Trained.ffn and not node.ffn_parts:
        yield "selection.ffn_parts: got [], expected at least one of up, down, gate, or parts=attn or all"
    yield from _together_errors(config)


def _together_errors(config: "RunConfig") -> Iterable[str]:
    node = config.selection
    assert isinstance(node, SlamConfig)
    if node.lora.enabled and node.train_emb:
        yield "selection.train_emb: got true with lora.enabled: low-rank updates leave the embedding as it is"
    is_masked = node.neuron_mask.name != "none"  # type: ignore[attr-defined]
    if is_masked and (node.lora.enabled or node.parts is not Trained.ffn):
        yield "selection.neuron_mask: neurons are rows and columns of the FFN: use parts=ffn and lora.enabled=false"
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
