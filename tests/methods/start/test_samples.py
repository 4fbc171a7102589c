"""Samples of an iteration: drawn once and scored; the best are imitated, pairs preferred; nothing teaches wrongly."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.methods.start.made import SentenceJudge, context_of, question

from athlos.data.json_lines import read_rows
from athlos.data.near_passages import with_documents
from athlos.errors import ConfigError, DataError
from athlos.generation.decoding import encoded
from athlos.generation.interface import Request, Sample, SamplingRule, Silence
from athlos.methods.start import samples as sampling
from athlos.methods.start.asking import own_engine
from athlos.methods.start.config import Normalise, SamplesConfig
from athlos.methods.start.likelihood import batch_of, set_robust, with_cited_alone
from athlos.methods.start.rewards import read_sample, robustness
from athlos.methods.start.samples import SamplesConstruct
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.preference import answer_log_probs

ANSWERS = {
    "whole": "Ada{n} was born in Rome [1]. Ada{n} wrote Orla{n} [2]. Orla{n} is a poem [3]. Ada{n} liked tea [4].",
    "thin": "Ada{n} was born in Rome [1].",
    "shifted": "Ada{n} was born in Rome [2]. Ada{n} wrote Orla{n} [3]. Orla{n} is a poem [4]. Ada{n} liked tea [1].",
    "bare": "Ada{n} was born in Rome.",
}


class Answers:
    """An engine that answers each query with the answers of the given names, and remembers what it was asked."""

    def __init__(self, *names: str, finished: bool = True) -> None:
        self.names, self.finished = names, finished
        self.prompts: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def generate(self, prompts, **values: Any):
        self.calls.append(values)
        self.prompts += [prompt.text for prompt in prompts]
        return [
            [
                Sample(
                    text=" " + ANSWERS[name].format(n=prompt.text.partition("Page ")[2][0]),
                    token_ids=[],
                    log_probs=[],
                    num_tokens=9,
                    num_prompt_tokens=9,
                    finished=self.finished,
                )
                for name in self.names
            ]
            for prompt in prompts
        ]


@pytest.fixture(autouse=True)
def sentence_judge(monkeypatch):
    monkeypatch.setattr("athlos.methods.start.rewards.build_judge", lambda config, *, stages: SentenceJudge())


def config_of(run, *, kinds=(), iteration=1, warm=0):
    construct = run.construct
    return SamplesConfig(
        _target_="",
        cite=construct.cite,
        warmup=replace(construct.warmup, num_queries=warm),
        sample=construct.sample,
        iteration=iteration,
        kinds=list(kinds),
        min_gap=0.2,
        masked_heads=[],
    )


def build(tmp_path, *overrides, engine, kinds=(), iteration=1, warm=0, **splits):
    context = context_of(tmp_path, "reward.robust=false", *overrides, generator=engine, **splits)
    return SamplesConstruct(config_of(context.config, kinds=kinds, iteration=iteration, warm=warm)).build(
        context=context
    )


def test_the_best_sample_of_each_query_is_imitated_behind_its_own_documents(tmp_path):
    engine = Answers("thin", "whole", "shifted", "bare")
    made = build(tmp_path, engine=engine, iteration=2)
    assert [record.answer for record in made.records] == [ANSWERS["whole"].format(n=n) for n in range(4)]
    assert [len(record.passages) for record in made.records] == [5] * 4
    assert all(first.passages[:4] == question(n).passages for n, first in enumerate(made.records))
    assert engine.calls[0]["num_samples"] == 4
    rule = engine.calls[0]["rule"]
    assert (rule.temperature, rule.top_p) == (1.0, 0.95)
    metrics = made.report.metrics
    assert metrics["construct/pass_rate@2"] == 0.5
    assert metrics["construct/query_pass_rate@2"] == metrics["construct/chosen_rate@2"] == 1
    assert metrics["construct/format_rate@2"] == 0.75
    assert metrics["reward/attr@2"] == 0.5
    assert metrics["reward/compre@2"] == pytest.approx((0.25 + 1 + 1 + 0.25) / 4)
    assert metrics["cite/none@2"] == 4
    [samples] = made.files
    assert samples.name == "samples_2.jsonl"
    row = read_rows(samples)[0]
    assert [one["attr"] for one in row["samples"]] == [1, 1, 0, 0]
    assert row["samples"][2]["sentences"][0] == {"text": "Ada0 was born in Rome.", "cited": [2]}


def test_pairs_of_both_kinds_share_prompt_and_samples(tmp_path):
    build(tmp_path, engine=Answers("thin", "whole", "shifted", "bare"))
    again = Answers("bare")
    made = build(tmp_path, engine=again, kinds=["attr", "comp"])
    assert again.prompts == [], "both phases of an iteration are made of the same samples"
    kinds = {pair.identifier: pair for pair in made.records}
    assert len(kinds) == 8
    for kind, worse in (("attr", "shifted"), ("comp", "thin")):
        pair = kinds[f"q1#{kind}"]
        assert pair.meta == {"type": kind}
        assert (pair.chosen, pair.rejected) == tuple(" " + ANSWERS[name].format(n=1) for name in ("whole", worse))
        assert pair.prompt.startswith("Page 1 of 0 [1]. Ada1 was born in Rome [1].")
        assert pair.prompt.endswith("Who was Ada1?")
    assert made.report.metrics["construct/pairs_attr@1"] == made.report.metrics["construct/pairs_comp@1"] == 4
    assert [path.name for path in made.files] == ["samples_1.jsonl", "pairs_1.jsonl"]
    assert json.loads(made.files[1].read_text().splitlines()[0])["meta"] == {"type": "attr"}
    only = build(tmp_path, engine=again, kinds=["comp"])
    assert [pair.identifier for pair in only.records] == [f"q{n}#comp" for n in range(4)]


def test_other_rewards_score_the_same_answers_again(tmp_path):
    build(tmp_path, engine=Answers("whole", "shifted", "thin", "bare"))
    again = Answers("bare")
    made = build(tmp_path, "reward.gate=soft", "reward.claims=pooled", engine=again)
    assert again.prompts == []
    assert len(made.records) == 4


def test_without_a_sample_that_passes_an_iteration_ends_at_its_first_phase(tmp_path):
    message = r"samples 1: 0% pass: nothing to imitate; try reward.gate=soft"
    for kinds, warm in (([], 0), ([], 4), (["attr"], 0)):
        with pytest.raises(DataError, match=message):
            build(tmp_path, engine=Answers("shifted", "bare"), kinds=kinds, warm=warm)


def test_queries_without_a_sample_that_passes_are_left_out(tmp_path):
    class Sometimes(Answers):
        def generate(self, prompts, **values):
            groups = super().generate(prompts, **values)
            return [group[:1] if number % 2 else group[1:] for number, group in enumerate(groups)]

    made = build(tmp_path, engine=Sometimes("whole", "bare"))
    assert [record.identifier for record in made.records] == ["q1", "q3"]
    assert made.report.metrics["construct/chosen_rate@1"] == 0.5


def test_equal_samples_make_no_pair(tmp_path):
    with pytest.raises(DataError, match=r"samples 1: 100% pass: no pair; try reward.gate=soft or"):
        build(tmp_path, engine=Answers("whole"), kinds=["attr"])


def test_the_warm_up_set_is_trained_on_beside_the_best_samples(tmp_path):
    warm = build(tmp_path / "other", engine=Answers("whole"), warm=4)
    assert len(warm.records) == 8
    assert warm.report.metrics["construct/distinct@1"] == 1
    assert warm.key != build(tmp_path / "other", engine=Answers("whole")).key


def test_cut_answers_teach_nothing(tmp_path):
    with pytest.raises(DataError, match="0% pass"):
        build(tmp_path, engine=Answers("whole", finished=False))


def test_a_row_that_would_lose_cited_documents_is_an_error(tmp_path):
    message = r"train.max_length: got 200, expected at least \d+: documents of question 'q0' would be cut"
    for kinds in ([], ["attr"]):
        with pytest.raises(DataError, match=message):
            build(tmp_path, "train.max_length=200", engine=Answers("whole", "bare"), kinds=kinds)


def test_queries_that_the_test_asks_too_are_left_out(tmp_path):
    twin = replace(question(1), identifier="other", question="who was  ADA1?")
    made = build(tmp_path, engine=Answers("whole"), test=[twin])
    assert [record.identifier for record in made.records] == ["q0", "q2", "q3"]
    with pytest.raises(DataError, match="has no query that its test lacks"):
        build(tmp_path, engine=Answers("whole"), test=[question(n) for n in range(4)])


def test_a_stopped_sampling_asks_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "QUERIES_AT_ONCE", 1)

    class Dies(Answers):
        def generate(self, prompts, **values: Any):
            if len(self.prompts) == 3:
                raise KeyboardInterrupt
            return super().generate(prompts, **values)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, engine=Dies("whole"))
    after = Answers("whole")
    assert len(build(tmp_path, engine=after).records) == 4
    assert len(after.prompts) == 1


def test_answers_without_heads_join_the_failures(tmp_path, monkeypatch):
    asked = []

    def silent(engine, requests, *, heads, max_new_tokens, stop):
        asked.append((heads, len(requests)))
        texts = [ANSWERS["shifted"].format(n=request.identifier[1]) for request in requests]
        return [
            Sample(text=text, token_ids=[], log_probs=[], num_tokens=9, num_prompt_tokens=9, finished=True)
            for text in texts
        ]

    monkeypatch.setattr(sampling, "answers_without_heads", silent)
    context = context_of(tmp_path, "reward.robust=false", generator=Answers("whole", "thin"))
    config = replace(config_of(context.config, kinds=["attr", "comp"]), masked_heads=[[0, 1], [2, 3]])
    made = SamplesConstruct(config).build(context=context)
    assert asked == [([(0, 1), (2, 3)], 4)]
    pairs = {pair.identifier: pair for pair in made.records}
    assert pairs["q0#attr"].rejected == " " + ANSWERS["shifted"].format(n=0)
    assert made.report.metrics["construct/pairs_attr@1"] == 4
    assert [path.name for path in made.files] == ["samples_1.jsonl", "masked.jsonl", "pairs_1.jsonl"]
    only = SamplesConstruct(replace(config, kinds=["comp"])).build(context=context)
    assert {pair.meta["type"] for pair in only.records} == {"comp"}
    assert len(asked) == 1


def test_heads_are_silenced_in_the_weights_that_sampled(tmp_path):
    """The real construct around a tiny model: `masked.jsonl` holds what the model says without the heads."""
    context = context_of(tmp_path, "reward.robust=false", generator=Answers("whole", "thin"), model=tiny_model())
    config = replace(config_of(context.config, kinds=["attr", "comp"]), masked_heads=[[0, 1]])
    config.sample = replace(config.sample, max_new_tokens=6)
    SamplesConstruct(replace(config, masked_heads=[])).build(context=context)
    context.generator = None
    made = SamplesConstruct(config).build(context=context)
    [masked] = [path for path in made.files if path.name == "masked.jsonl"]
    told = [row["samples"][0]["text"] for row in read_rows(masked)]
    records = with_documents(context.data.records("train"), num_documents=5)
    engine = own_engine(context)
    prompts = [
        encoded(engine, Request(identifier="", prompt=context.data.text_of(record)[0], record=record), max_new_tokens=6)
        for record in records
    ]

    def answers(*heads):
        silence = Silence(heads=heads, is_uniform=False, in_prompt=True, follows_sharing=False)
        samples = engine.generate(prompts, rule=SamplingRule(), stop=["\n"], silence=silence)
        return [sample.text.strip() for [sample] in samples]

    assert told == answers((0, 1))
    assert told != answers((0, 0))
    with pytest.raises(ConfigError, match="head"):
        SamplesConstruct(replace(config, masked_heads=[[0, 2]])).build(context=context)


def test_the_same_pairs_of_two_iterations_have_files_of_their_own(tmp_path):
    for number in (1, 2):
        made = build(tmp_path, engine=Answers("whole", "thin"), kinds=["comp"], iteration=number)
        assert made.files[-1].name == f"pairs_{number}.jsonl"
        assert len(read_rows(made.files[-1])) == 4


# -- Robust ------------------------------------------------------------------------------------------------------------


def tiny_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config).double()


def record_and_samples():
    record = question()
    texts = [ANSWERS[name].format(n=0) for name in ("whole", "thin", "shifted", "bare")]
    texts += ["Ada0 liked tea [9].", "Ada0 liked tea [0]."]
    return record, [read_sample(text, finished=True, record=record) for text in texts]


def test_cited_documents_alone_have_their_own_numbers():
    record, _ = record_and_samples()
    sample = read_sample("Ada0 liked tea [4]. Ada0 wrote Orla0 [2][4].", finished=True, record=record)
    alone = with_cited_alone(record, sample)
    assert alone.passages == [record.passages[1], record.passages[3]]
    assert alone.answer == "Ada0 liked tea [2]. Ada0 wrote Orla0 [1][2]."


@pytest.mark.parametrize("normalise", list(Normalise))
def test_robust_equals_a_loop_over_tokens(tmp_path, normalise):
    model, tokenizer = tiny_model(), byte_tokenizer()
    record, samples = record_and_samples()
    text_of = context_of(tmp_path).data.text_of
    set_robust(model, tokenizer, record, samples, text_of=text_of, normalise=normalise)
    order = {sample.text: sample for sample in samples}

    def log_prob(one):
        prompt, answer = text_of(one)
        front = tokenizer.encode(prompt, add_special_tokens=False)
        ids = [*front, *tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        with torch.no_grad():
            table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        values = [float(table[place - 1, ids[place]]) for place in range(len(front), len(ids))]
        return sum(values) / (len(values) if normalise is Normalise.per_token else 1)

    for name in ("whole", "thin"):
        sample = order[ANSWERS[name].format(n=0)]
        apart = log_prob(with_cited_alone(record, sample)), log_prob(replace(record, answer=sample.text))
        assert sample.robust == pytest.approx(robustness(*apart), rel=1e-9)
    assert order[ANSWERS["whole"].format(n=0)].robust == 1, "it cites all there are"
    assert order[ANSWERS["thin"].format(n=0)].robust < 1
    for text in (ANSWERS["bare"].format(n=0), "Ada0 liked tea [9].", "Ada0 liked tea [0]."):
        assert order[text].robust == 0


def test_each_likelihood_of_all_answers_is_one_batch(tmp_path, monkeypatch):
    seen = []

    def counted(model, batch, *, chunk_tokens):
        seen.append(batch["input_ids"].shape[0])
        return answer_log_probs(model, batch, chunk_tokens=chunk_tokens)

    monkeypatch.setattr("athlos.methods.start.likelihood.answer_log_probs", counted)
    record, samples = record_and_samples()
    text_of = context_of(tmp_path).data.text_of
    set_robust(tiny_model(), byte_tokenizer(), record, samples, text_of=text_of, normalise=Normalise.per_token)
    assert seen == [3, 3]
    set_robust(tiny_model(), byte_tokenizer(), record, samples[3:], text_of=text_of, normalise=Normalise.per_token)
    assert seen == [3, 3], "no answer with a citation, nothing to compute"


def test_rows_are_padded_on_the_right_and_only_answers_are_targets():
    batch = batch_of(byte_tokenizer(), [("ab", "c"), ("a", "b")])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (batch["labels"] != -100).sum(1).tolist() == [2, 2]
    assert (batch["labels"][0, :2] == -100).all()
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3]] * 2


def test_robust_is_computed_by_the_weights_that_sampled(tmp_path):
    model = tiny_model()
    context = context_of(tmp_path, generator=Answers("thin", "whole", "shifted", "bare"), model=model)
    made = SamplesConstruct(config_of(context.config)).build(context=context)
    row = read_rows(made.files[0])[0]
    values = {one["text"]: one for one in row["samples"]}
    thin = values[ANSWERS["thin"].format(n=0)]
    assert 0 < thin["robust"] < 1
    assert thin["reward"] == pytest.approx(0.25 * thin["robust"])
    assert values[ANSWERS["shifted"].format(n=0)]["reward"] == 0


def test_the_weights_sample_for_themselves_whoever_writes_the_warm_up(tmp_path):
    engine = Answers()
    assert own_engine(context_of(tmp_path, generator=engine)) is engine
    served = context_of(tmp_path, "generator=llama_cpp", "generator.source=dir:x.gguf", generator=engine, model="m")
    assert own_engine(served) is not engine
