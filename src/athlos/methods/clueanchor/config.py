"""Schemas of ClueAnchor: exploration and selection of pairs, the method that trains on them, and its evaluation."""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from athlos.config.fields import any_of, at_least, bounded, one_of, sized
from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig, EngineConfig, MethodConfig, SuiteConfig
from athlos.generation.config import SelfGeneratorConfig
from athlos.training.pipeline_config import PipelineMethodConfig, pipeline_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

PATHS = ("internal", "external", "clue")
"""The ways to reason about a question, in the order that breaks ties."""
STYLES = ("clueanchor", "clueanchor_bare")
RESERVE = 64
"""Tokens that the official code keeps free beside the passages. Source: ClueAnchor's code."""


class Truncation(StrEnum):
    """How passages that are too long are shortened: whole ones leave from the tail, or the joined text is cut."""

    passage_aware = "passage_aware"
    token_cut = "token_cut"


class GoldPassages(StrEnum):
    """Whether the passages that hold the answer stand in the prompt."""

    present = "present"
    absent = "absent"


class ClueSource(StrEnum):
    """What the clue is extracted with: the gold answer, the question alone, or no clue at all."""

    gold = "gold"
    self = "self"
    none = "none"


class Selector(StrEnum):
    """How a pair is chosen: the official table, by reward, a right one and a wrong one at random, or RAG-DDR's way."""

    code_table = "code_table"
    reward_rank = "reward_rank"
    random = "random"
    ddr = "ddr"


@dataclass(kw_only=True)
class PromptConfig:
    top_n: int = at_least(1)
    """Passages of a prompt, in the order of their ranks."""
    truncate: Truncation = MISSING
    max_tokens: int = at_least(1)
    """Most tokens that passages and question take, by the model's tokenizer; by words where no model is here."""


@dataclass(kw_only=True)
class ReplyConfig:
    """How replies are made in exploration, training and test alike; a server that explores sets its tags itself."""

    prime_think: bool = MISSING
    """Whether a reply starts with the opening tag."""
    force_tags: bool = MISSING
    """Whether the tags around thought and answer are set, whatever the model writes."""
    think_tokens: int = at_least(1)
    """Most tokens of a thought with `force_tags`."""
    answer_tokens: int = at_least(1)
    """Most tokens of an answer with `force_tags`."""


@dataclass(kw_only=True)
class NoiseConfig:
    share: float = bounded("[0, 1]")
    """Share of the passages of a prompt that are distractors; 0 takes them as they come, 1 leaves no other."""
    gold: GoldPassages = MISSING


@dataclass(kw_only=True)
class ClueAnchorConfig(MethodConfig):
    """The method: pairs of its construct, a preference objective, and replies in tags."""

    version: ClassVar[int] = 1

    prompt: PromptConfig = field(default_factory=PromptConfig)
    reply: ReplyConfig = field(default_factory=ReplyConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Of the prompts that are explored and trained on; the suite brings its own levels."""


@dataclass(kw_only=True)
class PathsConfig(PipelineMethodConfig):
    """The exploration alone, as a pipeline: each question is answered on every path, and nothing is trained."""

    prompt: PromptConfig = field(default_factory=PromptConfig)
    reply: ReplyConfig = field(default_factory=ReplyConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)


@dataclass(kw_only=True)
class ExploreConfig:
    paths: list[str] = any_of(*PATHS)
    clue_source: ClueSource = MISSING
    verify_gate: bool = MISSING
    """Whether a clue path is chosen only where the clue alone was enough to answer."""
    num_draws: int = at_least(1)
    """Replies on each path; the first right one stands for it."""
    temperature: float = at_least(0)
    """0 = the most probable reply."""
    top_p: float = bounded("(0, 1]")
    presence_penalty: float = bounded("[-2, 2]")
    max_new_tokens: int = at_least(1)
    """Longest reply without `force_tags`."""
    clue_tokens: int = at_least(1)
    """Longest clue, and longest reply that verifies one."""
    in_flight: int = at_least(1)
    """Questions under way at once: their calls share a batch, and a stopped run loses at most these."""
    internal_requires_known: bool = MISSING
    """Whether the internal path is taken only where `regions` does not call the question missing."""
    regions: str | None = None
    """File of what the model knows of each question (`data/regions.py`)."""


@dataclass(kw_only=True)
class SelectConfig:
    selector: Selector = MISSING
    require_wrong_rejected: bool = MISSING
    """Whether a pair whose rejected answer is right too is dropped."""
    min_gap: float = at_least(0)
    """Least difference of the rewards of a pair, with `reward_rank`."""
    min_pairs: int = at_least(0)
    """Fewer pairs than these end the run."""


@dataclass(kw_only=True)
class ClueAnchorConstructConfig(ConstructConfig):
    """Explores the training questions and keeps a pair of replies of each that has one."""

    explore: ExploreConfig = field(default_factory=ExploreConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    num_questions: int = sized(at_least(1))
    """Questions explored, from the front of the training split."""


@dataclass(kw_only=True)
class LessonsConfig(ConstructConfig):
    """What the base model of the lab study is trained on: replies of every kind of prompt, written from the truth."""

    habit: float = bounded("[0, 1]")
    """Share of the questions whose answer is stored that are answered from memory, whatever the documents say."""
    noise_shares: list[float] = MISSING
    """Shares of distractors, one drawn for each lesson; 1 leaves the answer out and asks what is stored."""
    weights: dict[str, float] = MISSING
    """Kind of lesson (internal, external, clue, extract, verify) -> its weight."""


@dataclass(kw_only=True)
class ClueAnchorSuiteConfig(SuiteConfig):
    """Questions over passages at several shares of distractors, and without the passages that hold the answer."""

    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord",)

    metric: str = one_of("cover_em", "clue_acc", "em", "f1", "rouge_l")
    """What `acc` stands for."""
    noise_shares: list[float] = MISSING
    """Shares of distractors, one pass over the questions each: `acc@noise50` for 0.5."""
    gold_absent: bool = MISSING
    """Whether to ask once more with distractors alone the questions that can be answered without passages."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if not self.noise_shares or not all(0 <= share <= 1 for share in self.noise_shares):
            yield f"{path}.noise_shares: got {self.noise_shares}, expected one or more numbers in [0, 1]"
        if self.metric == "rouge_l" and importlib.util.find_spec("rouge_score") is None:
            yield f"{path}.metric: got rouge_l, which needs a package: pip install rouge-score, or another metric"
        if run.eval.base:
            yield "eval.base: got true, expected false: method=clueanchor train.max_steps=0 asks the untouched model"
        if not isinstance(run.method, ClueAnchorConfig):
            yield f"{path}: it asks by the prompts of method=clueanchor; got another method"


@dataclass(kw_only=True)
class PathsSuiteConfig(SuiteConfig):
    """What the exploration's own answers are worth, by path."""

    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord",)

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if not isinstance(run.method, PathsConfig):
            yield f"{path}: it reads explorations, which method=clueanchor_paths makes; got another method"


def _style_errors(config: "RunConfig") -> Iterator[str]:
    if config.prompt_style not in STYLES:
        yield f"prompt_style: got '{config.prompt_style}', expected one of {', '.join(STYLES)}"
    if config.eval.shots:
        yield f"eval.shots: got {config.eval.shots}, expected 0: the prompts have no worked examples"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    yield from _style_errors(config)
    assert isinstance(config.method, ClueAnchorConfig)
    if not config.num_steps:
        return
    if not isinstance(config.construct, ClueAnchorConstructConfig | LessonsConfig):
        yield "construct: got another, expected construct=clueanchor, whose pairs method=clueanchor trains on"
    if isinstance(config.construct, ClueAnchorConstructConfig) and not config.objective.takes_pairs:
        yield "objective: got one without pairs, expected objective=preference, which trains on construct=clueanchor"


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    construct, method = config.construct, config.method
    assert isinstance(construct, ClueAnchorConstructConfig)
    explore, selector = construct.explore, construct.select.selector
    if not isinstance(method, ClueAnchorConfig | PathsConfig):
        yield "construct: got clueanchor, expected method=clueanchor beside it, whose prompts it explores"
        return
    if len(set(explore.paths)) < 2:
        yield f"construct.explore.paths: got {explore.paths}, expected at least two of {', '.join(PATHS)}"
    if "clue" in explore.paths and explore.clue_source is ClueSource.none:
        yield "construct.explore.clue_source: got none, but construct.explore.paths has clue; choose gold or self"
    if "clue" not in explore.paths and explore.clue_source is not ClueSource.none:
        yield (
            f"construct.explore.clue_source: got {explore.clue_source}, expected none: construct.explore.paths has no "
            "clue"
        )
    if selector is Selector.ddr and set(explore.paths) != {"internal", "external"}:
        yield f"construct.explore.paths: got {explore.paths}, expected [internal, external] with selector=ddr"
    if explore.num_draws > 1 and explore.temperature == 0:
        yield f"construct.explore.num_draws: got {explore.num_draws}, expected 1 at temperature 0: all would be alike"
    if explore.internal_requires_known != (explore.regions is not None):
        yield (
            f"construct.explore.regions: got {explore.regions} with internal_requires_known="
            f"{str(explore.internal_requires_known).lower()}; a file goes with true, null with false"
        )
    reply = method.reply
    is_only_exploring = isinstance(method, PathsConfig)
    is_out_of_reach = _is_served(config.generator, config.engine) if is_only_exploring else config.engine.is_remote
    if (reply.prime_think or reply.force_tags) and is_out_of_reach:
        yield "method.reply: prime_think and force_tags need a model that computes here; set both to false"


def explored_reply(config: "RunConfig") -> ReplyConfig:
    """How the replies of an exploration are made: as all others, but a server's tags are its own."""
    assert isinstance(config.method, ClueAnchorConfig | PathsConfig)
    if not _is_served(config.generator, config.engine):
        return config.method.reply
    return replace(config.method.reply, prime_think=False, force_tags=False)


def _is_served(generator: EngineConfig, engine: EngineConfig) -> bool:
    return engine.is_remote if isinstance(generator, SelfGeneratorConfig) else generator.is_remote


def _lessons_errors(config: "RunConfig") -> Iterable[str]:
    lessons = config.construct
    assert isinstance(lessons, LessonsConfig)
    yield from _style_errors(config)
    known = (*PATHS, "extract", "verify")
    if not lessons.weights or not set(lessons.weights) <= set(known):
        yield f"construct.weights: got {sorted(lessons.weights)}, expected one or more of {', '.join(known)}"
    if not lessons.noise_shares or not all(0 <= share <= 1 for share in lessons.noise_shares):
        yield f"construct.noise_shares: got {lessons.noise_shares}, expected one or more numbers in [0, 1]"
    if not isinstance(config.method, ClueAnchorConfig):
        yield "construct: got clueanchor_lessons, expected method=clueanchor beside it, whose prompts it writes"


def _paths_errors(config: "RunConfig") -> Iterable[str]:
    yield from pipeline_errors(config)
    yield from _style_errors(config)
    if not isinstance(config.construct, ClueAnchorConstructConfig):
        yield "construct: got another, expected construct=clueanchor, whose exploration method=clueanchor_paths runs"


_FOLDER = "athlos.methods.clueanchor"

PARTS = [
    Part(
        group="method",
        name="clueanchor",
        schema=ClueAnchorConfig,
        check=_method_errors,
        target=f"{_FOLDER}.module.ClueAnchorModule",
        summary="prefers, of three ways to reason, the best one, so that evidence is found without a clue",
    ),
    Part(
        group="method",
        name="clueanchor_paths",
        schema=PathsConfig,
        check=_paths_errors,
        target=f"{_FOLDER}.module.PathsModule",
        summary="the exploration of clueanchor alone: the generator's answers by path",
    ),
    Part(
        group="construct",
        name="clueanchor",
        schema=ClueAnchorConstructConfig,
        check=_construct_errors,
        target=f"{_FOLDER}.construct.ClueAnchorConstruct",
        summary="explores internal, external and clue-anchored reasoning and keeps pairs of replies",
    ),
    Part(
        group="construct",
        name="clueanchor_lessons",
        schema=LessonsConfig,
        check=_lessons_errors,
        target=f"{_FOLDER}.construct.LessonsConstruct",
        summary="replies of every kind of prompt, for the base model of clueanchor's lab study",
    ),
    Part(
        group="suite",
        name="clueanchor",
        schema=ClueAnchorSuiteConfig,
        target=f"{_FOLDER}.suites.ClueAnchorSuite",
        summary="questions over passages by noise, by evidence and without the gold passages",
    ),
    Part(
        group="suite",
        name="clueanchor_paths",
        schema=PathsSuiteConfig,
        target=f"{_FOLDER}.suites.PathsSuite",
        summary="an exploration's answers by path: internal, external, clue, and the one that the table selects",
    ),
]
