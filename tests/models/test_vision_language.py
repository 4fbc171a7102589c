"""Pictures in vision-language models: against transformers' own forward pass, published weights, and by properties."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.tolerances import FLOAT32
from transformers import AutoModelForImageTextToText

from athlos.errors import ModelError
from athlos.models.architecture import build, hf_config
from athlos.models.forward import hidden_states
from athlos.models.sites import backbone, vision_parts
from athlos.models.vision_encoders import SameConv, efficientnet_lite0, lite0_state
from athlos.models.vision_language import (
    FEATURES,
    PIXELS,
    cached_features,
    check_image_token,
    encode_pictures,
    keep_tower_still,
    normalized_pixels,
    tower_features,
    tower_fingerprint,
)
from athlos.stages import StageStore

IMAGE = 39
TEXT = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
CLIP = {
    "model_type": "llava",
    "text_config": TEXT,
    "image_token_index": IMAGE,
    "image_seq_length": 4,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    },
}
TINY = {
    "model_type": "llava",
    "text_config": TEXT,
    "image_token_index": IMAGE,
    "image_seq_length": 4,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "vision_config": {
        "model_type": "athlos_vision",
        "encoder": "tiny_cnn",
        "image_size": 16,
        "num_tokens_a_side": 2,
        "hidden_size": 16,
    },
}
SHAPES = {"clip": CLIP, "tiny": TINY}


def model_of(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build(hf_config(SHAPES[name])).eval()


def batch_of(*, num_image_tokens: int = 4) -> dict[str, torch.Tensor]:
    """Two rows with a picture each; the second is padded on the right."""
    second = [1, 2, *[IMAGE] * num_image_tokens, 3] + [0] * (6 - num_image_tokens)
    ids = torch.tensor([[1, *[IMAGE] * 4, 5, 6, 7, 8], second])
    mask = (ids != 0).long()
    return {"input_ids": ids, "attention_mask": mask, "position_ids": torch.arange(9).expand(2, -1)}


def pictures(number: int, *, height: int = 16, width: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8) for _ in range(number)]


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_numbers_as_the_forward_pass_of_transformers(name: str):
    model, batch = model_of(name), batch_of()
    pixels = normalized_pixels(pictures(2), model)
    with torch.no_grad():
        theirs = model(pixel_values=pixels, output_hidden_states=True, **batch).hidden_states[-1]
        by_pixels = hidden_states(model, {**batch, PIXELS: pixels})
        by_features = hidden_states(model, {**batch, FEATURES: encode_pictures(model, pictures(2))})
    torch.testing.assert_close(by_pixels, theirs, rtol=0, atol=FLOAT32)
    torch.testing.assert_close(by_features, theirs, rtol=0, atol=FLOAT32)


def test_text_without_pictures_is_the_language_model_itself():
    model = model_of("tiny")
    batch = {key: value[:, 5:] for key, value in batch_of().items()}
    with torch.no_grad():
        ours = hidden_states(model, batch)
        alone = backbone(model).decoder(**batch).last_hidden_state
    is_word = batch["attention_mask"] == 1
    assert torch.equal(ours[is_word], alone[is_word])


def test_another_picture_changes_its_own_row_only():
    model, batch = model_of("tiny"), batch_of()
    features = encode_pictures(model, pictures(2))
    changed = features.clone()
    changed[1] += 1
    with torch.no_grad():
        before = hidden_states(model, {**batch, FEATURES: features})
        after = hidden_states(model, {**batch, FEATURES: changed})
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1, 3:], after[1, 3:])
    assert torch.equal(before[1, :2], after[1, :2])  # nothing stands before the picture


def test_a_row_with_too_few_image_tokens_raises():
    model = model_of("tiny")
    with pytest.raises(ModelError, match=r"4 image tokens wanted in each row, found \[4, 3\]"):
        hidden_states(model, {**batch_of(num_image_tokens=3), FEATURES: encode_pictures(model, pictures(2))})


def test_a_config_that_counts_other_tokens_than_the_tower_gives_raises():
    model = model_of("tiny")
    model.config.image_seq_length = 9
    with pytest.raises(ModelError, match="image_seq_length: got 9, but the vision tower gives 4"):
        encode_pictures(model, pictures(1))


def test_decoder_sites_are_found_and_vision_sites_are_not():
    model = model_of("clip")
    found = backbone(model)
    paths = {site.path for layer in found.layers for site in layer.sites.values()}
    assert len(found.layers) == 3
    assert all(path.startswith("model.language_model.") for path in paths)
    tower, projector = vision_parts(model) or (None, None)
    assert tower is found.vision_tower
    assert projector is found.projector
    assert vision_parts(found.decoder) is None


def test_running_statistics_stay_bit_identical_in_training_mode():
    model = build(
        hf_config(
            {
                **TINY,
                "vision_config": {
                    "model_type": "athlos_vision",
                    "encoder": "efficientnet_lite0",
                    "image_size": 64,
                    "num_tokens_a_side": 2,
                    "hidden_size": 1280,
                },
            }
        )
    )
    keep_tower_still(model)
    assert tower_fingerprint(model) == tower_fingerprint(model)  # counters without dimensions among its tensors
    model.train()
    tower = backbone(model).vision_tower
    assert tower is not None
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    tower_features(model, normalized_pixels(pictures(2), model))
    assert all(torch.equal(before[name], value) for name, value in tower.state_dict().items())
    assert model.training
    # Sabotage: without the guard the statistics move, so the test above can fail.
    tower._forward_pre_hooks.clear()
    model.train()
    tower_features(model, normalized_pixels(pictures(2), model))
    assert not all(torch.equal(before[name], value) for name, value in tower.state_dict().items())


def test_padding_is_the_mean_colour_and_order_does_not_matter():
    model = model_of("tiny")
    wide = pictures(1, height=8, width=16)
    pixels = normalized_pixels(wide, model)
    assert pixels.shape == (1, 3, 16, 16)
    assert not pixels[0, :, :4].any()
    assert not pixels[0, :, 12:].any()
    two = pictures(2)
    forward, backward = encode_pictures(model, two), encode_pictures(model, two[::-1])
    torch.testing.assert_close(forward, backward.flip(0), rtol=0, atol=FLOAT32)


def test_features_are_encoded_once_and_again_for_another_tower(tmp_path):
    model, stages = model_of("tiny"), StageStore(tmp_path)
    array = np.stack(pictures(3))
    first = cached_features(model, array, stages=stages)
    again = cached_features(model, array, stages=stages)
    assert [product.reused for product in stages.history] == [False, True]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, encode_pictures(model, list(array)).numpy())
    next(backbone(model).vision_tower.parameters()).data.add_(1)
    cached_features(model, array, stages=stages)
    assert not stages.history[-1].reused


def test_mixed_precision_leaves_features_as_they_are():
    model = model_of("tiny")
    plain = encode_pictures(model, pictures(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encode_pictures(model, pictures(2)), plain)


def test_saved_and_loaded_again_without_loss(tmp_path):
    model = model_of("tiny")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    batch = {**batch_of(), FEATURES: encode_pictures(model, pictures(2))}
    with torch.no_grad():
        assert torch.equal(hidden_states(model, batch), hidden_states(loaded, batch))


def test_running_statistics_are_loaded_and_not_those_of_a_new_module(tmp_path):
    model = build(
        hf_config(
            {
                **TINY,
                "vision_config": {
                    **TINY["vision_config"],
                    "encoder": "efficientnet_lite0",
                    "hidden_size": 1280,
                    "image_size": 32,
                },
            }
        )
    )
    tower, _ = vision_parts(model)
    for name, buffer in tower.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(2, 3)
    model.save_pretrained(tmp_path)
    loaded, _ = vision_parts(AutoModelForImageTextToText.from_pretrained(tmp_path))
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_unknown_towers_and_encoders_are_named():
    model = model_of("tiny")
    model.config.vision_config.model_type = "vit"
    with pytest.raises(ModelError, match="got 'vit', pictures can be made for clip_vision_model"):
        normalized_pixels(pictures(1), model)
    with pytest.raises(ModelError, match="encoder: got 'resnet', accepted: efficientnet_lite0, tiny_cnn"):
        build(hf_config({**TINY, "vision_config": {**TINY["vision_config"], "encoder": "resnet"}}))
    text = build(hf_config(TEXT))
    with pytest.raises(ModelError, match="has no vision tower"):
        encode_pictures(text, pictures(1))


def test_an_image_token_that_the_tokenizer_does_not_know_raises():
    from athlos.models.tokenizers import word_tokenizer

    model = model_of("tiny")
    with pytest.raises(ModelError, match="image_token_index: got 39"):
        check_image_token(model, word_tokenizer(["a"]))
    model.config.image_token_index = 260
    check_image_token(model, word_tokenizer(["<image>", "a"]))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 3, 1), (6, 1, 1)])
def test_padding_as_tensorflow_does_it(size: int, kernel: int, stride: int):
    """Loops over the definition: output place o reads inputs o * stride - floor(missing / 2) + offset."""
    conv = SameConv(1, 1, kernel, stride=stride, bias=False)
    picture = torch.randn(1, 1, size, size)
    outputs = -(-size // stride)
    before = max(0, (outputs - 1) * stride + kernel - size) // 2
    wanted = torch.zeros(outputs, outputs)
    for row in range(outputs):
        for column in range(outputs):
            for down in range(kernel):
                for right in range(kernel):
                    y, x = row * stride - before + down, column * stride - before + right
                    if 0 <= y < size and 0 <= x < size:
                        wanted[row, column] += conv.weight[0, 0, down, right] * picture[0, 0, y, x]
    torch.testing.assert_close(conv(picture)[0, 0], wanted, rtol=0, atol=FLOAT32)


def test_lite0_has_the_published_size_and_refuses_other_files():
    body = efficientnet_lite0()
    assert sum(parameter.numel() for parameter in body.parameters()) == 3_371_008  # 4.65 M less the classifier's 1.28 M
    assert body.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
    with pytest.raises(ModelError, match="tensors expected"):
        lite0_state({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)})
