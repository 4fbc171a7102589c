"""Both templates, the order of pairs, the forced prefix, and reading what a model wrote."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.tm.made import method

from athlos.config.compose import run_config
from athlos.errors import ConfigError, DataError
from athlos.methods.tm.config import Order
from athlos.methods.tm.prompts import (
    echo_of,
    filled,
    first_line,
    ordered,
    prompt_name,
    read_code,
    read_instruction,
    write_prompt,
)

PAIRS = [("Save page", "Seite speichern"), ("Save [new] page", "Seite [neu] speichern")]


def prompt(*overrides: str, pairs=PAIRS, source: str = "Save all", **more):
    return write_prompt(method(*overrides), source, pairs, source_language="en", target_language="de", **more)


def test_code_is_a_flat_line_of_keys_and_values():
    assert prompt().text == (
        "[English]=[Save page] [German]=[Seite speichern] [English]=[Save [new] page] [German]=[Seite [neu] speichern] "
        "[English]=[Save all] [German]="
    )


def test_instruction_is_one_question_and_a_request_for_the_translation_alone():
    text = prompt("method.template=instruction").text
    assert text.count("?") == 1
    assert text.index('"Save page"') < text.index('"Seite speichern"') < text.index('"Save [new] page"')
    assert text.endswith('"Save all" from English to German? Answer with the translation alone.\n')


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("code", "[English]=[Save all] [German]="),
        (
            "instruction",
            'What is the translation of "Save all" from English to German? Answer with the translation alone.\n',
        ),
    ],
)
def test_without_pairs_it_is_the_zero_shot_prompt_byte_for_byte(template: str, expected: str):
    assert prompt(f"method.template={template}", pairs=[]).text == expected
    # Controls and orders change nothing where there is nothing to show.
    for override in ("method.tm_corrupt=source_only", "method.decoder=prefix_forced", "method.order=best_first"):
        if template == "code" or "prefix" not in override:
            assert prompt(f"method.template={template}", override, pairs=[]).text == expected


def test_line_ends_are_written_out_and_braces_in_a_text_are_no_slots():
    text = prompt(pairs=[("{source}\nx", "{pairs}")], source="a {target} b").text
    assert text == "[English]=[{source}\\nx] [German]=[{pairs}] [English]=[a {target} b] [German]="


def test_controls_show_one_side():
    assert prompt("method.tm_corrupt=source_only").text.startswith("[English]=[Save page] [English]=[Save [new]")
    assert prompt("method.tm_corrupt=target_only").text.startswith("[German]=[Seite speichern] [German]=[Seite [neu]")


def test_the_forced_prefix_holds_the_targets_and_what_follows_counts():
    written = prompt("method.decoder=prefix_forced", pairs=PAIRS[:1])
    assert written.text == "[English]=[Save page ||| Save all] [German]=[Seite speichern ||| "
    assert written.is_open
    assert read_code("Alles [neu] speichern] [English]=[x", is_open=True) == "Alles [neu] speichern"
    assert read_code("[Entwurf] speichern]", is_open=True) == "[Entwurf] speichern"


def test_a_draft_of_another_system_is_one_more_value():
    overrides = ["method.hypothesis=nmt", "method.hypothesis_field=nmt"]
    text = prompt(*overrides, draft="Alle sichern").text
    assert text.endswith("[German draft]=[Alle sichern] [English]=[Save all] [German]=")
    assert "draft" in prompt(*overrides, pairs=[], draft="Alle sichern").text
    with pytest.raises(DataError, match="no draft in the field 'nmt'"):
        prompt(*overrides)


def test_the_best_pair_stands_next_to_the_sentence_or_first():
    best_first = [("1", "a"), ("2", "b"), ("3", "c")]
    assert ordered(best_first, order=Order.best_last, seed="") == best_first[::-1]
    assert ordered(best_first, order=Order.best_first, seed="") == best_first
    draws = {tuple(ordered(best_first, order=Order.random, seed=str(seed))) for seed in range(40)}
    assert len(draws) == 6
    assert best_first == [("1", "a"), ("2", "b"), ("3", "c")]


def test_names_of_languages():
    assert [prompt_name(code) for code in ("de", "zh", "latn")] == ["German", "Chinese", "latn"]
    with pytest.raises(ConfigError, match="no English name for the language code 'xq'"):
        prompt_name("xq")


def test_an_empty_sentence_is_refused():
    with pytest.raises(DataError, match="the sentence to translate is empty"):
        prompt(source=" \n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.code.pair='x {source}'", "method.code.pair: got 'x {source}', expected {target} in it"),
        ("method.code.with_pairs='x'", "method.code.with_pairs: got 'x', expected {pairs} in it"),
        (
            "method.instruction.draft='x {y} {hypothesis}'",
            "method.instruction.draft: got the slot {y}, expected one of",
        ),
    ],
)
def test_a_template_without_its_slots_is_refused(override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run_config(["method=tm", "data=po_tm", "train.max_steps=0", override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Seite [neu] speichern] [English]=", "Seite [neu] speichern"),
        ("Seite [neu] speichern] [English]=", "Seite [neu] speichern"),
        ("[Seite speichern", "Seite speichern"),
        (" [Seite speichern]\n[French]=[x]", "Seite speichern"),
        ("Seite [neu] speichern\nUnd mehr", "Seite [neu] speichern"),
        ("[[Entwurf] Seite]", "[Entwurf] Seite"),
        ("[]", ""),
        ("", ""),
        ("[%(name)s {x}]", "%(name)s {x}"),
        # A value without brackets, after which the next key was begun; a stop cuts it at its bracket.
        ("Seite speichern [French", "Seite speichern"),
        ("Seite [neu] speichern [Brazilian Portuguese]=[Página]", "Seite [neu] speichern"),
        ("Seite [neu]", "Seite [neu]"),
    ],
)
def test_the_value_of_the_last_slot_is_read_by_its_brackets(text: str, expected: str):
    assert read_code(text) == expected


@given(st.text(alphabet="ab[] ", max_size=12))
def test_reading_undoes_writing_where_brackets_are_balanced(text: str):
    depth, is_balanced = 0, True
    for character in text:
        depth += (character == "[") - (character == "]")
        is_balanced &= depth >= 0
    if is_balanced and depth == 0:
        assert read_code(f"[{text}] [English]=[x]") == text.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Seite speichern"', "Seite speichern"),
        ("„Seite speichern“.", "Seite speichern"),
        ("\n\nSeite speichern\nThat is German.", "Seite speichern"),
        ('The translation of "Save" from English to German is "Sichern".', "Sichern"),
        ("What?\nSeite", "Seite"),
        ("Die „Seite“ speichern", "Die „Seite“ speichern"),
        ('"', '"'),
        ("", ""),
    ],
)
def test_an_answer_loses_quotes_and_echoes(text: str, expected: str):
    wording = method().instruction
    echo = echo_of(wording, "Save", source_language="en", target_language="de")
    assert read_instruction(text, prompt="What?\n", echo=echo) == expected


def test_what_ends_an_answer():
    assert prompt(pairs=PAIRS[:1]).stop == ("\n", "[English]=", "]")
    assert prompt().stop == ("\n", "[English]=")  # a pair has brackets of its own
    assert prompt(pairs=PAIRS[:1], source="Save [all]").stop == ("\n", "[English]=")  # or the sentence
    assert prompt("method.template=instruction").stop == ("\n",)


def test_slots_are_filled_in_one_pass():
    assert filled("{source}{target}", {"source": "{target}", "target": "t"}) == "{target}t"
    assert first_line("\n \n a \nb") == "a"
    assert first_line("") == ""


def test_pairs_in_random_order_are_drawn_without_global_state():
    state = random.getstate()
    ordered(PAIRS, order=Order.random, seed="1")
    assert random.getstate() == state
