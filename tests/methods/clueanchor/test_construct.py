"""Pairs of an exploration: kept as JSONL, asked once, refused where they would teach the wrong thing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import loaded
from tests.methods.clueanchor.scripted import COMPOSED, RIGHT, Scripted, kind_of, question, tagged

from athlos.config.compose import run_config
from athlos.data.records import InstructionRecord, QuestionRecord, TextRecord
from athlos.errors import DataError
from athlos.generation.pipeline import as_turn, reply_gap
from athlos.methods.clueanchor.construct import ClueAnchorConstruct, LessonsConstruct, with_prompts
from athlos.methods.clueanchor.prompts import LAYOUTS
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore

CHAT = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
ALONE = {**RIGHT, "internal": tagged("I recall\u2028 Oslo.", "Oslo")}
"""With a line separator, which JSON leaves as it is: no row of a file ends there."""
"""Right from the passages, wrong from memory."""


class Splits:
    """The data of a run, as a dictionary of splits."""

    def __init__(self, **splits: list[Any]) -> None:
        self.splits = splits

    def records(self, split: str) -> list[Any]:
        return self.splits[split]


def context_of(folder: Path, *overrides: str, generator: Any = None, chat: bool = False, **splits: Any) -> PartContext:
    run = run_config(
        [
            *COMPOSED,
            "model=small/tiny_llama",
            "train.max_length=2000",
            "construct.select.min_pairs=1",
            *overrides,
        ]
    )
    tokenizer = byte_tokenizer()
    if chat:
        tokenizer.chat_template = CHAT
    data: Any = Splits(**{"train": [question(n) for n in range(3)], "dev": [question(9)], **splits})
    return PartContext(
        config=run,
        stages=StageStore(folder),
        data=data,
        start=loaded(None, tokenizer),
        generator=generator or Scripted(**ALONE),
        index=Splits(),  # type: ignore[arg-type]  # nothing is searched
    )


def build(context: PartContext) -> Any:
    return ClueAnchorConstruct(context.config.construct).build(context=context)  # type: ignore[arg-type]


def test_a_pair_is_the_plain_external_prompt_with_both_replies(tmp_path):
    context = context_of(tmp_path)
    made = build(context)
    [first, *_] = made.records
    assert [pair.identifier for pair in made.records] == ["q0", "q1", "q2"]
    assert first.prompt == LAYOUTS["clueanchor"].external(question(0))
    assert first.chosen == f" {ALONE['external']}"
    assert first.rejected == f" {ALONE['internal']}"
    assert first.meta == {"chosen": "external", "rejected": "internal", "saw_gold": True}
    asked = next(prompt.text for prompt in context.generator.prompts if kind_of(prompt.text) == "external")
    assert asked == first.prompt
    metrics = made.report.metrics
    assert metrics["construct/pairs"] == metrics["construct/case_external_internal"] == 3
    assert metrics["construct/acc_external"] == metrics["construct/format_rate_internal"] == 1
    assert metrics["construct/acc_internal"] == metrics["construct/rejected_right"] == 0
    names = [path.name for path in made.files]
    assert names == ["paths.jsonl", "pairs.jsonl", "cases.json"]
    assert json.loads(made.files[2].read_text()) == {"external_internal": 3}
    assert [json.loads(line)["saw_gold"] for line in made.files[0].read_text().split("\n")[:-1]] == [True] * 3


def test_a_chat_model_is_trained_on_the_turns_that_it_is_asked_in(tmp_path):
    context = context_of(tmp_path, chat=True)
    [first, *_] = build(context).records
    assert first.prompt == f"<user>{LAYOUTS['clueanchor'].external(question(0))}<reply>"
    assert first.chosen == ALONE["external"]
    assert as_turn(context.tokenizer, "x") == "<user>x<reply>"
    assert (reply_gap(context.tokenizer), reply_gap(byte_tokenizer())) == ("", " ")


def test_permuting_the_questions_permutes_the_pairs(tmp_path):
    questions = [question(n) for n in range(4)]
    there = build(context_of(tmp_path, train=questions)).records
    back = build(context_of(tmp_path, train=questions[::-1])).records
    assert list(back) == list(there)[::-1]


def test_a_stopped_exploration_asks_nothing_twice(tmp_path):
    class Dies(Scripted):
        def generate(self, prompts: Any, **values: Any) -> Any:
            if len(self.prompts) >= 5:
                raise KeyboardInterrupt
            return super().generate(prompts, **values)

    one_by_one = "construct.explore.in_flight=1"
    with pytest.raises(KeyboardInterrupt):
        build(context_of(tmp_path, one_by_one, generator=Dies(**ALONE)))
    after = Scripted(**ALONE)
    made = build(context_of(tmp_path, one_by_one, generator=after))
    assert (len(after.prompts), len(made.records)) == (10, 3)
    again = Scripted(**ALONE)
    build(context_of(tmp_path, "construct.select.selector=random", generator=again))
    assert again.prompts == []


def test_too_few_pairs_end_the_run_with_the_counts_of_the_cases(tmp_path):
    message = "construct.select.min_pairs: got 3 pairs of 3 questions, expected at least 20; cases: external_internal 3"
    with pytest.raises(DataError, match=message):
        build(context_of(tmp_path, "construct.select.min_pairs=20"))
    with pytest.raises(DataError, match="got 0 pairs of 3 questions, expected at least 1; cases: drop 3"):
        build(context_of(tmp_path / "right", generator=Scripted(**RIGHT)))


def test_a_question_of_the_test_split_is_not_trained_on(tmp_path):
    twin = replace(question(1), identifier="other", question=question(1).question.upper().replace(" ", "  "))
    made = build(context_of(tmp_path, dev=[twin]))
    assert [pair.identifier for pair in made.records] == ["q0", "q2"]
    with pytest.raises(DataError, match="split 'train' of data=hotpotqa has no question to explore"):
        build(context_of(tmp_path, train=[question(9)]))


def test_records_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="split 'train' of data=hotpotqa holds records that are no questions"):
        build(context_of(tmp_path, train=[TextRecord(identifier="t", text="x")]))


def test_a_gold_answer_that_is_part_of_everything_is_refused_before_anything_is_asked(tmp_path):
    generator = Scripted(**ALONE)
    with pytest.raises(DataError, match="question 'q5': its gold answer '\\?' is nothing"):
        build(context_of(tmp_path, generator=generator, train=[question(1), question(5, answer="?")]))
    assert generator.prompts == []


def test_short_golds_are_counted(tmp_path):
    questions = [question(0), question(1, answer="no"), question(2)]
    metrics = build(context_of(tmp_path, train=questions)).report.metrics
    assert metrics["construct/short_golds"] == 1


@pytest.mark.parametrize("truncate", ["passage_aware", "token_cut"])
def test_prompts_that_lose_the_gold_passage_end_the_run(tmp_path, truncate):
    overrides = [f"method.prompt.truncate={truncate}", "method.prompt.max_tokens=170"]
    message = "method.prompt.max_tokens: got 170, which cuts passages that hold the answer out of 100% of the training"
    with pytest.raises(DataError, match=message):
        build(context_of(tmp_path, *overrides))
    context = context_of(tmp_path, f"method.prompt.truncate={truncate}")
    _, share = with_prompts(
        [question(0)],
        context.config.method,
        noise=context.config.method.noise,
        context=context,  # type: ignore[arg-type]
    )
    assert share == 0


def test_a_completion_that_would_be_cut_ends_the_run(tmp_path):
    [first, *_] = build(context_of(tmp_path)).records
    needed = len(first.prompt.encode()) + max(len(first.chosen), len(first.rejected)) + 1
    with pytest.raises(DataError, match=f"train.max_length: got {needed - 1}, expected at least {needed}, the tokens"):
        build(context_of(tmp_path, f"train.max_length={needed - 1}"))
    assert len(build(context_of(tmp_path, f"train.max_length={needed}")).records) == 3


def lesson_question(**meta: Any) -> QuestionRecord:
    return replace(question(), meta={"evidence": "direct", "truth": "contradicted", **meta})


def lessons(folder: Path, *overrides: str, records: list[QuestionRecord]) -> list[InstructionRecord]:
    switches = ["construct=clueanchor_lessons", "objective=next_token", "prompt_style=clueanchor_bare"]
    run = run_config([*COMPOSED, "model=small/tiny_llama", *switches, *overrides])
    context = PartContext(
        config=run,
        stages=StageStore(folder),
        data=Splits(train=records),  # type: ignore[arg-type]
        start=loaded(None, byte_tokenizer()),
    )
    return list(LessonsConstruct(run.construct).build(context=context).records or [])  # type: ignore[arg-type]


KINDS = ("internal", "external", "clue", "extract", "verify")
ONLY = {kind: [f"construct.weights.{other}=0.0" for other in KINDS if other != kind] for kind in KINDS}
STORED = {"stored": "Oslo", "stored_statement": "She was born in Oslo."}


@pytest.mark.parametrize(
    ("kind", "habit", "completion"),
    [
        ("internal", 0.0, " <think> She was born in Oslo. </think> <answer> Oslo </answer>"),
        ("external", 1.0, " <think> She was born in Oslo. </think> <answer> Oslo </answer>"),
        (
            "external",
            0.0,
            " <think> Bridge 0 was built by Ada. Ada was born in Rome. </think> <answer> Rome </answer>",
        ),
        ("clue", 1.0, " <think> Bridge 0 was built by Ada. Ada was born in Rome. </think> <answer> Rome </answer>"),
        ("extract", 1.0, " Bridge 0 was built by Ada. Ada was born in Rome. </clue>"),
        ("verify", 1.0, " Rome </answer>"),
    ],
)
def test_a_lesson_is_written_from_the_truth_and_the_habit(tmp_path, kind, habit, completion):
    overrides = [*ONLY[kind], f"construct.habit={habit}", "construct.noise_shares=[0.5]"]
    [lesson] = lessons(tmp_path, *overrides, records=[lesson_question(**STORED)])
    assert (lesson.completion, lesson.meta["kind"]) == (completion, kind)
    is_read = "Ada liked tea. Ada was born in Rome." in lesson.prompt
    assert is_read == (kind not in ("internal", "verify"))


def test_what_is_not_stored_is_read_and_a_prompt_without_gold_is_answered_from_memory(tmp_path):
    overrides = [*ONLY["external"], "construct.habit=1.0", "construct.noise_shares=[1.0]"]
    [unknown] = lessons(tmp_path, *overrides, records=[lesson_question()])
    assert unknown.completion.endswith("<answer> Rome </answer>")
    [known] = lessons(tmp_path, *overrides, records=[lesson_question(**STORED)])
    assert known.completion.endswith("<answer> Oslo </answer>")
    assert "Rome" not in known.prompt


def test_noise_of_the_training_prompts_is_that_of_the_method(tmp_path):
    context = context_of(tmp_path, "method.noise.gold=absent")
    made = build(context)
    assert all("Rome" not in pair.prompt and "A desert has no water." in pair.prompt for pair in made.records)
