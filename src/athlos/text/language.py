"""Which language a text is written in.

Detectors behind one interface: `py3langid`, `lingua` (extra `athlos[language-id]`), and `lab` for the invented
languages of the lab world, each of which has a script of its own.
A result depends on the detector and on the languages it chooses from, so both stand in its `id`.

Measured in per cent by `python benchmarks/language_id.py --data <folder of NTREX> --step 10`: sentences and pieces of 1
to 5 words that are named rightly, and sentences in other languages that are taken for one of the run's. `alone` chooses
among the languages of the run, English and Chinese only. `our profiles` are what `language_detector: script` was: lists
of words, letter n-grams and scripts. They are ahead by a point on single words, most of which have no more than
`MAX_FREE_LETTERS` letters and are not judged, and behind from two words on.

| languages      | detector        | sentences | words: 1 |    2 |    3 |    4 |    5 | others taken | a second |
| -------------- | --------------- | --------- | -------- | ---- | ---- | ---- | ---- | ------------ | -------- |
| templated_sums | our profiles    |      99.0 |     80.4 | 90.8 | 95.0 | 96.1 | 96.7 |          0.3 |   27,800 |
| templated_sums | py3langid       |      99.6 |     79.8 | 94.7 | 96.7 | 97.7 | 98.1 |          0.3 |    7,800 |
| templated_sums | py3langid alone |      99.7 |     80.2 | 95.3 | 97.5 | 98.2 | 98.6 |        100.0 |   12,600 |
| templated_sums | lingua          |      98.8 |     73.0 | 86.3 | 92.9 | 94.5 | 95.0 |          0.5 |      400 |
| templated_sums | lingua alone    |      99.0 |     89.3 | 94.5 | 96.4 | 96.8 | 96.5 |         68.1 |   13,500 |
| mgsm           | our profiles    |      99.1 |     75.2 | 87.4 | 92.3 | 94.5 | 95.1 |          1.0 |   23,800 |
| mgsm           | py3langid       |      99.6 |     74.4 | 92.6 | 96.6 | 97.8 | 98.5 |          0.9 |    7,100 |
| mgsm           | py3langid alone |      99.6 |     74.5 | 92.9 | 96.9 | 98.0 | 98.6 |        100.0 |   11,700 |
| mgsm           | lingua          |      99.0 |     73.1 | 87.3 | 91.9 | 94.4 | 95.7 |          1.0 |    1,100 |
| mgsm           | lingua alone    |      99.1 |     83.1 | 92.1 | 95.4 | 96.2 | 97.1 |         75.1 |    6,600 |
| mmath          | our profiles    |      99.0 |     72.3 | 84.0 | 90.0 | 92.8 | 93.5 |          0.9 |   23,900 |
| mmath          | py3langid       |      99.6 |     71.1 | 90.5 | 95.2 | 97.1 | 97.9 |          0.9 |    7,300 |
| mmath          | py3langid alone |      99.6 |     71.2 | 90.5 | 95.2 | 97.2 | 97.9 |        100.0 |   11,400 |
| mmath          | lingua          |      99.1 |     71.8 | 85.3 | 90.8 | 93.5 | 94.8 |          0.9 |    1,200 |
| mmath          | lingua alone    |      99.1 |     81.0 | 89.2 | 93.0 | 95.0 | 95.7 |         69.3 |    6,500 |
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, ClassVar, Protocol

from athlos.errors import ConfigError
from athlos.text.scripts import script_of

MAX_FREE_LETTERS = 15
"""A text with at most this many letters is too short to judge and passes."""
CANDIDATES = tuple(
    re.findall(
        "[a-z]+",
        """
        af am ar as az be bg bn ca cs da de el en es et fa fi fr gl gu he hi hr hu hy id it ja ka km kn ko lo mk ml
        mr my ne nl no pa pl pt ro ru si sk sl sr sv sw ta te th tr uk ur vi zh
        """,
    )
)
"""What py3langid and lingua choose from beside the languages of the run, as far as they know them.

These are the languages that models drift to, one of each script, and the neighbours of all (Ukrainian beside Russian,
Galician beside Portuguese). A detector that must choose among the languages of a run finds one of them in every text.
Malay and Wu are left out: py3langid says them for Indonesian and Chinese one time in ten or twenty.
"""
PRIOR_OF_A_RUN = 6.0
"""Nats by which py3langid holds a language of the run likelier beforehand than another candidate.

Only short texts feel it, for the scores of a sentence differ by tens of nats. Without it a Russian sentence of five
words is taken for Bulgarian, Serbian or Ukrainian one time in ten.
"""


def base_language(code: str) -> str:
    """The language of a code without region and script: `zh-CN`, `zh_Hans` and `zh` are one; `nb` and `nn` are `no`."""
    base = re.split(r"[-_]", code.strip().lower())[0]
    return "no" if base in ("nb", "nn") else base


class Detector(Protocol):
    """`id` names detector, version and candidate languages; `detect` is a pure function of the text."""

    @property
    def id(self) -> str: ...

    @property
    def free_letters(self) -> int:
        """A text with at most this many letters is too short to judge and passes; -1 = none does."""
        ...

    def detect(self, text: str) -> str | None:
        """Two-letter code of the language of a text, None if it has no letters or cannot be told."""
        ...


class LabDetector:
    """Exact on the lab's languages, which are named by their scripts: a text with letters of two is in none.

    An answer without a letter is in no language, for there every trace names a thing; so nothing is too short.
    """

    free_letters = -1
    _LANGUAGES: ClassVar[dict[str | None, str]] = {
        "LATIN": "latn",
        "CYRILLIC": "cyrl",
        "GREEK": "grek",
        "THAI": "thai",
        "CJK": "hani",
    }

    def __init__(self, languages: Sequence[str]) -> None:
        _require_known("lab", languages, [*self._LANGUAGES.values()])
        self.id = "lab-1"

    def detect(self, text: str) -> str | None:
        # Thai vowel signs are no letters to Unicode, the mark that ends a Thai sentence of the lab is one.
        letters = {character for character in text if character.isalpha() and character != "\u0e2f"}
        languages = {self._LANGUAGES.get(script_of(character)) for character in letters}
        return languages.pop() if len(languages) == 1 else None


class LinguaDetector:
    """lingua over the given languages and the candidates; with all of `CANDIDATES` it takes about 0.9 GB."""

    free_letters = MAX_FREE_LETTERS

    def __init__(self, languages: Sequence[str], *, candidates: Iterable[str] = CANDIDATES) -> None:
        try:
            from lingua import Language, LanguageDetectorBuilder
        except ImportError as error:
            raise ConfigError(
                "language_detector: 'lingua' is not installed; pip install 'athlos[language-id]', or use 'py3langid'"
            ) from error
        by_code: dict[str, list[Any]] = {}
        for language in Language.all():
            # lingua knows the two written forms of Norwegian, not the language.
            by_code.setdefault(base_language(language.iso_code_639_1.name), []).append(language)
        chosen = _chosen("lingua", languages, candidates, known=by_code)
        wanted = [language for code in chosen for language in by_code[code]]
        self._detector: Any = LanguageDetectorBuilder.from_languages(*wanted).build()
        self.id = f"lingua-{version('lingua-language-detector')}:{'+'.join(chosen)}"

    def detect(self, text: str) -> str | None:
        detected = self._detector.detect_language_of(text)
        return None if detected is None else base_language(detected.iso_code_639_1.name)


class Py3LangidDetector:
    """py3langid over the given languages and the candidates, the given ones likelier beforehand."""

    free_letters = MAX_FREE_LETTERS

    def __init__(self, languages: Sequence[str], *, candidates: Iterable[str] = CANDIDATES) -> None:
        from py3langid.langid import MODEL_FILE, RAW_FLOOR, LanguageIdentifier

        self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
        self._score_of_nothing: float = RAW_FLOOR
        chosen = _chosen("py3langid", languages, candidates, known=self._identifier.labels)
        self._identifier.set_languages(chosen)
        self._languages = frozenset(languages)
        self.id = f"py3langid-{version('py3langid')}:{'+'.join(sorted(languages))}/{'+'.join(chosen)}"

    def detect(self, text: str) -> str | None:
        # Digits and punctuation are features to it.
        if not any(map(str.isalpha, text)):
            return None
        scores = self._identifier.rank(text)
        if scores[0][1] == self._score_of_nothing:
            return None
        best, _ = max(scores, key=lambda scored: scored[1] + PRIOR_OF_A_RUN * (scored[0] in self._languages))
        return base_language(str(best))


def _chosen(name: str, languages: Sequence[str], candidates: Iterable[str], *, known: Iterable[str]) -> list[str]:
    """The languages of a run, all of which must be known, and those of the candidates that are."""
    known = sorted(known)
    _require_known(name, languages, known)
    return sorted({*languages, *(set(candidates) & set(known))})


_DETECTORS: dict[str, Callable[[Sequence[str]], Detector]] = {
    "py3langid": Py3LangidDetector,
    "lingua": LinguaDetector,
    "lab": LabDetector,
}


@lru_cache(maxsize=16)
def _build(name: str, languages: tuple[str, ...]) -> Detector:
    return _DETECTORS[name](languages)


def detector(name: str, languages: Sequence[str]) -> Detector:
    """The detector of a name (one of `config.schema.LANGUAGE_DETECTORS`) for a run's languages, built once a process.

    Raises `ConfigError` for a language that it does not know, or when the extra `athlos[language-id]` is missing.
    """
    return _build(name, tuple(sorted({base_language(language) for language in languages})))


def _require_known(name: str, languages: Sequence[str], known: Sequence[str]) -> None:
    unknown = [language for language in languages if language not in known]
    if unknown:
        raise ConfigError(f"language_detector: '{name}' does not know {', '.join(unknown)}")
