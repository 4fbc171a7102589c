"""Mistakes that would pass unseen without the tests: each makes one of them fail."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein
from tests.methods.tm import test_memory, test_module, test_retrieval
from tests.methods.tm.test_module import units as units

from athlos.methods.tm import memory, module
from athlos.methods.tm.config import Order, Shortlist
from athlos.methods.tm.memory import Pair, shown_targets
from athlos.methods.tm.prompts import ordered
from athlos.retrieval import fuzzy


def of_the_next_pair(pairs: Mapping[str, Pair], **how: Any) -> dict[str, str]:
    """The target of another pair."""
    targets = shown_targets(pairs, **how)
    return dict(zip(targets, [*list(targets.values())[1:], next(iter(targets.values()))], strict=True))


def over_the_shorter(first: str, second: str, **_: Any) -> float:
    """The distance over the minimum of the lengths."""
    shortest = min(len(first), len(second))
    return max(0.0, (shortest - Levenshtein.distance(first, second)) / shortest) if shortest else 0.0


def the_other_way_round(pairs: Sequence[tuple[str, str]], *, order: Order, seed: str) -> list[tuple[str, str]]:
    """Best and worst swapped."""
    return list(reversed(ordered(pairs, order=order, seed=seed)))


def of_one_kind(source: str) -> str:
    """A memory that is searched for the test's sentences as they are written."""
    return source


def replies(units: Path) -> None:
    test_module.test_pairs_stand_before_the_sentence_and_the_value_is_read(units)


def shown_sources(units: Path) -> None:
    test_module.test_the_target_is_that_of_the_shown_source(units)


def rankings(units: Path) -> None:
    empty = units.parent / f"cache-{len(list(units.parent.iterdir()))}"  # no product of an earlier call is found
    test_retrieval.test_the_ranking_by_fuzzy_match_is_that_of_the_naive_search(Shortlist.all, empty)


def near_copies(_: Path) -> None:
    test_memory.test_a_test_sentence_and_its_near_copies_are_left_out_of_the_memory()


SABOTAGES: dict[str, tuple[Any, str, Any, Callable[[Path], None]]] = {
    "target of another pair": (module, "shown_targets", of_the_next_pair, shown_sources),
    "distance over the minimum": (
        fuzzy,
        "Levenshtein",
        SimpleNamespace(normalized_similarity=over_the_shorter),
        rankings,
    ),
    "best and worst swapped": (module, "ordered", the_other_way_round, replies),
    "near copies stay in the memory": (memory, "normalised", of_one_kind, near_copies),
}


@pytest.mark.parametrize("case", SABOTAGES)
def test_each_sabotage_fails_a_test_that_passes_without_it(
    case: str, units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name, wrong, test = SABOTAGES[case]
    test(units)
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError):
        test(units)
