"""Families that are no Llama: the native engine runs those whose layers it finds, transformers' loop the others."""

import pytest
import torch
from tests.generation.tiny_models import encode, engine, plain
from tests.models.conftest import OTHER_FAMILIES, SCALED_FAMILIES, UNKNOWN_FAMILIES
from tests.tolerances import LOGITS_FLOAT32

from athlos.generation.interface import SamplingRule
from athlos.generation.local import context_length
from athlos.generation.native import misfit
from athlos.generation.rollouts import sample_group
from athlos.models.architecture import build, hf_config
from athlos.models.tokenizers import byte_tokenizer

TOKENS = {"vocab_size": 259, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
TEXTS = ["hello", "the cat sat on the mat", "a"]


def model_of(family: str):
    architecture = {**OTHER_FAMILIES, **UNKNOWN_FAMILIES, **SCALED_FAMILIES}[family] | TOKENS
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(hf_config(architecture), dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("family", [*OTHER_FAMILIES, *UNKNOWN_FAMILIES, "granite"])
def test_greedy_answers_are_those_of_transformers_one_by_one(family: str) -> None:
    model, prompts = model_of(family), encode(TEXTS)
    assert (misfit(model) is None) == (family not in UNKNOWN_FAMILIES)
    name = "transformers" if misfit(model) else "native"
    answers = engine(model, name=name, batch_size=2).generate(prompts, rule=SamplingRule())
    for prompt, [sample] in zip(prompts, answers, strict=True):
        ids, logs = plain(model, prompt)
        assert sample.token_ids == ids
        assert sample.log_probs == pytest.approx(logs, abs=LOGITS_FLOAT32)


def test_a_model_without_a_table_of_positions_reads_any_length() -> None:
    assert context_length(model_of("mamba")) > 10**9
    assert context_length(model_of("gpt2")) == 64


def test_rollouts_of_a_model_that_native_does_not_know() -> None:
    model = model_of("bloom")
    rollouts = sample_group(
        model, byte_tokenizer(), TEXTS, group_size=2, max_new_tokens=5, temperature=0, generator=None
    )
    for row, prompt in enumerate(encode(TEXTS, max_new_tokens=5)):
        ids, _ = plain(model, prompt, max_new_tokens=5)
        assert rollouts.response_ids[2 * row, : len(ids)].tolist() == ids
