"""Schemas of TMPLM: which pairs of a translation memory stand in a prompt, how, and what is measured."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import MISSING, at_least, bounded, sized
from athlos.config.registry import Part
from athlos.config.schema import MethodConfig, SuiteConfig
from athlos.data.parallel import ParallelConfig
from athlos.data.sources.lab_memory import LabMemoryConfig
from athlos.evaluation.config import TranslationConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

MOST_PAIRS = 8
"""Matches that are kept of each ranking, so that all k share them."""
SLOT = re.compile(r"\{([a-z_]*)\}")


class Rank(StrEnum):
    """What orders the pairs of a memory for a sentence."""

    fms = "fms"
    bm25 = "bm25"
    cosine = "cosine"
    ngram_coverage = "ngram_coverage"
    random = "random"


class Shortlist(StrEnum):
    """Which pairs are compared by fuzzy match score: the best by BM25, by shared words or by cosine, or all."""

    bm25 = "bm25"
    setsim = "setsim"
    dense = "dense"
    all = "all"


class FmsUnit(StrEnum):
    """What an edit changes: a word, a character, a token of the model; `auto` is a character in zh, ja, th, else a
    word."""

    auto = "auto"
    word = "word"
    char = "char"
    subword = "subword"


class Order(StrEnum):
    """How shown pairs stand: the best one next to the sentence, or first, or anyhow."""

    best_last = "best_last"
    best_first = "best_first"
    random = "random"


# Made by a call because `in` is a keyword.
Domain = Enum("Domain", [("in", "in"), ("out", "out"), ("mixed", "mixed")], type=str)
"""Which part of the memory a sentence may use: its own domain, the others, or both."""


class Corrupt(StrEnum):
    """What is done to shown pairs, for controls."""

    none = "none"
    shuffled_targets = "shuffled_targets"
    source_only = "source_only"
    target_only = "target_only"
    wrong_language = "wrong_language"
    noisy = "noisy"


class Template(StrEnum):
    """A flat line of keys and values, or one question."""

    code = "code"
    instruction = "instruction"


class Decoder(StrEnum):
    """Pairs as examples; or joined to the sentence, with their targets as the forced beginning of the answer."""

    prompt = "prompt"
    prefix_forced = "prefix_forced"


class Hypothesis(StrEnum):
    """Whether a draft of another system stands in the prompt: `nmt` is that of `method.hypothesis_field`."""

    none = "none"
    nmt = "nmt"


@dataclass(kw_only=True)
class WordingConfig:
    """The texts of a template. Slots: source, target, hypothesis, source_language, target_language, pairs."""

    pair: str = MISSING
    """One pair of the memory."""
    source_only: str = MISSING
    """A pair without its target, for `tm_corrupt=source_only`."""
    target_only: str = MISSING
    between: str = MISSING
    """Stands between two pairs."""
    with_pairs: str = MISSING
    """The prompt with pairs."""
    without_pairs: str = MISSING
    """The zero-shot prompt."""
    draft: str = MISSING
    """Put after the pairs as one more, for `hypothesis=nmt`."""

    def errors(self, path: str) -> Iterator[str]:
        """One line for each text that lacks a slot or has an unknown one."""
        known = {"source", "target", "hypothesis", "source_language", "target_language", "pairs"}
        needed = {
            "pair": {"source", "target"},
            "source_only": {"source"},
            "target_only": {"target"},
            "with_pairs": {"pairs", "source", "target_language"},
            "without_pairs": {"source", "target_language"},
            "draft": {"hypothesis"},
        }
        for name, slots in needed.items():
            text = getattr(self, name)
            present = set(SLOT.findall(text))
            for slot in sorted(slots - present):
                yield f"{path}.{name}: got '{text}', expected {{{slot}}} in it"
            for slot in sorted(present - known):
                yield f"{path}.{name}: got the slot {{{slot}}}, expected one of {', '.join(sorted(known))}"


@dataclass(kw_only=True)
class PairsConfig:
    """Where the memory comes from, and which of its pairs and of the test's sentences count."""

    data: list[str] = field(default_factory=list)
    """Overrides of another data set, such as `[data=tmx, data.dir=memories]`; empty = that of the run."""
    split: str = MISSING
    """Its split; the test split is never part of a memory."""
    min_words: int = at_least(1)
    """Fewest words of an English or other source sentence, parted by white space."""
    max_words: int = at_least(1)
    """Most words."""


@dataclass(kw_only=True)
class TmConfig(MethodConfig):
    pairs: PairsConfig = MISSING
    template: Template = MISSING
    code: WordingConfig = MISSING
    instruction: WordingConfig = MISSING
    k: int = bounded(f"[0, {MOST_PAIRS}]")
    """Most pairs in a prompt; 0 is the zero-shot prompt."""
    rank: Rank = MISSING
    prefilter: Shortlist = MISSING
    """Which pairs `rank=fms` compares."""
    candidates: int = at_least(1)
    """Length of that shortlist."""
    fms_unit: FmsUnit = MISSING
    fms_lower: bool = MISSING
    """Compare in lower case."""
    fms_strip_punctuation: bool = MISSING
    """Compare without the punctuation of ASCII."""
    encoder: str = MISSING
    """Sentence encoder of `rank=cosine` and `prefilter=dense`, as `index=dense` names it."""
    order: Order = MISSING
    min_score: float = at_least(0)
    """Pairs with a lower score are not shown; above 1 none is. For rankings by fms or cosine."""
    unique_src: bool = MISSING
    """Keep one pair of those with one source, that with the first id."""
    tm_domain: Domain = MISSING
    """A domain is what stands before the first colon of a record's `domain`."""
    tm_size: float = bounded("(0, 1]")
    """Share of the memory that is kept; smaller ones lie within larger ones."""
    tm_corrupt: Corrupt = MISSING
    noise: float = bounded("[0, 1]")
    """Share of the target words that `tm_corrupt=noisy` replaces by words of other targets."""
    wrong_language: str | None = None
    """Language whose translations `tm_corrupt=wrong_language` shows in place of the right ones."""
    decoder: Decoder = MISSING
    separator: str = MISSING
    """Stands between joined sentences of `decoder=prefix_forced`."""
    hypothesis: Hypothesis = MISSING
    hypothesis_field: str = ""
    """Name of the draft in the data: a column that is neither source nor target."""
    allow_exact: bool = False
    """Show a pair whose source is the sentence itself, for sentences without a reference. An evaluation refuses it."""

    @property
    def wording(self) -> WordingConfig:
        return self.code if self.template is Template.code else self.instruction


@dataclass(kw_only=True)
class TmSuiteConfig(SuiteConfig):
    """Translation by bucket of the best match, against zero-shot and the best match itself."""

    per_bucket: int = sized(at_least(0))
    """Sentences of each bucket that are asked, from the front of the split; 0 = all."""
    zero_shot: bool = False
    """Also answer without the memory, as a stage product, and compare."""
    systems: dict[str, str] = field(default_factory=dict)
    """Name of another system in the metrics -> the field of the data with its translations; compared too."""

    def errors(self, path: str, *, run: "RunConfig") -> Iterator[str]:
        for name in {"copy", "zero"} & self.systems.keys():
            yield f"{path}.systems: got the name '{name}', which the suite gives itself; choose another"
        if not isinstance(run.method, TmConfig):
            yield f"{path}: got another method, expected method=tm, whose matches decide the buckets"
        if run.eval.base:
            yield f"eval.base: got true, but {path} answers without the memory itself; set {path}.zero_shot=true"


@dataclass(kw_only=True)
class StoredTranslationsConfig(SuiteConfig):
    """Translations that the data carry are scored; no model is asked."""

    systems: dict[str, str] = MISSING
    """Name of a system in the metrics -> its field in the data."""


def _errors(config: "RunConfig") -> Iterable[str]:
    method = config.method
    assert isinstance(method, TmConfig)
    if config.num_steps:
        yield (
            f"train.max_steps: got {config.num_steps}, but method=tm trains nothing; set train.max_steps=0 and take "
            "weights that another method trained by model.source=run:<experiment>"
        )
    if not isinstance(config.data, ParallelConfig | LabMemoryConfig):
        yield f"data: got {config.data.name}, but method=tm translates; choose parallel text, such as data=po_tm"
    if not method.pairs.data and method.pairs.split == config.data.test_split:
        yield f"method.pairs.split: got '{method.pairs.split}', the split that the run is tested on"
    if method.pairs.min_words > method.pairs.max_words:
        yield f"method.pairs.min_words: got {method.pairs.min_words}, expected at most max_words"
    if method.allow_exact and any(
        isinstance(suite, TmSuiteConfig | TranslationConfig) for suite in config.eval.suites.values()
    ):
        yield "method.allow_exact: got true in an evaluation, where the exact match is the answer; set it to false"
    if method.min_score and method.rank not in (Rank.fms, Rank.cosine):
        yield f"method.min_score: got {method.min_score} with rank={method.rank}, whose scores are no similarities"
    if method.tm_corrupt is Corrupt.wrong_language and method.wrong_language is None:
        yield "method.wrong_language: got none, but tm_corrupt=wrong_language needs one"
    if method.decoder is Decoder.prefix_forced and method.template is not Template.code:
        yield "method.decoder: got prefix_forced, which needs template=code, whose last slot is open"
    if method.decoder is Decoder.prefix_forced and method.tm_corrupt in (Corrupt.source_only, Corrupt.target_only):
        yield f"method.tm_corrupt: got {method.tm_corrupt}, but decoder=prefix_forced needs both sides of a pair"
    if (method.hypothesis is Hypothesis.nmt) != bool(method.hypothesis_field):
        yield "method.hypothesis_field: expected the field of the draft with hypothesis=nmt, and nothing without"
    yield from method.code.errors("method.code")
    yield from method.instruction.errors("method.instruction")


PARTS = [
    Part(
        group="method",
        name="tm",
        schema=TmConfig,
        check=_errors,
        target="athlos.methods.tm.module.TmModule",
        summary="similar pairs of a translation memory in the prompt",
    ),
    Part(
        group="suite",
        name="tm",
        schema=TmSuiteConfig,
        target="athlos.methods.tm.suites.TmSuite",
        summary="translation by bucket of the best match, against zero-shot and the match itself",
    ),
    Part(
        group="suite",
        name="stored_translations",
        schema=StoredTranslationsConfig,
        target="athlos.methods.tm.suites.StoredTranslationsSuite",
        summary="translations that the data carry: BLEU, chrF, TER of each system",
    ),
]
