"""ClueAnchor's selection rule as plain nested ifs, from the table of the specification."""


def pair(i, e, c, v, think_internal, think_external, think_clue):
    """(chosen, rejected) or None; scores are 0 or 1, thinks say whether a path has one."""
    if i == 1 and think_internal:
        if e == 1:
            if c == 1:
                return None
            return ("internal", "clue")
        return ("internal", "external")
    if e == 1:
        if think_external:
            return ("external", "internal")
        return None
    if c == 1:
        if v == 0 or not think_clue:
            return None
        return ("clue", "internal")
    return None


def reward(acc, f1, verified_clue, share, length, most):
    """R of section 3.3, term by term."""
    total = float(acc)
    total += f1 / 5
    if verified_clue:
        total += 1 / 10
    total += share / 10
    total -= length / most / 20
    return total
