"""Judges that compare letters and words."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from athlos.config.schema import JudgeConfig
from athlos.errors import ConfigError
from athlos.judging.config import STOP_WORDS, LexicalJudgeConfig
from athlos.judging.interface import NUM_DIGITS, Pair, judge_id
from athlos.judging.windows import best_of_windows
from athlos.retrieval.analysers import bigrams
from athlos.stages import StageStore, content_hash
from athlos.text.sentences import sentences

CONTRACTED = "n't"
"""Ends a word that denies; the apostrophe may be the typographic one."""
_SPELLED = re.compile(r"\w+(?:['\u2019]\w+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class NoJudge:
    """The judge of runs that judge nothing: whoever asks it is told what to choose."""

    identity: Mapping[str, str] = {"judge": "none"}
    id = "none"

    def __init__(self, config: JudgeConfig, *, stages: StageStore | None = None) -> None:
        self.counters: dict[str, int] = {}

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        raise ConfigError("judge: got none, but this run judges answers; choose one, such as judge=exact")


class ExactJudge:
    """1 where the hypothesis equals the premise, whatever the case and the space; else 0."""

    identity: Mapping[str, str] = {"judge": "exact"}
    id = judge_id(identity)

    def __init__(self, config: JudgeConfig, *, stages: StageStore | None = None) -> None:
        self.counters = {"pairs": 0}

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.counters["pairs"] += len(pairs)
        return [float(_plain(premise) == _plain(hypothesis)) for premise, hypothesis in pairs]


class CoverJudge:
    """1 where the words of the hypothesis stand in the premise in one piece, whatever the case; else 0."""

    identity: Mapping[str, str] = {"judge": "cover"}
    id = judge_id(identity)

    def __init__(self, config: JudgeConfig, *, stages: StageStore | None = None) -> None:
        self.counters = {"pairs": 0}

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.counters["pairs"] += len(pairs)
        return [float(_stands_in(_plain(premise), _plain(hypothesis))) for premise, hypothesis in pairs]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _stands_in(premise: str, hypothesis: str) -> bool:
    """Whether it is there from the beginning of a word to the end of one; nothing stands only in nothing."""
    if not hypothesis:
        return not premise
    return re.search(rf"(?<!\w){re.escape(hypothesis)}(?!\w)", premise) is not None


class LexicalJudge:
    """The share of the hypothesis's different content words that stand in the premise; 0 where it has none.

    `strict` (source: our specification of the metrics): 0 where a number or a name of the hypothesis is not in the
    premise, or where the sentence of the premise that shares most words denies and the hypothesis does not, or the
    other way round. A name is a word that begins with a capital inside a sentence.
    """

    def __init__(self, config: LexicalJudgeConfig, *, stages: StageStore | None = None) -> None:
        self.config = config
        self.stop_words = frozenset(_stop_words(config.language))
        self.denials = frozenset(_denials().get(config.language, ()))
        lists = [sorted(self.stop_words), sorted(self.denials)] if config.strict else [sorted(self.stop_words)]
        self.identity: Mapping[str, str] = {
            "judge": "lexical",
            "strict": str(config.strict).lower(),
            "language": config.language,
            "words": content_hash(lists)[:NUM_DIGITS],
            "window": f"{config.window_words} words",
        }
        self.id = judge_id(self.identity)
        self.counters = {"pairs": 0}

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.counters["pairs"] += len(pairs)
        return best_of_windows(
            pairs, num_words=self.config.window_words, score=lambda parts: [self._score(*part) for part in parts]
        )

    def _score(self, premise: str, hypothesis: str) -> float:
        asked, told = self._content(hypothesis), self._content(premise)
        if not asked or (self.config.strict and self._is_cut(premise, hypothesis, asked=asked)):
            return 0.0
        return len(asked & told) / len(asked)

    def _content(self, text: str) -> set[str]:
        return set(bigrams(text)) - self.stop_words

    def _is_cut(self, premise: str, hypothesis: str, *, asked: set[str]) -> bool:
        if not set(_NUMBER.findall(hypothesis)) <= set(_NUMBER.findall(premise)):
            return True
        words = {word.casefold() for word in _SPELLED.findall(premise)}
        if any(name.casefold() not in words for name in _names(hypothesis)):
            return True
        nearest = max(sentences(premise, "en").pieces or [""], key=lambda piece: len(asked & self._content(piece)))
        return self._denies(nearest) != self._denies(hypothesis)

    def _denies(self, text: str) -> bool:
        words = [word.casefold().replace("\u2019", "'") for word in _SPELLED.findall(text)]
        return any(word in self.denials or word.endswith(CONTRACTED) for word in words)


def _names(text: str) -> list[str]:
    """Words of two letters and more that begin with a capital, less the first of each sentence."""
    return [
        word
        for sentence in sentences(text, "en").pieces
        for word in _SPELLED.findall(sentence)[1:]
        if word[0].isupper() and len(word) > 1
    ]


def _stop_words(language: str) -> Sequence[str]:
    from bm25s import stopwords

    words: Sequence[str] = vars(stopwords)[STOP_WORDS[language]]
    return words


@cache
def _denials() -> dict[str, list[str]]:
    words: dict[str, list[str]] = json.loads(Path(__file__).with_name("negation.json").read_text(encoding="utf-8"))
    return words
