"""Tiny decoders of every family the engines must fit, and what transformers alone says with them."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from athlos.generation.config import NativeConfig, TransformersConfig
from athlos.generation.interface import Prompt
from athlos.generation.native import NativeEngine
from athlos.generation.transformers_engine import TransformersEngine
from athlos.models.tokenizers import byte_tokenizer

VOCAB, END = 259, 258
NEW_TOKENS = 12
WINDOW = 16
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.4,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": END,
}
LOCAL_AND_FULL = {
    "num_hidden_layers": 3,
    "head_dim": 12,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
LLAMA_SIZES = SIZES | {"hidden_size": 64}
"""Heads of 16 numbers, which the kernel of whole layers takes."""
CONFIGS = {
    "llama": lambda: LlamaConfig(**LLAMA_SIZES, num_hidden_layers=2),
    "qwen2": lambda: Qwen2Config(**SIZES, num_hidden_layers=2),
    "qwen3": lambda: Qwen3Config(**SIZES, num_hidden_layers=2, head_dim=12),
    "phi3": lambda: Phi3Config(**SIZES, num_hidden_layers=2),
    "mistral": lambda: MistralConfig(**SIZES, num_hidden_layers=2, sliding_window=WINDOW),
    "gemma2": lambda: Gemma2Config(**SIZES, **LOCAL_AND_FULL, query_pre_attn_scalar=12),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, **LOCAL_AND_FULL),
}
"""Sliding windows are shorter than most prompts."""
ENGINES = {"native": (NativeEngine, NativeConfig), "transformers": (TransformersEngine, TransformersConfig)}


def tiny(name="llama", *, attention="sdpa", seed=0, config=None):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Gemma 2 caps the scores inside the attention, which sdpa cannot.
        kernel = "eager" if name == "gemma2" else attention
        return AutoModelForCausalLM.from_config(config or CONFIGS[name](), attn_implementation=kernel).eval()


def engine(model=None, *, name="native", batch_size=16, **values):
    engine_class, config_class = ENGINES[name]
    config = config_class(_target_="", batch_size=batch_size, **values)
    return engine_class(config, model=model or tiny(), tokenizer=byte_tokenizer())


def encode(texts, *, max_new_tokens=NEW_TOKENS, seed=0):
    tokenizer = byte_tokenizer()
    return [
        Prompt(token_ids=tokenizer.encode(text, add_special_tokens=False), max_new_tokens=max_new_tokens, seed=seed)
        for text in texts
    ]


def plain(model, prompt, *, max_new_tokens=NEW_TOKENS, **options):
    """(token ids, their log-probabilities) of a greedy answer, one row, by transformers alone."""
    ids = torch.tensor([prompt.token_ids])
    out = model.generate(
        ids,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    chosen = out.sequences[0, ids.shape[1] :].tolist()
    logs = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(out.logits, chosen, strict=True)]
    return chosen, logs
