"""Schemas of the evaluation suites, one class a suite. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from athlos.config.fields import at_least, bounded, one_of
from athlos.config.registry import Part, registry
from athlos.config.renamed import DETECTORS
from athlos.config.schema import LANGUAGE_DETECTORS, MISSING, RunningTextConfig, SuiteConfig
from athlos.judging.answers import Premise
from athlos.judging.config import ScoringJudgeConfig
from athlos.text.citations import SPLITTERS, Mode

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class PerplexityConfig(RunningTextConfig):
    """Perplexity by a sliding window."""

    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("TextRecord",)


@dataclass(kw_only=True)
class CompletionsConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True

    max_length: int = at_least(3)
    """Longest row, prompt and completion, in tokens; a longer prompt loses its front."""


@dataclass(kw_only=True)
class StreamsConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("TextRecord",)


@dataclass(kw_only=True)
class MarginConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("MathRecord",)


@dataclass(kw_only=True)
class PreferencesConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True


@dataclass(kw_only=True)
class ThroughputConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True


@dataclass(kw_only=True)
class PictureChoicesConfig(SuiteConfig):
    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("ChoiceRecord",)

    circular: bool = False
    """Ask each item once a rotation of its options; all answers must be right."""


@dataclass(kw_only=True)
class TranslationConfig(SuiteConfig):
    """Segments are asked one by one."""

    asks: ClassVar[tuple[str, ...]] = ("ParallelRecord",)


@dataclass(kw_only=True)
class QuestionsConfig(SuiteConfig):
    """Questions are asked one by one."""

    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord",)


@dataclass(kw_only=True)
class JudgedConfig(SuiteConfig):
    """Questions are asked one by one, and the run's judge scores the answers."""

    asks: ClassVar[tuple[str, ...]] = ("QuestionRecord",)

    premise: Premise = MISSING
    """What must support an answer: one of the gold answers, or the passages."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if not isinstance(run.judge, ScoringJudgeConfig):
            yield f"judge: got none, expected one, such as judge=exact: {path} has it judge the answers"


@dataclass(kw_only=True)
class GroundedConfig(SuiteConfig):
    """Questions over documents are asked one by one, and the run's judge looks at each sentence of the answers."""

    asks: ClassVar[tuple[str, ...]] = ("LongAnswerRecord", "QuestionRecord")

    mode: Mode = MISSING
    """How citations are read: `strict`, or `parity` with ALCE's program."""
    splitter: str = one_of(*SPLITTERS)
    """What cuts an answer into sentences: `sentences` by the marks of each script, `punkt` as ALCE's program does, or
    `commas` into the items of a list, each judged behind the question (QAMPARI)."""
    by: str = ""
    """Key of `meta` whose values are the groups that means are over, such as `source` of data=groundbench; empty = the
    languages."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if not isinstance(run.judge, ScoringJudgeConfig):
            yield f"judge: got none, expected one, such as judge=lexical: {path} has it judge each sentence"
        if self.splitter == "punkt" and find_spec("punkt") is None:
            yield f"{path}.splitter: got punkt, which needs a package: pip install 'athlos[citations]'; or sentences"


@dataclass(kw_only=True)
class PremisesConfig(SuiteConfig):
    """Probes of the lab world are asked one by one."""


@dataclass(kw_only=True)
class MathConfig(SuiteConfig):
    asks: ClassVar[tuple[str, ...]] = ("MathRecord",)

    samples: int = at_least(1, default=1)
    """Answers to each item; an item counts by their mean, and intervals resample items."""
    language_groups: dict[str, list[str]] = field(default_factory=dict)
    """Groups of languages by name, each with metrics of its own: `acc/<group>` and the like."""
    language_detector: str = one_of(*LANGUAGE_DETECTORS, default="py3langid", renamed=DETECTORS)
    """Tells the language of answers."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if self.samples > 1 and type(run.decoding) is registry().get("decoding", "greedy").schema:
            yield f"{path}.samples: got {self.samples}, but decoding=greedy gives one answer; use decoding=sampling"
        for group, languages in self.language_groups.items():
            if not languages:
                yield f"{path}.language_groups.{group}: got no languages, expected at least one"


@dataclass(kw_only=True)
class CalibrationConfig(MathConfig):
    """Word problems are asked as the suite `math` asks them, where the data have some."""

    reads_model: ClassVar[bool] = True
    asks: ClassVar[tuple[str, ...]] = ("MathRecord", "QuestionRecord")

    num_bins: int = at_least(1)
    """Bins of calibration errors and of the reliability diagram."""
    held_out: float = bounded("[0, 1)", default=0.0)
    """Share of the items, whole facts or problems, that temperature scaling is fitted on and nothing is measured on; 0
    = no scaling."""
    by: str = ""
    """Key of `meta` whose values are groups with an accuracy and a confidence of their own; empty = no groups."""


_SUITES = "athlos.evaluation.suites"

PARTS = [
    Part(
        group="suite",
        name="perplexity",
        schema=PerplexityConfig,
        target=f"{_SUITES}.perplexity.PerplexitySuite",
        summary="perplexity and bits per byte of running text, by a sliding window",
    ),
    Part(
        group="suite",
        name="completions",
        schema=CompletionsConfig,
        target=f"{_SUITES}.completions.CompletionsSuite",
        summary="completions after their prompts, token by token: perplexity, accuracy, calibration, entropy",
    ),
    Part(
        group="suite",
        name="streams",
        schema=StreamsConfig,
        target=f"{_SUITES}.streams.StreamsSuite",
        summary="streams of a known source: nats a token above the source's own entropy",
    ),
    Part(
        group="suite",
        name="math",
        schema=MathConfig,
        target=f"{_SUITES}.math.MathSuite",
        summary="word problems: right answers, and working in the language of the question",
    ),
    Part(
        group="suite",
        name="margin",
        schema=MarginConfig,
        target=f"{_SUITES}.margin.MarginSuite",
        summary="word problems: is the right number likelier than others of its size?",
    ),
    Part(
        group="suite",
        name="qa",
        schema=QuestionsConfig,
        target=f"{_SUITES}.qa.QuestionSuite",
        summary="questions with short answers: exact match, F1, containment",
    ),
    Part(
        group="suite",
        name="judged",
        schema=JudgedConfig,
        target=f"{_SUITES}.judged.JudgedSuite",
        summary="questions whose answers a judge scores",
    ),
    Part(
        group="suite",
        name="grounded",
        schema=GroundedConfig,
        target=f"{_SUITES}.grounded.GroundedSuite",
        summary="answers over documents: is each sentence supported, and by what it cites?",
    ),
    Part(
        group="suite",
        name="calibration",
        schema=CalibrationConfig,
        target=f"{_SUITES}.calibration.CalibrationSuite",
        summary="does the model's confidence in an answer tell whether it is right?",
    ),
    Part(
        group="suite",
        name="translation",
        schema=TranslationConfig,
        target=f"{_SUITES}.translation.TranslationSuite",
        summary="translation at corpus level: BLEU, chrF, TER, length",
    ),
    Part(
        group="suite",
        name="premises",
        schema=PremisesConfig,
        target=f"{_SUITES}.premises.PremisesSuite",
        summary="probes of the lab world: do its dials work?",
    ),
    Part(
        group="suite",
        name="picture_choices",
        schema=PictureChoicesConfig,
        target=f"{_SUITES}.picture_choices.PictureChoiceSuite",
        summary="multiple-choice questions about pictures: by likelihood and by letter",
    ),
    Part(
        group="suite",
        name="preferences",
        schema=PreferencesConfig,
        target=f"{_SUITES}.preferences.PreferencesSuite",
        summary="preference pairs: is the better answer likelier than the worse one?",
    ),
    Part(
        group="suite",
        name="throughput",
        schema=ThroughputConfig,
        target=f"{_SUITES}.throughput.ThroughputSuite",
        summary="tokens a second, reading and writing, on synthetic prompts",
    ),
]
