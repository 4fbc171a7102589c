"""The lab's truth as judge."""

import pytest

from athlos.config.compose import run_config
from athlos.judging.config import SymbolicJudgeConfig
from athlos.judging.interface import Pair
from athlos.judging.symbolic import SymbolicJudge
from athlos.lab.documents import DocumentConfig, Evidence, make_case
from athlos.lab.facts import Fact, StatementWording, statement
from athlos.lab.world import World, WorldConfig

SMALL = WorldConfig(num_persons=60, num_cities=30, num_states=6, num_none=20, num_rare=20, num_frequent=20)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


@pytest.fixture
def judge() -> SymbolicJudge:
    return SymbolicJudge(SymbolicJudgeConfig(_target_="", world=SMALL))


def claim(world: World, fact: Fact, *, language: str) -> str:
    return world.languages[language].render(statement(fact, StatementWording.noun))


@pytest.mark.parametrize("language", ["latn", "thai", "hani"])
def test_documents_support_what_they_state_and_nothing_else(world, judge, language):
    case = make_case(world, DocumentConfig(evidence=Evidence.direct, distractor_share=0.75), index=3, language=language)
    [(place, sentence)] = case.support
    document = case.documents[place]
    [fact] = document.facts[sentence]
    told = claim(world, fact, language="latn")
    others = [other.text for number, other in enumerate(case.documents) if number != place]
    whole = " ".join([document.text, *others])
    pairs = [Pair(document.text, told), Pair(whole, told), *(Pair(text, told) for text in others)]
    assert judge.scores(pairs) == [1.0, 1.0, *([0.0] * len(others))]
    assert judge.scores([Pair(told, document.text)]) == [0.0], "one sentence does not say all of the document"


def test_what_takes_two_sentences_follows_from_both(world, judge):
    case = make_case(world, DocumentConfig(evidence=Evidence.scattered, num_documents=2), index=1, language="latn")
    texts = [case.documents[place].text for place in case.gold]
    steps = [case.documents[place].facts[sentence][0] for place, sentence in case.support]
    both = " ".join(claim(world, step, language="latn") for step in steps)
    assert judge.scores([Pair(" ".join(texts), both), Pair(texts[0], both), Pair(texts[1], both)]) == [1.0, 0.0, 0.0]


def test_what_cannot_be_read_is_not_supported_and_counted(world, judge):
    known = claim(world, world.facts[0], language="latn")
    assert judge.scores([Pair(known, "No such words."), Pair(known, ""), Pair("No such words.", known)]) == [0, 0, 0]
    assert judge.counters == {"pairs": 3, "unparsed": 2}


def test_its_world_is_that_of_the_data(judge):
    lab = ["judge=symbolic", "data=lab", "prompt_style=bare"]
    config, other = (run_config([*lab, *more]).judge for more in ((), ("data.world.seed=7",)))
    ids = {SymbolicJudge(chosen).id for chosen in (config, other)}
    assert len({*ids, judge.id}) == 3
