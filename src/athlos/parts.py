"""The interfaces of the parts that stack, in one place. Methods bring classes that fit them; no base class is needed.

Each class is built as `Class(config)` with its own config node; what it needs of the run comes as `PartContext`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.data.batches import Unit
from athlos.data.datamodule import DataModule, MadeData
from athlos.generation.interface import Engine
from athlos.generation.rollouts import PolicyPrompt, Rollouts
from athlos.judging.interface import Judge
from athlos.models.loading import LoadedModel
from athlos.models.selection import Chosen
from athlos.retrieval.interface import Index
from athlos.stages import StageStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(kw_only=True)
class PartContext:
    """What a part may use of the run, or the phase of a run, that it belongs to."""

    config: RunConfig
    stages: StageStore
    data: DataModule | None = None
    """None in a dry run, where the model is on the meta device and nothing may be read."""
    start: LoadedModel | None = None
    """The weights that the phase starts from, as loaded; None where a server answers and nothing is trained."""
    load_base: Callable[[], LoadedModel] | None = None
    """Loads the run's model as it was before any phase, for `base_model` of a later one; None = `start` is that."""
    generator: Engine | None = None
    """What writes for constructions and pipelines."""
    judge: Judge | None = None
    index: Index | None = None
    made: "Made | None" = None
    """What the phase's construction made, once it has."""
    base: LoadedModel | None = field(default=None, repr=False)
    """The run's model before any phase, once `base_model` has loaded it."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        assert self.start is not None
        return self.start.tokenizer

    @property
    def model_fingerprint(self) -> str:
        """Content hash of the weights as loaded: an input of every stage that reads the model."""
        assert self.start is not None
        return self.start.fingerprint

    @property
    def base_model(self) -> "PreTrainedModel":
        """The model before any phase and any surgery, for teachers; a surgery's result may share its parameters."""
        if self.base is None:
            self.base = self.start if self.load_base is None else self.load_base()
        assert self.base is not None
        return self.base.model


@dataclass(kw_only=True)
class Made(MadeData):
    """What a construction made of a model and data. Records or rows take the place of the training split."""

    report: PartReport
    product: Any = None
    """What the construction made beside training data, for the objective or method that knows its class."""
    files: Sequence[Path] = ()
    """Files that say what was made, kept with the weights: `made/<name>`."""


class Surgery(Protocol):
    """Changes the model in place or returns a new one. Raises `SurgeryError` when a site is missing.

    A surgery that leaves other modules or shapes behind calls `models.surgical.record_surgery` and has a static
    `rebuild(model, plan)`, which changes the structure of a fresh model alike, so that the weights can be loaded again.
    """

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]: ...


class Construct(Protocol):
    """Makes new data of model and data before training, as stage products, so that a sweep builds them once."""

    def build(self, *, context: PartContext) -> Made | None:
        """What it made, which the run's other parts find as `context.made`; None for nothing. The model is as loaded.

        Records and rows that it made *are* the training data; there is no other way into the data module.
        """
        ...


class Selection(Protocol):
    """Says what trains, and changes nothing. Raises `SurgeryError` when a site is missing."""

    def choose(self, model: "PreTrainedModel", *, context: PartContext) -> Chosen: ...


class Tuning(Protocol):
    """Says how the chosen trains: sets `requires_grad`; may put modules into the model (LoRA)."""

    def apply(
        self, model: "PreTrainedModel", chosen: Chosen, *, context: PartContext
    ) -> tuple["PreTrainedModel", PartReport]: ...

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model as plain Hugging Face weights, updates merged away; for export and evaluation elsewhere."""
        ...


@dataclass(kw_only=True)
class Loss:
    """A loss as a sum over what it counts; the trainer divides by the count of the whole optimizer step.

    So 4 micro batches of 2 rows give the gradient of 1 batch of 8, whatever their lengths.
    """

    total: Tensor
    """Scalar: sum over counted targets, in nats."""
    count: int
    """How many of the objective's `unit` this batch holds: target tokens (`num_targets`), rows, or preference pairs."""
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    """Further scalars to record, already averaged."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Further numbers to record, which add up over the micro batches and devices of an optimizer step."""


class Objective(Protocol):
    """(model, batch) -> loss. The batch holds input_ids, labels (-100 = not counted), attention_mask, position_ids.

    One with parameters of its own is a `torch.nn.Module` and makes them in `prepare`; they train and resume with the
    run, and no export holds them.
    """

    unit: Unit

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport | None:
        """Called once before training, the parts applied: build tables, keep a teacher. Nothing to tell: None."""
        ...

    def loss(self, model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Loss: ...


@dataclass(kw_only=True)
class Scores:
    """What a reward says of G responses to each of P prompts. Tables are [P, G], on the CPU."""

    rewards_PG: Tensor
    """float64."""
    is_right_PG: Tensor
    """bool: whether a response is all that was asked for."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What the rewards were made of, float64; the mean over responses is the metric `train/<name>`, or `<name>` where
    that has a group of its own (`train/reward/right`)."""


class Reward(Protocol):
    """Scores responses by their texts. Called in a thread beside the model, so it must not touch torch's own state."""

    @property
    def reads_entropies(self) -> bool:
        """Whether it needs `Rollouts.entropies`."""
        ...

    def state(self) -> dict[str, Any]:
        """What it has learned from earlier responses, for a run that is resumed."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def prepare(self, *, context: PartContext) -> None:
        """Called once before training. Raises `DataError` for records that it cannot judge."""
        ...

    def scores(self, prompts: Sequence[PolicyPrompt], rollouts: Rollouts, *, progress: float) -> Scores:
        """`progress` is the share of the run that is done, in [0, 1], for rewards that change with it."""
        ...
