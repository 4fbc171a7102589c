"""Warm-up data written backwards: every claim in a document, every sentence with its smallest cover, and drops."""

import json
import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from tests.methods.start.made import COMPOSED, EDINBURGH, context_of, question, reward_of

from athlos.config.compose import run_config
from athlos.data.json_lines import read_rows
from athlos.data.near_passages import OtherPassages, with_documents
from athlos.data.records import Passage
from athlos.errors import DataError
from athlos.generation.interface import Sample
from athlos.methods.start.config import Claims, SynthesisConfig
from athlos.methods.start.synthesis import (
    Draft,
    DropError,
    Tally,
    cited_item,
    drafted,
    grouped,
    irrelevant,
    joined,
    titled,
)
from athlos.methods.start.warmup import SynthesisConstruct
from athlos.text.citations import read_citations, renumbered


@cache
def config_of(*overrides):
    construct = run_config([*COMPOSED, *overrides]).construct
    return SynthesisConfig(_target_="", cite=construct.cite, warmup=construct.warmup)


def item_of(record, *, seed=0, config=None, judge=None, tally=None, draft=None, others=None):
    config = config or config_of()
    rng = random.Random(seed)
    return cited_item(
        record,
        draft or drafted(record, config.warmup, rng=rng),
        config=config.warmup,
        cite=config.cite,
        others=others or OtherPassages([question(n) for n in range(1, 5)]),
        reward=reward_of(judge=judge),
        tally=tally or Tally(),
        rng=rng,
    )


@pytest.mark.parametrize("num_claims", [1, 2, 5, 12])
def test_groups_hold_every_claim_once_or_twice_in_sets_of_one_to_three(num_claims):
    sizes = set()
    for seed in range(200):
        sets = grouped(num_claims, num_documents=5, most=3, rng=random.Random(seed))
        assert 1 <= len(sets) <= 4
        assert all(1 <= len(one) <= 3 and one == sorted(set(one)) for one in sets)
        assert set(Counter(claim for one in sets for claim in one).values()) <= {1, 2}
        assert {claim for one in sets for claim in one} == set(range(num_claims))
        sizes.add(len(sets))
    assert len(sizes) == {1: 1, 2: 3, 5: 3, 12: 1}[num_claims]
    with pytest.raises(DropError, match="too_many_claims"):
        grouped(13, num_documents=5, most=3, rng=random.Random(0))


def test_the_target_cites_the_documents_that_state_the_claims():
    record = question()
    for seed in range(40):
        item = item_of(record, seed=seed)
        answer = read_citations(item.target, num_documents=len(item.documents), language="en")
        assert [list(sentence.cited) for sentence in answer.sentences] == item.cited
        assert [sentence.text for sentence in answer.sentences] == [claim.text for claim in record.claims]
        assert len(item.documents) == 5
        for sentence, numbers in zip(answer.sentences, item.cited, strict=True):
            assert any(sentence.text in item.documents[number - 1]["text"] for number in numbers)
        assert all(places for places in item.claim_documents)
        foreign = [
            document
            for document in item.documents
            if "Page 0" not in document["text"] and "Ada0" not in document["text"]
        ]
        assert foreign, "a document at least is another query's"


def test_citations_move_with_the_documents():
    order = [4, 2, 0, 3, 1]
    item = item_of(question())
    numbers = {old + 1: new + 1 for new, old in enumerate(order)}
    documents = [item.documents[old] for old in order]
    answer = read_citations(renumbered(item.target, numbers), num_documents=5, language="en")
    for sentence in answer.sentences:
        assert any(sentence.text in documents[number - 1]["text"] for number in sentence.cited)
    off_by_one = renumbered(item.target, {number: number % 5 + 1 for number in range(1, 6)})
    wrong = read_citations(off_by_one, num_documents=5, language="en")
    assert not all(
        any(sentence.text in item.documents[number - 1]["text"] for number in sentence.cited)
        for sentence in wrong.sentences
    )


def test_a_sentence_of_claims_in_two_documents_cites_both():
    both = Draft(
        sentences=["Ada0 was born in Rome. "],
        claims=["It is one.", "It is two."],
        claims_of=[[0, 1]],
        sets=[[0], [1]],
        documents=[Passage(title="", text="It is one. Ada0 was born in Rome."), Passage(title="", text="It is two.")],
    )
    item = item_of(question(), draft=both)
    assert [len(numbers) for numbers in item.cited] == [2]
    with pytest.raises(DropError, match="too_many_documents"):
        item_of(question(), draft=both, config=config_of("construct.cite.max_per_sentence=1"))


def test_sentences_of_selected_text_are_the_claims_and_two_may_be_joined():
    record = replace(question(), meta={"selected_sentences": EDINBURGH[:3]})
    config = config_of("construct.warmup.claims=sentence").warmup
    draft = drafted(record, config, rng=random.Random(0))
    assert (draft.sentences, draft.claims_of) == (EDINBURGH[:3], [[0], [1], [2]])
    draft = drafted(record, replace(config, join_share=1.0), rng=random.Random(0))
    assert draft.sentences == [EDINBURGH[0], "Ada wrote Orla; Orla is a poem."]
    assert draft.claims_of == [[0], [1, 2]]
    assert joined("A b.", "C d.") == "A b; C d."
    plain = drafted(replace(record, meta={}), config, rng=random.Random(0))
    assert plain.sentences == [claim.text for claim in record.claims], "the answer without its citations"


def test_documents_are_claims_and_neighbours():
    record = question()
    draft = drafted(record, config_of().warmup, rng=random.Random(1))
    for document, claims in zip(draft.documents, draft.sets, strict=True):
        assert {draft.claims[claim] for claim in claims} <= set(document.sentences)
        assert len(document.sentences) == 3
        assert set(document.sentences) - set(draft.claims) <= {f"Page 0 of {place}." for place in range(4)}


def test_noise_leaves_a_claim_out_and_the_judge_sees_it():
    noisy = config_of("construct.warmup.noise=1.0")
    tally = Tally()
    with pytest.raises(DropError, match="not_supported"):
        item_of(question(), config=noisy, tally=tally)
    assert tally.failed_documents == tally.documents > 0
    assert tally.failed_sentences > 0
    careless = config_of("construct.warmup.noise=1.0", "construct.warmup.verify=false")
    assert item_of(question(), config=careless).target, "without a look the wrong label is learnt"
    clean = Tally()
    item_of(question(), tally=clean)
    assert (clean.failed_documents, clean.failed_sentences) == (0, 0)


def test_irrelevant_documents_are_near_and_support_no_claim():
    record = question()
    near = question(1, facts=["Xda0 was born in Rome.", "A verse is short.", "A stone is old.", "Iron is hard."])
    near.passages[0].text = near.passages[0].text.replace("Xda0", "Ada0")
    others = OtherPassages([record, near, question(2)])
    found = [passage.text for passage in others.near(record, text="Who was Ada0, born in Rome?")]
    assert found[0] == near.passages[0].text, "rare shared words count most"
    assert not {passage.text for passage in record.passages} & set(found)
    for seed in range(10):
        item = item_of(record, seed=seed, others=others)
        assert near.passages[0].text not in [document["text"] for document in item.documents], "it states a claim"
    with pytest.raises(DropError, match="no_irrelevant"):
        item_of(record, others=OtherPassages([record]))
    draft = drafted(record, config_of().warmup, rng=random.Random(0))
    others, reward = OtherPassages([record, question(1)]), reward_of()
    assert len(irrelevant(record, draft, others=others, reward=reward, number=4)) == 4, "as many as there are"
    with pytest.raises(DropError, match="no_irrelevant"):
        irrelevant(record, draft, others=others, reward=reward, number=5)


def test_a_prompt_that_lacks_documents_gets_near_ones():
    records = [question(0), question(1)]
    [first, _] = with_documents(records, num_documents=5)
    assert first.passages[:4] == records[0].passages
    assert "Page 1" in first.passages[4].text
    assert [len(one.passages) for one in with_documents(records, num_documents=2)] == [2, 2]
    with pytest.raises(DataError, match=r"question 'q0': 8 documents .* expected 9"):
        with_documents(records, num_documents=9)


def test_answers_without_a_sentence_or_a_claim_are_dropped():
    config = config_of().warmup
    with pytest.raises(DropError, match="no_answer"):
        drafted(question(claims=[], meta={"facts": []}), config, rng=random.Random(0))
    with pytest.raises(DropError, match="no_claim"):
        drafted(question(meta={"facts": [["A."], [], ["B."], ["C."]]}), config, rng=random.Random(0))
    with pytest.raises(DataError, match=r"question 'q0': no facts; construct.warmup.claims=oracle needs lab data"):
        drafted(question(meta={}), config, rng=random.Random(0))


SERVED = ("generator=llama_cpp", "generator.source=dir:x.gguf")


class Writer:
    """A generator that writes by kind of prompt: an answer of two sentences, a claim each, and documents of claims."""

    def __init__(self, *, answer="Ada was born in Rome. Ada liked tea.", claims=None):
        self.answer, self.claims = answer, claims
        self.prompts: list[str] = []

    def generate(self, prompts, **_: Any):
        self.prompts += [prompt.text for prompt in prompts]
        return [[self._sample(prompt.text)] for prompt in prompts]

    def _sample(self, prompt):
        if prompt.startswith("List the facts"):
            sentence = prompt.partition("Sentence: ")[2]
            text = f"1. {sentence}" if self.claims is None else self.claims
        elif prompt.startswith("Write a paragraph"):
            facts = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
            text = "Ada\n" + " ".join(facts)
        else:
            text = self.answer
        return Sample(text=text, token_ids=[], log_probs=[], num_tokens=9, num_prompt_tokens=9, finished=True)


def built(context, **values):
    construct = context.config.construct
    config = SynthesisConfig(_target_="", cite=construct.cite, warmup=replace(construct.warmup, **values))
    return SynthesisConstruct(config).build(context=context)


def test_the_generator_writes_answers_claims_and_documents_once(tmp_path):
    writer = Writer()
    made = built(
        context_of(tmp_path, *SERVED, generator=writer),
        claims=Claims.model,
    )
    assert made.report.metrics["construct/warmup_items"] == 4
    assert all("1. " not in record.answer for record in made.records)
    [warmup, report] = made.files
    assert (warmup.name, report.name) == ("warmup.jsonl", "synth_report.json")
    row = read_rows(warmup)[0]
    assert row["claims"] == ["Ada was born in Rome.", "Ada liked tea."]
    for claim, places in zip(row["claims"], row["claim_documents"], strict=True):
        assert all(
            claim in row["documents"][place]["text"] and row["documents"][place]["title"] == "Ada" for place in places
        )
    again = Writer()
    built(context_of(tmp_path, *SERVED, generator=again), claims=Claims.model)
    assert again.prompts == []


def test_an_answer_whose_sentence_has_no_claim_is_dropped_and_counted(tmp_path):
    with pytest.raises(DataError, match=r"warm-up: no answer came through; drops: .*'no_claim': 4"):
        built(
            context_of(tmp_path, *SERVED, generator=Writer(claims="Nothing.")),
            claims=Claims.model,
        )


def test_built_documents_need_no_generator_and_drops_are_reported(tmp_path):
    made = built(context_of(tmp_path, train=[question(0), question(1), question(2, claims=[], meta={"facts": []})]))
    assert made.report.metrics["construct/warmup_items"] == 2
    assert made.report.metrics["construct/drop_no_answer"] == 1
    assert made.report.metrics["construct/synth_fail_share"] == 0
    assert json.loads(made.files[1].read_text())["drops"]["no_answer"] == 1
    assert [record.identifier for record in made.records] == ["q0", "q1"]


def test_an_item_that_does_not_fit_into_a_row_is_dropped(tmp_path):
    context = context_of(tmp_path)
    lengths = sorted(sum(map(len, context.data.text_of(record))) + 1 for record in built(context).records)
    made = built(context_of(tmp_path, f"train.max_length={lengths[1]}"))
    assert len(made.records) == 2
    assert made.report.metrics["construct/drop_too_long"] == 2


def test_a_document_begins_with_its_title():
    assert titled("# Ada\nShe was\nborn. ") == Passage(title="Ada", text="She was born.")
    assert titled("She was born.") == Passage(title="", text="She was born.")


def test_the_lab_judge_confirms_every_warm_up_sentence(tmp_path):
    """The lab's own records, the exact judge: what the oracle writes without noise is supported, two documents too."""
    from athlos.data.source import build_source

    run = run_config(["data=lab_cited", "data.num_train=30", "prompt_style=start_bare", "judge=symbolic"])
    records = list(build_source(run).records("train"))
    context = context_of(
        tmp_path,
        "judge@reward.judge=symbolic",
        "reward.judge.world=${data.world}",
        "construct.warmup.claims_per_document=1",
        "judge=lexical",
        train=records,
        test=[],
    )
    made = built(context)
    assert made.report.metrics["construct/synth_fail_share"] == 0
    assert made.report.metrics["construct/synth_unsupported_share"] == 0
    assert made.report.metrics["construct/synth_multi_share"] > 0
    assert made.report.metrics["construct/drop_not_supported"] == 0
