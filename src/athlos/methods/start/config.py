"""Schemas of START: the recipe as phases, what it makes of queries and samples, and its reward. No torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from athlos.config.fields import above, at_least, bounded, sized, stepped
from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig, JudgeConfig, MethodConfig, Phase, RewardConfig
from athlos.judging.config import ScoringJudgeConfig, judge_errors
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.reward_config import reward_errors

if TYPE_CHECKING:
    from athlos.config.schema import ObjectiveConfig, RunConfig

SAMPLES = (4, 8, 16)
"""Accepted numbers of answers to a query."""
BASE = "base"


class Claims(StrEnum):
    """Who says what the claims of an answer are, and writes it: the generator, its sentences, or the lab's truth."""

    model = "model"
    sentence = "sentence"
    oracle = "oracle"


class StartFrom(StrEnum):
    """Weights that rejection sampling tunes: the run's model, or the newest ones."""

    base = "base"
    previous = "previous"


class Pairs(StrEnum):
    """Failures that stand beside the best sample: those without support, those that leave claims out."""

    attr = "attr"
    comp = "comp"
    both = "both"
    none = "none"

    @property
    def kinds(self) -> list[str]:
        return {Pairs.both: ["attr", "comp"], Pairs.none: []}.get(self, [self.value])


class Combine(StrEnum):
    """How Compre and Robust join behind the gate of Attr: their product or their mean."""

    gated_product = "gated_product"
    gated_mean = "gated_mean"


class Gate(StrEnum):
    """`hard`: nothing for an answer with a sentence that is not supported; `soft`: Attr is a factor."""

    hard = "hard"
    soft = "soft"


class ClaimsOf(StrEnum):
    """Claims that Compre counts: sentences of the documents, supported sentences of all samples, the data's own."""

    docs = "docs"
    pooled = "pooled"
    oracle = "oracle"


class Normalise(StrEnum):
    """Log-probability that Robust compares: the mean over tokens, or the sum, by which short answers are robust."""

    per_token = "per_token"
    per_sequence = "per_sequence"


class Attach(StrEnum):
    """Whose citations an answer has: the model's own, or, afterwards, that of the document most like each sentence."""

    model = "model"
    best_match = "best_match"


@dataclass(kw_only=True)
class CiteConfig:
    max_per_sentence: int = bounded("[1, 5]")
    """Citations of a sentence that count, and documents that a sentence of the warm-up may need."""


@dataclass(kw_only=True)
class WarmupDataConfig:
    """Answers first, then documents that hold their claims."""

    num_queries: int = sized(at_least(0))
    """Queries from the front of the training split; 0 = no warm-up."""
    claims: Claims = MISSING
    claims_per_document: int = at_least(1)
    """Most claims that a document states."""
    num_documents: int = at_least(2)
    """Documents of a prompt, here and where answers are sampled; at least one states no claim."""
    sentences_per_document: int = at_least(1)
    """Sentences of a document that is built and not written: its claims, and neighbours of theirs."""
    join_share: float = bounded("[0, 1]")
    """Share of the answers whose last two sentences become one, so that one may need two documents; `sentence` only."""
    noise: float = bounded("[0, 1]")
    """Share of the built documents that miss one of their claims."""
    verify: bool = MISSING
    """Whether an answer is dropped whose cited documents do not support each sentence, by the reward's judge."""
    max_new_tokens: int = at_least(1)
    """Longest answer and document of the generator, in tokens."""
    in_flight: int = at_least(1)
    """Queries that the generator writes about at once."""


@dataclass(kw_only=True)
class SampleConfig:
    num_queries: int = sized(at_least(1))
    """Queries from the front of the training split."""
    num_samples: int = MISSING
    """N: answers to a query."""
    temperature: float = above(0)
    top_p: float = bounded("(0, 1]")
    max_new_tokens: int = at_least(1)
    """Longest answer, in tokens."""


@dataclass(kw_only=True)
class StartConstructConfig(ConstructConfig):
    """What the phases of `method=start` train on."""

    cite: CiteConfig = field(default_factory=CiteConfig)
    warmup: WarmupDataConfig = field(default_factory=WarmupDataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)


@dataclass(kw_only=True)
class SynthesisConfig(ConstructConfig):
    """The warm-up's construction."""

    cite: CiteConfig
    warmup: WarmupDataConfig


@dataclass(kw_only=True)
class SamplesConfig(ConstructConfig):
    """The construction of an iteration: its best samples or its pairs."""

    cite: CiteConfig
    warmup: WarmupDataConfig
    """`num_queries` 0 adds no warm-up set to the best samples."""
    sample: SampleConfig
    iteration: int
    """Counted from 1."""
    kinds: list[str]
    """Kinds of pairs; empty = the best samples alone, to imitate."""
    min_gap: float
    masked_heads: list[list[int]]


@dataclass(kw_only=True)
class WarmupConfig:
    enabled: bool = MISSING


@dataclass(kw_only=True)
class RftConfig:
    """Tuning on the best sample of each query, and on the warm-up set."""

    enabled: bool = MISSING
    start_from: StartFrom = MISSING
    steps: int = stepped(at_least(0))
    """Optimizer steps of an iteration. The rest is as `train` says."""


@dataclass(kw_only=True)
class PreferenceStageConfig:
    """The run's objective on pairs of samples, from the weights that rejection sampling left, its reference."""

    pairs: Pairs = MISSING
    min_gap: float = bounded("[0, 1]")
    """Least difference in Compre of a pair for comprehensiveness."""
    masked_heads: list[list[int]] = MISSING
    """(layer, head), counted from 0: answers that are written without these join those of which y-_attr is chosen."""
    steps: int = stepped(at_least(0))
    """Optimizer steps of an iteration."""
    batch_size: int = at_least(1)
    """Pairs a step."""
    lr: float = above(0)
    """Peak learning rate."""
    warmup_ratio: float = bounded("[0, 1]")


@dataclass(kw_only=True)
class StartConfig(MethodConfig):
    """Warm-up, then iterations of sampling, imitation of the best and preference; `train` says how the first two are
    tuned, `train.max_steps` how long the warm-up is."""

    evaluation_only: ClassVar[tuple[str, ...]] = ("attach",)

    iterations: int = bounded("[0, 3]")
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    rft: RftConfig = field(default_factory=RftConfig)
    preference: PreferenceStageConfig = field(default_factory=PreferenceStageConfig)
    attach: Attach = MISSING

    def phases(self, run: "RunConfig") -> Iterator[Phase]:
        """warmup; then for each t: sample and imitate the best (rft-t), prefer them to failures (prefer-t).

        Both phases of an iteration are made of the same samples, those of the weights that the one before it left.
        """
        construct = run.construct
        assert isinstance(construct, StartConstructConfig)
        is_warm = self.warmup.enabled and construct.warmup.num_queries > 0
        newest = BASE
        if is_warm:
            newest = "warmup"
            synthesis = SynthesisConfig(
                _target_=f"{_FOLDER}.warmup.SynthesisConstruct",
                cite=construct.cite,
                warmup=construct.warmup,
            )
            yield Phase(
                name=newest,
                run=replace(self._tuning(run, run.train.max_steps), construct=synthesis, reward=_judge_alone(run)),
                is_evaluated=self.iterations > 0,
            )
        for number in range(1, self.iterations + 1):
            written_by = newest
            best = SamplesConfig(
                _target_=f"{_FOLDER}.samples.SamplesConstruct",
                cite=construct.cite,
                warmup=construct.warmup if is_warm else replace(construct.warmup, num_queries=0),
                sample=construct.sample,
                iteration=number,
                kinds=[],
                min_gap=0.0,
                masked_heads=[],
            )
            if self.rft.enabled:
                newest = f"rft-{number}"
                yield Phase(
                    name=newest,
                    run=replace(self._tuning(run, self.rft.steps), construct=best),
                    start=BASE if self.rft.start_from is StartFrom.base else written_by,
                    made_by=written_by,
                    is_evaluated=self.preference.pairs is not Pairs.none or number < self.iterations,
                )
            if self.preference.pairs is not Pairs.none:
                pairs = replace(
                    best,
                    warmup=replace(construct.warmup, num_queries=0),
                    kinds=self.preference.pairs.kinds,
                    min_gap=self.preference.min_gap,
                    masked_heads=self.preference.masked_heads,
                )
                yield Phase(
                    name=f"prefer-{number}",
                    run=replace(self._preferring(run), construct=pairs),
                    start=newest,
                    made_by=written_by,
                    is_evaluated=number < self.iterations,
                )
                newest = f"prefer-{number}"

    def _phase(self) -> "StartConfig":
        """The method less what the phases are made from, so that sweeps over later phases share the first ones."""
        return replace(
            self,
            iterations=0,
            warmup=WarmupConfig(enabled=False),
            rft=RftConfig(enabled=False, start_from=StartFrom.base, steps=0),
            preference=PreferenceStageConfig(
                pairs=Pairs.none, min_gap=0.0, masked_heads=[], steps=0, batch_size=1, lr=1.0, warmup_ratio=0.0
            ),
        )

    def _tuning(self, run: "RunConfig", steps: int) -> "RunConfig":
        return replace(run, method=self._phase(), objective=_next_token(), train=replace(run.train, max_steps=steps))

    def _preferring(self, run: "RunConfig") -> "RunConfig":
        stage = self.preference
        train = replace(
            run.train,
            max_steps=stage.steps,
            batch_size=stage.batch_size,
            micro_batch_size=min(stage.batch_size, run.train.micro_batch_size),
            lr=stage.lr,
            warmup_ratio=stage.warmup_ratio,
        )
        return replace(run, method=self._phase(), train=train)


@dataclass(kw_only=True)
class StartRewardConfig(RewardConfig):
    """1[Attr = 1] * Compre * Robust of each sample, by a judge of its own."""

    judge: JudgeConfig = MISSING
    """A choice of the group `judge`, another than the run's: `judge@reward.judge=nli`."""
    robust: bool = MISSING
    """Whether the likelihood without the uncited documents counts."""
    normalise: Normalise = MISSING
    combine: Combine = MISSING
    gate: Gate = MISSING
    claims: ClaimsOf = MISSING

    def errors(self, path: str) -> Iterator[str]:
        if not isinstance(self.judge, ScoringJudgeConfig):
            yield f"{path}.judge: got none, expected one: judge@{path}.judge=<judge>"
        yield from judge_errors(self.judge, path=f"{path}.judge")


def _next_token() -> "ObjectiveConfig":
    return NextTokenConfig(_target_="athlos.objectives.next_token.NextTokenObjective", chunk_tokens=1024)


def _judge_alone(run: "RunConfig") -> "StartRewardConfig":
    """The reward as the warm-up reads it: its judge, whatever else it says."""
    assert isinstance(run.reward, StartRewardConfig)
    return replace(
        run.reward,
        robust=False,
        normalise=Normalise.per_token,
        combine=Combine.gated_product,
        gate=Gate.hard,
        claims=ClaimsOf.docs,
    )


_FOLDER = "athlos.methods.start"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    method, construct = config.method, config.construct
    assert isinstance(method, StartConfig)
    if not config.num_steps:
        return
    if not isinstance(construct, StartConstructConfig):
        yield "construct: got another, expected construct=start, which makes what method=start trains on"
        return
    if not isinstance(config.reward, StartRewardConfig):
        yield "reward: got another, expected reward=start, by which method=start chooses samples"
    prefers, imitates = method.preference.pairs is not Pairs.none, method.rft.enabled
    has_warmup = method.warmup.enabled and construct.warmup.num_queries > 0
    if not has_warmup and (method.iterations == 0 or not (prefers or imitates)):
        yield "method: no warm-up and no iteration that trains; use train.max_steps=0 to ask the model as it is"
    if method.iterations and not (prefers or imitates):
        yield "method.iterations: nothing trains in them without method.rft.enabled and method.preference.pairs"
    if method.iterations and prefers and not config.objective.takes_pairs:
        yield "objective: got one without pairs, expected objective=preference, or method.preference.pairs=none"
    for name, steps in (("rft", method.rft.steps), ("preference", method.preference.steps)):
        if method.iterations and not steps and {"rft": imitates, "preference": prefers}[name]:
            yield f"method.{name}.steps: got 0, expected an integer >= 1"
    for head in method.preference.masked_heads:
        if len(head) != 2 or min(head) < 0:
            yield f"method.preference.masked_heads: got {head}, expected pairs of layer and head, counted from 0"


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    construct = config.construct
    assert isinstance(construct, StartConstructConfig)
    warmup = construct.warmup
    if construct.sample.num_samples not in SAMPLES:
        yield f"construct.sample.num_samples: got {construct.sample.num_samples}, expected one of 4, 8, 16"
    if not isinstance(config.method, StartConfig):
        yield "construct: got start, expected method=start beside it, whose phases train on it"
    data = config.data
    if data.train_split == data.test_split:
        yield f"data.train_split: got '{data.train_split}', which the test asks too, expected another for the queries"
    if warmup.join_share and warmup.claims is not Claims.sentence:
        yield f"construct.warmup.join_share: got {warmup.join_share}, expected 0 with claims={warmup.claims}"
    if warmup.noise and warmup.claims is Claims.model:
        yield f"construct.warmup.noise: got {warmup.noise}, expected 0 with claims=model, whose documents are written"
    if warmup.sentences_per_document < warmup.claims_per_document:
        yield (
            f"construct.warmup.sentences_per_document: got {warmup.sentences_per_document}, expected at least "
            f"claims_per_document = {warmup.claims_per_document}"
        )


def _reward_errors(config: "RunConfig") -> Iterable[str]:
    yield from reward_errors(config)
    if not isinstance(config.method, StartConfig):
        yield "reward: got start, expected method=start, whose samples it scores"


PARTS = [
    Part(
        group="method",
        name="start",
        schema=StartConfig,
        target=f"{_FOLDER}.module.StartModule",
        check=_method_errors,
        summary="teaches itself to cite: a synthetic warm-up, then its own best samples and pairs of them",
    ),
    Part(
        group="construct",
        name="start",
        schema=StartConstructConfig,
        target=f"{_FOLDER}.warmup.SynthesisConstruct",
        check=_construct_errors,
        summary="cited answers written backwards, samples with rewards, and pairs of samples",
    ),
    Part(
        group="reward",
        name="start",
        schema=StartRewardConfig,
        target=f"{_FOLDER}.rewards.StartReward",
        check=_reward_errors,
        summary="support of each sentence, coverage of the claims, and no need of documents that are not cited",
    ),
]
