"""The judge from its definition: all rules, over all pairs, until nothing is new; all subsets, smallest first."""

from itertools import chain, combinations

from athlos.lab.facts import Claim

DEFINED = {"nationality": ("birthplace", "country"), "workplace": ("employer", "seat")}
INVERSE = {"spouse": "spouse", "capital": "country"}
LONGEST = 4


def written_out(relations):
    return tuple(chain.from_iterable(DEFINED.get(relation, (relation,)) for relation in relations))


def derived(triples):
    """Every (x, path, y) by cut, inverse and uninverse."""
    known = set(triples)
    while True:
        new = set()
        for x, p, y in known:
            if len(p) == 1 and p[0] in INVERSE:
                new.add((y, (INVERSE[p[0]],), x))
            for u, q, z in known:
                if x == u and len(p) < len(q) and q[: len(p)] == p:
                    new.add((y, q[len(p) :], z))
                if len(p) > 1 and p[-1] in INVERSE and y == u and q == (INVERSE[p[-1]],):
                    new.add((x, p[:-1], z))
        if new <= known:
            return known
        known |= new


def joined(known):
    """The same with paths put together, up to a length."""
    while True:
        new = {(x, p + q, z) for x, p, y in known for u, q, z in known if y == u and len(p) + len(q) <= LONGEST}
        if new <= known:
            return known
        known = known | new


def clashes(known, denied):
    pairs = {frozenset((a, b)) for a in known for b in known if a[:2] == b[:2] and a[2] != b[2]}
    return pairs | {frozenset((a, "denied")) for a in joined(known) if a in denied}


def verdict(premises: list[Claim], claim: Claim) -> str:
    stated = {(one.subject, written_out(one.relations), one.object) for one in premises if not one.is_denied}
    denied = {(one.subject, written_out(one.relations), one.object) for one in premises if one.is_denied}
    target = (claim.subject, written_out(claim.relations), claim.object)
    known = derived(stated)
    if target in joined(known):
        found = "supported"
    elif clashes(derived(stated | {target}), denied) - clashes(known, denied):
        found = "contradicted"
    else:
        return "unknown"
    swapped = {"supported": "contradicted", "contradicted": "supported"}
    return swapped[found] if claim.is_denied else found


def evidence(premises: list[Claim], claim: Claim) -> tuple[int, ...]:
    """Smallest subset with the verdict of the whole; empty for unknown."""
    whole = verdict(premises, claim)
    if whole == "unknown":
        return ()
    for size in range(len(premises) + 1):
        for numbers in combinations(range(len(premises)), size):
            if verdict([premises[number] for number in numbers], claim) == whole:
                return numbers
    raise AssertionError("the whole is a subset of itself")
