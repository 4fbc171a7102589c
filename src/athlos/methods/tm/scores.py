"""What a translation took from the memory, and what it should have changed: measures of one segment.

Definitions: the shared specification of metrics, section 7; negations and their words are ours.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from athlos.text.language import base_language
from athlos.text.normalisation import UNSPACED_LANGUAGES

BUCKETS = (0.0, 0.3, 0.5, 0.7, 0.9)
"""Lower ends of b0 .. b4 of the best fuzzy match score."""
MOST_WORDS_OF_TERM, DOMINANCE = 3, 0.8
"""A term is a source of few words, and its translation that of at least this share of its pairs."""
PLACEHOLDER = re.compile(
    r"%\(\w+\)[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]|%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]|%%|\{[^{}\s]*\}|</?\w[^<>]*>|\d+(?:[.,]\d+)*"
)
"""%(name)s and %d, {x}, tags of HTML, and numbers."""
NEGATIONS = {
    "de": {"nicht", "kein", "keine", "keinen", "keinem", "keiner", "keines", "nie", "niemals", "ohne"},
    "en": {
        "not",
        "no",
        "never",
        "cannot",
        "without",
        "can't",
        "don't",
        "doesn't",
        "isn't",
        "didn't",
        "won't",
        "aren't",
    },
    "es": {"no", "nunca", "sin", "ningún", "ninguna", "ninguno"},
    "fr": {"ne", "pas", "aucun", "aucune", "jamais", "sans", "non"},
    "it": {"non", "nessun", "nessuno", "nessuna", "mai", "senza"},
    "nl": {"niet", "geen", "nooit", "zonder"},
    "pt": {"não", "nunca", "sem", "nenhum", "nenhuma"},
    "ru": {"не", "нет", "ни", "без", "нельзя"},
    "sw": {"si", "hapana", "bila", "hakuna", "haiwezi", "usi"},
}
"""Words that negate, lower case. Other languages have no list, and no such measure."""


def bucket_of(score: float) -> int:
    return sum(score >= low for low in BUCKETS[1:])


def words_of(text: str, language: str) -> list[str]:
    """Words parted by white space; characters where words are written together."""
    return list("".join(text.split())) if base_language(language) in UNSPACED_LANGUAGES else text.split()


def copy_rate(output: Sequence[str], memory: Sequence[str]) -> float:
    """Mean over n = 1 .. 4 of the share of the output's n-grams that stand in the memory's target, clipped counts.

    Lengths that the output is too short for are left out; nan for an empty output.
    """
    shares = []
    for n in range(1, 5):
        ours, theirs = _counts(output, n), _counts(memory, n)
        if ours:
            shares.append(sum((ours & theirs).values()) / ours.total())
    return math.fsum(shares) / len(shares) if shares else math.nan


def _counts(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def changed_f1(output: Sequence[str], reference: Sequence[str], memory: Sequence[str]) -> float:
    """F1 of the words that output and reference have beyond the memory's target, as multisets; nan where neither has.

    A copy of the memory gets 0 wherever the reference has a word that the memory lacks.
    """
    wanted, changed = Counter(reference) - Counter(memory), Counter(output) - Counter(memory)
    if not wanted and not changed:
        return math.nan
    shared = (wanted & changed).total()
    return 2 * shared / (wanted.total() + changed.total())


def placeholder_acc(output: str, source: str) -> float:
    """1 if placeholders, tags and numbers are those of the source, as multisets; nan where neither has any."""
    ours, theirs = placeholders(output), placeholders(source)
    return float(ours == theirs) if ours or theirs else math.nan


def placeholders(text: str) -> Counter[str]:
    return Counter(PLACEHOLDER.findall(text))


def number_edit(output: str, reference: str) -> float:
    """1 if the numbers differ from the reference's, as multisets; nan where neither has any."""
    ours, theirs = (Counter(re.findall(r"\d+", text)) for text in (output, reference))
    return float(ours != theirs) if ours or theirs else math.nan


def negation_edit(output: str, reference: str, *, language: str) -> float:
    """1 if one of them negates and the other does not; nan for a language without a list."""
    negations = NEGATIONS.get(base_language(language))
    if negations is None:
        return math.nan
    is_negated = [bool(negations & set(re.findall(r"[\w']+", text.casefold()))) for text in (output, reference)]
    return float(is_negated[0] != is_negated[1])


def glossary(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Term -> its dominant translation, case-folded, of (source, target) pairs."""
    targets: dict[str, Counter[str]] = defaultdict(Counter)
    for source, target in pairs:
        if len(source.split()) <= MOST_WORDS_OF_TERM:
            targets[source.casefold().strip()][target.casefold().strip()] += 1
    shares = {}
    for term, counts in targets.items():
        [(target, count)] = counts.most_common(1)
        if count / counts.total() >= DOMINANCE:
            shares[term] = target
    return shares


def term_hits(source: str, output: str, *, terms: Mapping[str, str]) -> tuple[int, int]:
    """(terms of the source whose translation stands in the output, terms of the source)."""
    words = source.casefold().split()
    spans = {" ".join(words[at : at + n]) for n in range(1, MOST_WORDS_OF_TERM + 1) for at in range(len(words) - n + 1)}
    present = [terms[span] for span in spans if span in terms]
    folded = output.casefold()
    return sum(target in folded for target in present), len(present)
