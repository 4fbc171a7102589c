"""Which passages stand in a prompt: shares of distractors, ranks, and what fits."""

from dataclasses import replace

from tests.methods.clueanchor.scripted import question

from athlos.data.records import Passage
from athlos.methods.clueanchor.config import GoldPassages, NoiseConfig, PromptConfig, Truncation
from athlos.methods.clueanchor.construct import others_of, supporting_text
from athlos.methods.clueanchor.noise import fitted, noised


def crowded():
    """Ranks 0 to 9: 2 and 7 are required, 5 bears on the question too, the others are distractors."""
    passages = [
        Passage(title=str(rank), text=f"text {rank}", is_supporting=rank in (2, 5, 7), identifier=str(rank))
        for rank in range(10)
    ]
    return replace(question(), passages=passages, supporting_facts=[("2", 0), ("7", 0)])


def titles(share, *, gold=GoldPassages.present, top_n=4, others=()):
    shown = noised(crowded(), NoiseConfig(share=share, gold=gold), top_n=top_n, others=others, seed=1)
    return [passage.title for passage in shown.passages]


def test_passages_stand_as_they_come_until_some_are_distractors():
    assert titles(0.0) == ["0", "1", "2", "3"]
    assert sorted(titles(0.25)) == ["0", "2", "5", "7"]
    assert sorted(titles(0.5)) == ["0", "1", "2", "7"]
    assert sorted(titles(0.75)) == ["0", "1", "2", "7"]
    assert sorted(titles(1.0)) == ["0", "1", "3", "4"]
    assert sorted(titles(0.5, top_n=6)) == ["0", "1", "2", "3", "5", "7"]
    assert titles(0.5) == titles(0.5)
    assert titles(0.5) != sorted(titles(0.5)) or titles(0.25) != sorted(titles(0.25))


def test_absent_gold_leaves_distractors_alone():
    assert sorted(titles(0.0, gold=GoldPassages.absent)) == ["0", "1", "3", "4"]
    assert sorted(titles(0.5, gold=GoldPassages.absent)) == ["0", "1", "3", "4"]


def test_passages_of_other_questions_stand_in_where_a_question_has_too_few_distractors():
    record = question()
    others = [Passage(title=f"other {n}", text=f"other text {n}") for n in range(9)]
    shown = noised(record, NoiseConfig(share=0.6, gold=GoldPassages.present), top_n=5, others=others, seed=1)
    assert sum(passage in others for passage in shown.passages) == 2
    assert sum(passage in record.passages for passage in shown.passages) == 3
    pool = others_of([question(0), question(1, answer="Oslo")])
    assert {passage.text for passage in pool["q1"]} >= {"Bridge 0 was built by Ada. It has five arches."}
    assert not any("Oslo" in passage.text for passage in pool["q1"])


def count(text):
    return len(text.split())


def cut(text, most):
    return " ".join(text.split()[:most])


def prompt_config(truncate, *, max_tokens):
    return PromptConfig(top_n=10, truncate=truncate, max_tokens=max_tokens)


def test_whole_passages_leave_from_the_tail():
    record = question()
    sizes = [count(f"{passage.title} {passage.text}") for passage in record.passages]
    room = count(record.question) + sizes[0] + sizes[1]
    for extra, kept in ((-1, 1), (0, 2), (sizes[2] - 1, 2), (sizes[2], 3)):
        config = prompt_config(Truncation.passage_aware, max_tokens=room + extra)
        found = fitted(record, config, count=count, cut=cut)
        assert found.record.passages == record.passages[:kept]
        assert found.is_gold_cut == (kept < 3)


def test_a_distractor_at_the_tail_is_no_loss():
    record = question()
    record.passages = [*record.passages[1:], record.passages[0]]
    room = count(record.question) + sum(count(f"{one.title} {one.text}") for one in record.passages[:2])
    found = fitted(record, prompt_config(Truncation.passage_aware, max_tokens=room), count=count, cut=cut)
    assert (len(found.record.passages), found.is_gold_cut) == (2, False)


def test_a_token_cut_keeps_64_tokens_free_beside_the_question_and_may_lose_the_end():
    record = question()
    words = "\n".join(passage.text for passage in record.passages).split()
    whole = prompt_config(Truncation.token_cut, max_tokens=64 + count(record.question) + len(words))
    assert not fitted(record, whole, count=count, cut=lambda text, most: text).is_gold_cut
    config = prompt_config(Truncation.token_cut, max_tokens=64 + count(record.question) + 5)
    found = fitted(record, config, count=count, cut=cut)
    assert found.record.passages[0].text.split() == words[:5]
    assert found.is_gold_cut
    tiny = fitted(record, prompt_config(Truncation.token_cut, max_tokens=10), count=count, cut=cut)
    assert (tiny.record.passages, tiny.is_gold_cut) == ([], True)


def test_the_supporting_sentences_are_those_that_the_data_name():
    assert supporting_text(question()) == "Bridge 0 was built by Ada. Ada was born in Rome."
    beyond = replace(question(), supporting_facts=[("Its Builder", 1), ("Its Builder", 9), ("nowhere", 0)])
    assert supporting_text(beyond) == "Ada was born in Rome."


def test_where_no_sentences_are_named_every_supporting_passage_is_required():
    record = replace(question(), supporting_facts=[])
    shown = noised(record, NoiseConfig(share=0.5, gold=GoldPassages.present), top_n=2, others=(), seed=1)
    assert {passage.title for passage in shown.passages} == {"The Old Bridge", "Its Builder"}
