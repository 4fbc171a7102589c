"""Perplexity against plain loops: every token once, the same number as transformers gives."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import weights
from tests.assembled import suite_of
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.config.compose import run_config
from athlos.data.records import TextRecord
from athlos.data.source import build_source
from athlos.evaluation.suites.perplexity import stream_nll, windows
from athlos.models.tokenizers import byte_tokenizer


@given(num_tokens=st.integers(0, 200), length=st.integers(3, 40), stride=st.integers(1, 40), has_prefix=st.booleans())
def test_every_position_is_scored_once_with_something_before_it(num_tokens, length, stride, has_prefix):
    stride = min(stride, length)
    room = length - has_prefix
    scored: list[int] = []
    for start, end, first in windows(num_tokens, length=length, stride=stride, has_prefix=has_prefix):
        assert 0 <= start < end <= num_tokens
        assert end - start <= room
        assert first > start or has_prefix
        if scored:
            assert end - start == room
            assert first - start >= min(room - stride, first)
        scored += range(first, end)
    assert scored == list(range(0 if has_prefix else 1, num_tokens))


def plain_loop(model, tokens, *, length: int, stride: int, prefix: int | None) -> tuple[float, int]:
    """The equation token by token: -log p(token | at most the window before it), one forward pass a window."""
    total, count = 0.0, 0
    for start, end, first in windows(len(tokens), length=length, stride=stride, has_prefix=prefix is not None):
        ids = ([] if prefix is None else [prefix]) + tokens[start:end].tolist()
        offset = start - (prefix is not None)
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for position in range(first, end):
            total -= log_probs[position - offset - 1, tokens[position]].item()
            count += 1
    return total, count


@pytest.mark.parametrize("prefix", [None, 1])
@pytest.mark.parametrize(("length", "stride"), [(16, 16), (16, 5), (64, 64), (200, 200)])
def test_equals_a_plain_loop(prefix, length, stride):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(2, 50, (131,), generator=torch.Generator().manual_seed(1))
    expected = plain_loop(model, tokens, length=length, stride=stride, prefix=prefix)
    for batch_size in (1, 3):
        found = stream_nll(model, tokens, length=length, stride=stride, batch_size=batch_size, prefix=prefix)
        assert found[1] == expected[1]
        assert found[0] == pytest.approx(expected[0], rel=1e-6)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tmp_path):
    windows_of_32 = ["eval.suites.perplexity.max_length=32", "eval.suites.perplexity.stride=32"]
    config = run_config(["model=small/tiny_llama", *windows_of_32, f"cache_dir={tmp_path}"])
    tokenizer = byte_tokenizer()
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            tie_word_embeddings=False,
        )
    )
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    answerer = SimpleNamespace(model=model, tokenizer=tokenizer)
    records = [TextRecord(identifier=str(i), text="To be, or not to be: über 言葉\n") for i in range(9)]
    result = suite_of(config).evaluate(answerer, records)
    num_bytes = sum(len(record.text.encode()) for record in records)
    scored = result.details["ppl"].n
    assert scored in (num_bytes - 1, num_bytes)
    assert result.metrics["ppl"] == pytest.approx(len(tokenizer), rel=1e-5)
    assert result.metrics["bits_per_byte"] == pytest.approx(math.log2(len(tokenizer)) * scored / num_bytes, rel=1e-5)
    counts = Counter("".join(record.text for record in records).encode())
    assert result.metrics["unigram_nll"] == pytest.approx(scipy.stats.entropy(list(counts.values())))


@pytest.mark.slow
@pytest.mark.weights
def test_smollm2_equals_a_plain_transformers_loop():
    """The contract: our perplexity of real weights on real text equals transformers' own loss to 1e-4 relative."""
    loaded = weights.smollm2()
    config = run_config(["data=shakespeare", "eval.suites.perplexity.limit_tokens=700"])
    records = list(build_source(config).records("test"))
    result = suite_of(config).evaluate(SimpleNamespace(model=loaded.model, tokenizer=loaded.tokenizer), records)

    text = "".join(record.text for record in records)
    tokens = torch.tensor(loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:700])
    nll, previous = 0.0, 1
    for end in [*range(128, 700, 64), 700]:
        ids = tokens[max(0, end - 128) : end][None]
        labels = ids.clone()
        labels[:, : ids.shape[1] - (end - previous)] = -100
        with torch.no_grad():
            loss = loaded.model(ids, labels=labels).loss
        nll += loss.item() * (end - previous)
        previous = end
    assert result.details["ppl"].n == 699
    assert result.metrics["ppl"] == pytest.approx(math.exp(nll / 699), rel=1e-4)
