"""Memory of a model in training and evaluation, from its shapes alone; and the model itself on the meta device.

What autograd keeps is counted in a forward pass of tensors without values: no formula knows what a layer is made of.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from athlos.config.schema import ModelConfig, RunConfig
from athlos.errors import ModelError
from athlos.models.architecture import build, hf_config
from athlos.models.flops import layer_windows
from athlos.models.loading import fetch_options
from athlos.models.quiet import quiet_transformers
from athlos.models.sites import Backbone, backbone
from athlos.models.source import parse_source
from athlos.models.tokenizers import SMALLEST_BPE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOMENTS = 2
"""AdamW keeps two numbers in float32 for each trainable one, and a copy in float32 of one in 16 bits."""
FLOAT32_BYTES = 4
LOGIT_COPIES = 3
"""Logits, their log-probabilities and their gradient, in float32."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
CAST = {"bf16-true": torch.bfloat16}
"""Precisions that compute in another format than that of the weights, and those that turn the weights into it."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, by kind."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What autograd keeps of one micro batch, without logits; with the 16-bit copies that autocast makes of weights."""
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
    model.eval()
    return model


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
    sites, precision = backbone(model), config.hardware.precision
    devices = config.hardware.devices * config.hardware.num_nodes
    shards = devices if config.hardware.strategy == "fsdp2" else 1
    # Plain DDP sends gradients in buckets, which are a second copy of them.
    gradient_copies = 2 if devices > 1 and shards == 1 else 1
    num_rows = config.train.micro_batch_size * config.rows_an_item
    tokens = num_rows * config.train.max_length
    every = [
        (parameter.numel(), CAST.get(precision, parameter.dtype).itemsize, parameter.requires_grad)
        for parameter in model.parameters()
    ]
    trained = [(count, size) for count, size, is_trained in every if is_trained]
    gradients = sum(count * size for count, size in trained)
    optimizer = sum(count * FLOAT32_BYTES * (MOMENTS + (size < FLOAT32_BYTES)) for count, size in trained)
    vocabulary = sites.head.weight.shape[0]
    return Memory(
        weights=sum(count * size for count, size, _ in every) // shards,
        gradients=gradients * gradient_copies // shards,
        optimizer=optimizer // shards,
        activations=activation_bytes(
            sites,
            num_rows=num_rows,
            length=config.train.max_length,
            precision=precision,
            is_checkpointed=config.model.activation_checkpointing,
        ),
        logits=min(tokens, logit_tokens or tokens) * vocabulary * FLOAT32_BYTES * LOGIT_COPIES,
        kv_cache=kv_cache_bytes(
            sites,
            num_rows=config.eval.batch_size,
            length=config.train.max_length + config.decoding.max_new_tokens,
            number_bytes=(AUTOCAST | CAST).get(precision, sites.head.weight.dtype).itemsize,
        ),
    )


def kv_cache_bytes(sites: Backbone, *, num_rows: int, length: int, number_bytes: int) -> int:
    """Keys and values of all layers; a sliding layer keeps its window only, a changed one says what it keeps."""
    plain = 2 * sites.num_kv_heads * sites.head_size
    numbers = sum(
        (length if window is None else min(window, length)) * getattr(layer.attention, "cache_numbers", plain)
        for layer, window in zip(sites.layers, layer_windows(sites), strict=True)
    )
    return num_rows * numbers * number_bytes


def activation_bytes(
    sites: Backbone, *, num_rows: int, length: int, precision: str = "32-true", is_checkpointed: bool = False
) -> int:
    """What autograd keeps between forward and backward pass of full rows in the text decoder, logits left out.

    Each storage counts once; parameters and the words themselves do not count. With checkpointing: the input of each
    layer, and the layer that keeps most in full while it is computed again; what layers hand on beside the stream
    (LISA's scores) is then left out. The words are real tensors, because transformers looks at their values.
    """
    tensors, head_tensors = (_without_values(module, precision=precision) for module in (sites.decoder, sites.head))
    words = {
        "input_ids": torch.zeros(num_rows, length, dtype=torch.long),
        "position_ids": torch.arange(length).expand(num_rows, length),
    }
    known = (*tensors.values(), *head_tensors.values(), *words.values())
    seen = {id(storage): storage for storage in map(Tensor.untyped_storage, known)}
    kept: Counter[nn.Module | None] = Counter()
    entered: list[nn.Module] = []
    inputs: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in seen:
            seen[id(storage)] = storage  # held, so that no other storage gets its id
            kept[entered[-1] if entered else None] += storage.nbytes()
        return tensor

    def enter(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        entered.append(module)
        inputs.append(arguments[0].untyped_storage().nbytes())

    hooks = [layer.module.register_forward_pre_hook(enter) for layer in sites.layers]
    hooks += [layer.module.register_forward_hook(lambda *_: entered.clear()) for layer in sites.layers]
    was_training = sites.decoder.training
    mixed = torch.autocast("cpu", AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)
    with quiet_transformers(), saved_tensors_hooks(keep, lambda tensor: tensor), mixed:
        output = functional_call(sites.decoder.train(), tensors, (), {**words, "use_cache": False})
        functional_call(sites.head, head_tensors, output.last_hidden_state)
    sites.decoder.train(was_training)
    for hook in hooks:
        hook.remove()
    if not is_checkpointed:
        return kept.total()
    return kept[None] + sum(inputs) + max(kept[layer.module] for layer in sites.layers)


def _without_values(module: nn.Module, *, precision: str) -> dict[str, Tensor]:
    """Parameters and buffers as fake tensors in the format that they have in training.

    A fake tensor has no values but says that it is on the CPU, whose kernels keep what those of a GPU keep. On the meta
    device autocast does not work, and attention keeps the weights of all pairs.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        return {
            name: torch.empty_like(
                tensor,
                device="cpu",
                requires_grad=tensor.requires_grad,
                dtype=CAST.get(precision, tensor.dtype) if tensor.is_floating_point() else tensor.dtype,
            )
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
