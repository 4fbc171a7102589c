"""A Hugging Face folder -> one GGUF file with its tokenizer and chat template: what llama.cpp reads of our own weights.

Matrices are written in the format that is asked for, vectors in float32, tensor by tensor, so that a large model needs
little memory. Two things differ there: the halves of a Llama's rotary pairs are neighbours, and Gemma's norms hold the
1 that transformers adds as it computes.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.data.encoding import prefix_token
from athlos.errors import ModelError
from athlos.models.config import GGUFFormat
from athlos.models.gguf_vocabulary import vocabulary_of
from athlos.models.loading import folder_license, load_tokenizer, source_key
from athlos.models.source import model_folder, parse_source
from athlos.models.wheels import GGUF_NAME, LICENSE_NAME_FILE
from athlos.stages import Product, Stage, StageStore

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

OUTPUT = "output.weight"
WRITING_VERSION = 1
"""Raised when the file written of the same folder changes meaning."""
GEMMA_PATTERN = 6
"""Of so many layers of a Gemma 3, the last sees the whole text: llama.cpp knows no other order."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How llama.cpp reads the models of one `model_type`."""

    architecture: str
    """Its name of it."""
    activation: str
    """The only one that it computes there."""
    rotates_neighbours: bool = False
    norm_offset: float = 0.0
    """What its norms hold more than those of transformers."""


FAMILIES = {
    "llama": Family(architecture="llama", activation="silu", rotates_neighbours=True),
    "qwen2": Family(architecture="qwen2", activation="silu"),
    "gemma3_text": Family(architecture="gemma3", activation="gelu_pytorch_tanh", norm_offset=1.0),
}


def converted(source: str, *, number_format: GGUFFormat, stages: StageStore) -> Product:
    """The folder with the GGUF file (`GGUF_NAME`) of a `dir:` source, written on first use.

    Raises `ModelError` for a folder that is no model, and as `write_gguf` does.
    """
    model = ModelConfig(name="converted", source=source, tokenizer=TokenizerConfig(kind="source"))
    folder = model_folder(parse_source(source))

    def build(target: Path) -> None:
        log.info("writing %s as a GGUF file in %s, once", folder, number_format)
        tokenizer = load_tokenizer(model, stages=stages)
        write_gguf(folder, tokenizer=tokenizer, target=target / GGUF_NAME, number_format=number_format)
        (target / LICENSE_NAME_FILE).write_text(folder_license(folder) + "\n", encoding="utf-8")

    config, inputs = {"format": number_format.value}, {"weights": source_key(model)}
    return stages.get(Stage(name="gguf_model", version=WRITING_VERSION, build=build, config=config, inputs=inputs))


def write_gguf(folder: Path, *, tokenizer: "PreTrainedTokenizerBase", target: Path, number_format: GGUFFormat) -> None:
    """Writes the safetensors of a folder, and the tokenizer, to the file `target`.

    Raises `ModelError`, naming what works, for a model or a tokenizer that llama.cpp would read in another way, and for
    a number that the format does not hold.
    """
    import gguf
    import numpy as np

    shape = _shape(folder)
    family = FAMILIES[shape.model_type]
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(architecture, shape.num_hidden_layers)
    writer = gguf.GGUFWriter(target, family.architecture)
    _add_shape(writer, shape)
    _add_tokenizer(writer, tokenizer, num_rows=shape.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(number_format, f"MOSTLY_{number_format.upper()}")])
    kinds = {}
    for name, tensor in _tensors(folder):
        named = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if named is None:
            raise ModelError(f"engine.source: llama.cpp knows no {name} in a {shape.model_type} model")
        if named == OUTPUT and shape.tie_word_embeddings:
            continue  # llama.cpp takes the embedding
        kind = gguf.GGMLQuantizationType[number_format.upper() if tensor.ndim > 1 else "F32"]
        kinds[name] = (named, kind)
        num_bytes = math.prod(gguf.quant_shape_to_byte_shape(tuple(tensor.shape), kind))
        writer.add_tensor_info(named, tuple(tensor.shape), np.dtype(np.float32), num_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(folder):
        if name in kinds:
            named, kind = kinds[name]
            writer.write_tensor_data(_rounded(as_there(tensor, named, shape), kind=kind, name=name))
    writer.close()


def as_there(tensor: "Tensor", name: str, shape: "PretrainedConfig") -> "np.ndarray[Any, Any]":
    """A tensor in float32 as llama.cpp computes with it; `name` is its name there."""
    family = FAMILIES[shape.model_type]
    value = tensor.float()
    if name.endswith("norm.weight"):
        value = value + family.norm_offset
    heads = {"attn_q": shape.num_attention_heads, "attn_k": shape.num_key_value_heads}
    if family.rotates_neighbours and (num_heads := heads.get(name.split(".")[-2])) is not None:
        # Rows of a head: its first halves of all pairs, then its second; there pair by pair.
        value = value.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    array: np.ndarray[Any, Any] = value.contiguous().numpy()
    return array


def _rounded(array: "np.ndarray[Any, Any]", *, kind: Any, name: str) -> "np.ndarray[Any, Any]":
    """The bytes of the array in a format. Raises `ModelError` where a number is too great for it."""
    import gguf
    import numpy as np

    with np.errstate(over="ignore"):
        values: np.ndarray[Any, Any] = gguf.quantize(array, kind)
    if kind is gguf.GGMLQuantizationType.F16 and not np.isfinite(values).all():
        raise ModelError(f"engine.format: got f16, which holds nothing as great as a number of {name}; bf16 or f32")
    return values


def _shape(folder: Path) -> "PretrainedConfig":
    """The config of the folder's model. Raises `ModelError` for one that llama.cpp would compute in another way."""
    from transformers import AutoConfig

    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if model_type not in FAMILIES:
        raise ModelError(
            f"engine.source: {folder} holds a {model_type} model, which is not converted to GGUF; accepted: "
            f"{', '.join(FAMILIES)}"
        )
    shape: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    for what, value, accepted in _differences(shape):
        if value != accepted:
            raise ModelError(f"engine.source: {folder}: {what} is {value}, and llama.cpp computes {accepted} only")
    return shape


def _differences(shape: "PretrainedConfig") -> Iterator[tuple[str, Any, Any]]:
    """Name, value and the only value that llama.cpp has for it."""
    family = FAMILIES[shape.model_type]
    is_gemma = shape.model_type == "gemma3_text"
    yield "its activation", shape.hidden_activation if is_gemma else shape.hidden_act, family.activation
    for rope in _rope(shape):
        yield "rope_type", rope.get("rope_type", "default"), "default"
    if is_gemma:
        full = [layer % GEMMA_PATTERN == GEMMA_PATTERN - 1 for layer in range(shape.num_hidden_layers)]
        kinds = ["full_attention" if is_full else "sliding_attention" for is_full in full]
        yield "layer_types", shape.layer_types, kinds
        yield "query_pre_attn_scalar", shape.query_pre_attn_scalar, shape.head_dim
    else:
        yield "sliding attention", "sliding_attention" in (getattr(shape, "layer_types", None) or ()), False


def _rope(shape: "PretrainedConfig") -> list[dict[str, Any]]:
    """The rotary settings of full attention, and behind them those of sliding attention where it has its own."""
    values = shape.rope_parameters
    return [values["full_attention"], values["sliding_attention"]] if "full_attention" in values else [values]


def _head_size(shape: "PretrainedConfig") -> int:
    own: int | None = getattr(shape, "head_dim", None)
    return own or shape.hidden_size // shape.num_attention_heads


def _add_shape(writer: "GGUFWriter", shape: "PretrainedConfig") -> None:
    rope, head_size = _rope(shape), _head_size(shape)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(rope[0]["rope_theta"])
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_vocab_size(shape.vocab_size)
    if len(rope) > 1:
        writer.add_sliding_window(shape.sliding_window)
        writer.add_rope_freq_base_swa(rope[1]["rope_theta"])


def _add_tokenizer(writer: "GGUFWriter", tokenizer: "PreTrainedTokenizerBase", *, num_rows: int) -> None:
    vocabulary = vocabulary_of(tokenizer, num_rows=num_rows)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    ids: list[tuple[Callable[[int], None], int | None]] = [
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ]
    for add, index in ids:
        if index is not None:
            add(index)
    writer.add_add_bos_token(prefix_token(tokenizer) is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.begins_with_space)
    writer.add_remove_extra_whitespaces(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(folder: Path) -> Iterator[tuple[str, "Tensor"]]:
    """Name and tensor of all safetensors of a folder."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # the file itself cannot be walked
                yield name, file.get_tensor(name)
