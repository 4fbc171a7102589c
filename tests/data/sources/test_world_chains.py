"""Questions about countries: one answer each, in every language, read back from the passages."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from athlos.config.compose import run_config
from athlos.data.records import PARALLEL, FactRecord, QuestionRecord
from athlos.data.sources.world_chains import FORWARD, WorldChainsConfig, WorldChainsSource, WorldTable
from athlos.data.sources.world_facts import WorldFactsConfig, WorldFactsSource
from athlos.errors import ConfigError, DataError
from athlos.methods.dapt.graph import filled

COUNTRIES = {
    # code: (English, German, capitals, borders, area)
    "AAA": ("Alia", "Alien", ["Acity"], ["BBB", "CCC"], 10),
    "BBB": ("Belia", "Belien", ["Bcity"], ["AAA", "CCC", "DDD"], 30),
    "CCC": ("Celia", "Celien", ["Ccity"], ["AAA", "BBB"], 20),
    "DDD": ("Delia", "Delien", ["Shared"], ["BBB", "EEE"], 20),
    "EEE": ("Elia", "Elien", ["Shared"], ["DDD"], 5),
    "FFF": ("Felia", "Felien", ["F1", "F2"], ["AAA", "CCC", "DDD"], 7),  # two capitals; CCC and DDD are equally large
    "GGG": ("Gelia", "Gelien", ["Gelia"], ["AAA"], 7),  # a capital named like its country
    "HHH": ("Twin", "Helien", ["Hcity"], ["AAA"], 8),
    "III": ("Twin", "Ilien", ["Icity"], ["AAA"], 9),  # two countries of one name
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {
            "name": {"common": english},
            "cca2": code[:2],
            "unMember": True,
            "cca3": code,
            "translations": {"deu": {"common": german}},
            "capital": capitals,
            "region": "",
            "subregion": "",
            "languages": {},
            "currencies": {},
            "borders": borders,
            "demonyms": {},
            "tld": [f".{code[:2].lower()}"],
            "area": area,
        }
        for code, (english, german, capitals, borders, area) in COUNTRIES.items()
    ]
    (tmp_path / "countries.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


def source_of(folder: Path, **values: object) -> WorldChainsSource:
    values = {"languages": ["en", "de"], "num_test": 12, "num_dev": 4, **values}
    return WorldChainsSource(WorldChainsConfig(_target_="", name="world_chains", dir=str(folder), **values))  # type: ignore[arg-type]


def table_of(folder: Path) -> WorldTable:
    source = WorldFactsSource(WorldFactsConfig(_target_="", name="world_facts", dir=str(folder)))
    return WorldTable([record for record in source.records("all") if isinstance(record, FactRecord)])


def test_only_what_has_one_answer_is_a_fact(folder: Path):
    facts = table_of(folder).facts
    assert facts["AAA", "largest_neighbour"] == "BBB"
    assert facts["AAA", "smallest_neighbour"] == "CCC"
    assert facts["BBB", "smallest_neighbour"] == "AAA"
    assert ("BBB", "largest_neighbour") not in facts  # CCC and DDD are equally large
    assert ("FFF", "capital") not in facts
    assert ("DDD", "capital") not in facts
    assert ("EEE", "capital") not in facts
    assert ("F1", "capital_country") not in table_of(folder).country_of


def test_chains_visit_no_country_twice_and_are_followed_by_the_table(folder: Path):
    table = table_of(folder)
    for hops in (2, 3):
        chains = list(table.chains(hops))
        assert len({chain.identifier for chain in chains}) == len(chains)
        for chain in chains:
            at, visited = chain.start, [chain.start]
            for relation, answer in zip(chain.relations, chain.answers, strict=True):
                assert table.follow(at, relation) == answer
                at = answer
                visited.append(at)
            assert len(set(visited)) == len(visited)


def records_of(source: WorldChainsSource, split: str) -> list[QuestionRecord]:
    return [record for record in source.records(split) if isinstance(record, QuestionRecord)]


def test_every_question_is_in_every_language_and_in_one_split(folder: Path):
    source = source_of(folder)
    test, dev = records_of(source, "test"), records_of(source, "dev")
    assert len(test) == 2 * 12
    assert len(dev) == 2 * 4
    keys = [{record.identifier.partition("-")[2] for record in of} for of in (test, dev)]
    assert len(keys[0]) == 12
    assert not keys[0] & keys[1]
    assert source.fingerprint("test") != source.fingerprint("dev")
    assert [record.identifier for record in records_of(source_of(folder), "test")] == [
        record.identifier for record in test
    ]


def steps_read(source: WorldChainsSource, record: QuestionRecord) -> Iterator[tuple[str | None, str]]:
    """What the exact reader says to each filled step from the passage it names, and the gold answer."""
    answers = {number: step.answer for number, step in enumerate(record.steps, start=1)}
    texts = {passage.identifier: passage.text for passage in record.passages}
    for step in record.steps:
        question = filled(step.question, answers)
        yield source.exact.answer(question, [texts[step.supporting]], language=record.language), step.answer


def assert_consistent(source: WorldChainsSource) -> None:
    for record in records_of(source, "test"):
        assert all(read == gold for read, gold in steps_read(source, record))
        assert record.answers == [record.steps[-1].answer]
        for step, (english, _) in zip(record.steps, record.meta[PARALLEL]["steps"], strict=True):
            assert source.exact.translation(step.question, language="en") == english
            assert source.exact.translation(english, language=record.language) == step.question
        supporting = {passage.identifier for passage in record.passages if passage.is_supporting}
        assert supporting == {step.supporting for step in record.steps}
        with pytest.raises(DataError, match="single known fact"):
            source.exact.answer(record.question, [passage.text for passage in record.passages], language="en")


def test_steps_are_read_back_from_their_passages_in_every_language(folder: Path):
    assert_consistent(source_of(folder))


def test_names_that_two_share_stand_in_no_question(folder: Path):
    source = source_of(folder)
    assert source.exact.is_ambiguous("HHH")
    assert source.exact.is_ambiguous("Gelia")
    assert not source.exact.is_ambiguous("AAA")
    for split in ("test", "dev"):
        for chain in source.chains[split]:
            assert not {"HHH", "III", "Gelia"} & {chain.start, *chain.answers}


def test_the_reader_takes_the_fact_asked_for_and_no_other(folder: Path):
    exact = source_of(folder).exact
    passage = "The capital of Alia is Acity.\nThe largest neighbouring country of Alia is Belia.\nNonsense."
    assert exact.answer("What is the capital of Alia?", [passage], language="de") == "Acity"
    assert exact.answer("Wie heißt das größte Nachbarland von Alien?", [passage], language="de") == "Belien"
    assert exact.answer("Wie heißt das Land mit der Hauptstadt Acity?", [passage], language="en") == "Alia"
    assert exact.answer("What is the capital of Belia?", [passage], language="en") is None
    assert exact.answer("What is the capital of Alia?", [], language="en") is None
    assert exact.translation("What is the capital of #1?", language="de") == "Wie heißt die Hauptstadt von #1?"
    for text in ("What is the capital of Nowhere?", "What is the capital of ?", "Hello", ""):
        with pytest.raises(DataError, match="single known fact"):
            exact.translation(text, language="de")


def test_bad_values_are_refused(folder: Path):
    with pytest.raises(DataError, match="no split 'train'"):
        list(source_of(folder).records("train"))
    with pytest.raises(DataError, match="the table has too few chains"):
        list(source_of(folder, num_test=10_000).records("test"))
    for languages, message in (("[en,fi]", "data.languages: got 'fi'"), ("[de,en]", "expected en first")):
        with pytest.raises(ConfigError, match=message):
            run_config(
                ["experiment=dapt/world", f"data.dir={folder}", f"data.languages={languages}"],
            )


@pytest.mark.shared
def test_the_real_table_gives_300_questions_with_one_answer_each(shared_data: Path):
    source = source_of(shared_data / "world_facts", languages=["en", "de", "es", "fr", "ja", "zh"], num_test=300)
    records = records_of(source, "test")
    assert len(records) == 6 * 300
    countries = {record.identifier: record for record in source.table.records.values()}
    for record in records[:300]:
        for step in record.steps:
            assert step.supporting in countries
    for (country, relation), value in source.table.facts.items():
        row = countries[country].relations
        if relation in ("capital", "domain"):
            key = "capital" if relation == "capital" else "internet_domain"
            assert row[key] == [value]
            assert sum(value in other.relations[key] for other in countries.values()) == 1
        else:
            assert relation in FORWARD
            areas = sorted(float(countries[near].relations["area_km2"][0]) for near in row["borders"])
            extreme = areas[-1] if relation == "largest_neighbour" else areas[0]
            assert areas.count(extreme) == 1
            assert float(countries[value].relations["area_km2"][0]) == extreme
    assert_consistent(source)
