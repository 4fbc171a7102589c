"""Generation in 16 bit: a model whose matrices are multiplied in bfloat16 while all else of it stays float32.

The weights of the model are not touched. Inside `HalfWeights.applied` each `nn.Linear` (GPT-2: `Conv1D`) of the decoder
and its output matrix computes with a copy in bfloat16; rows come in and go out in the format that they had. So the
stream between layers, norms, rotary angles, scores, softmax and logits are those of a float32 model, whatever a surgery
put into it. Other parameters (embeddings, norms, the experts of a mixture) keep their format.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from athlos.errors import ModelError
from athlos.generation.config import NumberFormat
from athlos.generation.cpu.decoder_kernel import LANES, library, product
from athlos.models.sites import Backbone

FEW_ROWS = 32
"""Of more rows PyTorch's product is faster than the kernel's."""
SAMPLED = 64
"""Entries of a matrix that tell whether somebody wrote into it behind PyTorch's back."""


def half_units(device: torch.device) -> bool:
    """Whether a device has units for bfloat16; others compute in it slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def is_half(number_format: NumberFormat, device: torch.device) -> bool:
    """Whether weights and cache are bfloat16."""
    if number_format is NumberFormat.auto:
        return half_units(device)
    return number_format is NumberFormat.bfloat16


class HalfProduct:
    """What takes the place of a linear layer's forward pass."""

    def __init__(self, module: nn.Module) -> None:
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        self.bias = bias
        matrix_OI = weight.detach().T if isinstance(module, Conv1D) else weight.detach()
        self.weight_OI = matrix_OI.to(torch.bfloat16).contiguous()
        num_outputs, num_inputs = self.weight_OI.shape
        fits = num_outputs >= LANES and num_inputs % LANES == 0
        self.has_kernel = fits and weight.device.type == "cpu" and library() is not None

    def __call__(self, rows: Tensor) -> Tensor:
        num_rows = rows.numel() // rows.shape[-1]
        if self.has_kernel and num_rows <= FEW_ROWS and rows.dtype is torch.float32:
            output = product(rows.reshape(num_rows, -1), self.weight_OI).view(*rows.shape[:-1], -1)
        else:
            output = functional.linear(rows.to(torch.bfloat16), self.weight_OI).to(rows.dtype)
        return output if self.bias is None else output + self.bias


class HalfWeights:
    """The copies of a model's matrices, kept from call to call while these stay what they are."""

    def __init__(self) -> None:
        self._copies: WeakKeyDictionary[nn.Module, tuple[object, HalfProduct]] = WeakKeyDictionary()

    @contextmanager
    def applied(self, sites: Backbone) -> Iterator[None]:
        """Inside, the decoder multiplies in bfloat16, without gradients.

        Raises `ModelError` where it has no matrix that can.
        """
        modules = [module for module in (*sites.decoder.modules(), sites.head) if _can_be_half(module)]
        if not any(module is not sites.head for module in modules):
            raise ModelError(
                "engine.dtype: got bfloat16, but no matrix of this decoder is a plain linear layer with its whole "
                "weight on this device; use engine.dtype=float32"
            )
        before = {module: vars(module).get("forward") for module in modules}
        for module in modules:
            vars(module)["forward"] = self._product(module)
        try:
            yield
        finally:
            for module, forward in before.items():
                del module.forward
                if forward is not None:
                    vars(module)["forward"] = forward

    def _product(self, module: nn.Module) -> HalfProduct:
        weight = module.weight
        assert isinstance(weight, Tensor)
        kept = self._copies.get(module)
        stamp = _stamp(weight)
        if kept is None or kept[0] != stamp:
            kept = stamp, HalfProduct(module)
            self._copies[module] = kept
        return kept[1]


def _can_be_half(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, Conv1D) and type(module.weight) is nn.Parameter and module.weight.ndim == 2


def _stamp(weight: Tensor) -> object:
    """What is equal as long as a matrix holds the same numbers."""
    if weight.is_inference():  # PyTorch does not count what is written into it
        return object()
    sample = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)]
    return weight.data_ptr(), weight._version, float(sample.float().sum())
