"""The memory of software messages, as its files are."""

from pathlib import Path

import pytest
from tests.methods.tm.test_module import asked, evaluated, module_of

from athlos.methods.tm import scores
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


@pytest.mark.parametrize(("language", "several"), [("zh", 100), ("de", 5)])
def test_of_several_targets_of_a_source_the_memory_has_the_first(po_tm: Path, language: str, several: int) -> None:
    module, _ = module_of(po_tm, lambda request: "[x]", f"data.target_language={language}", "data.test_split=val")
    records = [record for record in module.context.data.source.read("all") if 3 <= len(record.source.split()) <= 60]
    targets: dict[str, list[str]] = {}
    for record in records:
        targets.setdefault(record.source, []).append(record.target)
    doubled = {source: of_source for source, of_source in targets.items() if len(set(of_source)) > 1}
    assert len(doubled) == several
    pairs = module.memory.pairs.values()
    assert len({normalised(pair.source) for pair in pairs}) == len(pairs)
    kept = [pair for pair in pairs if pair.source in doubled]
    assert len(kept) > several / 2
    assert all(pair.target == doubled[pair.source][0] for pair in kept)
    assert module.memory.counts["same_source"] >= len(kept)


def test_placeholders_of_the_files_are_seen_and_kept_by_translators(po_tm: Path) -> None:
    rows = [line.split("\t") for line in (po_tm / "en-de.tsv").read_text(encoding="utf-8").split("\n")[1:-1]]
    marked = [(source, target) for _, source, target in rows if "%" in source or "{" in source]
    assert (len(rows), len(marked)) == (2635, 681)
    kept = [scores.placeholder_acc(target, source) for source, target in marked]
    assert sum(kept) / len(kept) == pytest.approx(0.993, abs=0.001)  # nan if one were not seen
    # Another entry's translation, as the control shows it, has other placeholders.
    moved = [
        scores.placeholder_acc(target, source) for (source, _), (_, target) in zip(marked, marked[7:], strict=False)
    ]
    assert sum(moved) / len(moved) < 0.3
