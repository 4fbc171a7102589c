"""The suite of answers over documents: scores by hand, rows, and what it refuses."""

import math
from dataclasses import replace

import pytest
from tests.assembled import suite_of
from tests.evaluation.alce_reference import WordJudge
from tests.evaluation.test_suites import Scripted

from athlos.config.compose import run_config
from athlos.data.records import Claim, LongAnswerRecord, Passage, QuestionRecord
from athlos.errors import ConfigErrors, DataError

ROME = [
    Passage(title="", text="Rome is old.", is_supporting=True),
    Passage(title="Ostia", text="Ostia is a port."),
    Passage(title="", text="Rome is big."),
]
LONG = [
    LongAnswerRecord(
        identifier="a",
        question="What of Rome?",
        answer="Rome is old and big.",
        passages=ROME,
        short_answers=[["old"], ["vast", "big"]],
        claims=[Claim(text="Rome is old"), Claim(text="Rome is blue")],
    ),
    LongAnswerRecord(identifier="b", question="What of Ostia?", answer="", passages=ROME),
    LongAnswerRecord(identifier="c", question="And?", answer="Nothing.", passages=ROME),
]
TEXTS = {"a": " Rome is old [1]. Rome is old big [1][3]. Rome is red [2].\nMore.", "b": "I don't know.", "c": ""}
RUN = ["data=own", "data.path=mine.jsonl", "eval=grounded", "eval.bootstrap=20", "judge=exact"]


@pytest.fixture(autouse=True)
def judge_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("athlos.objectives.judged_reward.build_judge", lambda config, stages: WordJudge())


def grounded(records, texts, *overrides: str, **options):
    answerer = Scripted(texts)
    return suite_of(run_config([*RUN, *overrides])).evaluate(answerer, records, **options), answerer


def test_long_answers_by_hand() -> None:
    found, _ = grounded(LONG, TEXTS)
    metrics = found.metrics
    # Sentences of a: supported, supported by both documents together, not supported. b cites nothing, c has none.
    assert metrics["faith"] == 2 / 3
    assert (found.details["faith"].n, found.details["faith"].undefined) == (3, 2)
    assert metrics["cite_rec"] == pytest.approx((2 / 3 + 0) / 2)
    assert metrics["cite_prec"] == pytest.approx((3 / 4 + 0) / 2)
    assert metrics["cite_f1"] == pytest.approx(2 * (1 / 3) * (3 / 8) / (1 / 3 + 3 / 8))
    assert metrics["sent_prec"] == 2 / 3
    assert metrics["multi_cite_share"] == pytest.approx((1 / 3 + 0) / 2)
    assert metrics["multi_cite_supported"] == 1
    assert (metrics["correct"], metrics["str_hit"], metrics["claim_recall"]) == (1, 1, 1 / 2)
    assert (metrics["refusal_rate"], metrics["empty_rate"]) == (1 / 3, 1 / 3)
    assert metrics["coverage"] == pytest.approx((4 / 5 + 0) / 2)
    assert metrics["answer_tokens"] == pytest.approx((10 + 3 + 0) / 3)
    assert metrics["cite_none"] == 1 / 3
    assert "em" not in metrics
    assert found.details["cite_f1"].low is not None


def test_rows_say_what_supports_each_sentence() -> None:
    found, _ = grounded(LONG, TEXTS)
    row = found.predictions[0]
    assert row["class"] == "answered"
    assert row["sentences"] == [
        {"text": "Rome is old.", "cited": (1,), "is_supported": True, "is_faithful": True},
        {"text": "Rome is old big.", "cited": (1, 3), "is_supported": True, "is_faithful": True},
        {"text": "Rome is red.", "cited": (2,), "is_supported": False, "is_faithful": False},
    ]
    assert found.predictions[1]["faith"] is None
    assert [row["class"] for row in found.predictions[1:]] == ["refused", "empty"]
    assert found.signatures["citations"] == "alce|mode:strict|splitter:sentences|by answer, language"
    assert found.signatures["judge"] == "words:0"


def test_a_score_at_the_threshold_is_enough() -> None:
    found, _ = grounded(LONG, TEXTS, "judge.threshold=1")
    assert [sentence["is_faithful"] for sentence in found.predictions[0]["sentences"]] == [True, True, False]
    assert found.metrics["faith"] == 2 / 3


def test_questions_with_short_answers() -> None:
    records = [
        QuestionRecord(identifier="a", question="How is Rome?", answers=["old"], passages=ROME),
        QuestionRecord(identifier="b", question="How is Ostia?", answers=[], passages=ROME),
    ]
    found, answerer = grounded(records, {"a": "Old [1].", "b": "noanswer"}, "prompt_style=cited")
    assert (found.metrics["em"], found.metrics["correct"], found.details["em"].undefined) == (1, 1, 1)
    assert math.isnan(found.metrics["multi_cite_supported"])
    prompt = answerer.requests[0].prompt
    assert "Document [2](Title: Ostia): Ostia is a port.\nDocument [3]: Rome is big.\nAnswer:" in prompt


def test_contrastive_decoding_reads_the_prompt_without_documents() -> None:
    _, answerer = grounded(LONG, TEXTS, "decoding=cad")
    assert "Document [" in answerer.requests[0].prompt
    assert "Document [" not in answerer.requests[0].without
    assert "What of Rome?" in answerer.requests[0].without


def test_metrics_of_the_judge_of_the_training_say_so() -> None:
    found, _ = grounded(LONG, TEXTS, "reward=judge", "train.max_steps=0", "judge.allow_same=true")
    assert {"faith@reward_judge", "cite_f1@reward_judge", "cite_rec/en@reward_judge"} <= set(found.metrics)
    assert {"answer_tokens", "correct", "cite_out_of_range"} <= set(found.metrics)
    assert "faith" not in found.metrics
    assert set(found.details) == set(found.metrics)


def test_one_worked_example_is_shown_and_is_no_test_item() -> None:
    pool = [LongAnswerRecord(identifier="d", question="Old?", answer="Rome is old. It is.", passages=ROME)]
    _, answerer = grounded(LONG, TEXTS, "eval.shots=1", shots_pool=pool)
    assert "Answer: Rome is old [1]. It is [1].\n\n" in answerer.requests[0].prompt
    with pytest.raises(DataError, match="'a' and 0 more are in the training split and in the test"):
        grounded(LONG, TEXTS, "eval.shots=1", shots_pool=[*pool, LONG[0]])
    grounded(LONG, TEXTS, shots_pool=LONG)  # nothing is shown


def test_means_over_data_sets() -> None:
    records = [replace(record, meta={"source": source}) for record, source in zip(LONG, "xyx", strict=True)]
    found, _ = grounded(
        records,
        {"a": "Rome is old [1].", "b": "Rome is new [1].", "c": "Rome is new [1]."},
        "eval.suites.grounded.by=source",
    )
    assert (found.metrics["faith/x"], found.metrics["faith/y"], found.metrics["faith"]) == (1 / 2, 0, 1 / 4)
    assert found.metrics["cite_f1/x"] == 1 / 2
    with pytest.raises(DataError, match="question 'a' has no 'kind'"):
        grounded(records, TEXTS, "eval.suites.grounded.by=kind")


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="question 'x' has no documents"):
        grounded([LongAnswerRecord(identifier="x", question="?", answer="!")], {"x": "y"})
    with pytest.raises(ConfigErrors, match=r"judge: got none, expected one, such as judge=lexical: eval\.suites"):
        run_config([*RUN[:-1]])
    with pytest.raises(ConfigErrors, match=r"eval\.suites\.grounded\.splitter: got 'punk'"):
        run_config([*RUN, "eval.suites.grounded.splitter=punk"])
