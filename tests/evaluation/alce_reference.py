"""ALCE's citation scores in plain loops, written from the pseudo-code of the specification, and a judge of words."""

import re
from collections.abc import Callable, Sequence

from athlos.judging.interface import Pair


class WordJudge:
    """1 where all words of the hypothesis stand in the premise: it never scores less for a longer premise."""

    identity = {"judge": "words"}
    id = "words:0"

    def __init__(self) -> None:
        self.counters = {"pairs": 0, "calls": 0}

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        assert len(set(pairs)) == len(pairs)
        self.counters["pairs"] += len(pairs)
        self.counters["calls"] += 1
        return [float(_words(pair.hypothesis) <= _words(pair.premise)) for pair in pairs]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def alce(
    output: str,
    docs: list[str],
    *,
    split: Callable[[str], list[str]],
    entails: Callable[[str, str], bool],
    strict: bool,
    most: int = 3,
) -> dict[str, float] | None:
    """Recall, precision and counts of sentences of one item; None for one without a sentence.

    Strict here knows plain `[n]` alone: how other forms are read is another test.
    """
    output = output.strip() if strict else output.strip().split("\n")[0]
    sentences = split(output)
    if not sentences:
        return None
    recall = precision = num_citations = several = several_good = cited = cited_good = too_many = 0
    for sentence in sentences:
        refs = [int(number) - 1 for number in re.findall(r"\[(\d+)", sentence)]
        target = re.sub(r"\[\d+", "", re.sub(r" \[\d+", "", sentence)).replace(" |", "").replace("]", "").strip()
        if strict:
            refs = [ref for place, ref in enumerate(refs) if ref not in refs[:place]]
        cited += len(refs) > 0
        several += len(refs) > 1
        joint = 0
        if refs and not any(ref >= len(docs) or (strict and ref < 0) for ref in refs):
            refs = refs[:most]
            num_citations += len(refs)
            joint = int(entails("\n".join(docs[ref] for ref in refs), target))
        recall += joint
        cited_good += joint
        if joint and len(refs) > 1:
            several_good += 1
            is_over = False
            for ref in refs:
                if entails(docs[ref], target):
                    precision += 1
                    continue
                rest = list(refs)
                rest.remove(ref)
                if entails("\n".join(docs[other] for other in rest), target):
                    is_over = True
                else:
                    precision += 1
            too_many += is_over
        else:
            precision += joint
    nan = float("nan")
    rec = recall / len(sentences)
    prec = precision / num_citations if num_citations > 0 else 0.0
    return {
        "cite_rec": rec,
        "cite_prec": prec,
        "cite_f1_item": 2 * rec * prec / (rec + prec) if rec + prec > 0 else 0.0,
        "sent_prec": cited_good / cited if cited else nan,
        "multi_cite_share": several / len(sentences),
        "multi_cite_supported": several_good / several if several else nan,
        "overcite_share": too_many / several_good if several_good else nan,
    }
