"""The memory of software messages, as its files are."""

from pathlib import Path

import pytest
from tests.methods.tm.test_module import asked, evaluated, module_of

from athlos.methods.tm.memory import normalised


@pytest.fixture
def po_tm(shared_data: Path, tmp_path: Path) -> Path:
    """The folder, beside a cache of the test's own."""
    (tmp_path / "po_tm").symlink_to(shared_data / "po_tm")
    return tmp_path / "po_tm"


def test_no_test_sentence_is_left_in_the_memory_and_the_shortlist_finds_the_best(po_tm: Path) -> None:
    module, _ = module_of(po_tm, lambda request: "[x]")
    records = module.context.data.eval_records("test")
    counts = module.memory.counts
    assert sum(counts[reason] for reason in counts if reason != "read") == counts["read"]
    assert counts["same_source"] > 0
    tested = {normalised(record.source) for record in records}
    assert not tested & {normalised(pair.source) for pair in module.memory.pairs.values()}
    suite_result, _ = evaluated(po_tm, lambda request: "[x]", "eval.suites.tm.zero_shot=false", "eval.bootstrap=0")
    assert suite_result.details["chrf@b4"].n > 0
    # Where the best match is nearly the sentence, its target is a good translation; where it is far, it is none.
    assert (
        suite_result.metrics["chrf_copy@b4"]
        > suite_result.metrics["chrf_copy@b2"]
        > suite_result.metrics["chrf_copy@b0"]
    )
    assert suite_result.metrics["placeholder_acc"] < 0.5


def test_the_shortlist_has_the_best_match_of_nineteen_in_twenty(po_tm: Path) -> None:
    module, _ = module_of(po_tm, lambda request: "[x]", "method.pairs.split=train")
    module.answer([asked(record) for record in module.context.data.eval_records("test")])
    measured, _ = module.measurements()
    assert measured["retrieval/prefilter_recall"] >= 0.95
    assert 0.4 < measured["retrieval/best_fms"] < 0.7  # software repeats itself: news have .18
