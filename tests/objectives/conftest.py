"""A tiny model in float64, and a batch of unequal lengths with a row that has no target."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=41,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, 41, (4, 9), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[1, 5:] = 0
    mask[3, 2:] = 0
    labels = input_ids.masked_fill(mask == 0, -100)
    labels[0, :4] = -100
    labels[2] = -100  # a row with no target
    return {
        "input_ids": input_ids,
        "labels": labels,
        "attention_mask": mask,
        "position_ids": torch.arange(9).expand(4, 9),
    }
