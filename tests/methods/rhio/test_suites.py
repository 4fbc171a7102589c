"""`suite=heads` by hand: which heads are silent, whose means are taken, which needles are asked for."""

from pathlib import Path
from typing import Any

import pytest
from tests.assembled import suite_of
from tests.methods.rhio.scripted import context_of, question, sample, scores_of

from athlos.errors import DataError
from athlos.generation.native import NativeEngine
from athlos.methods.rhio import suites
from athlos.methods.rhio.module import RhioModule

HEADS = ["eval=heads", "train.max_steps=0", "decoding=greedy", "eval.suites.heads.counts=[0,2]"]
DETECT = ["mode=forced", "lengths=[90,60]", "num_depths=2", "num_needles=2", "ask=' {question}'", "max_new_tokens=4"]
BEST = [(0, 1), (1, 2)]
DRAWS = 3


class Answers(RhioModule):
    """Nothing but what the suite reads of a module."""

    def __init__(self, context: Any) -> None:
        self.__dict__.update(context=context, config=context.config)
        self.__dict__["model"], self.__dict__["tokenizer"] = context.start.model, context.start.tokenizer


@pytest.fixture
def silenced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Heads of each call. The whole model is right, without the best wrong, without others wrong on one of two."""
    seen: list[Any] = []

    def answers(engine: Any, requests: Any, *, heads: Any, **_: Any) -> Any:
        seen.append(list(heads))
        wrong = len(requests) if list(heads) == BEST else len(heads) // 2
        texts = [f"Item {number} is in box {number}." for number in range(len(requests))]
        return [sample("It is lost." if number < wrong else text) for number, text in enumerate(texts)]

    def needles(self: Any, prompts: Any, *, silence: Any, **_: Any) -> Any:
        assert [len(prompt.token_ids) for prompt in prompts] == [60] * 3, "of the shortest length, as many as are told"
        text = (
            "a very long answer in many other words" if list(silence.heads) == BEST else "Item 0 is in box 0. Really."
        )
        return [[sample(text)] for _ in prompts]

    monkeypatch.setattr(suites, "answers_without_heads", answers)
    monkeypatch.setattr(suites, "detected", scores_of)
    monkeypatch.setattr(NativeEngine, "generate", needles)
    return seen


def evaluated(folder: Path, records: list[Any]) -> Any:
    changes = [f"eval.suites.heads.detect.{item}" for item in DETECT]
    changes += [f"eval.suites.heads.num_draws={DRAWS}", "eval.suites.heads.num_needles=3"]
    context = context_of(folder, *HEADS, *changes, records=[question(number) for number in range(9)])
    changed = context.config
    changed.judge = changed.construct.judge  # type: ignore[attr-defined]
    return suite_of(changed).evaluate(Answers(context), records)


def test_means_without_the_best_heads_and_without_others(tmp_path: Path, silenced: list[Any]) -> None:
    found = evaluated(tmp_path, [question(0), question(1)])
    none, best, *random = silenced
    assert (none, best) == ([], BEST)
    assert len(random) == DRAWS
    assert len({str(heads) for heads in random}) > 1, "each draw is one of its own"
    assert all([layer for layer, _ in heads] == [0, 1] and not set(heads) & set(BEST) for heads in random)
    metrics = found.metrics
    assert [metrics[f"faith@{name}"] for name in ("mask0", "mask2_retrieval", "mask2_random")] == [1, 0, 1 / 2]
    assert [metrics[f"rouge_l@{name}"] for name in ("mask0", "mask2_retrieval")] == [1, 2 * 1 / (3 + 6)]
    assert [metrics[f"cover_em@{name}"] for name in ("mask0", "mask2_retrieval", "mask2_random")] == [1, 0, 1 / 2]
    assert metrics["needle@mask0"] == pytest.approx((1 + 4 / 6 + 1) / 3)
    assert metrics["needle@mask2_retrieval"] < 0.3
    assert found.details["faith@mask2_random"].n == 2 * DRAWS
    assert metrics["detect_top_share"] == pytest.approx(0.9 / 2.15)
    assert (metrics["detect_strong"], metrics["detect_best"]) == (4, 0.9)
    assert [row["id"] for row in found.predictions[:3]] == ["0-1", "1-2", "1-0"]


def test_an_answer_is_held_against_its_own_question(tmp_path: Path, silenced: list[Any]) -> None:
    found = evaluated(tmp_path, [question(0), question(1)])
    # Question 0 alone is answered wrongly in each draw; answers in another order would all be wrong.
    assert found.metrics["rouge_l@mask2_random"] == pytest.approx((2 / 9 + 1) / 2)


def test_data_without_documents(tmp_path: Path, silenced: list[Any]) -> None:
    bare = question(0)
    bare.passages = []
    with pytest.raises(DataError, match="has no question with documents"):
        evaluated(tmp_path, [bare])
