"""Where things are inside a Hugging Face model. The only file of Athlos that knows submodule names.

`backbone(model)` finds the decoder of a causal language model, or the text decoder of a vision-language model, and
gives its layers with named sites. It goes by structure, so that a model whose layers were replaced by a surgery of the
same naming is found as well; families that name their parts unlike Llama stand in `LAYOUTS`. Decoder layers of
transformers 5 return a tensor, not a tuple.

Mixtures of experts (Qwen2-MoE, Mixtral): `gate`, `up` and `down` of a layer are those of all its routed experts, which
transformers keeps as two tensors in one module, so they are chosen together. Router and shared expert are no sites:
they train with a whole layer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from athlos.errors import SurgeryError, did_you_mean
from athlos.models.config import SITE_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MATRIX_NAMES = tuple(name for name in SITE_NAMES if name != "norms")
"""The seven matrices of a decoder layer."""

DECODER_PATHS = ("model.language_model", "model", "language_model.model", "base_model")
"""Where a decoder hangs below the model with its head: vision-language first, since their `model` holds no layers."""
FAMILIES = (
    "Llama, Mistral, Qwen2, Qwen3, Phi-3, Gemma 1 to 3, GPT-2, GPT-NeoX, OPT, OLMo2, Qwen2-MoE, Mixtral, and models "
    "that name their layers as these do"
)
KNOWN = f"sites are known of {FAMILIES}; any other trains with selection=all, by tuning=full or lora"
"""Closes the message about a model whose sites are not known."""
DECODER_LAYERS, FINAL_NORM = "layers", "norm"
ATTENTION_MODULE = "self_attn"
FFN_MODULE = "mlp"
ATTENTION_MATRICES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
FFN_MATRICES = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
FUSED_ATTENTION = "qkv_proj"
FUSED_FFN = "gate_up_proj"
"""Rows of the gate come first, then those of `up` (Phi-3, and each expert of a mixture)."""
EXPERTS, EXPERTS_DOWN = "experts", "down_proj"
FFN_SITES = ("gate", "up", "down")
MIXER_CONVOLUTION, READ_BY_MIXERS = "conv1d", ("dt_proj", "out_proj")
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
NORMS_BEHIND = {"attention_output": "post_attention_layernorm", "ffn_output": "post_feedforward_layernorm"}
"""OLMo2 normalises what each branch gives, and nothing before it."""
HEAD_NORMS = {"query": "q_norm", "key": "k_norm", "value": "v_norm"}
"""Norms inside the attention, over single heads (Qwen3, Gemma 3; that of the values stands in changed layers only) or
over all of them (OLMo2)."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a family keeps its parts; by default where Llama does."""

    decoder: tuple[str, ...] = DECODER_PATHS
    layers: str = DECODER_LAYERS
    final_norm: str = FINAL_NORM
    attention: str = ATTENTION_MODULE
    ffn: str = FFN_MODULE
    """Empty where the two matrices hang on the layer itself."""
    attention_matrices: dict[str, str] = field(default_factory=lambda: ATTENTION_MATRICES)
    fused_attention: str = FUSED_ATTENTION
    """Holds q, k and v, where it is there."""
    is_mixed_by_head: bool = False
    """Whether a fused attention matrix goes through q, k and v head by head, not one after another."""
    ffn_matrices: dict[str, str] = field(default_factory=lambda: FFN_MATRICES)
    norms: dict[str, str] | None = None
    """None = told by the norms that a layer has."""


LLAMA = Layout()
LAYOUTS = {
    "gpt2": Layout(
        decoder=("transformer",),
        layers="h",
        final_norm="ln_f",
        attention="attn",
        attention_matrices={"o": "c_proj"},
        fused_attention="c_attn",
        ffn_matrices={"up": "c_fc", "down": "c_proj"},
        norms={"attention_input": "ln_1", "ffn_input": "ln_2"},
    ),
    "gpt_neox": Layout(
        decoder=("gpt_neox",),
        final_norm="final_layer_norm",
        attention="attention",
        attention_matrices={"o": "dense"},
        fused_attention="query_key_value",
        is_mixed_by_head=True,
        norms=TWO_NORMS,
        ffn_matrices={"up": "dense_h_to_4h", "down": "dense_4h_to_h"},
    ),
    "opt": Layout(
        decoder=("model.decoder",),
        final_norm="final_layer_norm",
        ffn="",
        attention_matrices={"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"},
        ffn_matrices={"up": "fc1", "down": "fc2"},
        norms={"attention_input": "self_attn_layer_norm", "ffn_input": "final_layer_norm"},
    ),
}
"""By model type. Their FFN has no gate: its neurons are the rows of `up`, which the activation function follows."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One matrix of a layer. In a fused matrix a site is some of the output rows; `parts` names all that share it."""

    name: str
    layer_index: int
    path: str
    """Dotted name of the linear module in the model, or of the module that holds the experts."""
    module: nn.Module
    rows: slice | list[int]
    """Output rows that belong to this site; all rows where the matrix is not fused."""
    parts: tuple[str, ...]
    """Names of the sites in this module, in the order of their rows; just its own where it is not fused."""
    parameter: str = "weight"
    """Name of the matrix in its module."""
    rows_dim: int = 0
    """Dimension of the matrix that its output rows lie in: 1 in GPT-2's transposed `Conv1D` and behind the experts."""

    @property
    def is_fused(self) -> bool:
        return len(self.parts) > 1

    @property
    def is_of_experts(self) -> bool:
        return self.parameter != "weight"

    @property
    def weight(self) -> nn.Parameter:
        """The whole matrix [rows, inputs], transposed [inputs, rows], or of all experts [experts, rows, inputs].

        Of a LoRA-wrapped module it is the base matrix.
        """
        weight = self.module.weight if self.parameter == "weight" else self.module.get_parameter(self.parameter)
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The whole bias of the module, None where it has none."""
        bias = self.module.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        return bias

    @property
    def own_weight(self) -> Tensor:
        """This site's part of the matrix, [..., rows, inputs]."""
        whole = self.weight.transpose(0, 1) if self.rows_dim == 1 and self.weight.ndim == 2 else self.weight
        return whole[..., self.rows, :]

    @property
    def num_rows(self) -> int:
        """Output rows of this site; of experts, those of one."""
        return len(self.rows) if isinstance(self.rows, list) else self.rows.stop - self.rows.start

    @property
    def num_parameters(self) -> int:
        """Entries of this site alone, its share of a bias included."""
        weight = self.weight
        own = weight.numel() // weight.shape[self.rows_dim] * self.num_rows
        return own if self.is_of_experts or self.module.bias is None else own + self.num_rows


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One decoder layer."""

    index: int
    path: str
    module: nn.Module
    attention: nn.Module
    ffn: nn.Module
    """The layer itself where the family has no module around its two matrices (OPT)."""
    sites: dict[str, Site]
    """q, k, v, o, gate, up, down; without the gate of an ungated FFN, and without those that a surgery took away (its
    module names them `absent_sites`)."""
    norms: dict[str, nn.Module]
    """By role: attention_input, ffn_input, where the model has them attention_output, ffn_output, query, key, value.
    A changed layer names its own (`norm_attributes`): attention_sum and ffn_sum stand behind a residual sum."""
    norm_names: dict[str, str]
    """Role -> attribute of `module` (or of `attention` for query, key and value), for those who replace a norm."""
    is_parallel: bool = False
    """Whether the FFN reads the layer's input, not the stream behind the attention (GPT-NeoX)."""

    @property
    def neuron_site(self) -> Site | None:
        """The matrix whose outputs pass the activation function; None where a surgery put other FFNs."""
        return self.sites.get("gate", self.sites.get("up"))

    @property
    def num_neurons(self) -> int:
        """Neurons of the FFN, of all routed experts of a mixture; 0 where a surgery put other FFNs."""
        site = self.neuron_site
        if site is None:
            return 0
        return site.num_rows * (site.weight.shape[0] if site.is_of_experts else 1)

    @property
    def is_ungated(self) -> bool:
        return "up" in self.sites and "gate" not in self.sites

    @property
    def has_experts(self) -> bool:
        return self.neuron_site is not None and self.neuron_site.is_of_experts


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The text decoder of a model and what is around it."""

    config: "PreTrainedConfig"
    """The text part of the model's config."""
    decoder: nn.Module
    path: str
    """Dotted name of the decoder in the model."""
    layers: tuple[Layer, ...]
    embedding: nn.Embedding
    final_norm: nn.Module
    head: nn.Linear
    is_tied: bool
    """Whether the output matrix is the embedding."""
    vision_tower: "PreTrainedModel | None" = None
    projector: nn.Module | None = None
    num_heads: int = field(default=0)
    num_kv_heads: int = field(default=0)
    head_size: int = field(default=0)
    hidden_size: int = field(default=0)
    ffn_size: int = field(default=0)
    """Neurons of the first layer; of a mixture, those of all its routed experts."""

    @property
    def is_llama_like(self) -> bool:
        """Whether surgeries know the layers: Llama's names, norms before the branches, a dense FFN."""
        return self.config.model_type not in LAYOUTS and not any(
            layer.has_experts or layer.norm_names.items() == NORMS_BEHIND.items() | _head_norms(layer.attention).items()
            for layer in self.layers
        )

    def layer(self, index: int) -> Layer:
        """A layer by index, negative ones from the end; raises `SurgeryError` outside the decoder."""
        count = len(self.layers)
        if not -count <= index < count:
            raise SurgeryError(f"layer {index}: the decoder has {count} layers, expected {-count} .. {count - 1}")
        return self.layers[index]


def backbone(model: "PreTrainedModel") -> Backbone:
    """Find the decoder of a model; raises `SurgeryError` naming what was looked for, what was found, three examples."""
    config = model.config.get_text_config()
    layout = LAYOUTS.get(config.model_type, LLAMA)
    path, decoder = _decoder(model, layout)
    heads = _heads(config)
    is_parallel = bool(config.to_dict().get("use_parallel_residual"))
    layers = tuple(
        _layer(
            layer,
            layout=layout,
            index=index,
            path=f"{path}.{layout.layers}.{index}",
            heads=heads,
            is_parallel=is_parallel,
        )
        for index, layer in enumerate(_child(decoder, layout.layers, owner=path).children())
    )
    embedding, head = cast(nn.Embedding, model.get_input_embeddings()), model.get_output_embeddings()
    if head is None:
        raise SurgeryError(f"{type(model).__name__}: looked for an output matrix; found none (a model without head)")
    around: dict[str, Any] = {name: module for name, module in model.named_modules() if name in _AROUND}
    return Backbone(
        config=config,
        decoder=decoder,
        path=path,
        layers=layers,
        embedding=embedding,
        final_norm=_child(decoder, layout.final_norm, owner=path),
        head=head,
        is_tied=head.weight is embedding.weight,
        vision_tower=next((around[name] for name in around if name.endswith(VISION_TOWER)), None),
        projector=next((around[name] for name in around if name.endswith(PROJECTOR)), None),
        num_heads=config.num_attention_heads,
        num_kv_heads=heads["k"],
        head_size=heads["size"],
        hidden_size=config.hidden_size,
        ffn_size=next((layer.num_neurons for layer in layers), 0) or config.intermediate_size,
    )


def knows_sites(model: "PreTrainedModel") -> bool:
    """Whether `backbone` finds the layers of a model, as selections of layers, surgeries and probes need."""
    try:
        backbone(model)
    except SurgeryError:
        return False
    return True


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
    of them and keeping the others bit-exact cannot be promised. Of an FFN without a gate, `gate` beside `up` names
    nothing more.
    """
    wanted = list(names)
    for name in wanted:
        if name not in MATRIX_NAMES:
            near = did_you_mean(name, MATRIX_NAMES)
            raise SurgeryError(f"site '{name}': unknown{near}; accepted: {', '.join(MATRIX_NAMES)}")
    chosen = list(layers)
    for layer in chosen:
        says_up = layer.is_ungated and "up" in wanted
        if gone := [name for name in wanted if name not in layer.sites and not (name == "gate" and says_up)]:
            reason = "its FFN has no gate" if gone[0] == "gate" and layer.is_ungated else "a surgery took it away"
            raise SurgeryError(f"site '{gone[0]}': layer {layer.index} has none, {reason}")
    sites = [layer.sites[name] for layer in chosen for name in MATRIX_NAMES if name in wanted and name in layer.sites]
    for site in sites:
        absent = [part for part in site.parts if part not in wanted]
        if absent:
            raise SurgeryError(
                f"site '{site.name}' of layer {site.layer_index}: {site.path} holds {', '.join(site.parts)} in one "
                f"{'module' if site.is_of_experts else 'matrix'}; name all of them (missing: {', '.join(absent)})"
            )
    return sites


def check_operable(model: "PreTrainedModel") -> None:
    """Raises `SurgeryError` for a model whose layers no surgery knows, though a selection may."""
    if not backbone(model).is_llama_like:
        raise SurgeryError(
            f"surgery: {type(model).__name__} has layers that none knows; surgeries are written for Llama, Mistral, "
            "Qwen2, Qwen3, Phi-3, Gemma 1 to 3 and models that name their layers as these do"
        )


def linear_paths(model: "PreTrainedModel") -> list[str]:
    """Dotted names of all linear layers but the output matrix: what LoRA adapts where no sites are known.

    A state-space mixer (Mamba) reads the weights of two of its own without calling them, so an update beside them would
    be passed by.
    """
    head, modules = model.get_output_embeddings(), dict(model.named_modules())
    paths = []
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        is_read = name in READ_BY_MIXERS and MIXER_CONVOLUTION in _names(modules[parent])
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not is_read:
            paths.append(path)
    return paths


def vision_parts(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """(vision tower, projector) of a vision-language model; nothing for a model of text."""
    around = {name.rpartition(".")[2]: module for name, module in model.named_modules() if name in _AROUND}
    if VISION_TOWER not in around or PROJECTOR not in around:
        return None
    return around[VISION_TOWER], around[PROJECTOR]


_AROUND = tuple(f"{prefix}{name}" for prefix in ("model.", "") for name in (VISION_TOWER, PROJECTOR))


def _decoder(model: nn.Module, layout: Layout) -> tuple[str, nn.Module]:
    modules = dict(model.named_modules())
    for path in layout.decoder:
        if path in modules and layout.layers in _names(modules[path]):
            return path, modules[path]
    examples = [name for name in modules if name][:3]
    raise SurgeryError(
        f"{type(model).__name__}: looked for a decoder with '{layout.layers}' at {', '.join(layout.decoder)}; "
        f"found {_listing(_names(model))}; examples: {', '.join(examples)}; {KNOWN}"
    )


def _layer(
    module: nn.Module, *, layout: Layout, index: int, path: str, heads: dict[str, int], is_parallel: bool
) -> Layer:
    attention = _child(module, layout.attention, owner=path)
    ffn = _child(module, layout.ffn, owner=path) if layout.ffn else module
    sites = _attention_sites(attention, layout, heads=heads, index=index, path=f"{path}.{layout.attention}")
    sites |= _ffn_sites(ffn, layout, index=index, path=f"{path}.{layout.ffn}" if layout.ffn else path)
    # A changed layer says itself where its norms are.
    names: dict[str, str] = getattr(module, "norm_attributes", layout.norms or _norm_names(module))
    norms = {role: _child(module, name, owner=path) for role, name in names.items()}
    head_norms = _head_norms(attention)
    norms |= {role: _child(attention, name, owner=path) for role, name in head_norms.items()}
    return Layer(
        index=index,
        path=path,
        module=module,
        attention=attention,
        ffn=ffn,
        sites=sites,
        norms=norms,
        norm_names={**names, **head_norms},
        is_parallel=is_parallel,
    )


def _norm_names(module: nn.Module) -> dict[str, str]:
    present = set(_names(module))
    if set(FOUR_NORMS.values()) <= present:
        return FOUR_NORMS
    is_behind = set(NORMS_BEHIND.values()) <= present and TWO_NORMS["attention_input"] not in present
    return NORMS_BEHIND if is_behind else TWO_NORMS


def _head_norms(attention: nn.Module) -> dict[str, str]:
    present = _names(attention)
    return {role: name for role, name in HEAD_NORMS.items() if name in present}


def _attention_sites(
    owner: nn.Module, layout: Layout, *, heads: dict[str, int], index: int, path: str
) -> dict[str, Site]:
    """Sites of q, k, v and o; raises `SurgeryError` for a fused matrix with other rows than those of q, k and v."""
    sites: dict[str, Site] = {}
    parts = ("q", "k", "v")
    if layout.fused_attention in _names(owner):
        fused, place = _child(owner, layout.fused_attention, owner=path), f"{path}.{layout.fused_attention}"
        size, sizes = heads["size"], [heads[part] * heads["size"] for part in parts]
        if _rows(fused) != sum(sizes):
            raise SurgeryError(f"{place}: {_rows(fused)} rows, expected {sum(sizes)}, those of q, k and v")
        for number, part in enumerate(parts):
            start = sum(sizes[:number])
            rows: slice | list[int] = slice(start, start + sizes[number])
            if layout.is_mixed_by_head:
                firsts = range(number * size, sum(sizes), len(parts) * size)
                rows = [first + row for first in firsts for row in range(size)]
            sites[part] = _site(part, fused, index=index, path=place, rows=rows, parts=parts)
    return sites | _single_sites(owner, layout.attention_matrices, known=sites, index=index, path=path)


def _ffn_sites(owner: nn.Module, layout: Layout, *, index: int, path: str) -> dict[str, Site]:
    present, sites = _names(owner), {}
    if EXPERTS in present and not getattr(owner, "absent_sites", ()):
        return _expert_sites(_child(owner, EXPERTS, owner=path), index=index, path=f"{path}.{EXPERTS}")
    if FUSED_FFN in present:
        fused, parts = _child(owner, FUSED_FFN, owner=path), ("gate", "up")
        half = _rows(fused) // len(parts)
        for number, part in enumerate(parts):
            rows = slice(number * half, (number + 1) * half)
            sites[part] = _site(part, fused, index=index, path=f"{path}.{FUSED_FFN}", rows=rows, parts=parts)
    return sites | _single_sites(owner, layout.ffn_matrices, known=sites, index=index, path=path)


def _expert_sites(experts: nn.Module, *, index: int, path: str) -> dict[str, Site]:
    """Sites of all routed experts together; raises `SurgeryError` for tensors laid out in another way."""
    shapes = {name: tuple(parameter.shape) for name, parameter in experts.named_parameters()}
    up, down = shapes.get(FUSED_FFN, ()), shapes.get(EXPERTS_DOWN, ())
    if set(shapes) != {FUSED_FFN, EXPERTS_DOWN} or up != (down[0], 2 * down[2], down[1]):
        raise SurgeryError(
            f"{path} ({type(experts).__name__}): looked for {FUSED_FFN} [experts, 2 x rows, inputs] and {EXPERTS_DOWN} "
            f"[experts, inputs, rows]; found {_listing(f'{name} {list(shape)}' for name, shape in shapes.items())}; "
            f"{KNOWN}"
        )
    rows = {"gate": slice(0, down[2]), "up": slice(down[2], up[1]), "down": slice(0, down[1])}
    return {
        name: Site(
            name=name,
            layer_index=index,
            path=path,
            module=experts,
            rows=rows[name],
            parts=FFN_SITES,
            rows_dim=1,
            parameter=EXPERTS_DOWN if name == "down" else FUSED_FFN,
        )
        for name in FFN_SITES
    }


def _single_sites(
    owner: nn.Module, names: dict[str, str], *, known: dict[str, Site], index: int, path: str
) -> dict[str, Site]:
    """The sites that are a matrix of their own, of those that a surgery left."""
    absent = getattr(owner, "absent_sites", ())
    sites = {}
    for name, child_name in names.items():
        if name not in known and name not in absent:
            child = _child(owner, child_name, owner=path)
            rows = slice(0, _rows(child))
            sites[name] = _site(name, child, index=index, path=f"{path}.{child_name}", rows=rows, parts=(name,))
    return sites


def _site(
    name: str, module: nn.Module, *, index: int, path: str, rows: slice | list[int], parts: tuple[str, ...]
) -> Site:
    base = dict(module.named_children()).get("base_layer", module)  # inside a LoRA layer
    dim = 1 if isinstance(base, Conv1D) else 0
    return Site(name=name, layer_index=index, path=path, module=module, rows=rows, parts=parts, rows_dim=dim)


def _heads(config: "PreTrainedConfig") -> dict[str, int]:
    """Heads of q, k, v and their size, in numbers; a config leaves out what follows from the rest."""
    values: dict[str, Any] = config.to_dict()
    own_names = {name: values.get(own) for name, own in config.attribute_map.items()}  # GPT-2 says `n_head`
    values = {**own_names, **values}
    num_heads = values.get("num_attention_heads")
    if not isinstance(num_heads, int):
        raise SurgeryError(f"{config.model_type}: looked for a number of attention heads; found {num_heads}; {KNOWN}")
    num_kv_heads = values.get("num_key_value_heads") or num_heads
    size = values.get("head_dim") or values["hidden_size"] // num_heads
    return {"q": num_heads, "k": num_kv_heads, "v": num_kv_heads, "size": size}


def _rows(linear: nn.Module) -> int:
    rows = linear.nf if isinstance(linear, Conv1D) else linear.out_features
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
            f"found {_listing(children)}; examples: {', '.join(inner) or 'none'}; {KNOWN}"
        )
    return children[name]


def _listing(names: Iterable[str]) -> str:
    ordered = list(names)
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "") or "nothing"


def parameters_of(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """All parameters of several modules."""
    for module in modules:
        yield from module.parameters()
