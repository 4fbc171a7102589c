"""Schemas of RHIO: the phases, the search for retrieval heads, negatives, and the suite that silences heads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded, one_of, sized, stepped
from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig, EngineConfig, JudgeConfig, MethodConfig, Phase, SuiteConfig
from athlos.data.config import NoConstructConfig
from athlos.generation.config import DecoreConfig, NativeConfig, SelfGeneratorConfig
from athlos.judging.config import ScoringJudgeConfig, judge_errors
from athlos.objectives.config import NextTokenConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

DETECTED = "detected"
"""In `decoding.heads`: the heads that `method.decore` finds in the model itself."""
SHARE_OF_HEADS = 0.1
"""Of all heads, where their number is not given."""


class Negatives(StrEnum):
    """Where the worse answers come from: the model without its retrieval heads, or without as many others; the
    reference with a name changed, or with two names of a sentence exchanged; the model without the documents; or the
    run's generator, which is another model."""

    retrieval_mask = "retrieval_mask"
    random_mask = "random_mask"
    entity_swap = "entity_swap"
    relation_perturb = "relation_perturb"
    prompt = "prompt"
    other_model = "other_model"

    @property
    def is_masked(self) -> bool:
        return self in (Negatives.retrieval_mask, Negatives.random_mask)

    @property
    def asks_model(self) -> bool:
        return self.is_masked or self is Negatives.prompt


class Answerer(StrEnum):
    """Whose heads are silenced: those of the plainly tuned model, or of the model before any tuning."""

    sft = "sft"
    base = "base"


@dataclass(kw_only=True)
class DetectConfig:
    mode: str = one_of("generate", "forced", "induction")
    """`generate`: greedy answers that recall the needle. `forced`: the needle is put in the model's mouth. `induction`:
    random tokens are, a second time."""
    score: str = one_of("set", "count")
    """`set`: different tokens copied over different tokens of the needle. `count`: every step, over its length."""
    lengths: list[int] = MISSING
    """Tokens of a prompt."""
    num_depths: int = sized(at_least(1))
    """Places of the needle, evenly from the beginning to the end of the haystack."""
    num_needles: int = sized(at_least(1))
    haystack: str | None = None
    """Folder of text files, for needles that come with Athlos; null = passages of the data, and their evidence."""
    ask: str = MISSING
    """What stands behind the haystack, with `{question}`."""
    max_new_tokens: int = at_least(1)
    """Longest generated answer; a line end ends it before."""

    def errors(self, path: str) -> Iterator[str]:
        if not self.lengths or min(self.lengths, default=0) < 3:
            yield f"{path}.lengths: got {self.lengths}, expected one or more integers >= 3"
        if "{question}" not in self.ask:
            yield f"{path}.ask: got '{self.ask}', expected a text with {{question}} in it"


@dataclass(kw_only=True)
class MaskConfig:
    mode: str = one_of("zero_out", "uniform_causal")
    """`zero_out`: a head gives nothing. `uniform_causal`: it attends to all that is visible alike."""
    phase: str = one_of("both", "decode")
    """Whether heads are silent while the prompt is read as well, or only while it decodes."""
    num_heads: int | None = at_least(0, default=None, why=", or null for a tenth of all")
    shared: str = one_of("refuse", "follow")
    """Heads of layers that share attention: `refuse` raises, `follow` silences them in all of these layers."""

    @property
    def options(self) -> dict[str, Any]:
        """As `Silence` and `answers_without_heads` take them."""
        return {
            "is_uniform": self.mode == "uniform_causal",
            "in_prompt": self.phase == "both",
            "follows_sharing": self.shared == "follow",
        }


def count_of_heads(number: int | None, *, whole: int) -> int:
    """How many heads are silenced of `whole`: the number, or a tenth of them."""
    return max(1, round(SHARE_OF_HEADS * whole)) if number is None else min(number, whole)


@dataclass(kw_only=True)
class SftConfig:
    steps: int = stepped(at_least(0))
    """Optimizer steps of plain tuning on the references, out of `train.max_steps`; all of them without FAT."""


@dataclass(kw_only=True)
class FatConfig:
    enabled: bool = MISSING
    """Whether the model is then tuned on pairs, by the run's objective; without it, plain tuning takes all steps."""


@dataclass(kw_only=True)
class RhioConfig(MethodConfig):
    evaluation_only: ClassVar[tuple[str, ...]] = ("decore",)

    sft: SftConfig = field(default_factory=SftConfig)
    fat: FatConfig = field(default_factory=FatConfig)
    decore: DetectConfig = field(default_factory=DetectConfig)
    """How `decoding=decore decoding.heads=[detected]` finds its heads, in the model that is asked."""

    def phases(self, run: "RunConfig") -> Iterator[Phase]:
        """SFT on references; then FAT on them and on negatives, which its construction makes of the SFT model."""
        steps = self.sft.steps if self.fat.enabled else run.train.max_steps
        if steps:
            yield Phase(name="sft", run=self._plain(run, steps), is_evaluated=self.fat.enabled)
        if self.fat.enabled:
            train = replace(run.train, max_steps=run.train.max_steps - steps)
            yield Phase(name="fat", run=replace(run, method=replace(self, sft=SftConfig(steps=0)), train=train))

    def _plain(self, run: "RunConfig", steps: int) -> "RunConfig":
        """Nothing of heads, negatives and their objective is in it, so a sweep over them tunes once."""
        return replace(
            run,
            method=replace(self, sft=SftConfig(steps=0), fat=FatConfig(enabled=False)),
            construct=NoConstructConfig(_target_="athlos.data.construct.NoConstruct"),
            objective=NextTokenConfig(_target_="athlos.objectives.next_token.NextTokenObjective", chunk_tokens=1024),
            train=replace(run.train, max_steps=steps),
        )


@dataclass(kw_only=True)
class FilterConfig:
    """Negatives that are left out: those that teach style and not faithfulness."""

    max_overlap: float = bounded("[0, 1]")
    """A near copy has a ROUGE-L F with the reference above this."""
    min_distinct: float = bounded("[0, 1]")
    """A degenerate one has a smaller share of different pairs of words."""
    less_faithful: bool = MISSING
    """Whether one goes that is as faithful as its reference, or more."""


@dataclass(kw_only=True)
class NegativesConfig:
    source: Negatives = MISSING
    model: Answerer = MISSING
    instruction: str = ""
    """What `source=prompt` puts in place of the documents."""
    max_new_tokens: int = at_least(1)
    """Longest negative, in tokens."""
    batch_size: int = at_least(1)
    """Negatives under way at once."""
    filters: FilterConfig = field(default_factory=FilterConfig)


@dataclass(kw_only=True)
class RhioConstructConfig(ConstructConfig):
    """A pair of each training question whose worse answer passes the filters."""

    detect: DetectConfig = field(default_factory=DetectConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    judge: JudgeConfig = MISSING
    """Says how faithful both answers are: `judge@construct.judge=lexical`. Its name stands in every pair."""
    num_questions: int = sized(at_least(1))
    """Questions from the front of the training split."""
    min_pairs: int = at_least(0)
    """Fewer pairs than these end the run."""


@dataclass(kw_only=True)
class HeadsSuiteConfig(SuiteConfig):
    """Heads of the model by score, and what is left of its answers when some of them are silent."""

    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord", "LongAnswerRecord")

    detect: DetectConfig = field(default_factory=DetectConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    """Its number of heads is that of `top_share` and `split_overlap`."""
    counts: list[int] = MISSING
    """Numbers of silent heads; 0 is the whole model."""
    num_draws: int = sized(at_least(1))
    """Draws of random heads, as many in each layer."""
    num_needles: int = sized(at_least(0))
    """Prompts of the shortest length whose needle is asked for at each number of silent heads; 0 = none."""
    max_new_tokens: int = at_least(1)
    """Longest answer to a question of the data."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        yield from self.detect.errors(f"{path}.detect")
        if not self.counts or min(self.counts, default=-1) < 0:
            yield f"{path}.counts: got {self.counts}, expected one or more integers >= 0"
        if not isinstance(run.method, RhioConfig):
            yield f"{path}: it asks the model of method=rhio; got another method"
        if not isinstance(run.judge, ScoringJudgeConfig):
            yield f"judge: got none, expected one such as judge=lexical: {path} says how faithful answers are"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    method, steps = config.method, config.num_steps
    assert isinstance(method, RhioConfig)
    yield from method.decore.errors("method.decore")
    if not (steps and method.fat.enabled):
        return
    if method.sft.steps >= steps:
        yield f"method.sft.steps: got {method.sft.steps}, expected less than train.max_steps = {steps}, FAT's rest"
    if not isinstance(config.construct, RhioConstructConfig):
        yield "construct: got another, expected construct=rhio, whose pairs method=rhio trains on"
    if not config.objective.takes_pairs:
        yield "objective: got one without pairs, expected objective=control, or objective=preference (RetMask)"


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    construct = config.construct
    assert isinstance(construct, RhioConstructConfig)
    negatives = construct.negatives
    yield from construct.detect.errors("construct.detect")
    if not isinstance(construct.judge, ScoringJudgeConfig):
        yield "construct.judge: got none, expected one: judge@construct.judge=lexical"
    yield from judge_errors(construct.judge, path="construct.judge")
    if negatives.source.asks_model and not _writes_itself(config.generator, config.engine):
        yield f"construct.negatives.source: {negatives.source} asks the model itself; use generator=self engine=native"
    if negatives.source is Negatives.other_model and isinstance(config.generator, SelfGeneratorConfig):
        yield "generator: got self, but construct.negatives.source=other_model asks another model"


def _writes_itself(generator: EngineConfig, engine: EngineConfig) -> bool:
    return isinstance(generator, SelfGeneratorConfig) and isinstance(engine, NativeConfig)


def is_detecting(config: "RunConfig") -> bool:
    """Whether the heads of `decoding=decore` are found in the model that is asked."""
    return isinstance(config.decoding, DecoreConfig) and config.decoding.heads == [DETECTED]


_FOLDER = "athlos.methods.rhio"

PARTS = [
    Part(
        group="method",
        name="rhio",
        schema=RhioConfig,
        check=_method_errors,
        target=f"{_FOLDER}.module.RhioModule",
        summary="faithful answers, learned beside what the model says without its retrieval heads",
    ),
    Part(
        group="construct",
        name="rhio",
        schema=RhioConstructConfig,
        check=_construct_errors,
        target=f"{_FOLDER}.construct.RhioConstruct",
        summary="pairs of a reference and an unfaithful answer: of the model without some heads, or other sources",
    ),
    Part(
        group="suite",
        name="heads",
        schema=HeadsSuiteConfig,
        target=f"{_FOLDER}.suites.HeadsSuite",
        summary="scores of retrieval heads, and answers without them or without random ones",
    ),
]
