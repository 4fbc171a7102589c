"""What is hidden, and how often: needles of the data and of Athlos, the grid of prompts, numbers of heads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import loaded
from tests.generation.tiny_models import tiny

from athlos.data.records import LongAnswerRecord, Passage, QuestionRecord
from athlos.errors import DataError
from athlos.methods.rhio import detect
from athlos.methods.rhio.config import DetectConfig, count_of_heads
from athlos.methods.rhio.detect import NEEDLES, detected, first_evidence, prompts_of, task_of
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore


def config_of(**changes: Any) -> DetectConfig:
    values: dict[str, Any] = {
        "mode": "forced",
        "score": "set",
        "lengths": [60],
        "num_depths": 2,
        "num_needles": 2,
        "ask": "\n{question}",
        "max_new_tokens": 4,
    }
    return DetectConfig(**{**values, **changes})


def question(number: int, *, facts: int = 1) -> QuestionRecord:
    sentences = [f"Fact {number} is here.", f"Noise {number} is there.", "More noise."]
    return QuestionRecord(
        identifier=str(number),
        question=f"Where is {number}?",
        answers=["here"],
        passages=[Passage(title="t", text=" ".join(sentences), sentences=sentences)],
        supporting_facts=[("t", place) for place in range(facts)],
    )


def context_of(tmp_path: Path, records: list[Any]) -> PartContext:
    run: Any = SimpleNamespace(data=SimpleNamespace(train_split="train"), seed=1)
    data: Any = SimpleNamespace(records=lambda split: iter(records), test_split="test")
    start = loaded(tiny(seed=1), byte_tokenizer())
    return PartContext(config=run, stages=StageStore(tmp_path / "cache"), data=data, start=start)


def test_a_needle_is_the_only_evidence_of_a_question_and_in_no_haystack(tmp_path: Path) -> None:
    records = [question(1), question(2, facts=2), question(3), question(4)]
    assert [first_evidence(record) for record in records] == [
        "Fact 1 is here.",
        "",
        "Fact 3 is here.",
        "Fact 4 is here.",
    ]
    task = task_of(config_of(), context=context_of(tmp_path, records))
    assert [needle.question for needle in task.needles] == ["Where is 1?", "Where is 3?"]
    assert "Fact 1" not in task.haystack
    assert "Noise 1 is there. More noise. Fact 2 is here." in task.haystack
    with pytest.raises(DataError, match="got 4, expected at most 3"):
        task_of(config_of(num_needles=4), context=context_of(tmp_path, records))


def test_a_needle_of_a_long_answer_is_the_first_sentence_that_it_was_written_from() -> None:
    def record(selected: list[str]) -> LongAnswerRecord:
        passage = Passage(title="t", text="One. Two.", sentences=["One.", "Two."])
        meta = {"selected_sentences": selected}
        return LongAnswerRecord(identifier="q", question="?", answer="Two.", passages=[passage], meta=meta)

    assert [first_evidence(record(selected)) for selected in (["Two.", "One."], [], ["Three."])] == ["Two.", "", ""]
    assert first_evidence(LongAnswerRecord(identifier="q", question="?", answer="!")) == ""


def test_needles_of_athlos_in_a_folder_of_text(tmp_path: Path) -> None:
    (tmp_path / "SOURCE.txt").write_text("nothing to read")
    with pytest.raises(DataError, match="expected a folder with"):
        task_of(config_of(haystack=str(tmp_path)), context=context_of(tmp_path, []))
    (tmp_path / "text.txt").write_text("Some text.\n More of it.")
    task = task_of(config_of(haystack=str(tmp_path), num_needles=4), context=context_of(tmp_path, []))
    assert (task.haystack, task.language, task.needles) == ("Some text. More of it.", "en", list(NEEDLES))
    assert not any(needle.text in task.haystack for needle in NEEDLES)


@pytest.mark.parametrize("mode", ["forced", "induction"])
def test_the_grid_of_prompts(tmp_path: Path, mode: str) -> None:
    config = config_of(mode=mode, lengths=[60, 90], num_depths=3)
    task = task_of(config, context=context_of(tmp_path, [question(number) for number in range(9)]))
    prompts = list(prompts_of(task, byte_tokenizer(), config=config, seed=1))
    assert [(one.length, one.depth, one.needle) for one in prompts] == [
        (length, depth, needle) for length in (60, 90) for depth in (0.0, 0.5, 1.0) for needle in (0, 1)
    ]
    assert all(len(one.ids) == one.length for one in prompts)
    assert len({tuple(one.ids) for one in prompts}) > 6


def test_a_detection_is_kept_and_says_what_made_it(tmp_path: Path) -> None:
    context = context_of(tmp_path, [question(number) for number in range(9)])
    scores, product = detected(config_of(), context=context)
    again, reused = detected(config_of(), context=context)
    assert reused.reused
    assert again.mean_LH.tolist() == scores.mean_LH.tolist()
    assert len(scores.kept) == 4
    text = (product.path / "heads.json").read_text(encoding="utf-8")
    for key in ("needles", "prompts", "model", "config", "seed", "libraries", "kept", "dropped", "mean"):
        assert f'"{key}"' in text
    _, other = detected(config_of(score="count"), context=context)
    assert other.key != product.key


def test_where_a_haystack_lies_is_in_no_key(tmp_path: Path) -> None:
    keys = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text("Some text. More of it. " * 20)
        config = config_of(haystack=str(tmp_path / name), lengths=[250])
        keys.add(detected(config, context=context_of(tmp_path, []))[1].key)
    assert len(keys) == 1


def test_a_generated_answer_ends_with_its_line_and_is_kept_by_its_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it says beside the needle; precision would drop it."""
    tokenizer, endings = byte_tokenizer(), set()

    def generated(model: Any, prompt: Any, *, max_new_tokens: int, ends: Any) -> tuple[Any, list[int]]:
        endings.update(chr(token) for token in range(128) if ends(token))
        said = tokenizer.encode("Fact 0 is here. Fact 1 is here. And more than anybody asked for is there too.")
        return torch.zeros(len(said), 2, 4, dtype=torch.long), said

    monkeypatch.setattr(detect, "generated", generated)
    context = context_of(tmp_path, [question(number) for number in range(9)])
    scores, _ = detected(config_of(mode="generate"), context=context)
    assert [run.recall for run in scores.kept] == [100.0] * 4
    assert endings == {"\n"}


def test_a_model_that_finds_no_needle_raises_with_the_best_recall(tmp_path: Path) -> None:
    context = context_of(tmp_path, [question(number) for number in range(9)])
    with pytest.raises(DataError, match=r"of 4 runs none recalls .* detect\.mode=forced"):
        detected(config_of(mode="generate"), context=context)


@pytest.mark.parametrize(("number", "whole", "count"), [(None, 270, 27), (None, 4, 1), (0, 32, 0), (100, 32, 32)])
def test_numbers_of_heads(number: int | None, whole: int, count: int) -> None:
    assert count_of_heads(number, whole=whole) == count
