"""What RHIO measures and how it asks: KL between the tokens against a loop, [POS] in front, phases and steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.generation.tiny_models import engine
from tests.objectives.test_control import IDS
from tests.objectives.test_preference import PAD, model_of, rows_of
from tests.tolerances import FLOAT64

from athlos.generation.interface import Request
from athlos.methods.rhio.module import RhioModule
from athlos.models.control_tokens import add_control_tokens
from athlos.models.tokenizers import byte_tokenizer


@torch.no_grad()
@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_kl_is_a_mean_over_all_answer_tokens(tmp_path: Path, micro_batch_size: int) -> None:
    model, rows, tokenizer = model_of(), rows_of(tmp_path), byte_tokenizer()
    rows.pairs_R3 = None  # answers to questions, as those of a validation split
    assert add_control_tokens(model, tokenizer) == IDS
    model.model.embed_tokens.weight[IDS[0]] += 0.5
    total, count = 0.0, 0
    for index in range(len(rows)):
        ids, labels = rows.row(index)
        logs = [model(torch.tensor([[token, *ids.tolist()]])).logits[0].double().log_softmax(-1) for token in IDS]
        for place in range(1, len(ids)):
            if labels[place] != -100:
                total += float((logs[0][place].exp() * (logs[0][place] - logs[1][place])).sum())
                count += 1
    module: Any = SimpleNamespace(
        data=SimpleNamespace(rows=lambda split: rows, pad_id=PAD),
        config=SimpleNamespace(train=SimpleNamespace(micro_batch_size=micro_batch_size)),
        model=model,
        tokenizer=tokenizer,
    )
    assert RhioModule._kl(module, "val") == pytest.approx(total / count, rel=FLOAT64)
    assert total > 0


def test_answers_are_asked_for_behind_pos() -> None:
    asked: list[Request] = []
    rule = SimpleNamespace(answer=lambda engine, requests, progress: asked.extend(requests))
    found = engine()
    module: Any = SimpleNamespace(
        found_decoding=rule, engine=found, has_control=True, tokenizer=found.tokenizer, config=SimpleNamespace()
    )
    add_control_tokens(found.model, found.tokenizer)
    RhioModule.answer(module, [Request(identifier="a", prompt="x", record=None)])
    assert [request.control for request in asked] == [(IDS[0],)]
    module.has_control = False
    RhioModule.answer(module, [Request(identifier="b", prompt="x", record=None)])
    assert asked[1].control == ()
