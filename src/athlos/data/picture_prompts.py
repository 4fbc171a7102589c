"""Prompts of questions about pictures, and what an answer to one means.

A prompt is the picture, the question, and, where a letter is wanted, the options a line each. What has to be
translated stands before the instruction, so that both kinds of prompt begin alike. Version 1 of the templates.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from athlos.errors import ConfigError, choices

IMAGE_TOKEN = "<image>"
"""Where the picture stands; written once here, repeated for each of its tokens when a prompt is encoded."""
LETTERS = "ABCDEFGH"
_TEMPLATES = Path(__file__).resolve().parent / "prompt_data" / "picture_questions.json"
_TWINS = str.maketrans({"А": "A", "В": "B", "С": "C", "Α": "A", "Β": "B"})
"""Cyrillic and Greek letters that look like Latin ones (`ours`: a reader cannot tell them apart either). Not those for
E and H: the Greek one is an article."""
_CLOSING = r"(?=$|[\s.,:;)\]}。．，、：；）】」।؟?!])"
_MARK = r"(?=$|[.,:;)\]}。．，、：；）】」।؟?!])"
_FIRST = re.compile(rf"^[(\[{{（【「\"'*]*([A-H])[\"'*]*{_MARK}")
_NAMED = re.compile(rf"(?:[:：]|\b(?:is|ist|es|est|это|é)|答案是|是)\s*[(\[（【「]?([A-H]){_CLOSING}")
_BRACKETED = re.compile(r"[(\[（【「]([A-H])[)\]）】」]")


@cache
def templates() -> dict[str, dict[str, str]]:
    """Language -> the question what is in a picture, with the version of the file in `version`."""
    values: dict[str, dict[str, str]] = json.loads(_TEMPLATES.read_text(encoding="utf-8"))
    return values


def what_is_in_it(language: str) -> str:
    """The question for the contents of a picture; raises `ConfigError` for a language without a template."""
    known = templates()["question"]
    if language not in known:
        raise ConfigError(
            f"data.languages: got '{language}', no question is written in it{choices(language, list(known))}"
        )
    return known[language]


def listed(options: Sequence[str]) -> str:
    """The options, each on a line of its own after its letter."""
    return "".join(f"\n{letter}: {option}" for letter, option in zip(LETTERS, options, strict=False))


def asked(question: str, options: Sequence[str] = ()) -> str:
    """Prompt of a question; with options, of one that wants a letter."""
    return f"{IMAGE_TOKEN} {question}{listed(options)}\n"


def to_translate(question: str, options: Sequence[str], *, instruction: str, has_picture: bool) -> str:
    """Prompt that wants the question, with its options, in another language."""
    head = f"{IMAGE_TOKEN} " if has_picture else ""
    return f"{head}{question}{listed(options)}\n{instruction}\n"


def read_letter(text: str, *, num_options: int) -> str | None:
    """The option that an answer names, or nothing when it names none or several.

    A letter counts at the beginning with a mark or nothing behind it, in brackets, or behind a colon or a copula; else
    if it is the only letter that stands alone. "A" before a word in small letters is an article and does not count.
    """
    line = unicodedata.normalize("NFKC", text).translate(_TWINS).strip()
    accepted = LETTERS[:num_options]
    for pattern in (_FIRST, _BRACKETED, _NAMED):
        letters = {letter for letter in pattern.findall(line) if not _is_article(line, letter)}
        if letters:
            return letters.pop() if len(letters) == 1 and letters <= set(accepted) else None
    alone = {letter for letter in re.findall(r"(?<!\w)([A-H])(?!\w)", line) if not _is_article(line, letter)}
    return alone.pop() if len(alone) == 1 and alone <= set(accepted) else None


def _is_article(line: str, letter: str) -> bool:
    return letter == "A" and re.search(r"(?<!\w)A\s+[a-zà-ÿ]", line) is not None
