"""Schemas of NDP: the tables, the objective on n-gram targets, and the recipe that says how arms are equalised."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import above, at_least, bounded, sized
from athlos.config.registry import Part
from athlos.config.schema import MISSING, Batching, ConstructConfig, DataConfig, MethodConfig, ObjectiveConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


LEAST_MEMORY_MB = 64
"""Merging shards takes up to 40 MiB a thread."""


class Smooth(StrEnum):
    """How counts become probabilities."""

    softmax = "softmax"
    div = "div"
    temp_row = "temp_row"
    temp_batch = "temp_batch"
    argmax = "argmax"


class Divergence(StrEnum):
    """`kl` is `ce` less the targets' own entropy: another number, the same gradient."""

    ce = "ce"
    kl = "kl"


Dedup = StrEnum("Dedup", ["none", "ndp_only", "both"])
"""Which arms leave out training rows that stood before, token for token."""


class Match(StrEnum):
    """What arms have in common: optimizer steps, or passes over their own rows."""

    steps = "steps"
    epochs = "epochs"


@dataclass(kw_only=True)
class NdpObjectiveConfig(ObjectiveConfig):
    lambda_: float = bounded("[0, 1]")
    """Share of the supervised distribution in the mix. (`lambda` is a word of the language.)"""
    smooth: Smooth = MISSING
    zero_prob: float = bounded("[0, 1)")
    """Mass z of the unseen tokens; 0 for softmax and argmax, above 0 for the fitted temperatures."""
    use_sup: bool = MISSING
    """Use the distribution after the whole prefix, question included."""
    use_clm: bool = MISSING
    """Use the distribution after the answer's prefix alone."""
    weighted: bool = MISSING
    """Multiply each position by f(c) = min(1, (c / xmax)^power), c its row's total; under the mix both are added."""
    xmax_sup: float = above(0)
    xmax_clm: float = above(0)
    power: float = above(0)
    loss: Divergence = MISSING
    topk: int = at_least(0)
    """At most this many candidates a position; 0 = all."""
    chunk_tokens: int = at_least(1)
    """Positions whose logits exist at one time."""


@dataclass(kw_only=True)
class NeighbourObjectiveConfig(ObjectiveConfig):
    label_share: float = bounded("[0, 1]")
    """Share of the label itself in the target; the rest is the neighbours'."""
    num_neighbours: int = at_least(1)
    """Nearest other training positions that a target is made of."""
    temperature: float = above(0)
    """Of the neighbours' softmax, in units of the mean squared distance to a neighbour."""
    teacher: str = MISSING
    """Whose hidden states are compared: `base` = the run's model as loaded, or a source as in `model.source`."""
    chunk_tokens: int = at_least(1)
    """Positions whose logits exist at one time."""


@dataclass(kw_only=True)
class NdpConfig(MethodConfig):
    dedup: Dedup = MISSING
    match: Match = MISSING
    similarity_rows: int = sized(at_least(0))
    """Training rows on which the model, before training, is compared with each kind of target; 0 = none."""


@dataclass(kw_only=True)
class SlideConfig:
    """Targets from the last tokens of the row, whatever came before them, in place of the answer-only side."""

    window: int = at_least(0)
    """Most tokens of a context; 0 = off."""
    backoff: float = bounded("[0, 1)")
    """Weight of shorter contexts beside the longest known one; 0 = that one alone."""
    additive: float = at_least(0)
    """Added to the probability of every token."""


@dataclass(kw_only=True)
class NdpConstructConfig(ConstructConfig):
    n: int = at_least(0)
    """Shortest prefix of an answer that is counted, in tokens; 0 counts first tokens too."""
    mono: DataConfig | None = None
    """Domain text that joins the answer-only table: its `train_split`. Choose it with `/data@construct.mono: ...`."""
    dedup: bool = MISSING
    """Count training rows with the same tokens and targets once."""
    memory_mb: int = at_least(LEAST_MEMORY_MB)
    """Memory of counting, in MiB; what does not fit is counted in shards and merged by ranges of keys."""
    shard_tokens: int = at_least(0)
    """Tokens of a shard, a product of its own that a killed build finds again; 0 = as many as fit."""
    threads: int = at_least(0)
    """Threads that count; 0 = one a core."""
    spark_master: str = ""
    """A Spark that counts, such as spark://host:7077 or, on this machine, local[2]; empty = counted without one."""
    collision_sample: int = at_least(0)
    """Positions whose keys are checked against exact prefixes."""
    slide: SlideConfig = field(default_factory=SlideConfig)


def drops_repeats(config: "RunConfig") -> bool:
    """Whether this arm leaves out training rows that stood before."""
    method = config.method
    if not isinstance(method, NdpConfig):
        return False
    is_ndp = isinstance(config.objective, NdpObjectiveConfig)
    return method.dedup is Dedup.both or (method.dedup is Dedup.ndp_only and is_ndp)


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    node = config.construct
    assert isinstance(node, NdpConstructConfig)
    if config.train.batching is Batching.pack and config.num_steps:
        yield "train.batching: got pack, but packed rows lose where answers begin; use bucket with construct=ndp"
    if config.data.train_split is None and config.num_steps:
        yield f"construct=ndp: counts the training split, and data={config.data.name} names none"
    if node.mono is not None and node.mono.train_split is None:
        yield f"construct.mono.train_split: data={node.mono.name} names no split to count; set one"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, NdpConfig)
    if node.similarity_rows and not isinstance(config.objective, NdpObjectiveConfig):
        yield f"method.similarity_rows: got {node.similarity_rows}, which needs objective=ndp"
    if config.num_steps and drops_repeats(config) and not isinstance(config.construct, NdpConstructConfig):
        yield (
            f"method.dedup: got {node.dedup.name}, but construct=ndp is what leaves out rows; use it, or "
            "method.dedup=none"
        )


def _objective_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, NdpObjectiveConfig)
    if not node.use_sup and not node.use_clm:
        yield "objective: use_sup and use_clm are both false, so there is no target"
    yield from _smooth_errors(node)
    if config.num_steps and config.train.batching is not Batching.bucket:
        yield (
            f"train.batching: got {config.train.batching.value}, expected bucket: packed rows lose where an answer "
            "begins, which objective=ndp reads"
        )


def _neighbour_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, NeighbourObjectiveConfig)
    if node.teacher == "base" and config.model.source == "random" and config.num_steps:
        yield "objective.teacher: the base model has random weights, whose neighbours mean nothing; name another"


def _smooth_errors(node: NdpObjectiveConfig) -> Iterable[str]:
    if node.smooth in (Smooth.softmax, Smooth.argmax) and node.zero_prob > 0:
        yield (
            f"objective.zero_prob: got {node.zero_prob} with smooth={node.smooth.value}, expected 0: it gives unseen "
            "tokens nothing; use div, temp_row or temp_batch"
        )
    elif node.smooth in (Smooth.temp_row, Smooth.temp_batch) and node.zero_prob == 0:
        yield (
            f"objective.zero_prob: got {node.zero_prob} with smooth={node.smooth.value}, expected a number in (0, 1): "
            "the temperature is fitted to it"
        )


PARTS = [
    Part(
        group="construct",
        name="ndp",
        schema=NdpConstructConfig,
        target="athlos.methods.ndp.construct.NdpConstruct",
        summary="tables of next-token counts by prefix, with and without the prompt",
        check=_construct_errors,
    ),
    Part(
        group="method",
        name="ndp",
        schema=NdpConfig,
        target="athlos.methods.ndp.module.NdpModule",
        summary="trains on n-gram distributions; says how arms are equalised",
        check=_method_errors,
    ),
    Part(
        group="objective",
        name="knn_targets",
        schema=NeighbourObjectiveConfig,
        target="athlos.methods.ndp.neighbours.NeighbourObjective",
        summary="cross-entropy with what follows the nearest training positions",
        check=_neighbour_errors,
    ),
    Part(
        group="objective",
        name="ndp",
        schema=NdpObjectiveConfig,
        target="athlos.methods.ndp.objective.NdpObjective",
        summary="cross-entropy with the n-gram distribution of the training data",
        check=_objective_errors,
    ),
]
