"""The suites that ask a model, with scripted answers whose scores are known, and with a tiny real model."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from tests import tolerances
from tests.assembled import suite_of
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.config.compose import run_config
from athlos.data.records import MathRecord, ParallelRecord, QuestionRecord, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.evaluate import base_evaluation, named
from athlos.evaluation.suite import MetricDetail, SuiteResult
from athlos.evaluation.suites import throughput
from athlos.evaluation.suites.calibration import sequence_confidence
from athlos.evaluation.suites.translation import length_ratio
from athlos.generation.config import GreedyConfig, NativeConfig
from athlos.generation.decoding import Greedy
from athlos.generation.interface import Prediction
from athlos.generation.native import NativeEngine
from athlos.models.tokenizers import byte_tokenizer
from athlos.stages import StageStore


class Scripted:
    """An answerer that says what `texts` holds for each record; keeps the requests."""

    model = tokenizer = engine = None

    def __init__(self, texts, *, log_probs=None, finished=True):
        self.texts, self.log_probs, self.finished = texts, log_probs or {}, finished
        self.requests = []

    def answer(self, requests, *, progress=None):
        self.requests += requests
        return [
            Prediction(
                identifier=request.identifier,
                text=self.texts[request.identifier],
                num_prompt_tokens=7,
                num_tokens=4,
                log_prob=self.log_probs.get(request.identifier, -4.0),
                finished=self.finished,
            )
            for request in requests
        ]


ANY = ["data=own", "data.path=mine.jsonl"]
"""Data of any type, which nothing here reads."""


def suite(name, *overrides):
    return suite_of(run_config([*ANY, f"eval={name}", "eval.bootstrap=50", *overrides]))


def problems(**answers_by_id):
    return [
        MathRecord(identifier=key, language=key[:2], question=f"Question {key}?", answer=answer)
        for key, answer in answers_by_id.items()
    ]


MATHS = problems(en1="5", en2="12", de1="7", de2="9")
SAID = {
    "en1": " First 2 and then 3 makes the five we wanted. The answer is 5.\n\nQuestion: 1?",
    "en2": " Das Ergebnis von allen diesen Zahlen ist hier 12",
    "de1": " Wir rechnen alles zusammen und bekommen am Ende 8.",
    "de2": " no number",
}


def test_math_scores_by_language():
    result = suite("math").evaluate(Scripted(SAID, finished=False), MATHS)
    expected = {
        "acc": 0.5,
        "acc/en": 1.0,
        "acc/de": 0.0,
        "lc": 0.75,
        "lc/en": 0.5,
        "lc/de": 1.0,
        "lc_acc": 0.25,
        "lc_acc/en": 0.5,
        "lc_acc/de": 0.0,
        "answer_tokens": 4.0,
        "runaway_rate": 0.75,
    }
    assert {name: result.metrics[name] for name in expected} == expected
    assert (result.details["acc"].n, result.details["acc/de"].n) == (4, 2)
    row = result.predictions[0]
    assert (row["id"], row["prediction"], row["extracted"], row["gold"], row["acc"], row["finished"]) == (
        "en1",
        "First 2 and then 3 makes the five we wanted. The answer is 5.",
        "5",
        "5",
        1.0,
        True,
    )
    assert result.predictions[3]["extracted"] is None
    json.dumps(result.predictions, allow_nan=False)


PARAGRAPHS = "First 2 x 3 = 6.\n\nThen 3 x 6 = 18.\n\nThe answer is 18."
CHAT = ["engine=openai", "engine.base_url=http://host/v1", "engine.model=m", "engine.api=chat", "train.max_steps=0"]


@pytest.mark.parametrize(
    ("overrides", "said", "extracted"),
    [
        (CHAT, PARAGRAPHS, "18"),
        (CHAT, f"<think>Maybe 7.\n\nQuestion: really?</think>\n\n{PARAGRAPHS}", "18"),
        (CHAT, f"{PARAGRAPHS}\nQuestion: And 99?", "18"),
        ([], "<think>Maybe 7.\n\nNo, 18.</think>\n\nThe answer is 18.\n\nQuestion: And 99?", "18"),
        ([], "<think>Maybe 7.\n\nOr 8", "8"),
        ([], PARAGRAPHS, "6"),  # a base model goes on with another example
    ],
)
def test_paragraphs_end_the_answer_of_a_base_model_alone(overrides, said, extracted):
    answerer = Scripted({"en1": said})
    result = suite("math", "eval.shots=0", *overrides).evaluate(answerer, problems(en1="18"))
    assert result.predictions[0]["extracted"] == extracted
    assert ("\n\n" in answerer.requests[0].stop) == (overrides != CHAT)
    assert "\nQuestion:" in answerer.requests[0].stop


def test_math_prompts_hold_examples_in_the_language_of_the_item():
    answerer = Scripted(SAID)
    result = suite("math").evaluate(answerer, MATHS)
    prompts = {request.identifier: request.prompt for request in answerer.requests}
    assert prompts["de1"].count("Frage: ") == 4
    assert prompts["en1"].count("Question: ") == 4
    assert len({request.seed for request in answerer.requests}) == 4
    assert result.signatures["math_prompt"] == "MathRecord.native_cot|shots:3|built-in"
    assert result.signatures["language_detector"].startswith("py3langid-")
    again = suite("math", "eval.shots=2").evaluate(Scripted(SAID), MATHS)
    assert again.signatures["math_prompt_hash"] != result.signatures["math_prompt_hash"]


def test_shots_without_a_training_split_leave_the_test():
    answerer = Scripted(SAID)
    result = suite("math", "prompt_style=direct", "eval.shots=1").evaluate(answerer, MATHS)
    assert [request.identifier for request in answerer.requests] == ["en2", "de2"]
    assert "Question en1?" in answerer.requests[0].prompt
    assert result.signatures["math_prompt"].endswith("front of the test split")
    with pytest.raises(ConfigError, match=r"eval.shots: got 2.*none in en, de"):
        suite("math", "prompt_style=direct", "eval.shots=2").evaluate(answerer, MATHS)


def test_a_suite_without_its_records():
    with pytest.raises(ConfigError, match="math needs a MathRecord, data=own has none"):
        suite("math").evaluate(Scripted({}), [TextRecord(identifier="t", text="x")])


def pairs(*texts, language="de"):
    return [
        ParallelRecord(
            identifier=f"{language}{n}", language=language, source_language="en", source=f"source {text}", target=text
        )
        for n, text in enumerate(texts)
    ]


def test_translation_of_the_reference_is_perfect():
    records = pairs("der Hund läuft durch den Park", "eine Zeile\nund noch eine ganze Zeile")
    answerer = Scripted({"de0": " der Hund läuft durch den Park\nx", "de1": " eine Zeile\\nund noch eine ganze Zeile"})
    result = suite("translation", "eval.shots=0").evaluate(answerer, records)
    assert result.metrics["bleu"] == pytest.approx(100)
    assert result.metrics["chrf"] == pytest.approx(100)
    assert (result.metrics["ter"], result.metrics["length_ratio"]) == (0, 1)
    assert result.signatures["sacrebleu_bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert result.predictions[1]["prediction"] == records[1].target
    assert result.predictions[1]["source"] == records[1].source
    assert "/" not in "".join(name for name in result.metrics if name.startswith(("bleu", "chrf", "ter")))


def test_translation_shots_are_training_pairs_never_test_items():
    records = pairs("eins", "zwei")
    answerer = Scripted({"de0": "", "de1": ""})
    pool = [*records, *pairs("drei", "vier")]
    result = suite("translation", "eval.shots=2").evaluate(answerer, records, shots_pool=pool)
    for request in answerer.requests:
        worked, _, _ = request.prompt.rpartition("English: ")
        assert "drei" in worked
        assert "vier" in worked
        assert "eins" not in worked
    assert result.metrics["length_ratio"] == 0
    with pytest.raises(ConfigError, match=r"got 3, the data has 2 records in 'de'"):
        suite("translation", "eval.shots=3").evaluate(answerer, records, shots_pool=pool)


def test_translation_into_several_languages_is_a_macro_mean():
    records = [*pairs("der Hund läuft durch den Park"), *pairs("猫在公园里跑步", language="zh")]
    answerer = Scripted({"de0": " der Hund läuft durch den Park", "zh0": " 狗"})
    result = suite("translation", "eval.shots=0").evaluate(answerer, records)
    assert result.metrics["chrf"] == pytest.approx((result.metrics["chrf/de"] + result.metrics["chrf/zh"]) / 2)
    assert result.metrics["chrf/de"] == pytest.approx(100)
    assert "tok:zh" in result.signatures["sacrebleu_bleu/zh"]


def test_length_ratio_counts_words_or_characters():
    assert length_ratio("a b", "a b c d", language="de") == 0.5
    assert length_ratio("猫 狗", "猫在公园", language="zh") == 0.5
    assert math.isnan(length_ratio("a", " ", language="de"))


def questions():
    return [
        QuestionRecord(identifier="en1", language="en", question="Where?", answers=["Paris"]),
        QuestionRecord(identifier="en2", language="en", question="Who?", answers=["Ada Lovelace"]),
        QuestionRecord(identifier="de1", language="de", question="Wo?", answers=["im Haus"]),
        QuestionRecord(identifier="de2", language="de", question="Gibt es das?", answers=[]),
    ]


QA_SAID = {"en1": " The Paris!\nQuestion: x", "en2": " it was Ada Lovelace", "de1": " in Rom", "de2": " noanswer"}


def test_question_scores():
    result = suite("qa").evaluate(Scripted(QA_SAID), questions())
    assert [row["em"] for row in result.predictions] == [1.0, 0.0, 0.0, 1.0]
    expected = {
        "em": 0.5,
        "em/en": 0.5,
        "cover_em/en": 1.0,
        "contains_not_em/en": 0.5,
        "answer_tokens/en": 2.5,
        "em_gap": 0.0,
        "em_std": 0.0,
    }
    assert {name: result.metrics[name] for name in expected} == expected
    assert result.metrics["f1/en"] == pytest.approx((1 + 2 / 3) / 2)
    assert result.signatures["normaliser"] == "de:mkqa_unicode|en:squad"
    assert result.predictions[0]["gold"] == ["Paris"]


def test_calibration_of_questions():
    log_probs = {"en1": 0.0, "en2": -8.0, "de1": -8.0, "de2": -0.4}
    result = suite("calibration").evaluate(Scripted(QA_SAID, log_probs=log_probs), questions())
    confidences = [1.0, math.exp(-2), math.exp(-2), math.exp(-0.1)]
    assert [row["confidence"] for row in result.predictions] == pytest.approx(confidences)
    right = [1, 0, 0, 1]
    brier = sum((c - y) ** 2 for c, y in zip(confidences, right, strict=True)) / 4
    assert result.metrics["brier"] == pytest.approx(brier, abs=tolerances.EXACT)
    assert (result.metrics["auroc"], result.metrics["calibration_accuracy"]) == (1.0, 0.5)
    assert result.metrics["e_aurc"] == pytest.approx(0, abs=tolerances.EXACT)


def test_calibration_of_one_class_is_undefined():
    result = suite("calibration", "eval.shots=3").evaluate(Scripted(dict.fromkeys(SAID, " none")), MATHS)
    assert math.isnan(result.metrics["auroc"])
    assert result.metrics["calibration_accuracy"] == 0
    assert result.details["auroc"].n == 4


def test_sequence_confidence_stays_in_its_range():
    assert sequence_confidence(-2.0, 4) == pytest.approx(math.exp(-0.5))
    assert sequence_confidence(1e-7, 1) == 1.0
    assert math.isnan(sequence_confidence(0.0, 0))
    assert math.isnan(sequence_confidence(None, 3))


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = LlamaConfig(**sizes, vocab_size=259, max_position_embeddings=2048, eos_token_id=258)
        return AutoModelForCausalLM.from_config(config)


def tiny_answerer():
    model, tokenizer = tiny(), byte_tokenizer()
    engine = NativeEngine(NativeConfig(_target_="", batch_size=4), model=model, tokenizer=tokenizer)
    decoding = Greedy(GreedyConfig(_target_="", max_new_tokens=4))
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        engine=engine,
        answer=lambda requests, *, progress=None: decoding.answer(engine, requests, progress=progress),
    )


def test_throughput_measures_reading_and_writing(monkeypatch):
    ticks = iter(range(0, 10**6, 1))
    # Each reading of the clock is one second on, so a pass takes one second whatever it does.
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: float(next(ticks)))
    answerer = tiny_answerer()
    seen = []
    result = suite("throughput", "eval.batch_size=2").evaluate(answerer, [], progress=lambda *n: seen.append(n))
    assert result.metrics["prefill_tokens_per_s"] == 2 * throughput.PROMPT_TOKENS
    assert math.isnan(result.metrics["decode_tokens_per_s"])  # no further time: undefined, and counted
    assert result.details["decode_tokens_per_s"].undefined == throughput.REPETITIONS
    assert [done for done, _, _ in seen] == [1, 2, 3]


def test_throughput_on_the_real_clock():
    answerer = tiny_answerer()
    result = suite("throughput", "eval.batch_size=2").evaluate(answerer, [])
    assert result.metrics["prefill_tokens_per_s"] > result.metrics["decode_tokens_per_s"] > 0


@pytest.mark.parametrize(("name", "records"), [("math", MATHS), ("qa", questions()), ("translation", pairs("eins"))])
def test_suites_with_a_real_model(name, records):
    result = suite(name, "eval.shots=0").evaluate(tiny_answerer(), records)
    assert len(result.predictions) == len(records)
    assert all(0 < row["num_tokens"] <= 4 and row["log_prob"] < 0 for row in result.predictions)
    json.dumps(result.predictions, allow_nan=False)


def test_translation_out_of_several_languages_is_grouped_by_them():
    records = [
        ParallelRecord(
            identifier=f"{source}-{text}", language="en", source_language=source, source="x", target=f"the {text} dog"
        )
        for source, text in (("de", "red"), ("de", "blue"), ("ru", "red"))
    ]
    answerer = Scripted({"de-red": " the red dog", "de-blue": " the red dog", "ru-red": " the red dog"})
    result = suite("translation", "eval.shots=0").evaluate(answerer, records)
    assert result.metrics["exact/de"] == 0.5
    assert result.metrics["exact/ru"] == 1
    assert result.metrics["exact"] == 0.75  # macro over languages
    assert result.metrics["chrf"] == pytest.approx((result.metrics["chrf/de"] + result.metrics["chrf/ru"]) / 2)
    assert [row["exact"] for row in result.predictions] == [1, 0, 1]


def test_a_metric_of_two_suites_takes_their_names():
    results = {
        "qa": SuiteResult(metrics={"em": 0.5, "answer_tokens": 2.0, "answer_tokens/de": 3.0}),
        "math": SuiteResult(metrics={"acc": 1.0, "answer_tokens": 4.0}, details={"answer_tokens": MetricDetail(n=2)}),
    }
    metrics, details = named(results, split="test", suffix="_base")
    assert metrics == {
        "test/em_base": 0.5,
        "test/qa_answer_tokens_base": 2.0,
        "test/qa_answer_tokens_base/de": 3.0,
        "test/acc_base": 1.0,
        "test/math_answer_tokens_base": 4.0,
    }
    assert list(details) == ["test/math_answer_tokens_base"]
    assert list(named({"qa": results["qa"]}, split="test")[0])[1] == "test/answer_tokens"


def test_a_base_evaluation_is_not_shared_between_prompt_styles(tmp_path):
    records, stages = problems(de1="7"), StageStore(tmp_path)
    data = SimpleNamespace(
        eval_records=lambda split: records,
        shots_pool=list,
        limit=lambda split: None,
        source=SimpleNamespace(fingerprint=lambda split: "text"),
    )
    answerer = Scripted({"de1": "7"})
    answerer.model = torch.nn.Identity()  # has no weights to move
    for style in ("default", "bare", "default"):
        config = run_config([*ANY, "eval=math", "eval.shots=0", "eval.bootstrap=0", f"prompt_style={style}"])
        base_evaluation(config, answerer, data, split="test", stages=stages, model_fingerprint="weights")
    assert [product.reused for product in stages.history] == [False, False, True]
    default, bare = (request.prompt for request in answerer.requests)
    assert default != bare
