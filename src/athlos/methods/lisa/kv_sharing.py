"""The surgeries `cla`, `lckv` and `yoco`: layers that read the keys and values of another layer and keep none.

A plan names for each layer the layer whose keys and values it reads, with `s` behind it for a sliding window: the
notation of LCKV. "0_0_2_2" is cross-layer attention in pairs, "0s_1s_2_2" YOCO, "0_2_2_3" LCKV, where layer 1 reads
what layer 2 above it made.

Keys and values travel from layer to layer in a `LayerKeys` of one forward pass, as LISA's scores do. A layer that reads
from above sees earlier tokens only, and a token that sees none gets zeros. Several tokens at once then need several
passes: each pass reads what the one before made of the layer above. T passes give T tokens exactly.

B batch, T new tokens, P cached tokens, N = P + T, H query heads, G key-value heads, d head size.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.generation.kv_cache import KVLayer
from athlos.methods.lisa.attention import alone, grouped_scores, mixed_values, probabilities, refuse_unusual_scores
from athlos.methods.lisa.cache_cost import cache_metrics
from athlos.methods.lisa.config import ClaConfig, LckvConfig, YocoConfig
from athlos.methods.lisa.score_parts import rotated
from athlos.methods.lisa.similarity import with_parameters_of
from athlos.models.sites import ATTENTION_MATRICES, ATTENTION_MODULE, HEAD_NORMS, Backbone, Layer, backbone
from athlos.models.surgical import record_surgery
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KERNEL = "athlos_keys"
"""Name of the attention function that hands keys and values on and narrows the mask to a window."""
ARGUMENT = "layer_keys"
"""Keyword under which decoder layers get the keys and values of this forward pass."""
SUPPORTED = ("eager", "sdpa")

KeysValues = tuple[Tensor, Tensor]


@dataclass(kw_only=True)
class LayerKeys:
    """Keys and values [B, G, N, d] by layer index, of one forward pass."""

    kernel: str
    """The model's attention function."""
    by_layer: dict[int, KeysValues] = field(default_factory=dict)
    """Of this pass, cached columns among them."""
    before: dict[int, KeysValues] = field(default_factory=dict)
    """Of the pass before: the T new columns [B, G, T, d]. Empty in the first pass."""


def narrowed(mask: Tensor | None, *, rows: int, columns: int, window: int | None, is_strict: bool, like: Tensor) -> Any:
    """The mask less what a window or the rule 'earlier tokens only' hides: boolean or additive [.., T, N].

    The last `rows` of the columns are new.
    """
    row_T1 = torch.arange(columns - rows, columns, device=like.device)[:, None]
    column_N = torch.arange(columns, device=like.device)
    sees = column_N < row_T1 if is_strict else column_N <= row_T1
    if window is not None:
        sees = sees & (column_N > row_T1 - window)
    if mask is None:
        return sees[None, None]
    mask = mask[..., :columns]
    if mask.dtype is torch.bool:
        return mask & sees
    return mask.masked_fill(~sees, torch.finfo(mask.dtype).min)


def windowed(
    kernel: str, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Tensor:
    """[B, T, H, d] by the model's attention function, within the module's window; eager attention has none here."""
    rows, columns, window = query.shape[2], key.shape[2], module.key_window
    if window is not None and columns > window:
        mask = narrowed(mask, rows=rows, columns=columns, window=window, is_strict=False, like=query)
    if kernel == "sdpa":
        output: Tensor = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **options)[0]
        return output
    weights = probabilities(grouped_scores(query, key, scaling=options["scaling"]), mask)
    return mixed_values(nn.functional.dropout(weights, options["dropout"], training=module.training), value)


def keys_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """The attention function of a layer whose keys others read, or that has a window."""
    layer_keys: LayerKeys = arguments[ARGUMENT]
    layer_keys.by_layer[module.layer_idx] = (key, value)
    options = {"scaling": scaling, "dropout": dropout}
    return windowed(layer_keys.kernel, module, query, key, value, attention_mask, **options), None


AttentionInterface.register(KERNEL, keys_attention)


class KeylessAttention(nn.Module):
    """Attention with queries and output of its own and the keys and values of another layer. Caches nothing."""

    absent_sites = ("k", "v")
    takes_one_column = True
    cache_numbers = 0
    is_causal = True

    def __init__(self, layer: Layer, sites: Backbone, *, owner: int, window: int | None) -> None:
        super().__init__()
        old: Any = layer.attention
        self.layer_idx, self.owner, self.key_window = layer.index, owner, window
        self.num_heads, self.head_size = sites.num_heads, sites.head_size
        self.num_key_value_groups = sites.num_heads // sites.num_kv_heads
        self.scaling, self.dropout = old.scaling, old.attention_dropout
        setattr(self, ATTENTION_MATRICES["q"], alone(layer.sites["q"]))
        setattr(self, ATTENTION_MATRICES["o"], layer.sites["o"].module)
        self.has_norm = "query" in layer.norms
        if self.has_norm:
            setattr(self, HEAD_NORMS["query"], layer.norms["query"])
        self.train(old.training)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **arguments: Any,
    ) -> tuple[Tensor, None]:
        layer_keys: LayerKeys = arguments[ARGUMENT]
        batch, rows, _ = hidden_states.shape
        query = getattr(self, ATTENTION_MATRICES["q"])(hidden_states).view(batch, rows, self.num_heads, self.head_size)
        if self.has_norm:
            query = getattr(self, HEAD_NORMS["query"])(query)
        cos, sin = (table[:, :, None, : self.head_size // 2] for table in position_embeddings)
        query = rotated(query, cos, sin).transpose(1, 2)
        options = {"scaling": self.scaling, "dropout": self.dropout if self.training else 0.0}
        if self.owner < self.layer_idx:
            key, value = layer_keys.by_layer[self.owner]
            mixed = windowed(layer_keys.kernel, self, query, key, value, attention_mask, **options)
        else:
            mixed = self._from_above(query, attention_mask, layer_keys, past_key_values, options)
        return getattr(self, ATTENTION_MATRICES["o"])(mixed.reshape(batch, rows, -1)), None

    def _from_above(
        self, query: Tensor, mask: Tensor | None, layer_keys: LayerKeys, cache: Any, options: dict[str, float]
    ) -> Tensor:
        """Attention to earlier tokens only: cached ones, and new ones as the pass before made them. [B, T, H, d]."""
        batch, heads, rows, size = query.shape
        past, made = cached(cache, self.owner), layer_keys.before.get(self.owner)
        parts = [part for part in (past, made) if part]
        if not parts:
            return query.new_zeros(batch, rows, heads, size)
        key, value = (torch.cat([part[which] for part in parts], dim=2) for which in (0, 1)) if made else parts[0]
        columns = rows + (past[0].shape[2] if past else 0)
        mask = narrowed(mask, rows=rows, columns=columns, window=None, is_strict=True, like=query)
        mask = mask[..., : key.shape[2]]  # in the first pass no new column is there yet
        sees_one = mask if mask.dtype is torch.bool else mask > torch.finfo(mask.dtype).min
        weights = probabilities(grouped_scores(query, key, scaling=options["scaling"]), mask)
        weights = weights * sees_one.any(-1, keepdim=True)
        return mixed_values(nn.functional.dropout(weights, options["dropout"], training=self.training), value)


def cached(cache: Any, index: int) -> KeysValues | None:
    """Keys and values of the columns that a layer has in a cache."""
    if cache is None or not cache.layers[index].is_initialized:
        return None
    layer = cache.layers[index]
    if isinstance(layer, KVLayer):
        span = slice(layer.first_visible(cache.length), cache.length)
        return (layer.keys[:, :, span], layer.values[:, :, span]) if cache.length else None
    return (layer.keys, layer.values) if layer.keys.numel() else None


def carry_keys(decoder: nn.Module, *, owners_above: list[int], passes: int, gradient_passes: int) -> None:
    """Give each forward pass of a decoder its `LayerKeys`, and run the passes before the last where layers read up."""

    def before(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kernel = module.config._attn_implementation
        if kernel not in SUPPORTED:
            raise SurgeryError(f"attention '{kernel}': layers that share keys compute with {' or '.join(SUPPORTED)}")
        made: dict[int, KeysValues] = {}
        if owners_above:
            ids = keywords.get("input_ids", arguments[0] if arguments else None)
            rows = (keywords["inputs_embeds"] if ids is None else ids).shape[1]
            earlier = min(passes, rows) - 1
            for number in range(earlier):
                layer_keys = LayerKeys(kernel=kernel, before=made)
                cache = _scratch(keywords.get("past_key_values"))
                options = {**keywords, "past_key_values": cache, ARGUMENT: layer_keys}
                if cache is None:
                    options["use_cache"] = False
                has_gradient = torch.is_grad_enabled() and number >= earlier - (gradient_passes - 1)
                with torch.set_grad_enabled(has_gradient):
                    module.forward(*arguments, **options)
                keys_of_owner = {owner: layer_keys.by_layer[owner] for owner in owners_above}
                made = {
                    owner: (key[:, :, -rows:], value[:, :, -rows:]) for owner, (key, value) in keys_of_owner.items()
                }
        return arguments, {**keywords, ARGUMENT: LayerKeys(kernel=kernel, before=made)}

    vars(before)["gives_layer_arguments"] = not owners_above  # else it runs the decoder: see `LlamaStep`
    decoder.register_forward_pre_hook(before, with_kwargs=True)


def _scratch(cache: Any) -> Any:
    """A cache that a pass may write into and that leaves the columns of the true one as they are."""
    if cache is None:
        return None
    scratch = copy.copy(cache)
    scratch.layers = [copy.copy(layer) for layer in cache.layers]
    return scratch


class _Sharing(ABC):
    """What the three surgeries do with a plan."""

    name: str

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        sites = backbone(model)
        plan = {"window": None, "passes": 1, "gradient_passes": 1, **self.plan(len(sites.layers))}
        _check(sites, plan["plan"])
        changed = with_parameters_of(model)
        _share(changed, plan)
        record_surgery(changed, name=self.name, plan=plan)
        summary = f"keys and values shared: {plan['plan']}"
        return changed, PartReport(summary=summary, metrics=cache_metrics(changed, base=model))

    @abstractmethod
    def plan(self, num_layers: int) -> dict[str, Any]:
        """The plan, and what differs from one pass without a window."""

    @staticmethod
    def rebuild(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
        """Change a fresh model alike; its weights are loaded afterwards."""
        _share(model, plan)


class ClaSurgery(_Sharing):
    """Cross-layer attention: each group of layers has the keys and values of its first."""

    name = "cla"

    def __init__(self, config: ClaConfig) -> None:
        self.config = config

    def plan(self, num_layers: int) -> dict[str, Any]:
        group = self.config.group
        return {"plan": "_".join(str(index // group * group) for index in range(num_layers))}


class LckvSurgery(_Sharing):
    """Layer-condensed cache: all but the outer layers read the keys and values of the last layer but one."""

    name = "lckv"

    def __init__(self, config: LckvConfig) -> None:
        self.config = config

    def plan(self, num_layers: int) -> dict[str, Any]:
        if num_layers < 3:
            raise SurgeryError(f"surgery=lckv: needs at least 3 layers, the decoder has {num_layers}")
        owners = [0, *[num_layers - 2] * (num_layers - 2), num_layers - 1]
        passes = {"passes": self.config.passes, "gradient_passes": self.config.gradient_passes}
        return {"plan": "_".join(map(str, owners)), **passes}


class YocoSurgery(_Sharing):
    """You only cache once: a sliding window below, one set of keys and values for the whole upper half."""

    name = "yoco"

    def __init__(self, config: YocoConfig) -> None:
        self.config = config

    def plan(self, num_layers: int) -> dict[str, Any]:
        middle = num_layers // 2
        words = [*(f"{index}s" for index in range(middle)), *[str(middle)] * (num_layers - middle)]
        return {"plan": "_".join(words), "window": self.config.window}


def parsed(plan: str) -> list[tuple[int, bool]]:
    """(layer that is read, has a window) of each layer."""
    return [(int(word.rstrip("s")), word.endswith("s")) for word in plan.split("_")]


def _check(sites: Backbone, plan: str) -> None:
    refuse_unusual_scores(sites)
    types = sites.config.to_dict().get("layer_types") or ["full_attention"] * len(sites.layers)
    for index, (owner, _) in enumerate(parsed(plan)):
        if any(name not in sites.layers[index].sites for name in "qkv"):
            raise SurgeryError(f"layer {index}: another surgery took its queries, keys or values away")
        if types[index] != types[owner]:
            raise SurgeryError(
                f"layer {index}: {types[index]} would read layer {owner}, {types[owner]}; both must see the same keys"
            )
        if types[index] == "sliding_attention" and owner > index:
            raise SurgeryError(f"layer {index}: a layer with a sliding window cannot read layer {owner} above it")


def _share(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
    sites = backbone(model)
    words = parsed(plan["plan"])
    read = {owner for index, (owner, _) in enumerate(words) if index != owner}
    for layer, (owner, has_window) in zip(sites.layers, words, strict=True):
        window = plan["window"] if has_window else None
        if layer.index != owner:
            setattr(layer.module, ATTENTION_MODULE, KeylessAttention(layer, sites, owner=owner, window=window))
        elif layer.index in read or window is not None:
            _hand_on(layer.attention, window=window)
    above = sorted({owner for index, (owner, _) in enumerate(words) if owner > index})
    carry_keys(sites.decoder, owners_above=above, passes=plan["passes"], gradient_passes=plan["gradient_passes"])


def _hand_on(attention: Any, *, window: int | None) -> None:
    """Let one attention module hand its keys on: a config of its own names the kernel; the decoder's mask stays."""
    config = copy.copy(attention.config)
    config._attn_implementation_internal = KERNEL
    attention.config, attention.key_window, attention.takes_one_column = config, window, True
