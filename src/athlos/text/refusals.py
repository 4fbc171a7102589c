"""Answers that say that there is no answer."""

from athlos.text.citations import BY_LANGUAGE
from athlos.text.normalisation import default_normaliser, normalise
from athlos.text.prompt_styles import NO_ANSWER
from athlos.text.replies import UNKNOWN

_WHOLE = frozenset({NO_ANSWER, UNKNOWN, "unanswerable", "not answerable", "no answer", "none"})
_BEGINNINGS = (
    "i do not know",
    "i dont know",
    "i cannot answer",
    "i cant answer",
    "i am not able to answer",
    "i am unable to answer",
    "question cannot be answered",
    "documents do not",
    "passages do not",
    "search results do not",
    "provided documents do not",
    "provided passages do not",
    "provided search results do not",
    "there is not enough information",
    "there is no information",
)
"""Of an English sentence, normalised."""


def is_refusal(answer: str, *, language: str) -> bool:
    """Whether every sentence refuses. Beside the words that prompts ask for, English phrases alone are known."""
    pieces = [
        normalise(piece, normaliser=default_normaliser(language), language=language)
        for piece in BY_LANGUAGE.split(answer, language)
    ]
    whole = normalise(answer, normaliser=default_normaliser(language), language=language)
    return whole in _WHOLE or (bool(whole) and all(piece.startswith(_BEGINNINGS) for piece in pieces if piece))
