"""START from its equations, in plain loops: the smallest cover, the parts of R, and who trains on which sample."""

import itertools
import math
import re


def smallest_cover(claims, documents):
    """The size of the smallest set of documents that holds all claims; None without any."""
    for size in range(len(documents) + 1):
        for chosen in itertools.combinations(range(len(documents)), size):
            if all(any(claim in documents[place] for place in chosen) for claim in claims):
                return size
    return None


def sentence_parts(answer):
    """(text, cited) of each sentence of an answer that is written as `Words [1][2].`"""
    parts = []
    for piece in re.findall(r"[^.]*\.", answer):
        cited = []
        for number in re.findall(r"\[(\d+)\]", piece):
            if int(number) not in cited:
                cited.append(int(number))
        parts.append((re.sub(r" ?\[\d+\]", "", piece).strip(), cited))
    return parts


def attr(answer, texts, supports, most):
    parts = sentence_parts(answer)
    total = 0
    for text, cited in parts:
        if not cited or any(number < 1 or number > len(texts) for number in cited):
            continue
        total += supports("\n".join(texts[number - 1] for number in cited[:most]), text)
    return total / len(parts) if parts else 0.0


def compre(answer, claims, supports):
    told = " ".join(text for text, _ in sentence_parts(answer))
    return sum(supports(told, claim) for claim in claims) / len(claims) if told else 0.0


def reward(attr_value, compre_value, log_prob_cited, log_prob_all):
    ratio = math.exp(log_prob_all - log_prob_cited)
    return (attr_value == 1) * compre_value * min(ratio, 1 / ratio)


def choice(samples, min_gap):
    """Places of y+, y-_attr and y-_comp among samples (text, attr, compre, reward); None where there is none."""
    plus = None
    for place, (_, _, _, value) in enumerate(samples):
        if value > 0 and (plus is None or value > samples[plus][3]):
            plus = place
    if plus is None:
        return None, None, None
    by_attr = by_comp = None
    for place, (text, attr_value, compre_value, _) in enumerate(samples):
        same = text == samples[plus][0] or (attr_value, compre_value) == samples[plus][1:3]
        if attr_value < 1 and not same and (by_attr is None or compre_value > samples[by_attr][2]):
            by_attr = place
        thin = attr_value == 1 and samples[plus][2] - compre_value >= min_gap
        if thin and not same and (by_comp is None or compre_value < samples[by_comp][2]):
            by_comp = place
    return plus, by_attr, by_comp
