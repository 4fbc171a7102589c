"""`data=lab`: splits, what may be left out of them, what changes the fingerprint, and what is refused."""

from collections import Counter
from pathlib import Path

import pytest

from athlos.cli.main import main
from athlos.config.compose import run_config
from athlos.data.records import QuestionRecord, Record, TextRecord
from athlos.data.source import build_source
from athlos.data.sources.lab import LabSource
from athlos.errors import ConfigErrors, DataError

SMALL = [
    "data=lab",
    "prompt_style=bare",
    "train.max_steps=0",
    "data.world.num_persons=40",
    "data.world.num_cities=20",
    "data.world.num_states=5",
    "data.world.num_none=20",
    "data.world.num_rare=20",
    "data.world.num_frequent=20",
    "data.world.rare_exposures=2",
    "data.world.frequent_exposures=3",
    "data.world.background_exposures=3",
    "data.mixture.num_documents=50",
    "data.mixture.num_recitals=20",
    "data.mixture.num_sums=40",
    "data.mixture.chain_repeats=2",
    "data.mixture.num_probes=4",
    "data.mixture.chains.num_train=[10,4,2]",
    "data.mixture.chains.num_test=[3,2,1]",
]
LANGUAGES = {"latn", "cyrl", "grek", "thai", "hani"}


def source(*overrides: str) -> LabSource:
    built = build_source(run_config([*SMALL, *overrides]))
    assert isinstance(built, LabSource)
    return built


def read(split: str, *overrides: str) -> list[Record]:
    return list(source(*overrides).records(split))


def kinds(records: list[Record]) -> Counter[str]:
    return Counter(record.meta["kind"] for record in records)


def test_shipped_values_compose() -> None:
    data = run_config(["data=lab", "prompt_style=bare", "train.max_steps=0"]).data
    assert (data.train_split, data.val_split, data.test_split) == ("train", "val", "test")


def test_splits_hold_what_they_should() -> None:
    train, val, test = (read(split) for split in ("train", "val", "test"))
    amounts = kinds(train)
    assert set(amounts) == {"fact", "statement", "document", "recital", "sum", "chain"}
    assert (amounts["document"], amounts["recital"], amounts["sum"], amounts["chain"]) == (50, 20, 40, 2 * 16)
    assert kinds(val) == {"document": 4, "sum": 4}
    assert kinds(test) == {"fact": 4 * 4 * 5, "document": 4 * 4 * 5, "sum": 4 * 4 * 5, "chain": 6}
    for records in (train, val, test):
        assert len({record.identifier for record in records}) == len(records)
    assert {record.language for record in train} == {record.language for record in test} == LANGUAGES


def test_records_are_typed_by_kind() -> None:
    for record in [*read("train"), *read("test")]:
        if record.meta["kind"] == "statement":
            assert isinstance(record, TextRecord)
            assert record.text
            continue
        assert isinstance(record, QuestionRecord)
        assert len(record.answers) == 1
        assert bool(record.passages) == (record.meta["kind"] in ("document", "recital"))
        assert bool(record.question) == (record.meta["kind"] != "recital")
        assert record.meta["dial"] or record.meta["kind"] == "recital"


def test_kinds_keep_the_same_records_in_every_split() -> None:
    chosen = "data.kinds=[sum,chain]"
    for split, left in (("train", {"sum", "chain"}), ("val", {"sum"}), ("test", {"sum", "chain"})):
        records = read(split, chosen)
        assert set(kinds(records)) == left
        assert records == [record for record in read(split) if record.meta["kind"] in left]


def test_train_languages_leave_the_probes_alone() -> None:
    chosen = "data.train_languages=[latn,hani]"
    assert read("train", chosen) == [record for record in read("train") if record.language in ("latn", "hani")]
    assert {record.language for record in read("train", chosen)} == {"latn", "hani"}
    assert {record.language for record in read("val", chosen)} <= {"latn", "hani"}
    assert read("test", chosen) == read("test")
    assert {record.language for record in read("test", chosen)} == LANGUAGES


def test_fingerprints_follow_the_text() -> None:
    base = {split: source().fingerprint(split) for split in ("train", "val", "test")}
    assert len(set(base.values())) == 3
    assert base == {split: source().fingerprint(split) for split in base}
    changes = [
        "data.world.seed=2",
        "data.world.num_rare=19",
        "data.mixture.num_sums=41",
        "data.mixture.sums.max_start=8",
        "data.mixture.chains.seed=1",
        "data.kinds=[sum]",
    ]
    found = [source(change).fingerprint("train") for change in changes]
    assert len({*found, base["train"]}) == len(changes) + 1
    fewer = source("data.train_languages=[latn]")
    assert fewer.fingerprint("train") != base["train"]
    assert fewer.fingerprint("val") != base["val"]
    assert fewer.fingerprint("test") == base["test"]


@pytest.mark.parametrize(
    "change", ["data.limit_train=3", "train.lr=0.5", "seed=7", f"data.train_languages=[{','.join(sorted(LANGUAGES))}]"]
)
def test_what_does_not_change_the_text_does_not_change_it(change: str) -> None:
    first, second = list(source().read("train")), list(source(change).read("train"))
    assert first == second
    if "train_languages" not in change:
        assert source(change).fingerprint("train") == source().fingerprint("train")


def test_a_limit_counts_in_each_language() -> None:
    """As `data.limit_test` says of a source with languages."""
    amounts = Counter(record.language for record in source().records("test", limit=2))
    assert amounts == dict.fromkeys(LANGUAGES, 2)


def test_the_word_list_is_the_worlds() -> None:
    first, other = set(source().words()), set(source("data.world.seed=2").words())
    assert {" 0", " 99", " =", "."} <= first
    assert first != other


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.kinds=[sums]", "data.kinds: got 'sums', expected any of fact, statement"),
        ("data.train_languages=[hano]", "data.train_languages: got 'hano'; did you mean 'hani'?"),
        ("data.mixture.num_sums=-1", "data.mixture.num_sums: got -1, expected an integer >= 0"),
        ("data.mixture.num_probes=0", "data.mixture.num_probes: got 0, expected an integer >= 1"),
        ("data.mixture.max_document_facts=0", "data.mixture.max_document_facts: got 0, expected an integer >= 1"),
        ("data.world.rare_exposures=0", "data.world.rare_exposures: got 0, expected an integer >= 1"),
        ("prompt_style=default", "prompt_style: got 'default', data=lab needs bare"),
    ],
)
def test_wrong_values_are_refused_with_their_key(override: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        run_config([*SMALL, override])
    assert any(error.startswith(line) for error in caught.value.errors), caught.value.errors


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        run_config([*SMALL, "data.kinds=[sums]", "data.mixture.num_sums=-1", "data.mixture.num_probes=0"])
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize(
    "override", ["data.mixture.sums.min_steps=0", "data.mixture.sums.max_steps=10", "data.mixture.chains.num_train=[1]"]
)
def test_wrong_values_of_sums_and_chains_are_refused_before_the_run(override: str) -> None:
    with pytest.raises(ConfigErrors, match=override.partition("=")[0]):
        run_config([*SMALL, override])


def test_an_unknown_split_is_named() -> None:
    for use in (lambda: list(source().records("tset")), lambda: source().fingerprint("tset")):
        with pytest.raises(DataError, match=r"data=lab has no split 'tset'; did you mean 'test'\?"):
            use()


def test_another_source_has_no_word_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"{split}.txt").write_text("to be or not\n\nto be\n" * 20, encoding="utf-8")
    run = ["data=shakespeare", f"data.dir={folder}", "model.tokenizer.kind=words"]
    message = "data=shakespeare has no closed word list, which model.tokenizer.kind=words needs"
    with pytest.raises(DataError, match=message):
        list(build_source(run_config(run)).words())
    places = [f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"]
    assert main(["run", *run, *places, "tracking=none", "train.max_steps=1"]) == DataError.exit_code
    assert message in capsys.readouterr().err
