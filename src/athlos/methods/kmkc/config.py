"""Schemas of KMKC: the recipe as phases, what it makes of a profile, its reward, its loss and its suite. No torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from athlos.config.fields import above, any_of, at_least, bounded, stepped
from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig, Phase, RewardConfig
from athlos.evaluation.config import CalibrationConfig
from athlos.generation.http_config import HTTPEngineConfig, LlamaCppConfig
from athlos.objectives.config import NextTokenConfig, PolicyConfig
from athlos.objectives.reward_config import NoRewardConfig
from athlos.training.rollout_config import RolloutMethodConfig, rollout_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SAMPLES = (4, 8, 16, 32)
"""Accepted numbers of answers to a question."""
STRATEGIES = ("expansion", "disambiguation", "foundation")
"""One a region: mastered, confused, missing."""


class Assigner(StrEnum):
    """Who decides the region: the rule, a model that sees the profile, accuracy alone, or chance."""

    rule = "rule"
    llm = "llm"
    acc_only = "acc_only"
    random = "random"


class Augmenter(StrEnum):
    """Who writes: templates with what the data know of a fact, or the run's generator (the model itself, a server)."""

    template = "template"
    model = "model"


class EntropyTerm(StrEnum):
    """Where certainty counts: in the reward, in the loss with a gradient, or nowhere (GRPO)."""

    reward = "reward"
    loss = "loss"
    disabled = "disabled"


class EntropyDirection(StrEnum):
    """Whose certainty counts: that of all answers, of right ones, or of wrong ones."""

    both = "both"
    right_only = "right_only"
    wrong_only = "wrong_only"


class LambdaMode(StrEnum):
    """Whether the weights of certainty hang on the region of a question."""

    by_region = "by_region"
    equal = "equal"


class ConfidenceKind(StrEnum):
    """`seq_prob` exp(-U) of the greedy answer, `majority` kappa of the samples; what the model says of its answer
    when asked: `verbalised` a number, `p_true` the probability of yes against no."""

    seq_prob = "seq_prob"
    majority = "majority"
    verbalised = "verbalised"
    p_true = "p_true"


class Refusal(StrEnum):
    """What refuses: a confidence below the threshold of the held-out items, or the model, told that it may."""

    threshold = "threshold"
    prompt = "prompt"


@dataclass(kw_only=True)
class RegionConfig:
    high: float = bounded("(0, 1]")
    """Accuracy from which a question may be mastered."""
    low: float = bounded("[0, 1)")
    """Accuracy up to which it may be missing; below `high`."""

    def errors(self, path: str) -> Iterator[str]:
        if self.low >= self.high:
            yield f"{path}.low: got {self.low}, expected less than {path}.high = {self.high}"


@dataclass(kw_only=True)
class ProfileConfig:
    num_samples: int = MISSING
    """K: answers to a question."""
    max_new_tokens: int = at_least(1)
    """Longest answer, in tokens."""
    max_answer_tokens: int = at_least(1)
    """An answer of more words is wrong: it lists answers."""

    def errors(self, path: str) -> Iterator[str]:
        if self.num_samples not in SAMPLES:
            yield f"{path}.num_samples: got {self.num_samples}, expected one of {', '.join(map(str, SAMPLES))}"


@dataclass(kw_only=True)
class KmkcConstructConfig(ConstructConfig):
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    assigner: Assigner = MISSING
    num_votes: int = at_least(1)
    """Labels that `assigner=llm` asks for; the commonest counts."""
    augments: bool = MISSING
    """Whether the training data are written anew; without it they stay, and only the regions are made."""
    augmenter: Augmenter = MISSING
    use_regions: bool = MISSING
    """Whether the strategy is that of the region; without it all questions have one: the question as it stands."""
    strategies: list[str] = any_of(*STRATEGIES)
    """Regions whose strategy is not here add nothing."""


@dataclass(kw_only=True)
class CgkeConfig:
    """Know more: tuning on what was written for each region."""

    enabled: bool = MISSING
    steps: int = stepped(at_least(0))
    """Optimizer steps of all rounds together, out of `train.max_steps`, also where it is not enabled: then nobody
    takes them, so that all arms learn from the same number of responses."""
    batch_size: int = at_least(1)
    """Rows a step."""
    lr: float = above(0)
    """Peak learning rate."""
    warmup_ratio: float = bounded("[0, 1]")


@dataclass(kw_only=True)
class CdkcConfig:
    """Know clearer: learning from a reward that counts certainty. The rest of its settings is `train`'s."""

    enabled: bool = MISSING


@dataclass(kw_only=True)
class KmkcConfig(RolloutMethodConfig):
    rounds: int = bounded("[1, 3]")
    """How often the model is profiled and taught; rounds share the steps."""
    cgke: CgkeConfig = field(default_factory=CgkeConfig)
    cdkc: CdkcConfig = field(default_factory=CdkcConfig)

    def phases(self, run: "RunConfig") -> Iterator[Phase]:
        """profile -> assign -> augment -> cgke -> profile -> assign -> cdkc, in every round anew."""
        whole = {"cgke": self.cgke.steps, "cdkc": run.train.max_steps - self.cgke.steps}
        for number in range(self.rounds):
            suffix = f"-{number + 1}" if self.rounds > 1 else ""
            steps = {
                name: total * (number + 1) // self.rounds - total * number // self.rounds
                for name, total in whole.items()
            }
            is_last = number + 1 == self.rounds
            if self.cgke.enabled:
                yield Phase(name=f"cgke{suffix}", run=self._tuning(run, steps["cgke"]), is_evaluated=self.cdkc.enabled)
            if self.cdkc.enabled:
                yield Phase(name=f"cdkc{suffix}", run=self._calibrating(run, steps["cdkc"]), is_evaluated=not is_last)

    def _tuning(self, run: "RunConfig", steps: int) -> "RunConfig":
        """Nothing of the reward and its loss is in it, so a sweep over them tunes once."""
        cgke = self.cgke
        return replace(
            run,
            method=replace(self, _target_=f"{_METHOD}.module.CgkeModule", rounds=1, cdkc=CdkcConfig(enabled=False)),
            objective=NextTokenConfig(_target_="athlos.objectives.next_token.NextTokenObjective", chunk_tokens=1024),
            reward=NoRewardConfig(_target_="athlos.objectives.rewards.NoReward"),
            train=replace(
                run.train,
                max_steps=steps,
                batch_size=cgke.batch_size,
                micro_batch_size=min(cgke.batch_size, run.train.micro_batch_size),
                lr=cgke.lr,
                warmup_ratio=cgke.warmup_ratio,
            ),
        )

    def _calibrating(self, run: "RunConfig", steps: int) -> "RunConfig":
        """The questions as the data have them; of the construction, only what the weights before it know of them."""
        construct = run.construct
        if isinstance(construct, KmkcConstructConfig):
            construct = replace(
                construct, augments=False, augmenter=Augmenter.template, use_regions=True, strategies=list(STRATEGIES)
            )
        cgke = replace(self.cgke, enabled=False, steps=0)
        method = replace(self, rounds=1, cgke=cgke)
        return replace(run, method=method, construct=construct, train=replace(run.train, max_steps=steps))


@dataclass(kw_only=True)
class CalibrationRewardConfig(RewardConfig):
    """1[right] + lambda g + format, g = (1 - h) - 1/2 of a right answer, h - 1/2 of a wrong one, h the entropy of its
    tokens over `H_ref`."""

    entropy_term: EntropyTerm = MISSING
    direction: EntropyDirection = MISSING
    lambda_mode: LambdaMode = MISSING
    lambdas: dict[str, list[float]] = MISSING
    """Region -> weight of g for a right and for a wrong answer; `equal` is for all regions where they do not count."""
    format_weight: float = at_least(0)
    """What a well-formed answer earns."""
    max_answer_tokens: int = at_least(1)
    """An answer of more words is neither right nor well formed."""
    window: int = at_least(1)
    """Newest responses whose entropies make H_ref, their 95th percentile."""

    def errors(self, path: str) -> Iterator[str]:
        wanted = ["confused", "equal", "mastered", "missing"]
        if sorted(self.lambdas) != wanted:
            yield f"{path}.lambdas: got {', '.join(self.lambdas) or 'none'}, expected {', '.join(wanted)}"
        for region, weights in self.lambdas.items():
            if len(weights) != 2 or min(weights, default=-1) < 0:
                yield f"{path}.lambdas.{region}: got {weights}, expected two numbers >= 0: right, wrong"
            elif sum(weights) >= (most := 2 - 2 * self.format_weight):
                # The worst right answer earns 1 - right / 2, the best wrong one wrong / 2 + format_weight.
                yield (
                    f"{path}.lambdas.{region}: got {weights}, expected less than {most:g} in sum: a wrong answer could "
                    "earn more than a right one"
                )


@dataclass(kw_only=True)
class KmkcPolicyConfig(PolicyConfig):
    """GRPO's loss, with the divergence from the weights that the phase starts from."""

    entropy: float = at_least(0)
    """mu: weight of the mean entropy of a response, added for right and taken away for wrong ones, where
    `reward.entropy_term=loss`."""


@dataclass(kw_only=True)
class KmkcSuiteConfig(CalibrationConfig):
    """Questions, each asked greedily and K times."""

    reads_model: ClassVar[bool] = False
    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord",)

    profile: ProfileConfig = field(default_factory=ProfileConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    confidence: ConfidenceKind = MISSING
    refusal: Refusal = MISSING

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        yield from super().errors(path, run=run)
        yield from self.profile.errors(f"{path}.profile")
        yield from self.region.errors(f"{path}.region")
        if self.refusal is Refusal.threshold and not self.held_out:
            yield f"{path}.held_out: got 0, but {path}.refusal=threshold is fitted on held-out items"
        asks_back = self.refusal is Refusal.prompt or self.confidence in (
            ConfidenceKind.verbalised,
            ConfidenceKind.p_true,
        )
        if asks_back and run.prompt_style == "bare":
            yield f"{path}: confidence={self.confidence} and refusal={self.refusal} ask in English, prompt_style=bare"
        told = isinstance(run.engine, (HTTPEngineConfig, LlamaCppConfig))
        if self.confidence is ConfidenceKind.p_true and not told:
            yield f"{path}.confidence: p_true needs an engine that tells the likeliest first tokens, such as llama_cpp"


_METHOD = "athlos.methods.kmkc"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    method = config.method
    assert isinstance(method, KmkcConfig)
    if method.cdkc.enabled:
        yield from rollout_errors(config, slug="kmkc")
    if not config.num_steps:
        return
    if not (method.cgke.enabled or method.cdkc.enabled):
        yield "method: cgke and cdkc are not enabled, so nothing trains; use method=finetune train.max_steps=0"
    for name, steps in (("cgke", method.cgke.steps), ("cdkc", config.train.max_steps - method.cgke.steps)):
        if getattr(method, name).enabled and steps < method.rounds:
            yield (
                f"method.{name}: got {steps} of train.max_steps = {config.train.max_steps} in {method.rounds} rounds, "
                "expected at least one a round"
            )
    if not isinstance(config.construct, KmkcConstructConfig):
        yield "construct: got another, expected construct=kmkc, which profiles the questions"


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    construct = config.construct
    assert isinstance(construct, KmkcConstructConfig)
    yield from construct.profile.errors("construct.profile")
    yield from construct.region.errors("construct.region")
    if construct.augments and construct.use_regions and not construct.strategies:
        yield "construct.strategies: got none, so nothing is written to train on"


def _reward_errors(config: "RunConfig") -> Iterable[str]:
    reward = config.reward
    assert isinstance(reward, CalibrationRewardConfig)
    yield from reward.errors("reward")
    if reward.entropy_term is EntropyTerm.loss and not isinstance(config.objective, KmkcPolicyConfig):
        yield "reward.entropy_term: got loss, which objective=kmkc has a term for"
    if reward.lambda_mode is LambdaMode.by_region and not isinstance(config.construct, KmkcConstructConfig):
        yield "reward.lambda_mode: got by_region, but no construct=kmkc finds regions; use reward.lambda_mode=equal"
    if config.num_steps and not config.method.makes_rollouts:
        yield "reward: this method makes no responses to score; use reward=none"


def _objective_errors(config: "RunConfig") -> Iterable[str]:
    if not config.method.makes_rollouts and config.num_steps:
        yield "objective=kmkc: it needs rollouts, which this method does not make"


PARTS = [
    Part(
        group="method",
        name="kmkc",
        schema=KmkcConfig,
        target=f"{_METHOD}.module.KmkcModule",
        check=_method_errors,
        summary="teaches by what the model knows of a question, then aligns its certainty with being right",
    ),
    Part(
        group="construct",
        name="kmkc",
        schema=KmkcConstructConfig,
        target=f"{_METHOD}.construct.KmkcConstruct",
        check=_construct_errors,
        summary="profile of K answers, regions of knowledge, and training text by region",
    ),
    Part(
        group="reward",
        name="calibration",
        schema=CalibrationRewardConfig,
        target=f"{_METHOD}.rewards.CalibrationReward",
        check=_reward_errors,
        summary="right answers, and low entropy in them, high entropy in wrong ones",
    ),
    Part(
        group="objective",
        name="kmkc",
        schema=KmkcPolicyConfig,
        target=f"{_METHOD}.objective.KmkcPolicyObjective",
        check=_objective_errors,
        summary="GRPO's loss, with the entropy of responses in it if wanted",
    ),
    Part(
        group="suite",
        name="kmkc",
        schema=KmkcSuiteConfig,
        target=f"{_METHOD}.suites.KmkcSuite",
        summary="calibration, self-knowledge and regions of questions asked greedily and K times",
    ),
]
