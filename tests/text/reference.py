"""Naive twins of the short-answer metrics, written from their definitions in plain loops."""

import string


def squad(text):
    kept = ""
    for character in text.lower():
        if character not in string.punctuation:
            kept += character
    # Words as the pattern \b(a|an|the)\b sees them: runs of word characters, whatever stands between them.
    words, word = [], ""
    for character in kept + " ":
        if character.isalnum() or character == "_":
            word += character
            continue
        words.append("" if word in ("a", "an", "the") else word)
        words.append(character)
        word = ""
    spaced = "".join(" " if piece == "" and index % 2 == 0 else piece for index, piece in enumerate(words))
    return " ".join(spaced.split())


def token_f1(prediction_tokens, gold_tokens):
    closed = ("yes", "no", "noanswer")
    prediction, gold = " ".join(prediction_tokens), " ".join(gold_tokens)
    if prediction != gold and (prediction in closed or gold in closed):
        return 0.0
    if not prediction_tokens and not gold_tokens:
        return 1.0
    left = list(gold_tokens)
    common = 0
    for token in prediction_tokens:
        if token in left:
            left.remove(token)
            common += 1
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction_tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def best_f1(prediction, golds):
    best = 0.0
    for gold in golds:
        best = max(best, token_f1(squad(prediction).split(), squad(gold).split()))
    return best


def covers(prediction, gold):
    """Substring by comparing every window."""
    prediction, gold = squad(prediction), squad(gold)
    if gold == "":
        return float(prediction == "")
    for start in range(len(prediction) - len(gold) + 1):
        if prediction[start : start + len(gold)] == gold:
            return 1.0
    return 0.0
