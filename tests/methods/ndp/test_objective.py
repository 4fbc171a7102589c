"""The objective and the recipe in a run: the control arm's gradient, dedup and matching, refusals, what is logged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import ready_to_train

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.errors import ConfigError, ConfigErrors
from athlos.methods.ndp.config import Divergence
from athlos.methods.ndp.module import NdpModule
from athlos.parts import PartContext

GRADIENT = 1e-5
"""Sums of float32 gradients in two orders, against the greatest entry; targets are stored in float32."""


def overrides_of(tmp_path: Path, *more: str) -> list[str]:
    return [
        "experiment=ndp/lab",
        "data.num_train=12",
        "data.answers.answers_per_question=8",
        f"cache_dir={tmp_path}",
        "model.architecture.hidden_size=16",
        "model.architecture.intermediate_size=24",
        "data.answers.opener_length=1",
        "data.answers.num_symbols=4",
        "data.answers.end_prob=0.5",
        *more,
    ]


def module_of(tmp_path: Path, *more: str) -> tuple[Any, Any]:
    config = run_config(overrides_of(tmp_path, *more))
    assembly = ready_to_train(config)
    return assembly.module, assembly


def gradients(module: Any, assembly: Any) -> list[torch.Tensor]:
    """Of the mean loss over all training rows."""
    rows = assembly.context.data.rows("train")
    batch = collate(rows, np.arange(len(rows)), pad_id=0, step_targets=int(rows.num_targets_R.sum()))
    loss = module.objective.loss(module.model, batch)
    return list(torch.autograd.grad(loss.total / loss.count, list(module.model.parameters())))


def distance(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    largest = max(one.abs().max().item() for one in theirs)
    return max((one - other).abs().max().item() for one, other in zip(ours, theirs, strict=True)) / largest


def test_the_control_arm_has_next_tokens_full_batch_gradient(tmp_path: Path) -> None:
    """The mean of one-hots over repeats of a prefix is their frequency: every gain comes from elsewhere."""
    same = ["method.dedup=none", "construct.dedup=false"]
    plain = gradients(*module_of(tmp_path, "objective=next_token", *same))
    control, assembly = module_of(tmp_path, "objective=ndp/sup_div", *same)
    assert control.objective.targets.seen["diag/multi_candidate_share"] > 0.3
    assert distance(gradients(control, assembly), plain) < GRADIENT
    for other in ("ndp/div", "ndp"):
        assert distance(gradients(*module_of(tmp_path, f"objective={other}", *same)), plain) > 100 * GRADIENT


def test_kl_is_ce_less_the_entropy_of_the_targets(tmp_path: Path) -> None:
    """Weighed by position, as the cross-entropy is: a position of weight w loses w times its target's entropy."""
    module, assembly = module_of(tmp_path, "objective.weighted=true")
    rows = assembly.context.data.rows("train")
    batch = collate(rows, np.arange(5), pad_id=0, step_targets=1)
    targets, entropy = module.objective.targets.of_batch(batch)
    weighed = sum(weight * nats for weight, nats in zip(targets.weights_N.tolist(), entropy.tolist(), strict=True))
    assert abs(weighed - entropy.sum().item()) > 0.1
    ce = module.objective.loss(module.model, batch)
    module.objective.config.loss = Divergence.kl
    kl = module.objective.loss(module.model, batch)
    assert (ce.total - kl.total).item() == pytest.approx(weighed, rel=1e-4)
    assert ce.logs["target_entropy"].item() == pytest.approx(entropy.mean().item())
    assert kl.total.item() > 0


def test_repeats_are_left_out_and_the_arms_matched(tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path, "method.match=epochs")
    rows, kept = assembly.context.made.product.rows, assembly.context.data.rows("train")
    texts, kept_texts = ([tuple(table.row(index)[0].tolist()) for index in range(len(table))] for table in (rows, kept))
    assert kept_texts == list(dict.fromkeys(texts))
    assert len(kept) < len(rows)
    module.before_training(context=assembly.context)
    share = len(kept) / len(rows)
    assert module.after_training()[0] == {"ndp/steps": round(200 * share), "ndp/kept_rows_share": share}
    for more, expected in (
        (("method.dedup=none",), False),
        (("method.dedup=ndp_only", "objective=next_token"), False),
        (("method.dedup=ndp_only",), True),
        (("objective=next_token",), True),
    ):
        module, assembly = module_of(tmp_path, *more)
        assert isinstance(module, NdpModule)
        module.before_training(context=assembly.context)
        assert (assembly.context.made.rows is not None) == expected
        assert module.num_matched_steps == 200


def test_repeats_that_the_tables_count_are_left_out_of_the_training_too(tmp_path: Path) -> None:
    _, assembly = module_of(tmp_path, "construct.dedup=false")
    rows, kept = assembly.context.made.product.rows, assembly.context.data.rows("train")
    texts, kept_texts = ([tuple(table.row(index)[0].tolist()) for index in range(len(table))] for table in (rows, kept))
    assert kept_texts == list(dict.fromkeys(texts))
    assert len(kept) < len(rows)


def test_a_prepared_objective_reports_what_it_saw(tmp_path: Path) -> None:
    _, assembly = module_of(tmp_path)
    metrics = {name: value for report in assembly.reports for name, value in report.metrics.items()}
    for name in ("target_entropy", "multi_candidate_share", "clm_hit_rate", "smooth_fallbacks"):
        assert f"diag/{name}" in metrics
    assert metrics["diag/clm_hit_rate"] < 1  # n = 1: an answer's first token has no prefix
    _, again = module_of(tmp_path)
    assert all(product.reused for product in again.context.stages.history if product.name.startswith("ndp"))
    _, other = module_of(tmp_path, "objective.lambda_=0.5")
    reused = {product.name: product.reused for product in other.context.stages.history}
    assert (reused["ndp_table"], reused["ndp_targets"]) == (True, False)  # a sweep of lambda counts once


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.lambda_=1.5", r"objective.lambda_: got 1.5, expected a number in \[0, 1\]"),
        ("objective.zero_prob=1", r"objective.zero_prob: got 1.0, expected a number in \[0, 1\)"),
        ("objective.zero_prob=0.1", "with smooth=softmax, expected 0"),
        ("objective.smooth=temp_row", r"smooth=temp_row, expected a number in \(0, 1\)"),
        ("objective.topk=-1", "objective.topk: got -1"),
        ("objective.power=0", "objective.power: got 0.0"),
        ("objective.chunk_tokens=0", "objective.chunk_tokens: got 0"),
        ("train.batching=pack", "train.batching: got pack, expected bucket"),
    ],
)
def test_switches_that_make_no_sense(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(overrides_of(tmp_path, override))


def test_both_sides_off(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="use_sup and use_clm are both false"):
        run_config(overrides_of(tmp_path, "objective.use_sup=false", "objective.use_clm=false"))


def test_no_tables(tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path)
    context = PartContext(config=module.config, stages=assembly.context.stages, data=assembly.context.data)
    with pytest.raises(ConfigError, match="construct: objective=ndp reads n-gram tables, expected construct=ndp"):
        module.objective.prepare(module.model, context=context)
