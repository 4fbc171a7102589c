"""Preference losses against loops and TRL: log-probabilities, rewards, gradients, the reference, and pairs in a batch.

Sabotages that were tried and that these tests catch: better and worse swapped, the sign of the reference, a mean over
the prompt's tokens too, the mask one token off, a mean over the batch's tokens in place of the answer's, adapters left
on or dropout in the reference.
"""

import copy
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import loaded, ready_to_train
from tests.objectives import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.config.schema import Batching
from athlos.data.batches import Batch, Unit, collate
from athlos.data.encoding import Rows, encode_split
from athlos.data.records import PreferenceRecord, Record
from athlos.errors import ConfigError, ConfigErrors
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives import preference, shared_prompts
from athlos.objectives.config import Preference, PreferenceConfig
from athlos.objectives.preference import PreferenceObjective, preference_losses
from athlos.parts import PartContext
from athlos.stages import StageStore

PAD = 256
LOG_PROBS, REFERENCE, LENGTHS = [[-12.0, -10.0]], [[-13.0, -9.5]], [[6, 4]]
KINDS = [kind for kind in Preference if kind is not Preference.sft_chosen]


def config_of(kind: str = "dpo", **changes: Any) -> PreferenceConfig:
    values = {"beta": 0.1, "sft_weight": 0.0, **changes}
    return PreferenceConfig(_target_="", kind=Preference[kind], **values)


def model_of(seed: int = 3, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        bos_token_id=257,
        eos_token_id=258,
        **changes,
    )
    return LlamaForCausalLM(config).double().eval()


def words(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices("abcdefé ", k=rng.randint(least, most)))


def rows_of(folder: Path, *, max_length: int = 30, seed: int = 0) -> Rows:
    """Seven pairs of unequal lengths: some prompts are cut, two pairs share theirs, one has none."""
    rng = random.Random(seed)
    prompts = [words(rng, 1, 40) for _ in range(5)]
    prompts = [*prompts, prompts[-1], ""]
    pairs: list[Record] = [
        PreferenceRecord(identifier=str(place), prompt=prompt, chosen=words(rng, 2, 9), rejected=words(rng, 2, 9))
        for place, prompt in enumerate(prompts)
    ]
    return encode_split(
        lambda: iter(pairs),
        text_of=lambda record: ("", ""),
        tokenizer=byte_tokenizer(),
        max_length=max_length,
        batching=Batching.bucket,
        inputs={},
        config={"seed": seed},
        stages=StageStore(folder / "cache"),
        takes_pairs=True,
    )


def cut_R(rows: Rows) -> np.ndarray:
    """Whether the prompt of a pair was cut."""
    assert rows.pairs_R3 is not None
    is_cut: np.ndarray = rows.pairs_R3[:, 2] > 0
    return is_cut


def batch_of(rows: Rows, indices: list[int] | None = None) -> Batch:
    chosen = np.arange(len(rows)) if indices is None else np.array(indices)
    return collate(rows, chosen, pad_id=PAD, step_targets=len(rows), with_worse=True)


def context_of(folder: Path, rows: Rows, model: Any, *overrides: str) -> PartContext:
    config = run_config(
        ["objective=preference", "train.batching=bucket", "train.micro_batch_size=2", "train.batch_size=2", *overrides]
    )
    data: Any = SimpleNamespace(rows=lambda split: rows, pad_id=PAD)
    return PartContext(config=config, stages=StageStore(folder / "cache"), data=data, start=loaded(model))


def prepared(config: PreferenceConfig, model: Any, rows: Rows, folder: Path) -> PreferenceObjective:
    objective = PreferenceObjective(config)
    objective.prepare(model, context=context_of(folder, rows, model))
    return objective


def tensors(*tables: list[list[float]]) -> list[Tensor]:
    return [torch.tensor(table, dtype=torch.float64) for table in tables]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (config_of("dpo"), 0.620957),
        (config_of("dpo_norm"), 0.678670),
        (config_of("dpo", sft_weight=1.0), 2.620957),
        (config_of("simpo", beta=2.0, gamma=0.5), 0.474077),
    ],
)
def test_the_values_of_the_specification(config: PreferenceConfig, expected: float) -> None:
    reference_12 = [[0.0, 0.0]] if config.kind is Preference.simpo else REFERENCE
    losses, _ = preference_losses(*tensors(LOG_PROBS, reference_12, LENGTHS), config=config)
    assert losses.item() == pytest.approx(expected, abs=FLOAT64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_and_rewards_are_those_of_the_loops(kind: Preference, smoothing: float) -> None:
    config = config_of(
        kind,
        beta=0.7,
        gamma=0.3 * (kind is Preference.simpo),
        sft_weight=0.4,
        label_smoothing=smoothing * (kind is not Preference.ipo),
    )
    generator = torch.Generator().manual_seed(2)
    log_probs, references = (-9 * torch.rand(6, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    references *= config.kind.has_reference
    lengths = torch.randint(1, 8, (6, 2), generator=generator)
    losses, rewards = preference_losses(log_probs, references, lengths, config=config)
    for pair in range(6):
        loss, both = reference.preference_loss(
            log_probs[pair].tolist(), references[pair].tolist(), lengths[pair].tolist(), config=config
        )
        assert losses[pair].item() == pytest.approx(loss, abs=EXACT)
        assert rewards[pair].tolist() == pytest.approx(both, abs=EXACT)


# TRL


def trl_inputs(rows: Rows, collator: Any) -> dict[str, Tensor]:
    """The pairs in TRL's own batch: all better answers, then all worse ones, prompts written twice."""
    examples = []
    assert rows.pairs_R3 is not None
    for index in range(len(rows)):
        prompt = int(rows.pairs_R3[index, 0])
        sides = [rows.row(index, worse=worse)[0].tolist() for worse in (False, True)]
        better, worse = (ids[prompt:] for ids in sides)
        examples.append({"prompt_ids": sides[0][:prompt], "chosen_ids": better, "rejected_ids": worse})
    inputs: dict[str, Tensor] = collator(examples)
    return inputs


def trl_step(model: Any, against: Any, rows: Rows, folder: Path, **options: Any) -> tuple[Tensor, dict[str, float]]:
    """Loss of a DPOTrainer on all pairs and what it logs; gradients stand in the model."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    settings = trl.DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows),
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_length=None,
        **options,
    )
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=against,
        args=settings,
        processing_class=byte_tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}),
    )
    loss = trainer.compute_loss(model, trl_inputs(rows, trainer.data_collator))
    loss.backward()
    return loss.detach(), {name: values[-1] for name, values in trainer._metrics["eval"].items()}


def gradients(model: Any) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def our_step(objective: PreferenceObjective, model: Any, rows: Rows) -> tuple[Tensor, dict[str, float]]:
    loss = objective.loss(model, batch_of(rows))
    mean = loss.total / loss.count
    mean.backward()
    return mean.detach(), {name: value.item() for name, value in loss.logs.items()}


THEIR_NAMES = {
    "reward/chosen": "rewards/chosen",
    "reward/rejected": "rewards/rejected",
    "reward/margin": "rewards/margins",
    "reward/accuracy": "rewards/accuracies",
    "log_probs/chosen": "logps/chosen",
    "log_probs/rejected": "logps/rejected",
}


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (config_of("dpo"), {"loss_type": ["sigmoid"]}),
        (config_of("dpo_norm"), {"loss_type": ["sigmoid_norm"]}),
        (config_of("ipo"), {"loss_type": ["ipo"]}),
    ],
    ids=["dpo", "dpo_norm", "ipo"],
)
def test_loss_rewards_and_gradients_of_a_step_are_those_of_trl(
    config: PreferenceConfig, options: dict[str, Any], tmp_path: Path
) -> None:
    rows, model, start = rows_of(tmp_path), model_of(), model_of(seed=4)
    if config.kind is not Preference.dpo:  # without a prompt TRL's lengths count a first token that nothing predicts
        rows = rows.subset(np.arange(6))
    assert 0 < cut_R(rows).sum() < len(rows)
    objective = prepared(config, start, rows, tmp_path)
    theirs = copy.deepcopy(model)
    loss, logs = our_step(objective, model, rows)
    expected, their_logs = trl_step(theirs, start, rows, tmp_path, beta=config.beta, **options)
    torch.testing.assert_close(loss, expected.to(loss), rtol=FLOAT32, atol=FLOAT32)
    for name, their_name in THEIR_NAMES.items():
        assert logs[name] == pytest.approx(their_logs[their_name], abs=FLOAT32), name
    for own, other in zip(gradients(model), gradients(theirs), strict=True):
        torch.testing.assert_close(own, other, rtol=FLOAT32, atol=FLOAT32)


def test_the_likelihood_of_a_pair_s_better_answer_is_weighted_as_in_trl(tmp_path: Path) -> None:
    """In a batch of one pair, where TRL's mean over the batch's tokens is ours over the answer's."""
    rows, model, start = rows_of(tmp_path).subset(np.array([2])), model_of(), model_of(seed=4)
    objective = prepared(config_of(sft_weight=0.7), start, rows, tmp_path)
    theirs = copy.deepcopy(model)
    loss, _ = our_step(objective, model, rows)
    expected, _ = trl_step(
        theirs, start, rows, tmp_path, beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7]
    )
    torch.testing.assert_close(loss, expected.to(loss), rtol=FLOAT32, atol=FLOAT32)
    for own, other in zip(gradients(model), gradients(theirs), strict=True):
        torch.testing.assert_close(own, other, rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_is_that_of_trl(smoothing: float, tmp_path: Path) -> None:
    cpo = pytest.importorskip("trl.experimental.cpo")
    from datasets import Dataset

    rows, model = rows_of(tmp_path), model_of()
    theirs = copy.deepcopy(model)
    config = config_of("simpo", beta=2.0, gamma=0.5, label_smoothing=smoothing)
    loss, logs = our_step(prepared(config, model, rows, tmp_path), model, rows)
    settings = cpo.CPOConfig(
        output_dir=str(tmp_path),
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=2.0,
        simpo_gamma=0.5,
        label_smoothing=smoothing,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer = cpo.CPOTrainer(
        model=theirs,
        args=settings,
        processing_class=byte_tokenizer(),
        train_dataset=Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}),
    )
    batch = {}
    for side, worse in (("chosen", False), ("rejected", True)):
        sides = [rows.row(index, worse=worse) for index in range(len(rows))]
        for name, place, fill in (("input_ids", 0, PAD), ("labels", 1, -100)):
            values = [torch.from_numpy(row[place]) for row in sides]
            batch[f"{side}_{name}"] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
        batch[f"{side}_attention_mask"] = (batch[f"{side}_input_ids"] != PAD).long()
    expected, their_logs = trainer.get_batch_loss_metrics(theirs, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach().to(loss), rtol=FLOAT32, atol=FLOAT32)
    for name, their_name in list(THEIR_NAMES.items())[:4]:
        assert logs[name] == pytest.approx(their_logs[their_name], abs=FLOAT32), name
    for own, other in zip(gradients(model), gradients(theirs), strict=True):
        torch.testing.assert_close(own, other, rtol=FLOAT32, atol=FLOAT32)


# Pairs in a batch


def by_hand(model: Any, rows: Rows, index: int, *, worse: bool) -> Tensor:
    """Log-probability of one answer, from the whole logits of its own row without padding."""
    ids, labels = (torch.from_numpy(values) for values in rows.row(index, worse=worse))
    log_probs_TV = model(ids[None]).logits[0].log_softmax(-1)
    return torch.stack([log_probs_TV[place - 1, ids[place]] for place in (labels != -100).nonzero()[:, 0]]).sum()


def test_a_step_is_that_of_the_loops_row_by_row(tmp_path: Path) -> None:
    rows, model, start = rows_of(tmp_path), model_of(), model_of(seed=4)
    config = config_of("dpo_norm", beta=0.8, sft_weight=0.3)
    loss = prepared(config, start, rows, tmp_path).loss(model, batch_of(rows))
    total = 0.0
    for index in range(len(rows)):
        sides = [
            [by_hand(judge, rows, index, worse=worse).item() for worse in (False, True)] for judge in (model, start)
        ]
        lengths = [int((rows.row(index, worse=worse)[1] != -100).sum()) for worse in (False, True)]
        total += reference.preference_loss(*sides, lengths, config=config)[0]
    assert loss.total.item() == pytest.approx(total, abs=FLOAT64)
    assert loss.count == len(rows)


@pytest.mark.parametrize("kind", Preference)
def test_the_loss_of_a_step_does_not_depend_on_micro_batches_padding_or_order(kind: Preference, tmp_path: Path) -> None:
    rows, model = rows_of(tmp_path), model_of()
    objective = prepared(config_of(kind, sft_weight=0.5 * (kind != "sft_chosen")), model_of(seed=4), rows, tmp_path)
    with_worse = objective.unit is Unit.pairs

    def total(*batches: list[int]) -> tuple[Tensor, int]:
        parts = [
            objective.loss(model, collate(rows, np.array(chosen), pad_id=PAD, step_targets=1, with_worse=with_worse))
            for chosen in batches
        ]
        return torch.stack([part.total for part in parts]).sum(), sum(part.count for part in parts)

    whole, count = total([0, 1, 2, 3, 4, 5, 6])
    others = [total([0, 1], [2], [3, 4, 5, 6]), total([6, 2, 4], [5, 3, 1, 0])]
    for other, other_count in others:
        torch.testing.assert_close(other, whole, rtol=FLOAT64, atol=FLOAT64)
        assert other_count == count
    assert count == (len(rows) if with_worse else int(rows.num_targets_R.sum()))


def test_a_prompt_is_computed_once_for_its_pair_also_when_activations_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = rows_of(tmp_path), model_of().train()
    objective = prepared(config_of(), model_of(seed=4), rows, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shared_prompts, "_packs", lambda batch, width: None)
        expected, _ = our_step(objective, model, rows)
    apart = gradients(model)
    monkeypatch.setattr(shared_prompts, "PRODUCTS_A_PAIR", 0)  # packs wherever a prompt is shared
    sizes: list[int] = []
    model.model.register_forward_pre_hook(
        lambda module, arguments, words: sizes.append(words["input_ids"].numel()), with_kwargs=True
    )
    for is_computed_again in (False, True):
        if is_computed_again:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        loss, _ = our_step(objective, model, rows)
        torch.testing.assert_close(loss, expected, rtol=FLOAT64, atol=FLOAT64)
        for own, other in zip(gradients(model), apart, strict=True):
            torch.testing.assert_close(own, other, rtol=FLOAT64, atol=FLOAT64)
    assert max(sizes) < batch_of(rows)["input_ids"].numel()


def test_fine_tuning_on_the_better_answers_is_the_next_token_loss_on_their_rows(tmp_path: Path) -> None:
    rows, model = rows_of(tmp_path), model_of()
    objective = prepared(config_of("sft_chosen"), model, rows, tmp_path)
    loss = objective.loss(model, collate(rows, np.arange(len(rows)), pad_id=PAD, step_targets=1))
    wanted = -sum(by_hand(model, rows, index, worse=False).item() for index in range(len(rows)))
    assert loss.total.item() == pytest.approx(wanted, abs=FLOAT64)
    assert loss.count == rows.num_targets_R.sum()


# The reference


def test_at_the_start_the_loss_is_ln_2_and_the_gradient_lifts_the_better_answer(tmp_path: Path) -> None:
    """Also with dropout: the reference is that of the whole model, and so is the policy outside of training."""
    rows, model = rows_of(tmp_path), model_of(attention_dropout=0.5).train()
    objective = prepared(config_of(beta=2.0), model, rows, tmp_path)
    assert model.training
    model.eval()
    loss, logs = our_step(objective, model, rows)
    assert loss.item() == pytest.approx(np.log(2), abs=FLOAT64)
    assert logs["reward/chosen"] == pytest.approx(0, abs=FLOAT64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
    after = objective.loss(model, batch_of(rows))
    assert after.total / after.count < loss
    assert after.logs["reward/margin"] > 0
    assert after.logs["reward/accuracy"] > 0.5


def test_the_reference_is_computed_once_without_adapters_and_shared_by_every_tuning_beta_and_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = rows_of(tmp_path), model_of()
    plain = preference.reference_log_probs(
        model, rows, chunk_tokens=8, context=context_of(tmp_path / "plain", rows, model)
    )
    for index in range(len(rows)):
        sides = [by_hand(model, rows, index, worse=worse).item() for worse in (False, True)]
        assert plain[index].tolist() == pytest.approx(sides, abs=FLOAT64)
    adapted = with_adapters(model)
    context = context_of(tmp_path, rows, adapted)
    bare = preference.reference_log_probs(adapted, rows, chunk_tokens=1024, context=context)
    np.testing.assert_allclose(bare, plain, atol=FLOAT64)
    trains = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trains
    assert all("lora" in name for name in trains)
    monkeypatch.setattr(preference, "pair_log_probs", None)
    for kind, overrides in (("ipo", ["objective.beta=2"]), ("dpo_norm", ["tuning=lora", "seed=2"])):
        again = PreferenceObjective(config_of(kind))
        report = again.prepare(model, context=context_of(tmp_path, rows, model, *overrides))
        assert report.metrics["data/pairs"] == 7
    with pytest.raises(TypeError, match="not callable"):  # another surgery, so another product
        PreferenceObjective(config_of()).prepare(model, context=context_of(tmp_path, rows, model, "surgery=spannorm"))


def with_adapters(model: LlamaForCausalLM) -> Any:
    """The model with low-rank updates that are not zero."""
    import peft

    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    adapted = copy.deepcopy(model)
    peft.inject_adapter_in_model(settings, adapted)
    ids = torch.arange(9)[None]
    assert not torch.allclose(adapted(ids).logits, model(ids).logits)
    return adapted


def test_simpo_and_fine_tuning_need_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference, "reference_log_probs", None)
    rows, model = rows_of(tmp_path), model_of()
    for kind in ("simpo", "sft_chosen"):
        report = PreferenceObjective(config_of(kind)).prepare(model, context=context_of(tmp_path, rows, model))
        assert report.metrics == {"data/pairs": 7.0, "data/cut_prompts": float(cut_R(rows).sum())}
        assert report.summary.startswith(f"{kind}: 7 pairs, ")


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.batching=pack"], "train.batching: got pack, expected bucket"),
        (["objective.gamma=0.5"], "objective.gamma: got 0.5, expected 0"),
        (["objective.kind=sft_chosen", "objective.sft_weight=1"], "objective.sft_weight: got 1.0, expected 0"),
        (["objective.kind=ipo", "objective.label_smoothing=0.1"], "objective.label_smoothing: got 0.1, expected 0"),
        (["objective.kind=dpoo"], "objective.kind"),
    ],
)
def test_settings_that_contradict_each_other_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, ConfigErrors), match=message):
        run_config(["objective=preference", "train.batching=bucket", *overrides])


def test_data_without_pairs_are_refused_in_one_line(tiny: list[str]) -> None:
    with pytest.raises(ConfigError, match="objective=preference: data=shakespeare has no preference pairs") as caught:
        ready_to_train(run_config([*tiny, "objective=preference", "train.batching=bucket", "train.max_length=100"]))
    assert "\n" not in str(caught.value)
