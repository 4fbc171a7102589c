"""Which reply is preferred to which: the official table against a twin, and what it is compared with."""

import itertools
import random
from collections import Counter

import pytest
from tests.methods.clueanchor import reference

from athlos.methods.clueanchor.config import SelectConfig, Selector
from athlos.methods.clueanchor.selection import (
    Explored,
    Question,
    code_table,
    ddr_pair,
    first_right,
    reward,
    reward_pair,
    selected,
    table_pair,
)

PATHS = ("internal", "external", "clue")
BITS = (False, True)


def reply(path: str, *, right: bool, think: str = "Because it says so.", text: str = "") -> Explored:
    return Explored(
        path=path,
        text=text or f"{path} {right}",
        think=think,
        answer="Rome" if right else "Oslo",
        is_right=right,
        is_formatted=True,
    )


def question(replies, *, v=False, identifier="q"):
    return Question(
        identifier=identifier,
        language="en",
        gold="Rome",
        passages=["Ada was born in Rome.", "It has five arches."],
        draws={one.path: [one] for one in replies},
        v=v,
    )


def config(selector=Selector.code_table, **values) -> SelectConfig:
    return SelectConfig(
        **{"selector": selector, "require_wrong_rejected": False, "min_gap": 0.2, "min_pairs": 0, **values}
    )


def choose(asked, settings=None, *, verify_gate=True, seed=1):
    pair = selected(asked, settings or config(), verify_gate=verify_gate, max_length=40, seed=seed)
    return None if pair is None else (pair[0].path, pair[1].path)


@pytest.mark.parametrize("thinks", list(itertools.product(BITS, repeat=3)))
@pytest.mark.parametrize("scores", list(itertools.product(BITS, repeat=4)))
def test_the_table_equals_its_twin_on_all_cases(scores, thinks):
    i, e, c, v = scores
    wanted = reference.pair(*scores, *thinks)
    assert code_table(i=i, e=e, c=c, v=v, thinks=dict(zip(PATHS, thinks, strict=True))) == wanted
    replies = [
        reply(path, right=right, think="x" if think else "")
        for path, right, think in zip(PATHS, (i, e, c), thinks, strict=True)
    ]
    assert choose(question(replies, v=v)) == wanted


def test_the_counts_of_the_sixteen_cases_are_those_of_the_paper_s_code():
    thinks = dict.fromkeys(PATHS, True)
    pairs = [code_table(i=i, e=e, c=c, v=v, thinks=thinks) for i, e, c, v in itertools.product(BITS, repeat=4)]
    assert Counter(pairs) == {
        None: 5,
        ("internal", "clue"): 2,
        ("internal", "external"): 4,
        ("external", "internal"): 4,
        ("clue", "internal"): 1,
    }


def test_without_the_gate_an_unverified_clue_is_chosen_too():
    replies = [reply("internal", right=False), reply("external", right=False), reply("clue", right=True)]
    assert choose(question(replies, v=False)) is None
    assert choose(question(replies, v=False), verify_gate=False) == ("clue", "internal")
    assert choose(question(replies, v=True)) == ("clue", "internal")


@pytest.mark.parametrize(
    ("paths", "right", "wanted"),
    [
        ("external clue", "external", ("external", "clue")),
        ("external clue", "clue", ("clue", "external")),
        ("external clue", "external clue", None),
        ("internal clue", "internal", ("internal", "clue")),
        ("internal clue", "clue", ("clue", "internal")),
        ("internal external", "internal", ("internal", "external")),
        ("internal external", "internal external", None),
        ("internal external", "external", ("external", "internal")),
    ],
)
def test_where_a_path_is_missing_another_wrong_one_is_rejected(paths, right, wanted):
    replies = {path: reply(path, right=path in right.split()) for path in paths.split()}
    assert table_pair(replies, v=True, verify_gate=True) == wanted


def test_a_chosen_reply_is_right_and_no_pair_is_one_text_twice():
    rng = random.Random(0)
    for _ in range(500):
        replies = [reply(path, right=rng.random() < 0.5, think=rng.choice(["", "x"])) for path in PATHS]
        for selector in (Selector.code_table, Selector.random):
            pair = selected(
                question(replies, v=rng.random() < 0.5), config(selector), verify_gate=True, max_length=40, seed=1
            )
            assert pair is None or (pair[0].is_right and pair[0].text != pair[1].text)
    same = [reply("internal", right=False, text="same"), reply("external", right=True, text="same")]
    assert choose(question(same)) is None


def test_a_right_internal_answer_without_a_thought_is_rejected_unless_it_must_be_wrong():
    replies = [reply("internal", right=True, think=""), reply("external", right=True), reply("clue", right=False)]
    assert choose(question(replies)) == ("external", "internal")
    assert choose(question(replies), config(require_wrong_rejected=True)) is None


def test_random_takes_a_right_and_a_wrong_path_by_the_question_and_the_seed():
    replies = [reply("internal", right=True), reply("external", right=True), reply("clue", right=False)]
    random_config = config(Selector.random)
    found = {choose(question(replies, identifier=f"q{n}"), random_config) for n in range(30)}
    assert found == {("internal", "clue"), ("external", "clue")}
    assert choose(question(replies), random_config) == choose(question(replies), random_config)
    assert choose(question([reply("internal", right=True)]), random_config) is None


def rewarded(one: Explored, *, v: bool = False) -> float:
    return reward(
        one, v=v, gold="Rome", passages=["Ada was born in Rome.", "Five arches."], language="en", max_length=40
    )


def test_the_reward_equals_its_terms():
    anchored = Explored(
        path="clue",
        text="one two three four",
        think="Ada was born in Rome. I think so too.",
        answer="in Rome",
        is_right=True,
        is_formatted=True,
    )
    assert rewarded(anchored, v=True) == pytest.approx(reference.reward(1, 2 / 3, True, 1 / 2, 4, 40), abs=1e-12)
    assert rewarded(anchored) == pytest.approx(reference.reward(1, 2 / 3, False, 1 / 2, 4, 40), abs=1e-12)
    external = Explored(path="external", text="c d", think="", answer="Oslo", is_right=False, is_formatted=True)
    assert rewarded(external, v=True) == pytest.approx(reference.reward(0, 0, False, 0, 2, 40), abs=1e-12)


def test_reward_rank_takes_best_against_worst_and_drops_what_is_too_near():
    assert reward_pair({"internal": 0.1, "external": 1.2, "clue": 0.5}, min_gap=0.2) == ("external", "internal")
    assert reward_pair({"internal": 1.0, "external": 0.9, "clue": 0.85}, min_gap=0.2) is None
    assert reward_pair({"clue": 1.0, "external": 1.0, "internal": 0.5}, min_gap=0.2) == ("external", "internal")
    assert reward_pair({"clue": 0.5, "external": 0.5, "internal": 1.0}, min_gap=0.2) == ("internal", "clue")
    replies = [reply("internal", right=False), reply("external", right=True), reply("clue", right=True)]
    assert choose(question(replies, v=True), config(Selector.reward_rank)) == ("clue", "internal")


def test_ddr_compares_all_draws_and_prefers_the_answer_without_passages_when_tied():
    right, wrong = reply("internal", right=True), reply("internal", right=False)
    read, misread = reply("external", right=True), reply("external", right=False)
    assert ddr_pair({"internal": [wrong, right], "external": [read, misread]}) == (right, misread)
    assert ddr_pair({"internal": [wrong, wrong], "external": [misread, read]}) == (read, misread)
    assert ddr_pair({"internal": [right], "external": [read]}) is None
    assert ddr_pair({"external": [misread, read]}) == (read, misread)


def test_the_first_right_draw_stands_for_a_path():
    draws = [
        reply("external", right=False),
        reply("external", right=True, text="second"),
        reply("external", right=True),
    ]
    assert first_right(draws).text == "second"
    assert first_right(draws[:1]) is draws[0]
