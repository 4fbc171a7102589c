"""Questions about single facts: of the lab world, by exposure, and of countries, by how well known they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.fact_variants import BACKGROUND, DENIAL, EXPANSIONS, FACT, REGION, STATEMENTS
from athlos.data.records import QuestionRecord
from athlos.data.source import build_source
from athlos.data.sources.lab_facts import LabFactsSource
from athlos.data.sources.world_questions import THIRDS, WorldQuestionsSource
from athlos.errors import ConfigError, DataError
from athlos.lab.world import Exposure

LAB = ["data=lab_facts", "prompt_style=bare", "model=lab/lang", "eval=qa"]
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def lab() -> Any:
    return build_source(run_config(LAB))


def questions(source: Any, split: str) -> list[QuestionRecord]:
    return [record for record in source.records(split) if isinstance(record, QuestionRecord)]


def test_each_exposure_has_its_share_in_each_split_and_its_region(lab: LabFactsSource) -> None:
    of_split = {split: questions(lab, split) for split in SPLITS}
    assert [len(of_split[split]) for split in SPLITS] == [210, 60, 330]
    for split, share in zip(SPLITS, (70, 20, 110), strict=True):
        regions = [record.meta[REGION] for record in of_split[split]]
        assert {region: regions.count(region) for region in ("mastered", "confused", "missing")} == {
            "mastered": share,
            "confused": share,
            "missing": share,
        }
    told = {f"{fact.subject}-{fact.relation}": lab.world.exposure(fact) for fact in lab.world.facts}
    names = {"mastered": Exposure.frequent, "confused": Exposure.rare, "missing": Exposure.none}
    assert all(told[record.meta[FACT]] is names[record.meta[REGION]] for record in of_split["test"])
    facts = [{record.meta[FACT] for record in of_split[split]} for split in SPLITS]
    assert len(set().union(*facts)) == sum(map(len, facts))


def test_what_is_told_of_a_training_fact_is_true_and_of_no_test_fact(lab: LabFactsSource) -> None:
    secret = {text for record in questions(lab, "test") for text in record.meta[STATEMENTS]}
    spoken = lab.world.languages["latn"]
    for record in questions(lab, "train"):
        [answer] = record.answers
        assert all(answer in text for text in record.meta[STATEMENTS])
        assert answer not in record.meta[DENIAL]
        assert record.meta[DENIAL].count("{}") == 1
        assert spoken.parse(record.meta[DENIAL].format(answer)).is_negated
        assert not secret & {*record.meta[BACKGROUND], *record.meta[STATEMENTS]}
        assert all(question.endswith("?") for question in record.meta[EXPANSIONS])
    assert sum(bool(record.meta[EXPANSIONS]) for record in questions(lab, "train")) > 10
    assert sum(bool(record.meta[BACKGROUND]) for record in questions(lab, "train")) > 50


def test_splits_ask_in_wordings_of_their_own(lab: LabFactsSource) -> None:
    assert {record.identifier.rpartition("-")[2] for record in questions(lab, "train")} == {"noun"}
    assert {record.identifier.rpartition("-")[2] for record in questions(lab, "test")} == {"has"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.shares=[0.5,0.5]", "data.shares: got [0.5, 0.5], expected three numbers"),
        ("data.shares=[0.5,0.5,0.5]", "expected three numbers >= 0 that sum to 1"),
        ("data.train_wordings=[]", "data.train_wordings: got none, expected some of noun"),
        ("prompt_style=closed_book", "data=lab_facts needs bare"),
    ],
)
def test_wrong_dials_are_told(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_config([*LAB, change])
    assert message in str(caught.value)
    with pytest.raises(DataError, match="has no split 'dev'"):
        list(build_source(run_config(LAB)).records("dev"))


def row(code: str, *, area: float, member: bool, borders: list[str]) -> dict[str, Any]:
    return {
        "cca2": code[:2],
        "cca3": code,
        "name": {"common": f"{code.title()}land"},
        "translations": {},
        "region": "Europe",
        "subregion": "Northern Europe",
        "currencies": {"X": {"name": f"{code} crown"}},
        "demonyms": {"eng": {"m": f"{code}ish"}},
        "languages": {"a": "Alpha", "b": "Beta"} if code == "AAA" else {},
        "borders": borders,
        "area": area,
        "capital": [f"{code} City"],
        "tld": [],
        "unMember": member,
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        row("AAA", area=1, member=True, borders=["BBB"]),
        row("BBB", area=900, member=False, borders=["AAA"]),
        row("CCC", area=50, member=True, borders=[]),
    ]
    (tmp_path / "countries.json").write_text(json.dumps(rows))
    return tmp_path


def world(table: Path, *changes: str) -> Any:
    return build_source(run_config(["data=world_questions", f"data.dir={table}", "eval=qa", *changes]))


def test_countries_are_asked_by_what_the_table_has_of_them(table: Path) -> None:
    source = world(table, "data.split_shares={train: 0, dev: 0, test: 1}")
    by_id = {record.identifier: record for record in questions(source, "test")}
    assert len(by_id) == 6 + 5 + 5
    capital = by_id["AAA-capital"]
    assert (capital.question, capital.answers) == ("What is the capital of Aaaland?", ["AAA City"])
    assert capital.meta[STATEMENTS][0] == "The capital of Aaaland is AAA City."
    assert by_id["AAA-language"].answers == ["Alpha", "Beta"]
    assert "BBB-language" not in by_id
    assert "The capital of Aaaland is AAA City." not in capital.meta[BACKGROUND]
    border = by_id["CCC-border"]
    assert border.answers == ["no"]
    # Members first, then by area.
    thirds = {code: by_id[f"{code}-capital"].meta["popularity"] for code in ("CCC", "AAA", "BBB")}
    assert tuple(thirds.values()) == THIRDS


def test_a_country_is_in_one_split_and_limits_take_a_sample(shared_data: Path) -> None:
    source: WorldQuestionsSource = world(shared_data / "world_facts")
    of_split = {split: questions(source, split) for split in ("train", "dev", "test")}
    countries = [{record.identifier[:3] for record in records} for records in of_split.values()]
    assert len(set().union(*countries)) == sum(map(len, countries)) == 250
    first = list(source.records("test", limit=40))
    assert first == of_split["test"][:40]
    assert len({record.meta["relation"] for record in first}) == 6
    yes = [record.answers == ["yes"] for record in of_split["test"] if record.meta["relation"] == "border"]
    assert 0.2 < sum(yes) / len(yes) < 0.6


def test_a_wrong_split_or_shares_are_told(table: Path) -> None:
    with pytest.raises(DataError, match="has no split 'val'"):
        list(world(table).records("val"))
    with pytest.raises(ConfigError, match="expected shares of train, dev and test that sum to 1"):
        world(table, "data.split_shares={train: 1, dev: 1, test: 0}")
