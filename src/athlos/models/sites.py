"""Where things are inside a Hugging Face model. The only file of Athlos that knows submodule names.

`backbone(model)` finds the decoder of a causal language model, or the text decoder of a vision-language model, and
gives its layers with named sites. It goes by structure, not by model type, so that a model whose layers were replaced
by a surgery of the same naming is found as well. Decoder layers of transformers 5 return a tensor, not a tuple.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from athlos.errors import SurgeryError, did_you_mean
from athlos.models.config import SITE_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MATRIX_NAMES = tuple(name for name in SITE_NAMES if name != "norms")
"""The seven matrices of a decoder layer."""

DECODER_PATHS = ("model.language_model", "model", "language_model.model", "base_model")
"""Where a decoder hangs below the model with its head: vision-language first, since their `model` holds no layers."""
DECODER_LAYERS, FINAL_NORM = "layers", "norm"
ATTENTION_MODULE = "self_attn"
FFN_MODULE = "mlp"
ATTENTION_MATRICES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
FFN_MATRICES = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
FUSED_ATTENTION = "qkv_proj"
FUSED_FFN = "gate_up_proj"
"""Rows of the gate come first, then those of `up` (Phi-3)."""
VISION_TOWER, PROJECTOR = "vision_tower", "multi_modal_projector"

TWO_NORMS = {"attention_input": "input_layernorm", "ffn_input": "post_attention_layernorm"}
"""Llama's `post_attention_layernorm` stands before the FFN, not after the attention."""
FOUR_NORMS = {
    "attention_input": "input_layernorm",
    "attention_output": "post_attention_layernorm",
    "ffn_input": "pre_feedforward_layernorm",
    "ffn_output": "post_feedforward_layernorm",
}
"""Gemma 2 and 3 normalise each branch before and after, and use Llama's name in another meaning."""
HEAD_NORMS = {"query": "q_norm", "key": "k_norm", "value": "v_norm"}
"""Norms over single heads, inside the attention (Qwen3, Gemma 3; that of the values stands in changed layers only)."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One matrix of a layer. In a fused matrix a site is a range of output rows; `parts` names all that share it."""

    name: str
    layer_index: int
    path: str
    """Dotted name of the linear module in the model."""
    module: nn.Module
    rows: slice
    """Output rows that belong to this site; all rows where the matrix is not fused."""
    parts: tuple[str, ...]
    """Names of the sites in this matrix, in the order of their rows; just its own where it is not fused."""

    @property
    def is_fused(self) -> bool:
        return len(self.parts) > 1

    @property
    def weight(self) -> nn.Parameter:
        """The whole matrix [rows, inputs]; of a LoRA-wrapped module its base matrix."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def num_parameters(self) -> int:
        """Entries of this site alone, its share of a bias included."""
        num_rows = self.rows.stop - self.rows.start
        bias = 0 if self.module.bias is None else num_rows
        return num_rows * self.weight.shape[1] + bias


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One decoder layer."""

    index: int
    path: str
    module: nn.Module
    attention: nn.Module
    ffn: nn.Module
    sites: dict[str, Site]
    """q, k, v, o, gate, up, down; without those that a surgery took away (its module names them `absent_sites`)."""
    norms: dict[str, nn.Module]
    """By role: attention_input, ffn_input, where the model has them attention_output, ffn_output, query, key, value.
    A changed layer names its own (`norm_attributes`): attention_sum and ffn_sum stand behind a residual sum."""
    norm_names: dict[str, str]
    """Role -> attribute of `module` (or of `attention` for query, key and value), for those who replace a norm."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The text decoder of a model and what is around it."""

    config: "PreTrainedConfig"
    """The text part of the model's config."""
    decoder: nn.Module
    path: str
    """Dotted name of the decoder in the model."""
    layers: tuple[Layer, ...]
    embedding: nn.Module
    final_norm: nn.Module
    head: nn.Module
    is_tied: bool
    """Whether the output matrix is the embedding."""
    vision_tower: nn.Module | None = None
    projector: nn.Module | None = None
    num_heads: int = field(default=0)
    num_kv_heads: int = field(default=0)
    head_size: int = field(default=0)
    hidden_size: int = field(default=0)
    ffn_size: int = field(default=0)

    def layer(self, index: int) -> Layer:
        """A layer by index, negative ones from the end; raises `SurgeryError` outside the decoder."""
        count = len(self.layers)
        if not -count <= index < count:
            raise SurgeryError(f"layer {index}: the decoder has {count} layers, expected {-count} .. {count - 1}")
        return self.layers[index]


def backbone(model: "PreTrainedModel") -> Backbone:
    """Find the decoder of a model; raises `SurgeryError` naming what was looked for, what was found, three examples."""
    path, decoder = _decoder(model)
    config = model.config.get_text_config()
    heads = _heads(config)
    found = tuple(
        _layer(layer, index=index, path=f"{path}.layers.{index}", heads=heads)
        for index, layer in enumerate(_child(decoder, DECODER_LAYERS, owner=path).children())
    )
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        raise SurgeryError(f"{type(model).__name__}: looked for an output matrix; found none (a model without head)")
    around = {name: module for name, module in model.named_modules() if name in _AROUND}
    return Backbone(
        config=config,
        decoder=decoder,
        path=path,
        layers=found,
        embedding=embedding,
        final_norm=_child(decoder, FINAL_NORM, owner=path),
        head=head,
        is_tied=head.weight is embedding.weight,
        vision_tower=next((around[name] for name in around if name.endswith(VISION_TOWER)), None),
        projector=next((around[name] for name in around if name.endswith(PROJECTOR)), None),
        num_heads=config.num_attention_heads,
        num_kv_heads=heads["k"],
        head_size=heads["size"],
        hidden_size=config.hidden_size,
        ffn_size=config.intermediate_size,
    )


def chosen_layers(model_backbone: Backbone, indices: Iterable[int]) -> list[Layer]:
    """Layers in the order of the decoder; negative indices count from the end, doubles and strays raise."""
    wanted = list(indices)
    layers = [model_backbone.layer(index) for index in wanted]
    doubles = sorted({layer.index for layer in layers if sum(other.index == layer.index for other in layers) > 1})
    if doubles:
        raise SurgeryError(f"layers: got {wanted}, which names layer {doubles[0]} twice")
    return sorted(layers, key=lambda layer: layer.index)


def chosen_sites(layers: Iterable[Layer], names: Iterable[str]) -> list[Site]:
    """The named matrices of each layer. Raises `SurgeryError` when a fused matrix is named in part.

    A fused matrix is one parameter: weight decay and the optimizer's moments reach all of its rows, so training some
    of them and keeping the others bit-exact cannot be promised.
    """
    wanted = list(names)
    for name in wanted:
        if name not in MATRIX_NAMES:
            near = did_you_mean(name, MATRIX_NAMES)
            raise SurgeryError(f"site '{name}': unknown{near}; accepted: {', '.join(MATRIX_NAMES)}")
    chosen = list(layers)
    for layer in chosen:
        if gone := [name for name in wanted if name not in layer.sites]:
            raise SurgeryError(f"site '{gone[0]}': layer {layer.index} has none, a surgery took it away")
    sites = [layer.sites[name] for layer in chosen for name in MATRIX_NAMES if name in wanted]
    for site in sites:
        absent = [part for part in site.parts if part not in wanted]
        if absent:
            raise SurgeryError(
                f"site '{site.name}' of layer {site.layer_index}: {site.path} holds {', '.join(site.parts)} in one "
                f"matrix; name all of them (missing: {', '.join(absent)})"
            )
    return sites


def vision_parts(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """(vision tower, projector) of a vision-language model; nothing for a model of text."""
    around = {name.rpartition(".")[2]: module for name, module in model.named_modules() if name in _AROUND}
    if VISION_TOWER not in around or PROJECTOR not in around:
        return None
    return around[VISION_TOWER], around[PROJECTOR]


_AROUND = tuple(f"{prefix}{name}" for prefix in ("model.", "") for name in (VISION_TOWER, PROJECTOR))


def _decoder(model: nn.Module) -> tuple[str, nn.Module]:
    modules = dict(model.named_modules())
    for path in DECODER_PATHS:
        if path in modules and DECODER_LAYERS in _names(modules[path]):
            return path, modules[path]
    examples = [name for name in modules if name][:3]
    raise SurgeryError(
        f"{type(model).__name__}: looked for a decoder with 'layers' at {', '.join(DECODER_PATHS)}; "
        f"found {_listing(_names(model))}; examples: {', '.join(examples)}"
    )


def _layer(module: nn.Module, *, index: int, path: str, heads: dict[str, int]) -> Layer:
    attention = _child(module, ATTENTION_MODULE, owner=path)
    ffn = _child(module, FFN_MODULE, owner=path)
    sites = {
        **_sites(attention, ATTENTION_MATRICES, fused={FUSED_ATTENTION: ("q", "k", "v")}, heads=heads, index=index,
                 path=f"{path}.{ATTENTION_MODULE}"),
        **_sites(ffn, FFN_MATRICES, fused={FUSED_FFN: ("gate", "up")}, heads=heads, index=index,
                 path=f"{path}.{FFN_MODULE}"),
    }  # fmt: skip
    plain = FOUR_NORMS if set(FOUR_NORMS.values()) <= set(_names(module)) else TWO_NORMS
    names: dict[str, str] = getattr(module, "norm_attributes", plain)  # a changed layer says itself where its norms are
    norms = {role: _child(module, name, owner=path) for role, name in names.items()}
    head_norms = {role: name for role, name in HEAD_NORMS.items() if name in _names(attention)}
    norms |= {role: _child(attention, name, owner=path) for role, name in head_norms.items()}
    return Layer(
        index=index, path=path, module=module, attention=attention, ffn=ffn, sites=sites, norms=norms,
        norm_names={**names, **head_norms},
    )  # fmt: skip


def _sites(
    owner: nn.Module, names: dict[str, str], *, fused: dict[str, tuple[str, ...]], heads: dict[str, int], index: int,
    path: str,
) -> dict[str, Site]:  # fmt: skip
    """Sites of one half of a layer: fused matrices where the model has them, single ones for the rest."""
    present, sites = _names(owner), {}
    for child_name, parts in fused.items():
        if child_name not in present:
            continue
        child = _child(owner, child_name, owner=path)
        sizes = (
            [heads[part] * heads["size"] for part in parts]
            if "q" in parts
            else [_rows(child) // len(parts)] * len(parts)
        )
        start = 0
        for part, size in zip(parts, sizes, strict=True):
            rows = slice(start, start + size)
            sites[part] = Site(
                name=part, layer_index=index, path=f"{path}.{child_name}", module=child, rows=rows, parts=parts
            )
            start += size
    absent = getattr(owner, "absent_sites", ())
    for name, child_name in names.items():
        if name not in sites and name not in absent:
            child = _child(owner, child_name, owner=path)
            sites[name] = Site(
                name=name, layer_index=index, path=f"{path}.{child_name}", module=child, rows=slice(0, _rows(child)),
                parts=(name,),
            )  # fmt: skip
    return {name: sites[name] for name in names if name in sites}


def _heads(config: "PreTrainedConfig") -> dict[str, int]:
    """Heads of q, k, v and their size, in numbers; a config leaves out what follows from the rest."""
    values: dict[str, Any] = config.to_dict()
    num_heads = values["num_attention_heads"]
    num_kv_heads = values.get("num_key_value_heads") or num_heads
    size = values.get("head_dim") or values["hidden_size"] // num_heads
    return {"q": num_heads, "k": num_kv_heads, "v": num_kv_heads, "size": size}


def _rows(linear: nn.Module) -> int:
    rows = linear.out_features
    assert isinstance(rows, int)
    return rows


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


def _child(module: nn.Module, name: str, *, owner: str) -> nn.Module:
    children = dict(module.named_children())
    if name not in children:
        inner = [f"{owner}.{path}" for path, _ in module.named_modules() if path][:3]
        raise SurgeryError(
            f"{owner} ({type(module).__name__}): looked for '{name}'{did_you_mean(name, list(children))}; "
            f"found {_listing(children)}; examples: {', '.join(inner) or 'none'}"
        )
    return children[name]


def _listing(names: Iterable[str]) -> str:
    ordered = list(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "") or "nothing"


def parameters_of(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """All parameters of several modules."""
    for module in modules:
        yield from module.parameters()
