"""Memory of a model in training and evaluation, from its shapes alone; and the model itself on the meta device.

Memory is a formula over what autograd keeps; a test holds it against measured saved tensors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from athlos.config.schema import Attention, Dtype, ModelConfig, RunConfig
from athlos.errors import ModelError
from athlos.models.architecture import build, hf_config
from athlos.models.flops import Reach, added_parts, gradient_reach, layer_windows, linears, reaches_head, trains
from athlos.models.loading import fetch_options, parse_source
from athlos.models.quiet import quiet_transformers
from athlos.models.sites import Backbone, Layer, backbone
from athlos.models.tokenizers import SMALLEST_BPE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOMENTS = 2
"""AdamW keeps two numbers in float32 for each trainable one, and a copy in float32 of one in 16 bits."""
FLOAT32_BYTES = 4
LOGIT_COPIES = 3
"""Logits, their log-probabilities and their gradient, in float32."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, by kind."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What autograd keeps of one micro batch, without logits."""
    logits: int
    kv_cache: int
    """Of an evaluation batch at full length; not there in training."""

    @property
    def training(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    @property
    def evaluation(self) -> int:
        return self.weights + self.kv_cache

    @property
    def peak(self) -> int:
        """Training and evaluation take turns, but weights, gradients and optimizer state stay."""
        return max(self.training, self.weights + self.gradients + self.optimizer + self.kv_cache)


@dataclass(frozen=True, kw_only=True)
class Formats:
    """Bytes a number, by role."""

    weight: int
    compute: int
    """Activations inside a layer."""
    stream: int
    """The residual stream as it is handed from layer to layer."""
    norm_output: int
    """A normalised stream before its gain."""


def formats(config: RunConfig) -> Formats:
    """Mixed precision keeps weights and stream as loaded and computes in 16 bits; `-true` casts everything."""
    precision = config.hardware.precision
    loaded = FLOAT32_BYTES if config.model.dtype is Dtype.float32 else 2
    if precision.endswith("-mixed"):
        return Formats(weight=loaded, compute=2, stream=loaded, norm_output=loaded)
    size = 2 if precision == "bf16-true" else loaded
    return Formats(weight=size, compute=size, stream=size, norm_output=size)


def meta_model(config: ModelConfig) -> "PreTrainedModel":
    """The model of a config on the meta device: shapes and names, no values, no memory.

    Goes by `model.architecture` where given, else by the config file of the source. A `bpe` vocabulary
    counts as full, one of `words` as `model.tokenizer.vocab_size`.
    """
    source = parse_source(config.source)
    if config.architecture:
        vocab_size = None
        if source.kind == "random":
            vocab_size = SMALLEST_BPE if config.tokenizer.kind == "byte" else config.tokenizer.vocab_size
        shape = hf_config(config.architecture, vocab_size=vocab_size)
    elif source.kind in ("dir", "hub"):
        shape = _published_config(config)
    else:
        raise ModelError(
            "model.architecture: empty; a dry run of this source needs the keys of its transformers config"
        )
    with quiet_transformers(), torch.device("meta"):
        model = build(shape, dtype=getattr(torch, config.dtype.value), attn_implementation=config.attention.value)
    return model.eval()


def _published_config(config: ModelConfig) -> Any:
    from transformers import AutoConfig

    source = parse_source(config.source)
    with quiet_transformers():
        try:
            return AutoConfig.from_pretrained(
                source.reference, trust_remote_code=False, **fetch_options(source.revision)
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"model.source: no config of {config.source} in reach; give model.architecture") from error


def memory_of(model: "PreTrainedModel", *, config: RunConfig, logit_tokens: int | None) -> Memory:
    sizes, found = formats(config), backbone(model)
    devices = config.hardware.devices * config.hardware.num_nodes
    shards = devices if config.hardware.strategy == "fsdp2" else 1
    # Plain DDP sends gradients in buckets, which are a second copy of them.
    gradient_copies = 2 if devices > 1 and shards == 1 else 1
    tokens = config.train.micro_batch_size * config.train.max_length
    every = list(model.parameters())
    trained = [parameter for parameter in every if parameter.requires_grad]
    is_cast = config.hardware.precision.endswith("-true")
    weights = sum(parameter.numel() * (sizes.weight if is_cast else parameter.element_size()) for parameter in every)
    gradients = sum(
        parameter.numel() * (sizes.weight if is_cast else parameter.element_size()) for parameter in trained
    )
    optimizer = sum(
        parameter.numel() * FLOAT32_BYTES * (MOMENTS + ((sizes.weight if is_cast else parameter.element_size()) == 2))
        for parameter in trained
    )
    if not is_cast:
        # Autocast keeps a 16-bit copy of each trainable float32 matrix for the step.
        weights += sum(parameter.numel() * sizes.compute for parameter in trained
                       if parameter.element_size() > sizes.compute)  # fmt: skip
    vocabulary = found.head.weight.shape[0]
    return Memory(
        weights=weights // shards,
        gradients=gradients * gradient_copies // shards,
        optimizer=optimizer // shards,
        activations=activation_bytes(
            found,
            num_rows=config.train.micro_batch_size,
            length=config.train.max_length,
            sizes=sizes,
            is_eager=config.model.attention is Attention.eager,
            is_checkpointed=config.model.activation_checkpointing,
        ),
        logits=min(tokens, logit_tokens or tokens) * vocabulary * FLOAT32_BYTES * LOGIT_COPIES,
        kv_cache=kv_cache_bytes(
            found,
            num_rows=config.eval.batch_size,
            length=config.train.max_length + config.decoding.max_new_tokens,
            number_bytes=sizes.compute,
        ),
    )  # fmt: skip


def kv_cache_bytes(found: Backbone, *, num_rows: int, length: int, number_bytes: int) -> int:
    """Keys and values of all layers; a sliding layer keeps its window only, a changed one says what it keeps."""
    plain = 2 * found.num_kv_heads * found.head_size
    numbers = sum(
        (length if window is None else min(window, length)) * getattr(layer.attention, "cache_numbers", plain)
        for layer, window in zip(found.layers, layer_windows(found), strict=True)
    )
    return num_rows * numbers * number_bytes


def activation_bytes(
    found: Backbone, *, num_rows: int, length: int, sizes: Formats, is_eager: bool, is_checkpointed: bool
) -> int:
    """What autograd keeps between forward and backward pass in the text decoder, logits left out.

    Nothing below the lowest trainable layer. With checkpointing: the input of each layer, and one layer in full while
    it is computed again.
    """
    reached = [
        _layer_bytes(layer, found, reach=reach, length=length, sizes=sizes, is_eager=is_eager)
        for layer, reach in zip(found.layers, gradient_reach(found), strict=True)
        if reach.end
    ]
    width = found.hidden_size
    if is_checkpointed and reached:
        reached = [*(width * sizes.stream for _ in reached), max(reached)]
    end = (width + 1) * FLOAT32_BYTES + width * sizes.norm_output * trains(found.final_norm)
    end += width * sizes.compute * trains(found.head)
    return num_rows * length * (sum(reached) + end * reaches_head(found))


def _layer_bytes(layer: Layer, found: Backbone, *, reach: Reach, length: int, sizes: Formats, is_eager: bool) -> int:
    """Bytes a token of one layer that the backward pass enters."""
    width, ffn = found.hidden_size, found.ffn_size
    queries, keys = found.num_heads * found.head_size, found.num_kv_heads * found.head_size
    has_own = {name: trains(site.module) for name, site in layer.sites.items()}
    numbers = width * any(has_own.get(name, False) for name in ("q", "k", "v"))  # their common input
    experts = getattr(layer.ffn, "kept_numbers", None)  # a changed FFN says itself what it keeps
    if experts is not None:
        numbers += experts() * reach.end
    else:
        numbers += width * (has_own["gate"] or has_own["up"])
        numbers += ffn * (has_own["down"] + reach.up + 2 * reach.gate)  # product; activation; its input and `up`
    numbers += queries * has_own["o"] * (not reach.scores)
    numbers += sum(linear.out_features for linear in _lora_inputs(layer))
    kept = _norm_bytes(layer, found, reach=reach, sizes=sizes)
    numbers += width * any(trains(linear) for linear in added_parts(layer))  # their common input
    changed = getattr(layer.attention, "kept_numbers", None)  # a changed attention says itself what it keeps
    if reach.scores and changed is not None:
        numbers += changed(length)
    elif reach.scores:
        numbers += 2 * queries + 2 * keys  # queries, keys, values, output
        kept += found.num_heads * (length if is_eager else 1) * FLOAT32_BYTES  # probabilities, or their denominator
        if is_eager:
            numbers += 2 * (queries - keys)  # keys and values repeated to the number of heads
            numbers += found.num_heads * length * (sizes.compute < FLOAT32_BYTES)  # the probabilities cast down
    return kept + numbers * sizes.compute


def _norm_bytes(layer: Layer, found: Backbone, *, reach: Reach, sizes: Formats) -> int:
    """The input in float32 and one scale a group where it has a gradient, and what the gain's gradient needs."""
    per_head = {"query": found.num_heads, "key": found.num_kv_heads, "value": found.num_kv_heads}
    has_gradient = {
        "embedding": reach.attention_input, "attention_merge": reach.attention_input,
        "attention_input": reach.attention_input, "query": reach.scores, "key": reach.scores, "value": reach.scores,
        "attention_output": reach.middle, "attention_sum": reach.middle, "ffn_merge": reach.middle,
        "ffn_input": reach.ffn_input, "ffn_output": reach.end, "ffn_sum": reach.end,
    }  # fmt: skip
    kept = 0
    for role, norm in layer.norms.items():
        groups = per_head.get(role, 1)
        size = groups * found.head_size if role in per_head else found.hidden_size
        kept += (size + groups) * FLOAT32_BYTES * has_gradient[role]
        kept += size * sizes.norm_output * trains(norm)
    return kept


def _lora_inputs(layer: Layer) -> set[Any]:
    """LoRA's first matrices, whose outputs are kept: trainable, inside a site, with fewer outputs than the site."""
    inner = {linear for site in layer.sites.values() for linear in linears(site.module) if linear is not site.module}
    return {linear for linear in inner if linear.weight.requires_grad and linear.out_features < linear.in_features}
