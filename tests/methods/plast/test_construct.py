"""Pairs of questions: what is asked, what is learnt, what is masked, and what is refused."""

import pytest
import torch
from tests.assembled import loaded
from tests.methods.plast.tiny import opened

from athlos.data.picture_prompts import IMAGE_TOKEN, listed
from athlos.errors import ModelError
from athlos.methods.plast.construct import PlastConstruct
from athlos.methods.plast.reading import source_of
from athlos.models.architecture import build, hf_config
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective


def built(tmp_path, *overrides: str):
    context = opened(tmp_path, *overrides)
    made = PlastConstruct(context.config.construct).build(context=context)
    return context.data.with_made(made), context, made.records, made.report


def test_a_pair_is_the_question_with_its_options_in_two_languages(tmp_path):
    _, context, records, report = built(tmp_path)
    english = {one.item: one for one in source_of(context).questions("train") if one.language == "latn"}
    own = {one.identifier: one for one in source_of(context).questions("train")}
    assert len(records) == 4 * 10
    assert report.metrics["data/pairs/thai"] == 10
    for record in records:
        one = own[record.identifier]
        assert record.prompt == f"{IMAGE_TOKEN} {one.question}{listed(one.choices)}\n>\n"
        assert record.completion == english[one.item].question + listed(english[one.item].choices)
        assert (record.pixels == one.pixels).all()


def test_picture_prompt_and_padding_are_masked_and_get_no_gradient(tmp_path):
    data, context, records, _ = built(tmp_path)
    rows = data.rows("train")
    assert len(rows) == len(records)
    from athlos.data.batches import collate

    batch = collate(rows, torch.arange(4).numpy(), pad_id=0, step_targets=1)
    tokenizer = context.tokenizer
    for row, record in enumerate(records[:4]):
        targets = batch["labels"][row][batch["labels"][row] != -100]
        wanted = tokenizer.encode(record.completion, add_special_tokens=False)
        assert targets.tolist() == [*wanted, tokenizer.eos_token_id]
    is_image = batch["input_ids"] == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert is_image.sum(1).tolist() == [9] * 4
    assert (batch["labels"][is_image] == -100).all()
    model = context.start.model
    objective = NextTokenObjective(NextTokenConfig(_target_="", chunk_tokens=1024))
    changed = {**batch, "input_ids": torch.where(batch["attention_mask"] == 0, 5, batch["input_ids"])}
    with torch.no_grad():
        assert torch.equal(objective.loss(model, batch).total, objective.loss(model, changed).total)


def test_pairs_without_picture_train_the_language_model_itself(tmp_path):
    data, _, records, _ = built(tmp_path, "construct.with_image=false")
    assert all(IMAGE_TOKEN not in record.prompt and record.pixels is None for record in records)
    assert data.rows("train").pixels is None


@pytest.mark.parametrize(("kind", "form"), [("answer_translation", "answer"), ("multilingual_vqa", "question")])
def test_other_kinds(tmp_path, kind: str, form: str):
    _, context, records, _ = built(tmp_path, f"construct.kind={kind}")
    own = {one.identifier: one for one in source_of(context).questions("train")}
    english = {one.item: one for one in own.values() if one.language == "latn"}
    for record in records:
        one = own[record.identifier]
        right = one.choices[one.answer_index]
        if form == "answer":
            assert record.prompt == f"{IMAGE_TOKEN} {right}\n>\n"
            assert record.completion == english[one.item].choices[one.answer_index]
        else:
            assert record.completion in (right, "ABCD"[one.answer_index])
            assert one.question in record.prompt


def test_reverse_pairs_and_replay(tmp_path):
    _, _, records, report = built(
        tmp_path, "construct.reverse=true", "construct.replay_ratio=0.2", "construct.reverse_instruction='> {language}'"
    )
    assert report.metrics["data/replayed"] == 20  # 80 pairs are 80 %
    reverse = [record for record in records if "> thai\n" in record.prompt]
    assert len(reverse) == 10
    replayed = [record for record in records if record.language == "latn"]
    assert all("\n>" not in record.prompt for record in replayed)


def test_a_model_of_text_is_refused_when_pairs_show_pictures(tmp_path):
    context = opened(tmp_path)
    shape = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    context.start = loaded(build(hf_config(shape)), context.tokenizer)
    with pytest.raises(ModelError, match="got true, but the model lab_vision_tiny sees no pictures"):
        PlastConstruct(context.config.construct).build(context=context)


def test_the_product_is_shared_and_depends_on_the_kind(tmp_path):
    built(tmp_path)
    _, context, *_ = built(tmp_path)
    assert next(product for product in context.stages.history if product.name == "plast_pairs").reused
    _, context, *_ = built(tmp_path, "construct.kind=answer_translation")
    assert not next(product for product in context.stages.history if product.name == "plast_pairs").reused
