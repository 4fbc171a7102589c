"""Multi-hop questions: graph, answers, and splits that share no composition."""

from itertools import combinations

import pytest

from athlos.errors import ConfigError
from athlos.lab.chains import (
    ChainConfig,
    Form,
    Split,
    all_chains,
    chain_questions,
    joints,
    node_clause,
    node_text,
)
from athlos.lab.facts import QuestionWording, asked_of
from athlos.lab.grammar import NounPhrase
from athlos.lab.world import Exposure, World, WorldConfig


@pytest.fixture(scope="module", params=[0, 7])
def world(request) -> World:
    return World(WorldConfig(seed=request.param))


@pytest.fixture(scope="module")
def questions(world):
    return chain_questions(world, ChainConfig())


def test_counts_are_those_asked_for(questions):
    config = ChainConfig()
    for split in Split:
        linear = [one for one in questions[split] if one.form is Form.linear]
        assert [sum(one.num_hops == hops for one in linear) for hops in (2, 3, 4)] == config.num_linear(split)
        compared = [one for one in questions[split] if one.form is Form.comparison]
        assert len(compared) == config.num_comparisons(split)
        assert sum(one.answer == "yes" for one in compared) == len(compared) // 2
        assert all(one.split is split for one in questions[split])


def test_splits_share_no_joint_no_chain_and_no_path_of_answers(questions):
    def ingredients(split):
        chains = [chain for one in questions[split] for chain in one.branches]
        paths = {tuple([chain[0].subject, *(fact.object for fact in chain)]) for chain in chains}
        parts = {path[at : at + 3] for path in paths for at in range(len(path) - 2)}
        return {*chains}, paths, {joint for chain in chains for joint in joints(chain)}, parts

    found = {split: ingredients(split) for split in Split}
    for one, other in combinations(Split, 2):
        assert all(not mine & theirs for mine, theirs in zip(found[one], found[other], strict=True))
    every = [one for split in Split for one in questions[split]]
    assert len({one.identifier for one in every}) == len(every)
    assert len({one.clause() for one in every}) == len(every)


def test_every_fact_of_a_chain_is_told_in_training(world, questions):
    for split in Split:
        for one in questions[split]:
            assert {world.exposure(fact) for fact in one.facts} == {Exposure.background}


def test_answers_follow_from_the_graph(world, questions):
    for one in (one for split in Split for one in questions[split]):
        answers: list[str] = []
        for node in one.nodes():
            assert node.number == len(answers) + 1
            assert all(parent < node.number for parent in node.parents)
            names = [answers[given - 1] if isinstance(given, int) else given for given in node.arguments]
            if node.relation:
                assert node.fact is not None
                answers.append(world.table[names[0], node.relation])
                assert asked_of(node_clause(node, names)) == (names[0], (node.relation,))
            else:
                answers.append("yes" if names[0] == names[1] else "no")
            assert answers[-1] == node.answer
        assert answers[-1] == one.answer
        children = {child for _, child in one.edges()}
        parents = {parent for parent, _ in one.edges()}
        sinks = set(range(1, len(answers) + 1)) - parents
        assert sinks == {len(answers)}
        assert len(children) + len(one.branches) == len(answers)


def test_every_wording_in_every_language_comes_back(world, questions):
    for one in questions[Split.test][::9]:
        for wording in QuestionWording:
            clause = one.clause(wording)
            for code, language in world.languages.items():
                text = language.render(clause)
                assert language.parse(text) == clause
                assert world.languages.identify(text) == code
                for goal in world.languages:
                    assert world.languages.translate(text, source=code, target=goal) == world.languages[goal].render(
                        clause
                    )
            if one.form is Form.linear:
                assert asked_of(clause) == one.claims[0][:2]
        for code, language in world.languages.items():
            assert world.languages.identify(language.phrase(one.answer_phrase)) == code


def test_a_step_with_its_marks_replaced_is_a_question(world, questions):
    for one in questions[Split.test][::9]:
        nodes = one.nodes()
        for code, language in world.languages.items():
            for node in nodes:
                text = node_text(world, node, code)
                assert sum(text.count(f"#{parent}") for parent in node.parents) == len(node.parents)
                for parent in node.parents:
                    text = text.replace(f"#{parent}", language.phrase(NounPhrase(nodes[parent - 1].answer)))
                names = [nodes[given - 1].answer if isinstance(given, int) else given for given in node.arguments]
                assert language.parse(text) == node_clause(node, names)


def test_chains_visit_no_name_twice(world):
    for hops in (2, 3, 4):
        for chain in all_chains(world, hops):
            assert len({chain[0].subject, *(fact.object for fact in chain)}) == hops + 1
            assert all(first.object == second.subject for first, second in joints(chain))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_test": [1, 2]}, "lab.num_test: got .*, expected 3 numbers"),
        ({"num_train": [0, 0, 10**6]}, "lab.num_train: got 1000000 chains of 4 relations, expected at most"),
        ({"num_dev_comparisons": 10**5}, "lab.num_dev_comparisons: got 100000, expected at most"),
    ],
)
def test_too_much_is_refused(world, changes, message):
    with pytest.raises(ConfigError, match=message):
        chain_questions(world, ChainConfig(**changes))
