"""TM by its equations, in plain loops: full tables, all pairs, no shortlist."""

from collections.abc import Sequence


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Levenshtein by the full table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row in range(len(first) + 1):
        for column in range(len(second) + 1):
            if row == 0 or column == 0:
                table[row][column] = row + column
                continue
            swap = table[row - 1][column - 1] + (first[row - 1] != second[column - 1])
            table[row][column] = min(swap, table[row - 1][column] + 1, table[row][column - 1] + 1)
    return table[-1][-1]


def fms(first: Sequence[str], second: Sequence[str]) -> float:
    longest = max(len(first), len(second))
    return 1.0 if longest == 0 else (longest - edit_distance(first, second)) / longest


def ranked(source: str, memory: dict[str, str], *, top: int) -> list[tuple[str, float]]:
    """Every pair is scored; the best first, then shorter ones, then by id."""
    words = source.lower().split()
    scored = [(fms(words, text.lower().split()), text, identifier) for identifier, text in memory.items()]
    scored.sort(key=lambda entry: (-entry[0], len(entry[1].split()), entry[2]))
    return [(identifier, score) for score, _, identifier in scored[:top]]


def copy_rate(output: Sequence[str], memory: Sequence[str]) -> float:
    """Each n-gram of the output takes one of the memory away."""
    shares = []
    for n in (1, 2, 3, 4):
        left = [list(memory[at : at + n]) for at in range(len(memory) - n + 1)]
        wanted = [list(output[at : at + n]) for at in range(len(output) - n + 1)]
        hits = 0
        for gram in wanted:
            if gram in left:
                left.remove(gram)
                hits += 1
        if wanted:
            shares.append(hits / len(wanted))
    return sum(shares) / len(shares)


def changed_f1(output: Sequence[str], reference: Sequence[str], memory: Sequence[str]) -> float:
    def beyond(words: Sequence[str]) -> list[str]:
        left, rest = list(memory), []
        for word in words:
            if word in left:
                left.remove(word)
            else:
                rest.append(word)
        return rest

    wanted, given = beyond(reference), beyond(output)
    hits, left = 0, list(wanted)
    for word in given:
        if word in left:
            left.remove(word)
            hits += 1
    precision = hits / len(given) if given else 0.0
    recall = hits / len(wanted) if wanted else 0.0
    return 2 * precision * recall / (precision + recall) if hits else 0.0
