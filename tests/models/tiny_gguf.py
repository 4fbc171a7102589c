"""A Llama of one layer in a GGUF file: tied embeddings, a vocabulary of bytes and one merge."""

from pathlib import Path

import torch
from transformers import LlamaConfig

from athlos.models.tokenizers import byte_tokenizer

CONTEXT = 1024
EOS = 258


def tiny_gguf(path: Path, *, seed: int = 0, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Writes the file; some of its tensors by name. `scale` is that of all weights."""
    import gguf

    shape = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    tokens = [*byte_tokenizer().convert_ids_to_tokens(range(258)), "<|endoftext|>", "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * 3 + [1])
    writer.add_token_merges(["a b"])
    writer.add_pad_token_id(256)
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(EOS)
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "token_embd": (260, 32),
        "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (32, 32),
        "blk.0.attn_v": (32, 32),
        "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "output_norm": (32,),
    }
    tensors = {name: scale * torch.randn(size, generator=generator) for name, size in sizes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"embedding": tensors["token_embd"], "up": tensors["blk.0.ffn_up"]}
