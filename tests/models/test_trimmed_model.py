"""A model cut to the tokens in use: the logits of the kept tokens, as before."""

import pytest
import torch
from tests.tolerances import FLOAT32
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from athlos.models.tokenizers import bpe_tokenizer
from athlos.models.vocabulary import cut_rows, trimmed
from athlos.stages import StageStore

TEXTS = ["Anna has 7 apples and 12 pears.", "У Анны 7 яблок.", "安娜有7个苹果。"]


@pytest.mark.parametrize("is_tied", [True, False])
def test_logits_are_those_of_the_kept_tokens(is_tied, tmp_path):
    tokenizer = bpe_tokenizer(
        lambda: iter([*TEXTS, "So many other words"] * 3), vocab_size=380, stages=StageStore(tmp_path)
    )
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        eos_token_id=[2, 7],
        pad_token_id=0,
        bos_token_id=1,
        tie_word_embeddings=is_tied,
    )
    model = Gemma3ForCausalLM(config).eval()
    expected = model(torch.tensor([tokenizer.encode(TEXTS[0])])).logits
    vocabulary = trimmed(tokenizer, TEXTS)
    cut_rows(model, vocabulary)
    found = model(torch.tensor([vocabulary.tokenizer.encode(TEXTS[0])])).logits
    assert found.shape[-1] == len(vocabulary.tokenizer) == model.config.vocab_size < len(tokenizer)
    torch.testing.assert_close(found, expected[..., vocabulary.kept], atol=FLOAT32, rtol=FLOAT32)
    weights = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (weights[0] is weights[1]) == is_tied
    assert model.config.eos_token_id == model.generation_config.eos_token_id == vocabulary.tokenizer.eos_token_id
