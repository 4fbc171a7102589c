"""Which language a text is written in, and whether it is the one asked for.

Detectors behind one interface: `script` (no dependency), `lingua` and `py3langid` (extra `athlos[language-id]`), and
`lab` for the invented languages of the lab world, each of which has a script of its own.
A result depends on the detector and on the languages it chooses from, so both stand in its `id`.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any, ClassVar, Protocol

from athlos.errors import ConfigError, did_you_mean

MAX_FREE_LETTERS = 15
"""A text with at most this many letters is too short to judge and passes."""
DRIFT_LANGUAGES = ("en", "zh")
"""Always among the candidates: models drift to them, which a detector without them could not say."""
CLOSING_THINK_TAG = "</think>"
OPENING_THINK_TAG = "<think>"

_NOT_PROSE = re.compile(
    r"""
      ```.*?(?:```|\Z)                                  # fenced code, the last fence perhaps cut off
    | `[^`\n]*`                                         # inline code
    | \$\$.*?\$\$                                       # displayed and inline maths; no formula begins within
    | \\\[(?:(?!\\\[).)*?\\\] | \\\((?:(?!\\\().)*?\\\)   # another one, or many open ones take quadratic time
    | (?<!\\)\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?!\d)     # $..$; the conditions let "from $5 to $7" stand
    | \\(?:boxed|fbox)\{(?:[^{}]|\{[^{}]*\})*\} | \\[A-Za-z]+
    | </?[A-Za-z][^<>\n]*> | \{\{?[^{}\n]*\}?\}         # tags, {name}
    | %\([^()\n]*\)[#0\- +]*\d*[a-zA-Z] | %[#0\-+]*\d*(?:\.\d+)?[sdifgeExXroc](?![A-Za-z])
    | https?://\S+
    """,
    re.VERBOSE | re.DOTALL,
)


def base_language(code: str) -> str:
    """The language of a code without region and script: `zh-CN`, `zh_Hans` and `zh` are one; `nb` and `nn` are `no`."""
    base = re.split(r"[-_]", code.strip().lower())[0]
    return "no" if base in ("nb", "nn") else base


def prose(text: str) -> str:
    """The text without maths, code, placeholders, tags and addresses, which belong to no language."""
    return _NOT_PROSE.sub(" ", text)


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


def language_consistent(text: str, language: str, detector: Detector) -> bool:
    """Whether each part of a text is in the language asked for; parts of at most `free_letters` letters are.

    A text with thinking tags has two parts, thought and answer, checked apart, and must have exactly one closing tag.
    """
    if CLOSING_THINK_TAG not in text and OPENING_THINK_TAG not in text:
        return _part_consistent(text, language, detector)
    parts = text.split(CLOSING_THINK_TAG)
    return len(parts) == 2 and all(_part_consistent(part, language, detector) for part in parts)


def _part_consistent(text: str, language: str, detector: Detector) -> bool:
    text = prose(text)
    if sum(map(str.isalpha, text)) <= detector.free_letters:
        return True
    detected = detector.detect(text)
    return detected is not None and base_language(detected) == base_language(language)


class LabDetector:
    """Exact on the lab's languages, which are named by their scripts: a text with letters of two is in none.

    An answer without a letter is in no language, for there every trace names a thing; so nothing is too short.
    """

    free_letters = -1
    _SCRIPTS: ClassVar[dict[str, str]] = {
        "latin": "latn", "cyrillic": "cyrl", "greek": "grek", "thai": "thai", "han": "hani",
    }  # fmt: skip

    def __init__(self, languages: Sequence[str]) -> None:
        from athlos.text.language_profiles import SCRIPT_RANGES

        _require_known("lab", languages, [*self._SCRIPTS.values()])
        self._ranges = [
            (first, last, code) for script, code in self._SCRIPTS.items() for first, last in SCRIPT_RANGES[script]
        ]
        self.id = "lab-1"

    def detect(self, text: str) -> str | None:
        # Thai vowel signs are no letters to Unicode, the mark that ends a Thai sentence of the lab is one.
        letters = {character for character in text if character.isalpha() and character != "\u0e2f"}
        codes = {self._code(ord(character)) for character in letters}
        return codes.pop() if len(codes) == 1 else None

    def _code(self, codepoint: int) -> str | None:
        return next((code for first, last, code in self._ranges if first <= codepoint <= last), None)


class ScriptDetector:
    """Unicode script of the letters, then frequent words and character n-grams. See `language_profiles.py`."""

    free_letters = MAX_FREE_LETTERS

    def __init__(self, languages: Sequence[str]) -> None:
        from athlos.text import language_profiles

        known = language_profiles.KNOWN_LANGUAGES
        for language in languages:
            if language not in known:
                raise ConfigError(
                    f"language_detector: 'script' does not know the language '{language}'"
                    f"{did_you_mean(language, known)} It knows {', '.join(known)}; use 'lingua' or 'py3langid'"
                )
        self._classify = language_profiles.classify
        self.id = f"script-{language_profiles.VERSION}"

    def detect(self, text: str) -> str | None:
        return self._classify(text)


class LinguaDetector:
    """lingua over the given languages and `DRIFT_LANGUAGES`; its memory grows with their number."""

    free_letters = MAX_FREE_LETTERS

    def __init__(self, languages: Sequence[str]) -> None:
        try:
            from lingua import Language, LanguageDetectorBuilder
        except ImportError as error:
            raise _missing_extra("lingua") from error
        candidates = sorted({*languages, *DRIFT_LANGUAGES})
        codes = {language.iso_code_639_1.name.lower(): language for language in Language.all()}
        # lingua knows the two written forms of Norwegian, not the language.
        wanted = [code for candidate in candidates for code in (("nb", "nn") if candidate == "no" else (candidate,))]
        _require_known("lingua", wanted, sorted(codes))
        self._detector: Any = LanguageDetectorBuilder.from_languages(*(codes[code] for code in wanted)).build()
        self.id = f"lingua-{version('lingua-language-detector')}:{'+'.join(candidates)}"

    def detect(self, text: str) -> str | None:
        found = self._detector.detect_language_of(text)
        return None if found is None else base_language(found.iso_code_639_1.name)


class Py3LangidDetector:
    """py3langid over the given languages and those of `script`.

    Over all its languages it says Malay for Indonesian and Wu for Chinese, on real news, one time in ten or twenty.
    """

    free_letters = MAX_FREE_LETTERS

    def __init__(self, languages: Sequence[str]) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise _missing_extra("py3langid") from error
        from athlos.text.language_profiles import KNOWN_LANGUAGES

        self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
        labels = set(self._identifier.labels)
        _require_known("py3langid", languages, sorted(labels))
        candidates = sorted({*languages, *(labels & {*KNOWN_LANGUAGES})})
        self._identifier.set_languages(candidates)
        self.id = f"py3langid-{version('py3langid')}:{'+'.join(candidates)}"

    def detect(self, text: str) -> str | None:
        if not any(map(str.isalpha, text)):
            return None
        return base_language(str(self._identifier.classify(text)[0]))


_DETECTORS: dict[str, Callable[[Sequence[str]], Detector]] = {
    "script": ScriptDetector,
    "lab": LabDetector,
    "lingua": LinguaDetector,
    "py3langid": Py3LangidDetector,
}


@lru_cache(maxsize=16)
def _build(name: str, languages: tuple[str, ...]) -> Detector:
    return _DETECTORS[name](languages)


def detector(name: str, languages: Sequence[str]) -> Detector:
    """The detector of a name for the languages of a run, built once a process.

    Raises `ConfigError` for an unknown name or language, or when the extra `athlos[language-id]` is missing.
    """
    if name not in _DETECTORS:
        near = did_you_mean(name, list(_DETECTORS))
        raise ConfigError(f"language_detector: got '{name}'{near} Accepted: {', '.join(_DETECTORS)}")
    return _build(name, tuple(sorted({base_language(language) for language in languages})))


def _missing_extra(name: str) -> ConfigError:
    return ConfigError(
        f"language_detector: '{name}' is not installed; pip install 'athlos[language-id]', or use 'script'"
    )


def _require_known(name: str, languages: Sequence[str], known: Sequence[str]) -> None:
    unknown = [language for language in languages if language not in known]
    if unknown:
        raise ConfigError(f"language_detector: '{name}' does not know {', '.join(unknown)}")
