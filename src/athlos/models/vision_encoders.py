"""Picture encoders made of convolutions: EfficientNet-Lite0 and a tiny one for lab pictures.

B pictures, C channels, H height, W width of a map, K tokens, D width of a token.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPooling

from athlos.errors import ModelError

VISION_TYPE = "athlos_vision"
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01
"""Of the batch norms of EfficientNet; arXiv 1905.11946 and its published code."""
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""EfficientNet-B0: blocks, kernel, stride of the first, expansion, channels. Lite leaves squeeze-and-excite out, has
ReLU6 for swish, and keeps stem and head at 32 and 1280 channels."""
STEM, HEAD = 32, 1280


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: the output has ceil(input / stride) places, the odd pixel at the end."""

    def forward(self, map_BCHW: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(map_BCHW.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            pads += [missing // 2, missing - missing // 2]
        return functional.conv2d(
            functional.pad(map_BCHW, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def _normed(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
    return [SameConv(inputs, outputs, kernel, stride=stride, groups=groups, bias=False), norm]


class InvertedBottleneck(nn.Sequential):
    """Expand, convolve each channel by itself, project; with a shortcut where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        inner = inputs * expansion
        expand = [*_normed(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        depthwise = [*_normed(inner, inner, kernel=kernel, stride=stride, groups=inner), nn.ReLU6()]
        super().__init__(*expand, *depthwise, *_normed(inner, outputs))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, map_BCHW: Tensor) -> Tensor:
        changed: Tensor = super().forward(map_BCHW)  # type: ignore[no-untyped-call]  # torch gives it none
        return map_BCHW + changed if self.has_shortcut else changed


def efficientnet_lite0() -> nn.Sequential:
    """Pixels [B, 3, H, W] -> [B, 1280, H / 32, W / 32]; without the classifier, 3.4 M parameters.

    Source: arXiv 1905.11946 for the blocks, TensorFlow's `efficientnet/lite` for what Lite changes.
    """
    layers: list[nn.Module] = [nn.Sequential(*_normed(3, STEM, kernel=3, stride=2), nn.ReLU6())]
    inputs = STEM
    for blocks, kernel, stride, expansion, outputs in STAGES:
        for block in range(blocks):
            layers.append(
                InvertedBottleneck(inputs, outputs, kernel=kernel, stride=1 if block else stride, expansion=expansion)
            )
            inputs = outputs
    return nn.Sequential(*layers, nn.Sequential(*_normed(inputs, HEAD), nn.ReLU6()))


def tiny_cnn(width: int) -> nn.Sequential:
    """Pixels [B, 3, H, W] -> [B, width, H / 4, W / 4] by three convolutions. Without norms: nothing runs along."""
    half = width // 2
    return nn.Sequential(
        SameConv(3, half, 3),
        nn.GELU(),
        SameConv(half, width, 3, stride=2),
        nn.GELU(),
        SameConv(width, width, 3, stride=2),
        nn.GELU(),
    )


class AthlosVisionConfig(PreTrainedConfig):
    """Shape of a picture encoder made of convolutions."""

    model_type = VISION_TYPE

    encoder: str = "tiny_cnn"
    """`tiny_cnn` or `efficientnet_lite0`."""
    image_size: int = 32
    """Pixels a side; pictures are enlarged or shrunk to it."""
    num_tokens_a_side: int = 4
    """The map of features is averaged to a grid of this size, row by row one token a place."""
    hidden_size: int = 64
    """Channels of a token; 1280 in `efficientnet_lite0`."""


class AthlosVisionModel(PreTrainedModel):
    """A picture encoder as the vision tower of a transformers model: one token a place of the averaged map."""

    config_class = AthlosVisionConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vision"
    input_modalities = ("image",)  # type: ignore[assignment]  # as in the models of transformers
    _supports_sdpa = True  # it has no attention, so every kernel is right

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.encoder == "efficientnet_lite0":
            if config.hidden_size != HEAD:
                raise ModelError(f"vision_config.hidden_size: got {config.hidden_size}, efficientnet_lite0 has {HEAD}")
            self.body = efficientnet_lite0()
        elif config.encoder == "tiny_cnn":
            self.body = tiny_cnn(config.hidden_size)
        else:
            raise ModelError(f"vision_config.encoder: got '{config.encoder}', accepted: efficientnet_lite0, tiny_cnn")
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers calls this for loaded modules too, and relies on its own functions leaving loaded tensors alone;
        # `reset_parameters` would put running statistics back to those of a new module.
        if isinstance(module, nn.Conv2d):
            initialization.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            super()._init_weights(module)  # type: ignore[no-untyped-call]  # transformers gives it none

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """`last_hidden_state` [B, K, D] with K = num_tokens_a_side^2, the places row by row."""
        map_BCHW = functional.adaptive_avg_pool2d(self.body(pixel_values), self.config.num_tokens_a_side)
        tokens_BKD = map_BCHW.flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens_BKD, pooler_output=tokens_BKD.mean(1), hidden_states=(tokens_BKD,)
        )

    def picture_flops(self) -> int:
        """Floating-point operations of the convolutions on one picture, two for each product and sum."""
        counted = []

        def count(module: nn.Conv2d, _: Any, output: Tensor) -> None:
            counted.append(2 * module.weight.numel() * output.shape[2] * output.shape[3])

        with torch.device("meta"):
            body = type(self)(self.config).body.eval()
            for module in body.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(count)
            body(torch.zeros(1, 3, self.config.image_size, self.config.image_size))
        return sum(counted)


AutoConfig.register(VISION_TYPE, AthlosVisionConfig)
AutoModel.register(AthlosVisionConfig, AthlosVisionModel)


def lite0_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published file under the names of `AthlosVisionModel`; the classifier is left out.

    Both list the same layers in the same order, so they are matched by place and checked by shape.
    Raises `ModelError` when they differ.
    """
    tensors = [(name, tensor) for name, tensor in published.items() if not name.startswith("_fc.")]
    with torch.device("meta"):
        body = efficientnet_lite0()
    own = [(name, tensor) for name, tensor in body.state_dict().items() if not name.endswith("num_batches_tracked")]
    tensors = [(name, tensor) for name, tensor in tensors if not name.endswith("num_batches_tracked")]
    if [tensor.shape for _, tensor in own] != [tensor.shape for _, tensor in tensors]:
        raise ModelError(f"efficientnet_lite0: {len(own)} tensors expected, {len(tensors)} of other shapes found")
    state = {f"body.{name}": tensor.float() for (name, _), (_, tensor) in zip(own, tensors, strict=True)}
    steps = {f"body.{name}": torch.tensor(0) for name in body.state_dict() if name.endswith("num_batches_tracked")}
    return {**state, **steps}
