"""AdamW on 16-bit weights: the steps of float32, kept over a resume; LoRA stays in float32 under bf16-true."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.assembled import ready_to_train
from tests.tolerances import FLOAT32
from torch import nn
from torch.optim import AdamW

from athlos.config.compose import run_config
from athlos.training.callbacks import FolderCheckpoints
from athlos.training.optimizer import MASTER, MasterAdamW
from athlos.training.trainer import AdaptersInFloat32, build_trainer, fit

SETTINGS = {"lr": 1e-6, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(7, 5).mul(0.02).to(torch.bfloat16).to(dtype)) for _ in range(2)]


def gradients(step: int) -> list[torch.Tensor]:
    torch.manual_seed(step + 1)
    return [torch.randn(7, 5).to(torch.bfloat16) for _ in range(2)]


def stepped(optimizer: torch.optim.Optimizer, own: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for weight, gradient in zip(own, gradients(step), strict=True):
            weight.grad = gradient.to(weight.dtype)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_on_16_bits_are_those_of_float32(dtype: torch.dtype) -> None:
    short, whole = weights(dtype), [nn.Parameter(weight.detach().float()) for weight in weights(dtype)]
    before = [weight.detach().clone() for weight in short]
    ours, oracle = MasterAdamW(short, **SETTINGS), AdamW(whole, **SETTINGS)
    stepped(ours, short, range(200))
    stepped(oracle, whole, range(200))
    for weight, expected in zip(short, whole, strict=True):
        assert torch.equal(ours.state[weight][MASTER], expected)
        assert torch.equal(weight, expected.to(dtype))
        assert weight.grad is not None
    assert any(not torch.equal(weight, old) for weight, old in zip(short, before, strict=True))


def test_float32_weights_are_left_to_adamw() -> None:
    own, expected = weights(torch.float32), weights(torch.float32)
    ours, oracle = MasterAdamW(own, **SETTINGS), AdamW(expected, **SETTINGS)
    assert ours.defaults["fused"]
    assert not oracle.defaults["fused"]
    stepped(ours, own, range(200))
    stepped(oracle, expected, range(200))
    for left, right in zip(own, expected, strict=True):
        torch.testing.assert_close(left, right, atol=FLOAT32 * SETTINGS["lr"], rtol=FLOAT32)
    assert all(MASTER not in state for state in ours.state.values())


def test_a_resumed_optimizer_goes_on_bit_by_bit() -> None:
    straight, resumed = weights(torch.bfloat16), weights(torch.bfloat16)
    ours, first = MasterAdamW(straight, **SETTINGS), MasterAdamW(resumed, **SETTINGS)
    stepped(ours, straight, range(20))
    stepped(first, resumed, range(10))
    again = MasterAdamW(resumed, **SETTINGS)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped(again, resumed, range(10, 20))
    for left, right in zip(straight, resumed, strict=True):
        assert torch.equal(left, right)
        for name, value in ours.state[left].items():
            assert torch.equal(value, again.state[right][name]), name


def test_a_cast_to_16_bits_leaves_the_adapters_alone() -> None:
    import peft

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"]), model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    AdaptersInFloat32("bf16-true").convert_module(model)
    for name, parameter in model.named_parameters():
        is_adapter = ".lora_" in name
        assert parameter.dtype == (torch.float32 if is_adapter else torch.bfloat16)
        assert not is_adapter or torch.equal(parameter, before[name])
    assert any(".lora_" in name for name in before)
    assert model(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_lora_under_bf16_true_is_trained_and_kept_in_float32(tiny: list[str], tmp_path: Path) -> None:
    run = run_config([*tiny, "tuning=lora", "hardware.precision=bf16-true", "train.max_steps=4"])
    assembly = ready_to_train(run)
    module = assembly.module
    module.before_training(context=assembly.context)
    trainer = build_trainer(
        run, callbacks=[FolderCheckpoints(tmp_path / "kept", every=4, on_saved=lambda: None)], run_dir=tmp_path
    )
    fit(trainer, module, checkpoint=None)
    assert {parameter.dtype for name, parameter in module.named_parameters() if ".lora_" not in name} == {
        torch.bfloat16
    }
    kept = load_file(tmp_path / "kept" / "step-00000004" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert all(".lora_" in name for name in kept)


def test_a_rate_below_what_bfloat16_holds_moves_every_matrix(tiny: list[str], tmp_path: Path) -> None:
    run = run_config([*tiny, "model.dtype=bfloat16", "train.lr=1e-6", "train.max_steps=4"])
    assembly = ready_to_train(run)
    module = assembly.module
    before = {name: parameter.detach().float() for name, parameter in module.model.named_parameters()}
    module.before_training(context=assembly.context)
    trainer = build_trainer(run, callbacks=[], run_dir=tmp_path)
    fit(trainer, module, checkpoint=None)
    [optimizer] = trainer.optimizers
    for name, parameter in module.model.named_parameters():
        master = optimizer.state[parameter][MASTER]
        assert parameter.dtype == torch.bfloat16
        assert not torch.equal(master, before[name]), name
        assert torch.equal(parameter, master.bfloat16())
