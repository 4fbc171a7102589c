"""Schema of DaPT. Every switch is an ablation; what the paper does not state is a choice of this project."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded, one_of
from athlos.config.registry import Part
from athlos.config.schema import DataConfig, SuiteConfig
from athlos.evaluation.config import QuestionsConfig
from athlos.retrieval.config import ContextsCorpusConfig, NoIndexConfig
from athlos.training.pipeline_config import PipelineMethodConfig, pipeline_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

AUTO = "auto"
"""`merge.tau`: between the mean scores of nodes that ask the same and of others, on the validation split."""


class Path(StrEnum):
    """Which decompositions are made."""

    dual = "dual"
    src = "src"
    en = "en"


# Made by a call because `none` reads better in YAML than a null.
MergeKind = StrEnum("MergeKind", ["align", "llm", "union", "prefer_src", "prefer_en", "none"])
"""How two graphs become one; `none` solves both and puts the answers to the vote."""


class Retrieval(StrEnum):
    """In which languages a node searches. The passages that are read are `k` in each case."""

    bilingual = "bilingual"
    src = "src"
    en = "en"


class Fuse(StrEnum):
    """How two ranked lists become one; `dependency` is `rerank` that also counts the words of the parents' answers."""

    rrf = "rrf"
    interleave = "interleave"
    score = "score"
    rerank = "rerank"
    dependency = "dependency"


class Solve(StrEnum):
    """`all_at_once` searches for every node before anything is known, and reads once."""

    sequential = "sequential"
    all_at_once = "all_at_once"


class Final(StrEnum):
    """The answer is that of the sink, or is composed of the solved chain."""

    sink = "sink"
    synth = "synth"


class Memory(StrEnum):
    """Which answer of a node its children are filled with: that of each wording's language, or one for both."""

    both = "both"
    src = "src"
    en = "en"


@dataclass(kw_only=True)
class MergeConfig:
    kind: MergeKind = MISSING
    tau: float | str = MISSING
    """Least score of a pair; `auto` fits it on questions of the validation split."""
    tau_questions: int = at_least(1)
    """Questions that `tau=auto` is fitted on."""
    alpha: float = at_least(0)
    """What equal depth adds to a score."""
    beta: float = at_least(0)
    """What matched parents add to a score."""
    keep_unmatched: bool = MISSING
    """Keep nodes that only one graph has where they lead to the sink."""
    encoder: str = MISSING
    """Multilingual sentence encoder that compares nodes, as `index.encoder` names one; empty = nodes are translated
    into English and compared by their character trigrams."""


@dataclass(kw_only=True)
class NoiseConfig:
    """Damage of the components that know the truth: a node is left out, or a third of its words are lost."""

    translate: float = bounded("[0, 1]")
    """Share of words that the translator loses; with a decomposer that knows the truth, of damaged English nodes."""
    decompose_s: float = bounded("[0, 1]")
    """Share of damaged nodes of the source graph."""
    decompose_en: float = bounded("[0, 1]")
    """Share of damaged nodes of the English graph."""
    correlated: bool = MISSING
    """Damage the same nodes in both graphs."""


@dataclass(kw_only=True)
class DaptConfig(PipelineMethodConfig):
    path: Path = MISSING
    pivot: str = MISSING
    """Language that plays the part of English: `en`, in the lab its first one."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    retrieval: Retrieval = MISSING
    k: int = at_least(1)
    """Passages that a node is read with, whatever it searches."""
    fuse: Fuse = MISSING
    solve: Solve = MISSING
    final: Final = MISSING
    answer_memory: Memory = MISSING
    translator: str = one_of("model", "oracle", "file")
    """`model` asks the generator; `oracle` reads the parallel question of the data, with `noise.translate`; `file`
    reads what another run translated."""
    translations: str = ""
    """For `translator=file`: JSON lines with `id`, that of a question, and `prediction`, it in English; such as the
    predictions of a run of method=tm. A row with `source` translates that text, so that nodes can be looked up too."""
    decomposer: str = one_of("model", "gold")
    """`model` asks the generator; `gold` reads the steps of the data, with `noise.decompose_*`."""
    reader: str = one_of("model", "exact", "gold")
    """`model` asks the generator; `exact` reads the sentences of a world that the data knows; `gold` answers a
    sub-question of the data that is asked in its own words."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    max_nodes: int = bounded("[1, 12]")
    num_demonstrations: int = bounded("[0, 3]")
    """Worked examples in the prompt of the decomposer: a bridge, a comparison, a chain of three."""
    max_new_tokens: int = at_least(1)
    """Longest reply of the model, in tokens; answers of a reader are cut at a quarter of it."""


@dataclass(kw_only=True)
class TranslateConfig(PipelineMethodConfig):
    """The benchmark builder."""

    target: str = MISSING
    """Code of the language that the data's English questions are translated into."""
    max_new_tokens: int = at_least(1)
    """Longest translation of a question, in tokens."""


@dataclass(kw_only=True)
class TranslatedSuiteConfig(SuiteConfig):
    """Writes the translated questions, and says how many were kept."""


@dataclass(kw_only=True)
class ChainSuiteConfig(QuestionsConfig):
    norm: str = one_of("", "squad", "mkqa", "mkqa_unicode", default="")
    """Normaliser of answers in all languages; empty = `squad` for English, else `mkqa_unicode`."""


@dataclass(kw_only=True)
class RetrievalStudyConfig(SuiteConfig):
    """Base of the studies of retrieval alone: nothing is asked, the run's index is searched."""

    ks: list[int] = MISSING
    """Numbers of passages, each >= 1."""
    noise: list[float] = MISSING
    """Shares of damage, each in [0, 1], ascending; 0 = none."""
    allow_unequal_k: bool = False
    """Compare arms that read unlike numbers of passages."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        if not self.ks or min(self.ks) < 1:
            yield f"{path}.ks: got {self.ks}, expected numbers >= 1"
        if not self.noise or sorted(self.noise) != self.noise or self.noise[0] < 0 or self.noise[-1] > 1:
            yield f"{path}.noise: got {self.noise}, expected ascending numbers in [0, 1]"
        if not isinstance(run.corpus, ContextsCorpusConfig):
            yield f"{path}: searches the passages of the data; choose corpus=contexts"
        if isinstance(run.index, NoIndexConfig):
            yield f"{path}: got index=none, expected one, such as index=lexical"


@dataclass(kw_only=True)
class StepRecallConfig(RetrievalStudyConfig):
    pools: dict[str, DataConfig] = field(default_factory=dict)
    """Further data sets by the ending of their metrics, each with an index of its own."""


@dataclass(kw_only=True)
class BilingualRecallConfig(RetrievalStudyConfig):
    """Parallel questions: indexes of either language, and both."""


def _errors(config: "RunConfig") -> Iterable[str]:
    yield from pipeline_errors(config)
    method = config.method
    assert isinstance(method, DaptConfig)
    merge, tau = method.merge, method.merge.tau
    if isinstance(tau, str) and tau != AUTO:
        yield f"method.merge.tau: got '{tau}', expected a number or auto"
    if tau == AUTO and config.data.val_split is None:
        yield f"method.merge.tau: got auto, which needs a validation split, and data={config.data.name} names none"
    if bool(method.translations) != (method.translator == "file"):
        yield (
            f"method.translations: got '{method.translations}' with method.translator={method.translator}; a file and "
            "translator=file belong together"
        )
    if method.final is Final.synth and method.reader != "model":
        yield f"method.final: got synth, which a model composes, but method.reader={method.reader}"
    if method.solve is Solve.all_at_once and method.reader != "model":
        yield f"method.solve: got all_at_once, whose one reading takes a model, but method.reader={method.reader}"
    if merge.kind.name == "llm" and method.path is not Path.dual:
        yield f"method.merge.kind: got llm, but method.path={method.path.value} has one graph"
    noise = method.noise
    if method.translator == "model" and noise.translate and method.decomposer == "model":
        yield f"method.noise.translate: got {noise.translate}, but no component knows the truth to damage"
    if method.decomposer == "model" and (noise.decompose_s or noise.decompose_en):
        yield "method.noise: got noise of a decomposer, but method.decomposer=model is not damaged"


PARTS = [
    Part(
        group="method",
        name="dapt",
        schema=DaptConfig,
        target="athlos.methods.dapt.module.DaptModule",
        summary="questions of several steps, taken apart and solved in two languages",
        check=_errors,
    ),
    Part(
        group="method",
        name="dapt_translate",
        schema=TranslateConfig,
        target="athlos.methods.dapt.construct.TranslateModule",
        summary="questions of several steps translated, and kept where their answers survive",
        check=pipeline_errors,
    ),
    Part(
        group="suite",
        name="translated",
        schema=TranslatedSuiteConfig,
        target="athlos.methods.dapt.suites.TranslatedSuite",
        summary="the translated questions of method=dapt_translate, and the share that was kept",
    ),
    Part(
        group="suite",
        name="chains",
        schema=ChainSuiteConfig,
        target="athlos.methods.dapt.suites.ChainSuite",
        summary="questions of several steps: as qa, and exact match by hops",
    ),
    Part(
        group="suite",
        name="step_recall",
        schema=StepRecallConfig,
        target="athlos.methods.dapt.suites.StepRecallSuite",
        summary="what whole questions and their sub-questions find, at equal numbers of passages",
    ),
    Part(
        group="suite",
        name="bilingual_recall",
        schema=BilingualRecallConfig,
        target="athlos.methods.dapt.suites.BilingualRecallSuite",
        summary="what indexes of the question's language, of English and of both find, over noise of the translator",
    ),
]
