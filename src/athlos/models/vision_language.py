"""Pictures for vision-language models in LLaVA form: tower -> projector -> places of the image token in the decoder.

Hugging Face checkpoints and models composed here go through the same functions. A batch carries `picture_features`
(what the tower said, computed once) or `pixel_values` (the tower runs), one picture a row.

B rows, T positions, N pictures, K image tokens a picture, V width of the tower, D width of the decoder.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.errors import ModelError
from athlos.models.sites import vision_parts
from athlos.models.vision_encoders import VISION_TYPE
from athlos.stages import Stage, StageStore, content_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FEATURES, PIXELS = "picture_features", "pixel_values"
"""Keys of a batch: float [B, K, V], or float [B, 3, height, width]."""
FEATURES_VERSION = 1
"""Raised when the same tower and pictures give other features."""
CHUNK = 32
"""Pictures encoded at a time."""
MEAN_AND_DEVIATION = {
    "clip_vision_model": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip_vision_model": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    VISION_TYPE: ((127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)),
}
"""By type of tower, of channels in [0, 1]; EfficientNet-Lite's published code has (pixel - 127) / 128."""


def is_vision_language(model: "PreTrainedModel") -> bool:
    return vision_parts(model) is not None


def num_image_tokens(model: "PreTrainedModel") -> int:
    """Places of the image token that one picture fills."""
    return int(model.config.image_seq_length)


def check_image_token(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises `ModelError` unless the tokenizer writes the image token as the one id that the model replaces."""
    wanted = int(model.config.image_token_index)
    tokens = tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False)
    if tokens != [wanted]:
        raise ModelError(
            f"model.architecture.image_token_index: got {wanted}, but the tokenizer writes {IMAGE_TOKEN} as {tokens}"
        )


def keep_tower_still(model: "PreTrainedModel") -> None:
    """Put the tower into eval mode before each of its forward passes: dropout is off, running statistics stay.

    A trainer puts the whole model into training mode; batch norms would then move although no weight trains.
    """
    tower, _ = _parts(model)
    tower.register_forward_pre_hook(lambda module, _: module.eval() and None)


def normalized_pixels(pictures: Sequence[np.ndarray], model: "PreTrainedModel") -> Tensor:
    """uint8 pictures [height, width, 3] of any size -> float [N, 3, side, side] as the tower wants them.

    A picture that is no square is padded with the mean colour, as LLaVA-1.5 does, then resized (bicubic).
    """
    config = model.config.vision_config
    if config.model_type not in MEAN_AND_DEVIATION:
        accepted = ", ".join(MEAN_AND_DEVIATION)
        raise ModelError(f"vision_config.model_type: got '{config.model_type}', pictures can be made for {accepted}")
    mean, deviation = (torch.tensor(values)[:, None, None] for values in MEAN_AND_DEVIATION[config.model_type])
    side = int(config.image_size)
    squares = []
    for picture in pictures:
        channels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
        square = _squared((channels - mean) / deviation)[None]
        if square.shape[-1] != side:
            shrinks = square.shape[-1] > side
            square = functional.interpolate(
                square, size=(side, side), mode="bicubic", align_corners=False, antialias=shrinks
            )
        squares.append(square)
    return torch.cat(squares)


def _squared(channels_CHW: Tensor) -> Tensor:
    """Zeros, the mean colour, around the shorter side."""
    height, width = channels_CHW.shape[1:]
    missing = max(height, width)
    down, right = missing - height, missing - width
    return functional.pad(channels_CHW, [right // 2, right - right // 2, down // 2, down - down // 2])


def tower_features(model: "PreTrainedModel", pixel_values: Tensor) -> Tensor:
    """What the projector is given, [N, K, V]: the layers and places that the model's config selects."""
    tower, _ = _parts(model)
    config = model.config
    hidden = tower(pixel_values=pixel_values, output_hidden_states=True, return_dict=True).hidden_states
    layers = config.vision_feature_layer
    chosen = [hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    if config.vision_feature_select_strategy == "default":
        chosen = [states[:, 1:] for states in chosen]  # without the class token
    features_NKV = torch.cat(chosen, dim=-1)
    if features_NKV.shape[1] != num_image_tokens(model):
        raise ModelError(
            f"model.architecture.image_seq_length: got {num_image_tokens(model)}, "
            f"but the vision tower gives {features_NKV.shape[1]} tokens a picture"
        )
    return features_NKV


@torch.no_grad()
def encode_pictures(model: "PreTrainedModel", pictures: Sequence[np.ndarray]) -> Tensor:
    """Features [N, K, V] of pictures, float32 on the CPU.

    Mixed precision is left out: features that training caches and those of an evaluation must be the same numbers.
    """
    tower, _ = _parts(model)
    device = next(tower.parameters()).device
    with torch.autocast(device.type, enabled=False):
        chunks = [
            tower_features(model, normalized_pixels(pictures[start : start + CHUNK], model).to(device)).float().cpu()
            for start in range(0, len(pictures), CHUNK)
        ]
    return torch.cat(chunks)


def tower_fingerprint(model: "PreTrainedModel") -> str:
    """Hash of the tower's weights, running statistics and config."""
    tower, _ = _parts(model)
    digest = hashlib.sha256(
        content_hash(
            {
                "vision": model.config.vision_config.to_dict(),
                "layer": model.config.vision_feature_layer,
                "strategy": model.config.vision_feature_select_strategy,
            }
        ).encode()
    )
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def cached_features(model: "PreTrainedModel", pictures: np.ndarray, *, stages: StageStore) -> np.ndarray:
    """Features of pictures [N, height, width, 3] as a memory-mapped stage product, float32 [N, K, V]."""

    def build(folder: Path) -> None:
        np.save(folder / "features.npy", encode_pictures(model, list(pictures)).numpy(), allow_pickle=False)

    stage = Stage(
        name="picture_features",
        version=FEATURES_VERSION,
        build=build,
        inputs={
            "tower": tower_fingerprint(model),
            "pictures": hashlib.sha256(pictures.tobytes() + str(pictures.shape).encode()).hexdigest(),
        },
    )
    features: np.ndarray = np.load(stages.get(stage).path / "features.npy", mmap_mode="r", allow_pickle=False)
    return features


class PictureInputs:
    """Pictures as batches carry them: features of a still tower, encoded once, or pixels for a tower that trains."""

    def __init__(self, model: "PreTrainedModel", *, stages: StageStore, is_cached: bool) -> None:
        self._model, self._stages, self._is_cached = model, stages, is_cached
        self.num_tokens = num_image_tokens(model)
        self.key = FEATURES if is_cached else PIXELS

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, height, width, 3] -> float32 [N, K, V], or [N, 3, side, side]."""
        if self._is_cached:
            return cached_features(self._model, pixels, stages=self._stages)
        values: np.ndarray = normalized_pixels(list(pixels), self._model).numpy()
        return values


def tower_trains(model: "PreTrainedModel") -> bool:
    tower, _ = _parts(model)
    return any(parameter.requires_grad for parameter in tower.parameters())


def has_pictures(batch: Mapping[str, Any]) -> bool:
    return FEATURES in batch or PIXELS in batch


def decoder_inputs(model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Tensor:
    """Embeddings [B, T, D] of a batch with pictures: projected features at the places of the image token.

    Raises `ModelError` when a row has another number of places than its picture has tokens.
    """
    _, projector = _parts(model)
    is_image_BT = batch["input_ids"] == int(model.config.image_token_index)
    features_BKV = batch[FEATURES] if FEATURES in batch else tower_features(model, batch[PIXELS])
    places = is_image_BT.sum(1)
    if not bool((places == features_BKV.shape[1]).all()):
        raise ModelError(f"pictures: {features_BKV.shape[1]} image tokens wanted in each row, found {places.tolist()}")
    embeddings_BTD: Tensor = model.get_input_embeddings()(batch["input_ids"])
    pictures_BKD = projector(features_BKV).to(embeddings_BTD.dtype)
    return embeddings_BTD.masked_scatter(is_image_BT[..., None], pictures_BKD)


def _parts(model: "PreTrainedModel") -> tuple[Any, Any]:
    parts = vision_parts(model)
    if parts is None:
        raise ModelError(f"pictures need a vision-language model; {type(model).__name__} has no vision tower")
    return parts
