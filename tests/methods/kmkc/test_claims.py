"""The arms of the lab study are compared at equal numbers of rows and of rollouts, or not at all."""

from pathlib import Path

import pytest
from tests.report.run_folders import write_run

from athlos.methods.kmkc.claims import ALONE, ARMS, CLAIMS, COUNTS
from athlos.report.ledger import Row, Verdict, ledger, read_records

CONFIG = {
    "study": "kmkc_lab",
    "train.max_steps": 80,
    "train.batch_size": 128,
    "method.cgke.steps": 20,
    "method.cgke.batch_size": 128,
    "objective.group_size": 8,
}
COMPARED = "lab, CDKC - GRPO"


def compared(results: Path, changes: dict[str, int]) -> Row:
    """The comparison in accuracy, of two seeds; `changes` are GRPO's alone."""
    for seed in (1, 2):
        for term, accuracy in (("reward", 0.7), ("disabled", 0.5)):
            other = changes if term == "disabled" else {}
            config = {**CONFIG, **ALONE, "reward.entropy_term": term, "seed": seed, **other}
            write_run(results / f"{term}-{seed}", config=config, metrics={"test/acc": accuracy + seed / 100})
    [entry] = ledger({"kmkc": [claim for claim in CLAIMS if claim.id == "kmkc.acc"]}, read_records([results]).usable)
    [row] = [row for row in entry.rows if row.label == COMPARED]
    return row


def test_every_comparison_of_arms_wants_equal_counts() -> None:
    of_arms = [one for claim in CLAIMS for one in claim.comparisons if one.varies == ARMS]
    assert len(of_arms) > 10
    assert {one.equal for one in of_arms} == {COUNTS}


def test_arms_of_equal_counts_are_compared(tmp_path: Path) -> None:
    assert compared(tmp_path, {}).value == pytest.approx(0.2)


@pytest.mark.parametrize("key", COUNTS)
def test_arms_of_unequal_counts_are_not_compared(key: str, tmp_path: Path) -> None:
    row = compared(tmp_path, {key: 3})
    assert row.value is None
    assert row.verdict is not Verdict.REPRODUCED
    assert key in row.reason
