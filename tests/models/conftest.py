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
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rms_norm_eps": 1e-6,
}
_NO_HEAD_DIM = {key: value for key, value in _DECODER.items() if key != "head_dim"}
_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
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

_ENDS = {key: _DECODER[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
_SHORT = {**_ENDS, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64}
_PLAIN = {key: value for key, value in _NO_HEAD_DIM.items() if key not in ("num_key_value_heads", "rms_norm_eps")}
_OPT = {key: value for key, value in _PLAIN.items() if key != "intermediate_size"}
OTHER_FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", **_SHORT, "n_inner": 36},
    "gpt_neox": {"model_type": "gpt_neox", **_PLAIN},
    "gpt_neox_serial": {"model_type": "gpt_neox", **_PLAIN, "use_parallel_residual": False},
    "opt": {"model_type": "opt", **_OPT, "ffn_dim": 36, "word_embed_proj_dim": 24},
    "olmo2": {"model_type": "olmo2", **_NO_HEAD_DIM},
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **_NO_HEAD_DIM,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 20,
    },
    "mixtral": {
        "model_type": "mixtral",
        **_NO_HEAD_DIM,
        "intermediate_size": 12,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    },
}
"""Families whose sites are known for selections and probes, and which no surgery changes. 36 neurons a layer."""
UNKNOWN_FAMILIES: dict[str, dict[str, Any]] = {
    "mamba": {"model_type": "mamba", **_ENDS, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4},
    "falcon": {
        "model_type": "falcon",
        **_ENDS,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "bloom": {"model_type": "bloom", **_ENDS, "hidden_size": 24, "n_layer": 2, "n_head": 4},
    "gptj": {"model_type": "gptj", **_SHORT, "rotary_dim": 4},
}
"""Families whose sites nobody wrote down."""
SCALED_FAMILIES: dict[str, dict[str, Any]] = {
    "granite": {"model_type": "granite", **_NO_HEAD_DIM, "logits_scaling": 4.0},
    "cohere": {key: value for key, value in _NO_HEAD_DIM.items() if key != "rms_norm_eps"}
    | {"model_type": "cohere", "logit_scale": 0.25},
}
"""Families that multiply what the output matrix gives."""

Build = Callable[[str], Any]


@pytest.fixture
def tiny() -> Build:
    """`tiny(family)`: a random model with every parameter different from its neighbours, norms and biases too."""

    def make(family: str) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            architecture = {**FAMILIES, **OTHER_FAMILIES, **UNKNOWN_FAMILIES, **SCALED_FAMILIES}[family]
            model = build(hf_config(architecture), dtype=torch.float32, attn_implementation="eager")
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
