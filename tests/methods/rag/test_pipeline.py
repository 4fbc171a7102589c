"""The variants of method=rag, step by step: what is asked and searched in which order, and what is read."""

import pytest
from tests.methods.rag.scripted import question, read, solved

from athlos.errors import DataError
from athlos.methods.rag.pipeline import shares


def purposes(asks):
    return [ask.purpose for ask in asks]


def test_closed_book_searches_nothing():
    prediction, asks, searches = solved("variant=closed", replies=["Ada."])
    assert (prediction.text, purposes(asks), searches) == ("Ada", ["closed"], [])
    assert asks[0].prompt.startswith("Beantworte die Frage so kurz")
    assert asks[0].prompt.endswith("\n\nFrage: Who ruled Ulm?\nAntwort:")
    assert (asks[0].max_new_tokens, asks[0].stop, asks[0].language) == (9, ("\n",), "de")


def test_naive_reads_what_one_search_finds():
    prediction, asks, searches = solved("variant=naive", "k=2", replies=['"Ada"'])
    assert (prediction.text, purposes(asks)) == ("Ada", ["read"])
    assert searches == [("Who ruled Ulm?", 2, "de")]
    assert (
        "Textstelle 1: de about Ulm 1\nTextstelle 2: de about Ulm 2\nFrage: Who ruled Ulm?\nAntwort:" in asks[0].prompt
    )
    assert read(prediction) == [["Ulm-1", "Ulm-2"]]


def test_in_english_the_translated_question_is_searched_and_the_question_itself_is_read():
    _, asks, searches = solved("variant=naive", "retrieval=en", "k=2", replies=["Who led Bonn?", "Ada"])
    assert purposes(asks) == ["translate", "read"]
    assert asks[0].prompt.endswith("\n\nGerman: Who ruled Ulm?\nEnglish:")
    assert searches == [("Who led Bonn?", 2, "en")]
    assert asks[1].question == "Who ruled Ulm?"


def test_two_languages_share_one_k_and_a_passage_of_both_counts_once():
    prediction, _, searches = solved("variant=naive", "retrieval=bilingual", "k=3", replies=["led Ulm?", "Ada"])
    assert searches == [("Who ruled Ulm?", 3, "de"), ("led Ulm?", 3, "en")]
    assert read(prediction) == [["Ulm-1", "Ulm-2", "Ulm-3"]]
    prediction, _, _ = solved("variant=naive", "retrieval=bilingual", "k=3", replies=["led Bonn?", "Ada"])
    assert read(prediction) == [["Ulm-1", "Bonn-1", "Ulm-2"]]


def test_a_question_in_the_pivot_language_is_not_translated():
    _, asks, searches = solved(
        "variant=naive", "retrieval=bilingual", "k=2", replies=["Ada"], record=question(language="en")
    )
    assert (purposes(asks), searches) == (["read"], [("Who ruled Ulm?", 2, "en")])


def test_translate_reads_the_translation_and_answers_in_the_language_of_the_question():
    prediction, asks, searches = solved("variant=translate", "k=2", replies=["Who led Bonn?", "Ada"])
    assert (purposes(asks), searches) == (["translate", "read"], [("Who led Bonn?", 2, "en")])
    assert asks[1].prompt.startswith("Answer the question from the passages alone")
    assert " Answer in German.\n\nPassage 1: en about Bonn 1\n" in asks[1].prompt
    assert (asks[1].question, asks[1].language) == ("Who led Bonn?", "de")
    assert [row.get("prompt_language") for row in prediction.trace] == ["en", None, "en"]


PLAN = "Sure:\n1. Who founded Ulm?\n2) Who was the son of #1?\n3. Where did #2 follow #1?\n"


def test_sub_questions_are_solved_in_order_with_earlier_answers_filled_in():
    prediction, asks, searches = solved("variant=sequential", "k=5", replies=[PLAN, "Ada.", "Ben", "Rome"])
    assert purposes(asks) == ["decompose", "read", "read", "read"]
    assert searches == [
        ("Who founded Ulm?", 2, "de"),
        ("Who was the son of Ada?", 2, "de"),
        ("Where did Ben follow Ada?", 1, "de"),
    ]
    assert [ask.question for ask in asks[1:]] == [query for query, _, _ in searches]
    assert prediction.text == "Rome"
    assert sum(map(len, read(prediction))) == 5


def test_a_sub_question_whose_parent_is_unknown_asks_with_the_parent_s_question():
    prediction, _, searches = solved("variant=sequential", replies=[PLAN, "Unknown.", "Ben", "Rome"])
    assert [query for query, _, _ in searches][1:] == [
        "Who was the son of Who founded Ulm??",
        "Where did Ben follow Who founded Ulm??",
    ]
    assert [row["purpose"] for row in prediction.trace if "query" in row] == [
        "search",
        "search_unfilled",
        "search_unfilled",
    ]


def test_an_unknown_answer_that_nobody_takes_changes_nothing():
    record = question(steps=["Who founded Ulm?", "Who was the son of #1?", "Where was #1 born?"])
    settings = ("variant=sequential", "decomposer=gold")
    prediction, _, searches = solved(*settings, replies=["Ada", "unknown", "Rome"], record=record)
    assert searches[2][0] == "Where was Ada born?"
    assert {row["purpose"] for row in prediction.trace if "query" in row} == {"search"}


@pytest.mark.parametrize("reply", ["", "I cannot.", "1. Who is #1?", "1. Who?\n2. And #3?", "1. What of #0?"])
def test_a_plan_that_cannot_be_followed_is_the_whole_question(reply):
    prediction, _, searches = solved("variant=sequential", "k=4", "max_rounds=4", replies=[reply, "Ada"])
    assert searches == [("Who ruled Ulm?", 4, "de")]
    assert prediction.trace[1]["purpose"] == "search_whole"


def test_gold_steps_need_no_call_and_have_to_be_there():
    record = question(steps=["Who founded Ulm?", "Who was the son of #1?"])
    prediction, asks, searches = solved(
        "variant=sequential", "decomposer=gold", "k=4", "max_rounds=4", replies=["Ada", "unknown"], record=record
    )
    assert (purposes(asks), prediction.text) == (["read", "read"], "unknown")
    assert searches == [("Who founded Ulm?", 2, "de"), ("Who was the son of Ada?", 2, "de")]
    with pytest.raises(DataError, match=r"'q': it has 0 gold steps, expected 1 to method\.k = 4"):
        solved("variant=sequential", "decomposer=gold", "k=4", "max_rounds=4", replies=[])
    forward = question(steps=["Who was the son of #2?", "Who founded Ulm?"])
    with pytest.raises(DataError, match="'q': a gold step takes an answer that is not there yet"):
        solved("variant=sequential", "decomposer=gold", "k=4", "max_rounds=4", replies=["Ada", "Ben"], record=forward)


def test_self_ask_looks_up_what_the_model_asks_next_until_it_answers():
    prediction, asks, searches = solved(
        "variant=self_ask",
        "k=4",
        "max_rounds=2",
        replies=["Next question: Who founded Ulm?", "Ada", "Final answer: Rome."],
    )
    assert (prediction.text, purposes(asks)) == ("Rome", ["follow_up", "read", "follow_up"])
    assert searches == [("Who founded Ulm?", 2, "de")]
    assert asks[0].prompt.endswith("\n\nQuestion: Who ruled Ulm?\n")
    assert asks[2].prompt.endswith("Question: Who ruled Ulm?\nNext question: Who founded Ulm?\nIts answer: Ada\n")
    assert asks[2].said == ("Ada",)


def test_self_ask_ends_after_its_rounds_with_the_last_answer():
    rounds = ["Next question: Who founded Ulm?", "Ada", "Next question: And Bonn?", "Ben"]
    settings = ("variant=self_ask", "k=3", "max_rounds=2")
    prediction, _, searches = solved(*settings, replies=[*rounds, "Next question: And Rome?"])
    assert (prediction.text, [k for _, k, _ in searches]) == ("Ben", [2, 1])
    assert solved(*settings, replies=[*rounds, "Final answer: Eve"])[0].text == "Eve"


def test_self_ask_takes_a_reply_in_another_form_for_the_answer():
    assert solved("variant=self_ask", replies=["Ada."])[0].text == "Ada"


def test_ircot_searches_with_each_sentence_and_reads_all_it_found():
    prediction, asks, searches = solved(
        "variant=ircot",
        "k=5",
        "max_rounds=2",
        replies=["Ulm was founded by Ada.", "Final answer: Ben"],
    )
    assert (prediction.text, purposes(asks)) == ("Ben", ["think", "think"])
    assert searches == [("Who ruled Ulm?", 3, "de"), ("Ulm was founded by Ada.", 5, "de")]
    assert read(prediction) == [["Ulm-1", "Ulm-2", "Ulm-3"], ["Ulm-1", "Ulm-2", "Ulm-3", "Ada-1", "Ada-2"]]
    assert asks[1].prompt.endswith("Question: Who ruled Ulm?\nReasoning:\nUlm was founded by Ada.\n")


def test_ircot_without_an_answer_is_read_with_its_thoughts():
    prediction, asks, _ = solved(
        "variant=ircot", "k=2", "max_rounds=2", replies=["Ulm was ruled by Ada.", "So it was Ada.", "Ada"]
    )
    assert (prediction.text, purposes(asks)) == ("Ada", ["think", "think", "read"])
    assert "- Ulm was ruled by Ada.\n- So it was Ada.\nFrage: Who ruled Ulm?" in asks[2].prompt
    assert read(prediction)[1] == ["Ulm-1", "Ada-1"]  # what was found before is no new passage, and none is dropped


def test_a_passage_found_again_makes_room_for_the_next_one():
    prediction, _, _ = solved("variant=ircot", "k=4", "max_rounds=2", replies=["Yes Ulm.", "Final answer: Ada"])
    assert read(prediction)[1] == ["Ulm-1", "Ulm-2", "Ulm-3", "Ulm-4"]


REPLIES = {
    "naive": ["A"],
    "translate": ["T", "A"],
    "sequential": [PLAN, "A", "B", "C"],
    "self_ask": [*["Next question: X?", "A"] * 4, "Final answer: A"],
    "ircot": ["One.", "Two.", "Three.", "Four.", "A"],
}


@pytest.mark.parametrize("variant", REPLIES)
@pytest.mark.parametrize("k", [4, 7])
def test_no_variant_reads_more_than_k_passages(variant, k):
    prediction, _, searches = solved(f"variant={variant}", f"k={k}", "max_rounds=4", replies=REPLIES[variant])
    sets = [set(identifiers) for identifiers in read(prediction)]
    assert len(set.union(*sets)) <= k
    if variant != "ircot":  # where the passages of earlier rounds stay in the prompt
        assert sum(wanted for _, wanted, _ in searches) == k


def test_bare_prompts_are_passages_and_question_alone():
    _, asks, _ = solved("variant=naive", "k=2", replies=["Ada"], is_bare=True, stop=("!",))
    assert asks[0].prompt == "de about Ulm 1 de about Ulm 2 Who ruled Ulm?"
    assert (asks[0].prompt_language, asks[0].stop) == ("", ("\n", "!"))


def test_shares_are_dealt_from_the_front():
    assert shares(5, 2) == [3, 2]
    assert shares(4, 4) == [1, 1, 1, 1]
    assert shares(7, 3) == [3, 2, 2]
