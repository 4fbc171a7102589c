"""The needs of a run, counted by hand."""

import subprocess
import sys
import textwrap

import pytest

from athlos.config.compose import run_config
from athlos.runs.budget import budget


def test_a_budget_counts_states_by_hand() -> None:
    config = run_config(["model=small/tiny_llama", "train.micro_batch_size=2", "train.batch_size=4", "hardware=cpu"])
    result = budget(config)
    total = result.share.total
    assert (result.memory.weights, result.memory.gradients, result.memory.optimizer) == (
        4 * total,
        4 * total,
        8 * total,
    )
    assert result.tokens_per_step == 4 * 128
    assert result.memory.logits == 2 * 128 * 259 * 4 * 3
    assert budget(config, logit_tokens=64).memory.logits == 64 * 259 * 4 * 3
    assert result.hardware.startswith("1 x CPU with")
    labels = [label for label, _ in result.rows()]
    assert {"parameters", "trainable", "memory: weights", "FLOPs a step", "hardware"} <= set(labels)


def test_a_preference_pair_is_two_rows_at_most() -> None:
    texts = ["model=small/tiny_llama", "train.batching=bucket", "hardware=cpu"]
    plain, pairs = (budget(run_config([*texts, f"objective={name}"])) for name in ("next_token", "preference"))
    assert pairs.tokens_per_step == 2 * plain.tokens_per_step
    assert pairs.memory.logits == 2 * plain.memory.logits
    assert pairs.memory.activations == pytest.approx(2 * plain.memory.activations, rel=0.01)
    assert pairs.flops_per_step == 2 * plain.flops_per_step


@pytest.mark.slow
def test_precision_selection_and_sharding_change_the_right_kinds() -> None:
    base = ["scale=paper", "model=paper/llama2_7b"]
    full = budget(run_config(base)).memory
    total = 6_738_415_616
    assert (full.weights, full.gradients, full.optimizer) == (4 * total, 4 * total, 8 * total)
    half = budget(run_config([*base, "model.dtype=bfloat16", "hardware.precision=bf16-true"])).memory
    assert (half.weights, half.optimizer) == (2 * total, 12 * total)
    sharded = budget(run_config([*base, "hardware=fsdp2", "hardware.devices=8", "train.micro_batch_size=8"])).memory
    assert sharded.optimizer == total
    lora = budget(run_config([*base, "tuning=lora", "model.dtype=bfloat16"]))
    rank_entries = 8 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert lora.share.trainable == rank_entries
    assert lora.memory.optimizer == 8 * rank_entries
    assert lora.memory.weights == 2 * total + 4 * rank_entries
    assert lora.hardware == "1 x 80 GB"
    assert budget(run_config(base)).hardware == "2 x 141 GB with hardware=fsdp2 hardware.devices=2"
    saved = budget(run_config([*base, "model.activation_checkpointing=true"])).memory
    assert saved.activations < full.activations / 5
    assert saved.optimizer == full.optimizer


@pytest.mark.slow
def test_a_dry_run_of_seven_billion_is_cheap() -> None:
    """Under 20 s and 4 GB, in a process of its own, which tells the peak of its own memory.

    Not by `getrusage`: it begins with the peak of the process that started this one."""
    script = textwrap.dedent("""
        from pathlib import Path
        from athlos.config.compose import run_config
        from athlos.runs.budget import budget
        assert budget(run_config(["scale=paper", "model=paper/llama2_7b", "dry_run=true"])).share.total == 6738415616
        print(next(x.split()[1] for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")))
    """)
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=20, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 4 * 2**30
