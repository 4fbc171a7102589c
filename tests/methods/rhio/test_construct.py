"""Pairs of RHIO: whose heads are silent, what is asked, which negatives are kept and how a pair is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import loaded
from tests.generation.tiny_models import tiny
from tests.methods.rhio.scripted import SCORES, context_of, question, sample, scores_of

from athlos.data.records import PreferenceRecord
from athlos.errors import DataError
from athlos.judging.config import ExactJudgeConfig
from athlos.judging.lexical import CoverJudge
from athlos.methods.rhio import construct as constructs
from athlos.methods.rhio.construct import RhioConstruct, faith_of
from athlos.methods.rhio.prompt_styles import documents
from athlos.models.head_scores import ranked
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import Made
from athlos.text.prompts import build_prompt

TEXTS = [
    "Item 0 is in a well.",
    "Item 1 is in box 1.",
    "Boxes are red.",
    "no no no no no no no no",
    " Item 4 was sold. ",
    "Item 5 is in box 5.",
]
"""Of the model without heads: unfaithful, a copy, faithful, word salad, unfaithful, never asked."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the model without heads was asked; it says `TEXTS`."""
    seen: dict[str, Any] = {}

    def answers(engine: Any, requests: Any, **options: Any) -> Any:
        seen.update(engine=engine, prompts=[request.prompt for request in requests], **options)
        return [sample(text) for text, _ in zip(TEXTS, requests, strict=False)]

    monkeypatch.setattr(constructs, "answers_without_heads", answers)
    monkeypatch.setattr(constructs, "detected", scores_of)
    return seen


def built(folder: Path, *overrides: str, **more: Any) -> tuple[Made, list[PreferenceRecord], Any]:
    records = [question(number) for number in range(6)]
    switches = ["construct.num_questions=5", "construct.min_pairs=2", *overrides]
    context = context_of(folder, *switches, records=records, **more)
    made = RhioConstruct(context.config.construct).build(context=context)  # type: ignore[arg-type]
    return made, list(made.records or []), context  # type: ignore[arg-type]


def test_what_is_unfaithful_and_no_copy_makes_a_pair(tmp_path: Path, asked: dict[str, Any]) -> None:
    made, pairs, _ = built(tmp_path)
    assert [pair.identifier for pair in pairs] == ["q0", "q4"]
    assert [pair.chosen for pair in pairs] == [" Item 0 is in box 0.", " Item 4 is in box 4."]
    assert [pair.rejected for pair in pairs] == [" Item 0 is in a well.", " Item 4 was sold."]
    assert [pair.prompt for pair in pairs] == [
        build_prompt(question(number), shots=(), style="rhio_lab") for number in (0, 4)
    ]
    assert len(asked["prompts"]) == 5
    metrics = made.report.metrics
    assert metrics["construct/pairs"] == 2
    assert [metrics[f"construct/drop_{reason}"] for reason in ("degenerate", "copy", "faithful")] == [1, 1, 1]
    assert metrics["construct/negative_faith"] == 2 / 5
    assert metrics["detect/top_share"] == pytest.approx(0.9 / 2.15)
    rows = [json.loads(line) for line in made.files[-1].read_text(encoding="utf-8").splitlines()]
    assert [row["drop"] for row in rows] == [None, "copy", "faithful", "degenerate", None]
    assert [row["reference_faith"] for row in rows] == [1.0] * 5


@pytest.mark.parametrize(("number", "best"), [(1, [(0, 1)]), (3, [(0, 1), (1, 2), (1, 0)])])
def test_the_best_heads_are_silent_or_as_many_others(
    tmp_path: Path, asked: dict[str, Any], number: int, best: list[tuple[int, int]]
) -> None:
    built(tmp_path, f"construct.mask.num_heads={number}")
    assert asked["heads"] == best
    assert (asked["is_uniform"], asked["in_prompt"], asked["follows_sharing"]) == (False, True, False)
    other = ["construct.negatives.source=random_mask", "construct.mask.mode=uniform_causal"]
    built(tmp_path, f"construct.mask.num_heads={number}", *other, "construct.mask.phase=decode")
    assert sorted(layer for layer, _ in asked["heads"]) == sorted(layer for layer, _ in best)
    assert not set(asked["heads"]) & set(best)
    assert (asked["is_uniform"], asked["in_prompt"]) == (True, False)


def test_a_prompt_without_documents(tmp_path: Path, asked: dict[str, Any]) -> None:
    built(tmp_path, "construct.negatives.source=prompt", "construct.negatives.instruction='Guess. '")
    assert asked["prompts"][1] == "Guess. Where is item 1?"
    assert asked["heads"] == []


def test_the_base_answers_where_it_is_told_to(tmp_path: Path, asked: dict[str, Any]) -> None:
    base = loaded(tiny(seed=2), byte_tokenizer(), fingerprint="base")
    built(tmp_path, "construct.negatives.model=base", load_base=lambda: base)
    assert asked["engine"].model is base.model
    _, _, context = built(tmp_path, load_base=lambda: base)
    assert asked["engine"].model is context.start.model


def test_negatives_by_rule_ask_nobody(tmp_path: Path, asked: dict[str, Any]) -> None:
    _, pairs, _ = built(tmp_path, "construct.negatives.source=entity_swap", "construct.min_pairs=0")
    assert asked == {}
    assert all(pair.rejected != pair.chosen for pair in pairs)


def test_too_few_pairs_end_the_run_with_the_reasons(tmp_path: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"got 2 pairs of 5 questions, .* 3; left out: 1 degenerate, 1 copy, 1 faith"):
        built(tmp_path, "construct.min_pairs=3")


def test_faithfulness_is_a_share_of_sentences() -> None:
    texts = ["Boxes are red. Boxes are blue. Nobody looks there.", ""]
    judge = CoverJudge(ExactJudgeConfig())
    half, none = faith_of(texts, [question(0), question(1)], judge=judge, threshold=0.5)
    assert half == pytest.approx(2 / 3)
    assert none != none


def test_the_twin_of_ranking_agrees_with_the_script() -> None:
    import torch

    assert ranked(torch.tensor(SCORES))[:4] == [(0, 1), (1, 2), (1, 0), (0, 3)]


def test_documents_stand_in_an_order_of_their_question() -> None:
    shown = [question(number) for number in range(9)]
    orders = {documents(record) == [passage.text for passage in record.passages] for record in shown}
    assert orders == {True, False}
    assert documents(question(3)) == documents(question(3))
