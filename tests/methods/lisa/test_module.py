"""LISA's two stages against plain loops: what the losses are, what trains, which rate each step has."""

import math
from typing import Any

import pytest
import torch
from tests.assembled import loaded, tuned
from tests.methods.lisa.test_surgery import EXPLICIT, Text, ids_of, model_of, stirred
from tests.tolerances import FLOAT64

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors
from athlos.methods.lisa.attention import ARGUMENT, LayerScores
from athlos.methods.lisa.config import Stage
from athlos.methods.lisa.module import LisaModule
from athlos.methods.lisa.selection import LisaSelection
from athlos.methods.lisa.similarity import handing_on
from athlos.methods.lisa.surgery import LisaSurgery, directly_shared, shared_attentions
from athlos.models.sites import backbone
from athlos.objectives.distillation import DistillObjective
from athlos.parts import PartContext
from athlos.stages import StageStore

RECIPE = [
    "method=lisa",
    "surgery=lisa",
    "selection=lisa",
    "objective=distill",
    "data=shakespeare",
    "model.source=dir:none",
    "train.max_steps=10",
    "method.local_steps=6",
]


def built(*overrides: str, tmp_path: Any) -> LisaModule:
    torch.manual_seed(0)
    config = run_config([*RECIPE, *EXPLICIT, "surgery.align.hidden=3", *overrides])
    base: Any = model_of()
    context = PartContext(
        config=config,
        stages=StageStore(tmp_path),
        data=Text(),
        start=loaded(base),  # type: ignore[arg-type]
    )
    model, _ = LisaSurgery(config.surgery).apply(base, context=context)  # type: ignore[arg-type]
    model, _ = tuned(LisaSelection(config.selection), model, context=context)  # type: ignore[arg-type]
    objective = DistillObjective(config.objective)  # type: ignore[arg-type]
    objective.prepare(model, context=context)
    engine: Any = type("NoEngine", (), {"__init__": lambda self, *_, **__: None})()
    module = LisaModule(
        config,
        model=model,
        tokenizer=None,
        objective=objective,
        decoding=None,
        engine=engine,  # type: ignore[arg-type]
    )
    module.prepare(context=context)
    return module


def batch_of() -> dict[str, torch.Tensor]:
    """Two rows, the second padded."""
    ids = ids_of()
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids).contiguous(),
        "num_targets": torch.tensor(int((labels[:, 1:] != -100).sum())),
    }


def collected(model: Any, batch: dict[str, torch.Tensor]) -> tuple[LayerScores, dict[int, torch.Tensor], Any]:
    """Scores and weights of all layers, the input of each attention module, and the logits."""
    inputs: dict[int, torch.Tensor] = {}

    def noting(index: int) -> Any:
        def note(module: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
            inputs[index] = keywords["hidden_states"]

        return note

    handles = [
        layer.attention.register_forward_hook(noting(layer.index), with_kwargs=True) for layer in backbone(model).layers
    ]
    scores = LayerScores(is_kept=True, probabilities={})
    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **{ARGUMENT: scores},
        ).logits
    for handle in handles:
        handle.remove()
    return scores, inputs, logits


def plain_kl(wanted: torch.Tensor, given: torch.Tensor, batch: dict[str, torch.Tensor]) -> float:
    """Loops over rows, heads and keys; padded rows and first rows are left out."""
    terms = []
    for row in range(wanted.shape[0]):
        for head in range(wanted.shape[1]):
            for query in range(1, int(batch["attention_mask"][row].sum())):
                pairs = zip(wanted[row, head, query].tolist(), given[row, head, query].tolist(), strict=True)
                terms.append(sum(p * math.log(p / q) for p, q in pairs if p > 0))
    return sum(terms) / len(terms)


def test_the_local_loss_takes_the_teachers_states_and_scores(tmp_path: Any) -> None:
    module, batch = built(tmp_path=tmp_path), batch_of()
    stirred(module.model)
    base = module.base
    scores, inputs, _ = collected(handing_on(base), batch)
    kl = 0.0
    for attention in shared_attentions(module.model):
        index = attention.layer_idx
        rotary = backbone(base).decoder.rotary_emb(inputs[index], batch["position_ids"])
        query, key = attention.low_rank.queries_and_keys(inputs[index], *rotary)  # type: ignore[union-attr]
        below = scores.by_layer[index - 1]
        hidden = torch.ones(9, 9).triu(1).bool() | (batch["attention_mask"] == 0)[:, None, None]
        own = attention.scores(below, query, key, mask=None, num_columns=9).masked_fill(hidden, -1e30).softmax(-1)
        kl += plain_kl(scores.probabilities[index], own, batch)  # type: ignore[index]
    loss = module.local_loss(batch)  # type: ignore[arg-type]
    assert loss.count == 13
    assert loss.total.item() == pytest.approx(kl / 2 * 13, abs=FLOAT64 * 1e3)
    assert kl > 1e-4


@pytest.mark.parametrize("objective", ["distill", "next_token"])
def test_the_end_to_end_loss_is_the_sum_of_its_parts(objective: str, tmp_path: Any) -> None:
    module, batch = built("method.loss.attn=0.7", "method.loss.hidden=0.3", tmp_path=tmp_path), batch_of()
    if objective == "next_token":
        module.objective = module._next_token
    stirred(module.model)
    wanted, _, teacher = collected(handing_on(module.base), batch)
    given, _, student = collected(module.model, batch)
    nll, kd, count = 0.0, 0.0, 0
    for row in range(2):
        for at in range(int(batch["attention_mask"][row].sum()) - 1):
            log_q, log_p = student[row, at].log_softmax(-1), teacher[row, at].log_softmax(-1)
            nll -= log_q[batch["input_ids"][row, at + 1]].item()
            kd += (log_p.exp() * (log_p - log_q)).sum().item()
            count += 1
    attn = sum(plain_kl(wanted.probabilities[i], given.probabilities[i], batch) for i in (2, 3)) / 2  # type: ignore[index]
    loss = module.end2end_loss(batch)  # type: ignore[arg-type]
    assert loss.logs["attn"].item() == pytest.approx(attn, abs=1e-9)
    squares = loss.logs["hidden"].item()
    assert squares > 0
    expected = nll + (kd if objective == "distill" else 0) + (0.7 * attn + 0.3 * squares) * count
    assert loss.count == count
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)  # logits are float32


def test_only_what_was_added_gets_gradients_and_the_base_stays(tmp_path: Any) -> None:
    module, batch = built(tmp_path=tmp_path), batch_of()
    before = {name: value.clone() for name, value in module.base.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in module.model.parameters() if p.requires_grad], lr=0.1)
    for loss_of in (module.local_loss, module.end2end_loss):
        for _ in range(2):  # at the zero start W1, b1 and Uk get no gradient in the first step
            optimizer.zero_grad()
            loss_of(batch).total.backward()  # type: ignore[arg-type]
            optimizer.step()
    added = {id(p) for one in shared_attentions(module.model) for p in one.added()}
    for name, parameter in module.model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) == (id(parameter) in added), name
    for name, value in module.base.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_training_lowers_both_losses(tmp_path: Any) -> None:
    module, batch = built("surgery.lowrank.rank=12", tmp_path=tmp_path), batch_of()
    stirred(module.model)
    optimizer = torch.optim.Adam([p for p in module.model.parameters() if p.requires_grad], lr=1e-2)
    for loss_of, share in ((module.local_loss, 0.7), (module.end2end_loss, 1.0)):
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = loss_of(batch).total  # type: ignore[arg-type]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < share * losses[0]


def phases_of(*overrides: str) -> list[tuple[str, list[Stage], int, float]]:
    """Name, stages, steps and peak learning rate of each phase of the recipe."""
    run: Any = run_config([*RECIPE, *EXPLICIT, "method.local_lr=0.5", "train.lr=0.1", *overrides])
    return [
        (phase.name, phase.run.method.stages, phase.run.num_steps, phase.run.train.lr)
        for phase in run.method.phases(run)
    ]


def test_each_stage_has_its_steps_and_its_rate() -> None:
    local, end2end = [Stage.local], [Stage.end2end]
    assert phases_of() == [("local", local, 6, 0.5), ("end2end", end2end, 4, 0.1)]
    assert phases_of("hardware.max_steps_cap=2") == [("local", local, 1, 0.5), ("end2end", end2end, 1, 0.1)]
    assert phases_of("method.stages=[end2end]") == [("end2end", end2end, 10, 0.1)]
    assert phases_of("method.stages=[local]") == [("local", local, 10, 0.5)]


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_learns_by_its_own_loss(stage: Stage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = built(f"method.stages=[{stage.name}]", tmp_path=tmp_path), batch_of()
    stirred(module.model)
    monkeypatch.setattr(module, "step_loss", lambda loss, batch: loss.total)
    losses = {Stage.local: module.local_loss, Stage.end2end: module.end2end_loss}
    totals = {of: loss(batch).total.item() for of, loss in losses.items()}  # type: ignore[arg-type]
    assert module.training_step(batch, 0).item() == pytest.approx(totals[stage], abs=FLOAT64)  # type: ignore[arg-type]
    assert totals[Stage.local] != pytest.approx(totals[Stage.end2end], rel=0.01)


def test_variants_are_direct_sharing_and_the_calibrated_map(tmp_path: Any) -> None:
    module, batch = built(tmp_path=tmp_path), batch_of()
    start = collected(module.model, batch)[2]
    stirred(module.model)
    found = dict(module.variants())
    assert list(found) == ["_direct", "_align"]
    direct = directly_shared(module.base, [2, 3])
    torch.testing.assert_close(collected(found["_direct"].model, batch)[2], collected(direct, batch)[2])
    torch.testing.assert_close(collected(found["_align"].model, batch)[2], start, atol=FLOAT64, rtol=0)
    assert (collected(module.model, batch)[2] - start).abs().max() > 1e-3
    assert not dict(built("method.variants=false", tmp_path=tmp_path).variants())
    without = built("surgery.align.enabled=false", tmp_path=tmp_path)
    assert list(dict(without.variants())) == ["_direct"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["surgery=none", "selection=all"], "method=lisa: trains what surgery=lisa added"),
        (["method.stages=[end2end,local]"], "method.stages"),
        (["method.local_steps=10"], "method.local_steps"),
        (["method.local_lr=0"], "method.local_lr"),
        (["method.loss.attn=-1"], "method.loss.attn"),
        (["method.loss.attn=0"], "the local stage has no other loss"),
        (["model.source=random"], "random weights"),
        (["objective.kd=-1"], "objective.kd"),
        (["objective.kd=0", "objective.ce=0"], "nothing is learned"),
        (["objective.temperature=0"], "objective.temperature"),
        (["objective.chunk_tokens=0"], "objective.chunk_tokens"),
    ],
)
def test_recipes_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config([*RECIPE, *overrides])


def test_the_teacher_is_no_part_of_the_module(tmp_path: Any) -> None:
    module = built(tmp_path=tmp_path)
    assert module.teacher is not module.model
    names = {name.split(".")[0] for name, _ in module.named_parameters()}
    assert names == {"model"}
