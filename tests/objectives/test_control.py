"""The loss behind control tokens against a loop over answers; which weights move; what raises; a whole run.

What they are written against: [POS] and [NEG] swapped, a mean over the batch's tokens in place of the answer's, the
token before the begin token, the token as a target, the frozen rest of the embedding trained.
"""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import loaded
from tests.objectives.test_preference import PAD, batch_of, model_of, rows_of
from tests.tolerances import EXACT, FLOAT64

from athlos.config.compose import run_config
from athlos.errors import ConfigError, ConfigErrors, DataError, ModelError, TrainingError
from athlos.models.control_tokens import POS, add_control_tokens, control_ids, controlled
from athlos.models.tokenizers import byte_tokenizer, word_tokenizer
from athlos.objectives.config import ControlConfig
from athlos.objectives.control import ControlObjective, with_control
from athlos.parts import PartContext
from athlos.stages import StageStore
from athlos.training.module import build_optimizer

PRE_CONTROL = 259
IDS = (PRE_CONTROL, PRE_CONTROL + 1)


def prepared(model: Any, rows: Any, folder: Path, *, tokenizer: Any = None) -> ControlObjective:
    objective = ControlObjective(ControlConfig(_target_="", control_lr=1e-2))
    config = run_config(["objective=control", "train.batching=bucket"])
    data: Any = SimpleNamespace(rows=lambda split: rows, pad_id=PAD)
    start = loaded(model, tokenizer or byte_tokenizer())
    objective.prepare(
        model, context=PartContext(config=config, stages=StageStore(folder / "c"), data=data, start=start)
    )
    return objective


def naive_loss(model: Any, batch: Any, *, swapped: bool = False) -> torch.Tensor:
    """The equation, one answer after another, nothing padded."""
    total = torch.zeros((), dtype=torch.float64)
    for row, (ids, labels, mask) in enumerate(
        zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    ):
        length = int(mask.sum())
        token = IDS[(row % 2) ^ swapped]
        logits = model(torch.tensor([[token, *ids[:length].tolist()]])).logits[0].double()
        losses = []
        for place in range(1, length):
            if labels[place] != -100:
                losses.append(-logits[place].log_softmax(-1)[labels[place]])
        total = total + sum(losses) / len(losses) / 2
    return total


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_of_a_loop(tied: bool, tmp_path: Path) -> None:
    model, rows = model_of(), rows_of(tmp_path)
    if tied:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
    objective, batch = prepared(model, rows, tmp_path), batch_of(rows)
    model.model.embed_tokens.weight[IDS[0]] += 0.5  # else both tokens say the same
    loss = objective.loss(model, batch)
    expected = naive_loss(model, batch)
    assert float(loss.total) == pytest.approx(float(expected), rel=FLOAT64)
    assert loss.count == len(rows)
    assert (loss.logs["nll/pos"] + loss.logs["nll/neg"]).item() / 2 * len(rows) == pytest.approx(float(expected))
    swapped = naive_loss(model, batch, swapped=True)
    assert abs(float(swapped - expected)) > 1e-3

    objective.ids = IDS[::-1]
    assert float(objective.loss(model, batch).total) == pytest.approx(float(swapped), rel=FLOAT64)


@torch.no_grad()
def test_micro_batches_add_up(tmp_path: Path) -> None:
    model, rows = model_of(), rows_of(tmp_path)
    objective = prepared(model, rows, tmp_path)
    whole = objective.loss(model, batch_of(rows)).total
    parts = [objective.loss(model, batch_of(rows, [index])).total for index in range(len(rows))]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=FLOAT64)


def test_the_token_stands_behind_the_begin_token_and_is_no_target(tmp_path: Path) -> None:
    batch = batch_of(rows_of(tmp_path))
    found = with_control(batch, IDS, front=1)
    assert torch.equal(found["input_ids"][:, 0], batch["input_ids"][:, 0])
    assert found["input_ids"][:4, 1].tolist() == [*IDS, *IDS]
    assert torch.equal(found["input_ids"][:, 2:], batch["input_ids"][:, 1:])
    assert (found["labels"][:, 1] == -100).all()
    assert found["position_ids"][0].tolist() == list(range(found["input_ids"].shape[1]))
    assert torch.equal(found["attention_mask"].sum(1), batch["attention_mask"].sum(1) + 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("trains", ["nothing else", "all"])
def test_which_rows_move(tied: bool, trains: str, tmp_path: Path) -> None:
    model, rows = model_of(), rows_of(tmp_path)
    if tied:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
    model.requires_grad_(trains == "all")
    if trains != "all":
        model.model.norm.weight.requires_grad_(True)
    objective = prepared(model, rows, tmp_path)
    assert objective.rows is not None
    before = copy.deepcopy(model.state_dict())
    train = run_config(["train.lr=1e-4", "train.weight_decay=0.0"]).train
    optimizer = build_optimizer(model, train)
    optimizer.add_param_group({"params": list(objective.rows.parameters()), "lr": objective.rows.lr})
    for _ in range(2):
        optimizer.zero_grad()
        objective.loss(model, batch_of(rows)).total.backward()
        gradient_VD = model.model.embed_tokens.weight.grad
        assert gradient_VD is None or (gradient_VD[list(IDS)] == 0).all(), "the rows train at their own rate alone"
        optimizer.step()
    after = model.state_dict()["model.embed_tokens.weight"]
    steps_VD = (after - before["model.embed_tokens.weight"]).abs()
    assert (steps_VD[list(IDS)].max(1).values > 0.015).all(), "two steps of 1e-2"
    assert torch.equal(after[list(IDS)], objective.rows.rows_2D), "the embedding itself has them"
    others = steps_VD[: IDS[0]]
    assert (others.max() == 0) if trains != "all" else (0 < others.max() < 0.001)
    if trains != "all":
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {"model.norm.weight", "model.embed_tokens.weight"} | ({"lm_head.weight"} if tied else set())


def test_rows_that_were_moved_apart_are_shared_again(tmp_path: Path) -> None:
    model, rows = model_of(), rows_of(tmp_path)
    objective = prepared(model, rows, tmp_path)
    assert objective.rows is not None
    objective.rows.rows_2D.data = objective.rows.rows_2D.data.clone() + 1
    objective.loss(model, batch_of(rows))
    assert torch.equal(model.model.embed_tokens.weight[list(IDS)], objective.rows.rows_2D)
    assert objective.rows.rows_2D.data_ptr() == model.model.embed_tokens.weight[IDS[0]].data_ptr()


def test_rows_without_a_gradient_raise_in_the_second_step(tmp_path: Path) -> None:
    model, rows = model_of(), rows_of(tmp_path)
    objective = prepared(model, rows, tmp_path)
    model.model.embed_tokens._forward_hooks.clear()  # what a module that is replaced later would do
    objective.loss(model, batch_of(rows)).total.backward()
    with pytest.raises(TrainingError, match="had no gradient in the first step"):
        objective.loss(model, batch_of(rows))


# Tokens


@pytest.mark.parametrize("make", [byte_tokenizer, lambda: word_tokenizer([" one", " two"])])
@pytest.mark.parametrize("tied", [False, True])
def test_tokens_are_added_once_at_the_mean_of_the_others(make: Any, tied: bool) -> None:
    tokenizer, model = make(), model_of()
    if tied:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
    model.resize_token_embeddings(len(tokenizer))
    with pytest.raises(ModelError, match=r"expected one of their own each"):
        control_ids(tokenizer)
    count, mean = len(tokenizer), model.model.embed_tokens.weight.mean(0)
    head_mean = model.lm_head.weight.mean(0)
    ids = add_control_tokens(model, tokenizer)
    assert ids == (count, count + 1) == control_ids(tokenizer)
    for token in ids:
        assert torch.allclose(model.model.embed_tokens.weight[token], mean, atol=1e-6)
        assert torch.allclose(model.lm_head.weight[token], head_mean, atol=1e-6)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    with torch.no_grad():
        model.model.embed_tokens.weight[ids[0]] = 7
    assert add_control_tokens(model, tokenizer) == ids
    assert (model.model.embed_tokens.weight[ids[0]] == 7).all(), "a second call changes nothing"


def test_a_prompt_that_spells_a_token_raises() -> None:
    tokenizer, model = byte_tokenizer(), model_of()
    add_control_tokens(model, tokenizer)
    plain = tokenizer.encode("ab", add_special_tokens=False)
    assert controlled(plain, IDS[1], tokenizer) == [IDS[1], *plain]
    with pytest.raises(DataError, match="spells"):
        controlled(tokenizer.encode(f"ab {POS}", add_special_tokens=False), IDS[1], tokenizer)


def test_training_text_that_spells_a_token_raises(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    rows.tokens_T = rows.tokens_T.copy()
    rows.tokens_T[2] = IDS[1]
    with pytest.raises(DataError, match="spells"):
        prepared(model_of(), rows, tmp_path)


def test_data_without_pairs(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    rows.pairs_R3 = None
    with pytest.raises(ConfigError, match=r"objective=control: data=.* has no preference pairs"):
        prepared(model_of(), rows, tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [("train.batching=pack", "expected bucket"), ("hardware=fsdp2", "which fsdp2 would shard")],
)
def test_configs_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["objective=control", "train.batching=bucket", override])


def test_a_text_model_alone_gets_rows(tmp_path: Path) -> None:
    model = model_of()
    model.model.embed_tokens = type("Scaled", (torch.nn.Embedding,), {})(259, 16).double()
    with pytest.raises(ModelError, match="scales nothing"):
        prepared(model, rows_of(tmp_path), tmp_path)


def test_exactness_of_the_mean_of_a_side() -> None:
    from athlos.objectives.control import side_means

    labels = torch.tensor([[-100, 1, 1, -100], [-100, -100, 1, -100], [-100, 1, -100, -100], [-100, 1, -100, -100]])
    means = side_means(torch.tensor([-1.0, -3.0, -5.0, -6.0, -7.0], dtype=torch.float64), labels)
    assert means.tolist() == [pytest.approx([-2.0, -5.0], abs=EXACT), pytest.approx([-6.0, -7.0], abs=EXACT)]


def test_a_checkpoint_has_rows_of_its_own_and_restores_both(tmp_path: Path) -> None:
    """Safetensors refuses tensors that share memory, and a resumed run must go on with the rows it had."""
    model, rows = model_of(), rows_of(tmp_path)
    objective = prepared(model, rows, tmp_path)
    assert objective.rows is not None
    state = objective.state_dict()
    assert state["rows.rows_2D"].data_ptr() != objective.rows.rows_2D.data_ptr()
    kept = state["rows.rows_2D"] + 1
    objective.load_state_dict({"rows.rows_2D": kept})
    assert torch.equal(model.model.embed_tokens.weight[list(IDS)], kept)
