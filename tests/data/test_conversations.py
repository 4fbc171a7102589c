"""Conversations by chat templates: token ids and targets, against TRL's own preprocessing."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from athlos.data.conversations import encode_conversation
from athlos.data.encoding import encode_preference, encode_record
from athlos.data.records import ChatRecord, InstructionRecord, PreferenceRecord, Record, TextRecord
from athlos.errors import DataError, ModelError
from athlos.models.tokenizers import byte_tokenizer
from athlos.runs.assemble import text_of

MARKERS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
]
TURNS = [
    {"role": "user", "content": "Wie heißt 水?"},
    {"role": "assistant", "content": "Wasser."},
    {"role": "user", "content": "And in English?"},
    {"role": "assistant", "content": "Water,\nof course 🙂"},
]
TOOL = {
    "type": "function",
    "function": {"name": "dive", "description": "Go.", "parameters": {"type": "object", "properties": {}}},
}


def template(name: str) -> str:
    trl = pytest.importorskip("trl")
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer(chat_template: str | None) -> PreTrainedTokenizerBase:
    made = byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": MARKERS})
    made.chat_template = chat_template
    return made


def targets(made: PreTrainedTokenizerBase, encoded: tuple[list[int], list[bool]]) -> str:
    """The trained tokens of a row as one text."""
    return made.decode([token for token, is_target in zip(*encoded, strict=True) if is_target])


def by_trl(made: PreTrainedTokenizerBase, row: dict[str, Any], **options: Any) -> tuple[list[int], list[bool]]:
    """Token ids and targets as TRL's trainer prepares them."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    shape = LlamaConfig(
        vocab_size=len(made), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    trainer = SFTTrainer(
        model=LlamaForCausalLM(shape),
        args=SFTConfig(report_to="none", use_cpu=True, max_length=None, eos_token=made.eos_token, **options),
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=made,
    )
    [prepared] = trainer.train_dataset
    labels = prepared.get("labels", prepared["input_ids"])
    return prepared["input_ids"], [label != -100 for label in labels]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the trainer makes its output folder where it stands


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_all_turns_of_the_assistant_are_targets_as_in_trl(name: str) -> None:
    made = tokenizer(template(name))
    ours = encode_conversation(made, ChatRecord(identifier="a", messages=TURNS))
    assert ours == by_trl(made, {"messages": TURNS}, assistant_only_loss=True)
    assert "Wasser." in targets(made, ours)
    assert "heißt" not in targets(made, ours)


def test_the_line_end_behind_a_role_belongs_to_the_prompt_unlike_in_trl_s_template_for_qwen() -> None:
    """The prompt of a generation ends in that line end. TRL's template for Qwen2.5 counts it to the answer."""
    made = tokenizer(template("qwen2_5"))
    ids, is_target = encode_conversation(made, ChatRecord(identifier="a", messages=TURNS))
    their_ids, their_targets = by_trl(made, {"messages": TURNS}, assistant_only_loss=True)
    assert ids == their_ids
    differing = [place for place, pair in enumerate(zip(is_target, their_targets, strict=True)) if len(set(pair)) > 1]
    assert made.decode([ids[place] for place in differing]) == "\n\n"
    assert [made.decode(ids[place - 9 : place]) for place in differing] == ["assistant"] * 2
    assert targets(made, (ids, is_target)) == "Wasser.<|im_end|>\nWater,\nof course 🙂<|im_end|>\n"


@pytest.mark.parametrize("name", ["llama3", "gemma", "qwen2_5", "qwen3"])
def test_only_the_completion_of_a_prompt_of_messages_is_trained_on_as_in_trl(name: str) -> None:
    made = tokenizer(template(name))
    ours = encode_conversation(made, ChatRecord(identifier="a", messages=TURNS, num_given=3))
    assert ours == by_trl(made, {"prompt": TURNS[:3], "completion": TURNS[3:]})
    assert "Wasser." not in targets(made, ours)


def test_an_earlier_turn_that_a_template_shortens_is_a_target_up_to_its_end_of_turn() -> None:
    """Qwen3 opens the last answer with its reasoning and leaves that out of the earlier ones."""
    made = tokenizer(template("qwen3"))
    turns = [*TURNS[:1], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nWasser."}, *TURNS[2:]]
    ours = encode_conversation(made, ChatRecord(identifier="a", messages=turns))
    assert targets(made, ours) == ("Wasser.<|im_end|>\n<think>\n\n</think>\n\nWater,\nof course 🙂<|im_end|>\n")


def test_what_a_tool_says_is_no_target_and_the_call_is_one() -> None:
    made = tokenizer(template("qwen2_5"))
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "dive", "arguments": {}}}]}
    turns = [*TURNS[:1], call, {"role": "tool", "content": "wet"}, TURNS[1]]
    ours = encode_conversation(made, ChatRecord(identifier="a", messages=turns, tools=[TOOL]))
    text = targets(made, ours)
    assert '"name": "dive", "arguments": {}' in text
    assert "wet" not in text
    assert "Go." in made.decode(ours[0])


def test_a_template_that_marks_the_answers_decides_the_targets_itself() -> None:
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}{% endgeneration %}."
        "{% else %}U: {{ m.content }}.{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
    )
    made = tokenizer(marked)
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}] * 2
    both = encode_conversation(made, ChatRecord(identifier="a", messages=turns))
    last = encode_conversation(made, ChatRecord(identifier="a", messages=turns, num_given=3))
    assert made.decode(both[0]) == "U: one.A: two.U: one.A: two."
    assert (targets(made, both), targets(made, last)) == ("twotwo", "two")


def test_a_conversation_that_the_assistant_opens_has_its_greeting_as_a_target() -> None:
    made = tokenizer(template("llama3"))
    ours = encode_conversation(made, ChatRecord(identifier="a", messages=[TURNS[1], TURNS[2], TURNS[3]]))
    assert targets(made, ours) == "Wasser.<|eot_id|>Water,\nof course 🙂<|eot_id|>"


@pytest.mark.parametrize("row", [{"text": "Wörter."}, {"prompt": "Wie? ", "completion": "So."}])
def test_texts_are_encoded_as_in_trl(row: dict[str, str]) -> None:
    made = tokenizer(None)
    record: Record = TextRecord(identifier="a", **row) if "text" in row else InstructionRecord(identifier="a", **row)
    ours = encode_record(record, text_of=lambda record: text_of(record, "default"), tokenizer=made)
    assert ours == by_trl(made, row)


WORSE = [*TURNS[:3], {"role": "assistant", "content": "Wasser!"}]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("llama3", {"prompt": TURNS[:3], "chosen": TURNS[3:], "rejected": WORSE[3:]}),
        ("gemma", {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": WORSE[3:]}),
        (None, {"prompt": "Wie? ", "chosen": "So.", "rejected": "So nicht."}),
    ],
)
def test_pairs_are_encoded_as_in_trl(name: str | None, row: dict[str, Any]) -> None:
    """Where an answer has several turns, all of the assistant's are trained on, and nothing of the user's."""
    trl = pytest.importorskip("trl")
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer(None if name is None else template(name))
    record = PreferenceRecord(identifier="a", **row)
    ids, is_target, (shared, better, num_cut) = encode_preference(record, tokenizer=made, max_length=500)
    shape = LlamaConfig(
        vocab_size=len(made), hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1
    )
    model = LlamaForCausalLM(shape)
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=LlamaForCausalLM(shape),
        args=trl.DPOConfig(report_to="none", use_cpu=True, bf16=False, max_length=None),
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=made,
    )
    [prepared] = trainer.train_dataset
    assert ids[:shared] == prepared["prompt_ids"]
    assert ids[shared : shared + better] == prepared["chosen_ids"]
    assert ids[shared + better :] == prepared["rejected_ids"]
    assert num_cut == 0
    assert not any(is_target[:shared])
    if name == "gemma":
        assert "And in English" in made.decode(prepared["chosen_ids"])
        assert "And in English" not in targets(made, (ids, is_target))
    else:
        assert all(is_target[shared:])


def test_what_cannot_be_encoded_is_told_in_one_line() -> None:
    chat = ChatRecord(identifier="f.jsonl:7", messages=TURNS)
    with pytest.raises(ModelError, match=r"no chat template: choose a chat model.*chat_template\.jinja") as caught:
        encode_conversation(tokenizer(None), chat)
    assert "\n" not in str(caught.value)
    system = [{"role": "system", "content": "Be brief."}, *TURNS]
    with pytest.raises(DataError, match=r"record 'f\.jsonl:7': the model's chat template: .*System role not supported"):
        encode_conversation(tokenizer(template("gemma")), ChatRecord(identifier="f.jsonl:7", messages=system))
    late = "{% for m in messages %}{{ messages|length }}{{ m.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"before message 2 in another way.*\{% generation %\}"):
        encode_conversation(tokenizer(late), chat)
    silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(DataError, match="it shows nothing of what the assistant writes"):
        encode_conversation(tokenizer(silent), chat)


def test_a_conversation_longer_than_a_row_is_refused_with_its_length() -> None:
    made = tokenizer(template("llama3"))
    chat = ChatRecord(identifier="f.jsonl:7", messages=TURNS)
    length = len(encode_conversation(made, chat)[0])
    options: dict[str, Any] = {"text_of": lambda record: ("", ""), "tokenizer": made}
    assert len(encode_record(chat, max_length=length, **options)[0]) == length
    with pytest.raises(DataError, match=rf"has {length} tokens, train.max_length is {length - 1}; data.on_bad=skip"):
        encode_record(chat, max_length=length - 1, **options)
    pair = PreferenceRecord(identifier="f.jsonl:8", prompt=TURNS[:3], chosen=WORSE[3:], rejected=TURNS[3:])
    assert encode_preference(pair, tokenizer=made, max_length=length)
    with pytest.raises(DataError, match=rf"record 'f.jsonl:8': its conversation has {length} tokens"):
        encode_preference(pair, tokenizer=made, max_length=length - 1)
