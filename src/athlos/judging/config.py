"""Schemas of the judges."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from athlos.config.compose import decisive, plain
from athlos.config.fields import at_least, bounded, one_of
from athlos.config.registry import Check, Part
from athlos.config.schema import EngineConfig, JudgeConfig
from athlos.generation.http_config import HTTPEngineConfig, LlamaCppConfig, http_errors, llama_cpp_errors
from athlos.lab.world import WorldConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

STOP_WORDS = {
    "da": "STOPWORDS_DANISH",
    "de": "STOPWORDS_GERMAN",
    "en": "STOPWORDS_EN",
    "es": "STOPWORDS_SPANISH",
    "fr": "STOPWORDS_FRENCH",
    "it": "STOPWORDS_ITALIAN",
    "ko": "STOPWORDS_KOREAN",
    "nl": "STOPWORDS_DUTCH",
    "no": "STOPWORDS_NORWEGIAN",
    "pt": "STOPWORDS_PORTUGUESE",
    "ru": "STOPWORDS_RUSSIAN",
    "sv": "STOPWORDS_SWEDISH",
    "tr": "STOPWORDS_TURKISH",
    "zh": "STOPWORDS_CHINESE",
}
"""Language -> the name of its list in bm25s."""
FIELDS = ("{premise}", "{hypothesis}")
"""What a prompt holds once each."""


@dataclass(kw_only=True)
class NoJudgeConfig(JudgeConfig):
    """Nothing is judged."""


@dataclass(kw_only=True)
class ScoringJudgeConfig(JudgeConfig):
    """Base of all judges that judge."""

    evaluation_only: ClassVar[tuple[str, ...]] = ("allow_same",)

    threshold: float = bounded("(0, 1]", default=0.5)
    """Scores from here on count as supported."""
    allow_same: bool = False
    """Let the judge of the reward judge the evaluation as well, whose metrics then end in `@reward_judge`."""


@dataclass(kw_only=True)
class ExactJudgeConfig(ScoringJudgeConfig):
    """Supported is what equals the premise, in upper or lower case, less space."""


@dataclass(kw_only=True)
class CoverJudgeConfig(ScoringJudgeConfig):
    """Supported is what stands in the premise word for word, in upper or lower case, less space."""


@dataclass(kw_only=True)
class WindowedJudgeConfig(ScoringJudgeConfig):
    """Base of the judges that read a long premise in windows."""

    window_words: int = at_least(0)
    """Words of a window of whole sentences; the next begins at its middle, and the best counts. 0 = one window."""


@dataclass(kw_only=True)
class LexicalJudgeConfig(WindowedJudgeConfig):
    """The share of the hypothesis's content words that stand in the premise."""

    language: str = one_of(*STOP_WORDS)
    """Whose words of little content are left out, and by whose words a sentence denies."""
    strict: bool = MISSING
    """0 where a number or a name of the hypothesis is missing, or the nearest sentence differs in negation."""


@dataclass(kw_only=True)
class SymbolicJudgeConfig(ScoringJudgeConfig):
    """The lab's truth: exact entailment."""

    world: WorldConfig = MISSING
    """The lab world whose languages it reads: that of the data."""


@dataclass(kw_only=True)
class NliJudgeConfig(WindowedJudgeConfig):
    """A cross-encoder with a label for entailment."""

    operational: ClassVar[tuple[str, ...]] = ("batch_size", "cache")

    source: str = MISSING
    """`dir:<folder>`, `hub:<repo>@<revision>` or `wheel:<distribution>==<version>#<sha256 of the wheel>`."""
    max_length: int = at_least(16)
    """Tokens of a pair; what the model was made for may be less. Longer premises are cut at their end."""
    batch_size: int = at_least(1)
    """Pairs that the model reads at once."""
    cache: str | None = "judgements"
    """Folder of scores; a relative one lies below the cache folder of the run. null = score anew each time."""


@dataclass(kw_only=True)
class GeneratorJudgeConfig(WindowedJudgeConfig):
    """A generator that is asked for yes or no."""

    engine: EngineConfig = MISSING
    """A choice of the group `generator` that asks a server or llama.cpp: `generator@judge.engine=vllm`."""
    prompt: str = MISSING
    """What it is asked, with `{premise}` and `{hypothesis}`."""


def scoring_values(config: JudgeConfig) -> dict[str, Any]:
    """The values that scores depend on: two judges with the same ones are one judge."""
    values: dict[str, Any] = decisive(plain(config), config=config)
    return {key: value for key, value in values.items() if key not in ("threshold", "allow_same")}


def judge_errors(config: JudgeConfig, *, path: str) -> Iterator[str]:
    """One line for each contradiction; `path` is where this config stands: `judge` or `reward.judge`."""
    if not isinstance(config, GeneratorJudgeConfig):
        return
    if isinstance(config.engine, HTTPEngineConfig):
        yield from http_errors(config.engine, group=f"{path}.engine")
    elif isinstance(config.engine, LlamaCppConfig):
        yield from llama_cpp_errors(config.engine, group=f"{path}.engine")
    else:
        yield f"{path}.engine: expected openai, vllm or llama_cpp: generator@{path}.engine=llama_cpp"
    for field in FIELDS:
        if (count := len(re.findall(re.escape(field), config.prompt))) != 1:
            yield f"{path}.prompt: has {field} {count} times, expected once"


def _errors(config: "RunConfig") -> Iterable[str]:
    return judge_errors(config.judge, path="judge")


def _judge(name: str, schema: type, target: str, summary: str, *, check: Check | None = None) -> Part:
    target = f"athlos.judging.{target}"
    return Part(group="judge", name=name, schema=schema, target=target, summary=summary, check=check)


PARTS = [
    _judge("none", NoJudgeConfig, "lexical.NoJudge", "nothing is judged"),
    _judge("exact", ExactJudgeConfig, "lexical.ExactJudge", "an answer is right if it equals the reference"),
    _judge("cover", CoverJudgeConfig, "lexical.CoverJudge", "what stands in the premise word for word"),
    _judge("lexical", LexicalJudgeConfig, "lexical.LexicalJudge", "the share of content words in the premise"),
    _judge("symbolic", SymbolicJudgeConfig, "symbolic.SymbolicJudge", "exact entailment in the lab world"),
    _judge("nli", NliJudgeConfig, "nli.NliJudge", "a cross-encoder's probability of entailment"),
    _judge(
        "generator",
        GeneratorJudgeConfig,
        "generated.GeneratorJudge",
        "a generator's probability of yes against no",
        check=_errors,
    ),
]
