"""The exploration of a question: what is asked in which round, with which draws, and what is kept of the replies."""

import json

import pytest
from tests.methods.clueanchor.scripted import RIGHT, Scripted, explore, kind_of, question, tagged

from athlos.data.regions import Assigned, Region, write_regions
from athlos.errors import DataError


def found_by(generator, *overrides, records=()):
    return [json.loads(one.text) for one in explore(*overrides, generator=generator, records=records)]


def test_three_prompts_are_asked_together_and_the_clue_is_used_after_it_is_made():
    generator = Scripted(**RIGHT)
    [row] = found_by(generator)
    assert generator.asked == ["internal", "external", "extract", "clue", "verify"]
    assert generator.batches == [["internal", "external"], ["extract"], ["clue"], ["verify"]]  # each with its stops
    assert [len(row["draws"][path]) for path in ("internal", "external", "clue")] == [1, 1, 1]
    assert all(draws[0]["is_right"] and draws[0]["is_formatted"] for draws in row["draws"].values())
    assert row["draws"]["external"][0]["think"] == "Ada was born in Rome."
    assert (row["clue"], row["clue_acc"], row["v"], row["saw_gold"]) == ("Ada was born in Rome.", 1.0, True, True)
    clue_prompt = next(prompt.text for prompt in generator.prompts if kind_of(prompt.text) == "clue")
    assert "Ada was born in Rome.\n\nAnswer the question" in clue_prompt


def test_the_rule_of_the_draws_is_that_of_the_code_and_each_path_has_a_seed_of_its_own():
    generator = Scripted(**RIGHT)
    found_by(generator)
    rule = generator.rules[0]
    assert (rule.temperature, rule.top_p, rule.presence_penalty) == (1.0, 0.8, 1.0)
    assert [prompt.max_new_tokens for prompt in generator.prompts] == [500, 500, 100, 500, 100]
    assert len({prompt.seed for prompt in generator.prompts}) == 5
    again = Scripted(**RIGHT)
    found_by(again)
    assert [prompt.seed for prompt in again.prompts] == [prompt.seed for prompt in generator.prompts]
    other = Scripted(**RIGHT)
    found_by(other, "seed=2")
    assert {prompt.seed for prompt in other.prompts}.isdisjoint({prompt.seed for prompt in generator.prompts})


def test_the_gold_answer_is_shown_to_the_extraction_alone():
    generator = Scripted(**{**RIGHT, "extract": "Ada liked tea."})
    record = question(answer="Timbuktu")
    record.passages[2].text = "Ada liked tea."
    found_by(generator, records=[record])
    holding = [kind_of(prompt.text) for prompt in generator.prompts if "Timbuktu" in prompt.text]
    assert holding == ["extract"]
    alone = Scripted(**RIGHT)
    [row] = found_by(alone, "construct.explore.clue_source=self", records=[record])
    assert not any("Timbuktu" in prompt.text for prompt in alone.prompts)
    assert row["saw_gold"] is False


def test_a_verify_reply_counts_as_it_stands_and_a_wrong_one_is_kept():
    [row] = found_by(Scripted(**{**RIGHT, "verify": "It must be, well, ROME!"}))
    assert row["v"] is True
    [row] = found_by(Scripted(**{**RIGHT, "verify": "Oslo"}))
    assert (row["v"], row["verify"]) == (False, "Oslo")


def test_without_a_clue_there_is_no_clue_path():
    generator = Scripted(**{**RIGHT, "extract": "  "})
    [row] = found_by(generator)
    assert generator.asked == ["internal", "external", "extract"]
    assert (set(row["draws"]), row["v"]) == ({"internal", "external"}, False)


@pytest.mark.parametrize("paths", ["[internal,external]", "[external,internal]"])
def test_paths_that_are_switched_off_are_not_asked(paths):
    generator = Scripted(**RIGHT)
    [row] = found_by(generator, f"construct.explore.paths={paths}", "construct.explore.clue_source=none")
    assert generator.asked == ["internal", "external"]
    assert (row["clue"], row["v"], row["saw_gold"]) == ("", False, False)


def test_draws_of_one_path_differ_in_their_seed_and_all_are_kept():
    generator = Scripted(**RIGHT)
    [row] = found_by(generator, "construct.explore.num_draws=4")
    assert generator.asked.count("external") == 4
    assert len({prompt.seed for prompt in generator.prompts if kind_of(prompt.text) == "external"}) == 4
    assert [len(row["draws"][path]) for path in ("internal", "external", "clue")] == [4, 4, 4]


def test_a_question_that_the_model_cannot_know_is_not_asked_from_memory(tmp_path):
    regions = {"q0": Region.missing, "q1": Region.confused}
    file = tmp_path / "regions.jsonl"
    write_regions(
        file,
        [
            Assigned(id=one, region=region, assigner="rule", acc=0.0, nats=1.0, kappa=0.5, omega=0.5)
            for one, region in regions.items()
        ],
    )
    switches = ["construct.explore.internal_requires_known=true", f"construct.explore.regions={file}"]
    generator = Scripted(**RIGHT)
    rows = found_by(generator, *switches, records=[question(0), question(1)])
    assert [set(row["draws"]) for row in rows] == [{"external", "clue"}, {"internal", "external", "clue"}]
    never = "construct.explore.paths=[external,clue]"
    assert [set(row["draws"]) for row in found_by(generator, *switches, never, records=[question(0)])] == [
        {"external", "clue"}
    ]
    with pytest.raises(DataError, match="question 'q7' has no region"):
        found_by(generator, *switches, records=[question(7)])


@pytest.mark.parametrize("gold", ["?", "+", " "])
def test_a_gold_answer_that_is_part_of_everything_is_refused(gold):
    with pytest.raises(DataError, match=r"question 'q0': its gold answer '.' is nothing without punctuation"):
        found_by(Scripted(**RIGHT), records=[question(answer=gold)])


def test_a_reply_without_tags_has_no_thought_and_its_whole_text_is_the_answer():
    [row] = found_by(Scripted(**{**RIGHT, "external": "I would say Rome."}))
    [reply] = row["draws"]["external"]
    assert (reply["think"], reply["answer"], reply["is_right"], reply["is_formatted"]) == (
        "",
        "I would say Rome.",
        True,
        False,
    )
    [row] = found_by(Scripted(**{**RIGHT, "external": tagged("x", "Oslo")}))
    assert not row["draws"]["external"][0]["is_right"]
