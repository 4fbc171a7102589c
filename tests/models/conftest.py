"""Tiny random models of every supported family, on CPU, in well under a second each."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from athlos.models.architecture import build, hf_config
from athlos.parts import PartContext

VOCAB = 40
_DECODER = {
    "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "rms_norm_eps": 1e-6,
}  # fmt: skip
_NO_HEAD_DIM = {key: value for key, value in _DECODER.items() if key != "head_dim"}
_VISION = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_DECODER},
    "llama_tied": {"model_type": "llama", **_DECODER, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **_NO_HEAD_DIM},
    "qwen3": {"model_type": "qwen3", **_DECODER},
    "gemma": {"model_type": "gemma", **_DECODER},
    "gemma2": {"model_type": "gemma2", **_DECODER},
    "gemma3": {"model_type": "gemma3_text", **_DECODER, "sliding_window": 8},
    "mistral": {"model_type": "mistral", **_DECODER},
    "phi3": {"model_type": "phi3", **_NO_HEAD_DIM},
    "llava": {
        "model_type": "llava",
        "text_config": {"model_type": "llama", **_DECODER},
        "vision_config": _VISION,
        "image_token_index": VOCAB - 1,
    },
}

Build = Callable[[str], Any]


@pytest.fixture
def tiny() -> Build:
    """`tiny(family)`: a random model with every parameter different from its neighbours, norms and biases too."""

    def make(family: str) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = build(hf_config(FAMILIES[family]), dtype=torch.float32, attn_implementation="eager")
            for parameter in model.parameters():
                parameter.data.add_(0.02 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture
def context() -> PartContext:
    """What the shared selections use of a run: its seed."""
    config: Any = SimpleNamespace(seed=3)
    nothing: Any = None
    return PartContext(config=config, stages=nothing)
