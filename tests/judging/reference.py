"""Naive twins of the judges."""

from collections.abc import Collection


def overlap(premise: str, hypothesis: str, *, stop_words: Collection[str]) -> float:
    """Share of the different words of an ASCII hypothesis, less stop words, that are words of the premise."""

    def words(text: str) -> list[str]:
        letters = "".join(letter if letter.isalnum() else " " for letter in text.lower())
        return [word for word in letters.split() if word not in stop_words]

    seen: list[str] = []
    for word in words(hypothesis):
        if word not in seen:
            seen.append(word)
    num_found = 0
    for word in seen:
        if word in words(premise):
            num_found += 1
    return num_found / len(seen) if seen else 0.0


def auroc(scores: list[float], labels: list[bool]) -> float:
    """Share of the pairs of a true and a false item in which the true one has the higher score; ties count half."""
    total = won = 0.0
    for score, label in zip(scores, labels, strict=True):
        for other, other_label in zip(scores, labels, strict=True):
            if label and not other_label:
                total += 1
                won += 1.0 if score > other else 0.5 if score == other else 0.0
    return won / total
