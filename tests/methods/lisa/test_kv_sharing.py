"""Layers that read the keys of others, against loops over layers and tokens, the untouched model, caches and export."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.lisa.test_surgery import FAMILIES, ids_of, logits, model_of
from tests.tolerances import EXACT, SOFTMAX_FLOAT32
from transformers import AutoModelForCausalLM, DynamicCache

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors, SurgeryError
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.methods.lisa import kv_sharing
from athlos.methods.lisa.kv_sharing import parsed
from athlos.models.architecture import build, hf_config
from athlos.models.memory import kv_cache_bytes
from athlos.models.sites import backbone
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext

CLASSES = {
    "cla": kv_sharing.ClaSurgery,
    "lckv": kv_sharing.LckvSurgery,
    "yoco": kv_sharing.YocoSurgery,
}
WINDOW = ["surgery.window=3"]
CASES = {
    "cla": ["surgery=cla"],
    "cla3": ["surgery=cla", "surgery.group=3"],
    "yoco": ["surgery=yoco", *WINDOW],
    "lckv": ["surgery=lckv", "surgery.passes=9"],
}
PLAIN = ("llama", "qwen2", "qwen3", "mistral", "phi3")


def applied(model: Any, case: str, *overrides: str) -> tuple[Any, Any]:
    config = run_config([*CASES[case], *overrides])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    surgery: Any = CLASSES[case.removesuffix("3")](config.surgery)  # type: ignore[arg-type]
    return surgery.apply(model, context=context)


def decoded(model: Any, cuts: list[int]) -> torch.Tensor:
    cache, parts = DynamicCache(config=model.config), []
    for piece in torch.tensor_split(ids_of(), cuts, dim=1):
        parts.append(logits(model, piece, past_key_values=cache, use_cache=True))
    return torch.cat(parts, 1)


def naive(model: Any, plan: list[tuple[int, bool]], *, window: int | None) -> torch.Tensor:
    """Hidden states [T, D] of a Llama, token by token and head by head: at each token the layers from the bottom."""
    found = backbone(model)
    heads, groups, size = found.num_heads, found.num_kv_heads, found.head_size
    keys: dict[tuple[int, int], torch.Tensor] = {}
    values: dict[tuple[int, int], torch.Tensor] = {}
    frequencies = 10000.0 ** (-torch.arange(size // 2, dtype=torch.float64) / (size // 2))

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        cos, sin = (position * frequencies).cos(), (position * frequencies).sin()
        first, second = vector[: size // 2], vector[size // 2 :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin])

    rows = []
    for token, identifier in enumerate(ids_of()[0]):
        hidden = found.embedding.weight[identifier]
        for layer, (owner, has_window) in zip(found.layers, plan, strict=True):
            x = layer.norms["attention_input"](hidden)
            if owner == layer.index:
                new_keys = (layer.sites["k"].weight @ x).view(groups, size)
                keys[owner, token] = torch.stack([turned(one, token) for one in new_keys])
                values[owner, token] = (layer.sites["v"].weight @ x).view(groups, size)
            query = (layer.sites["q"].weight @ x).view(heads, size)
            last = token - 1 if owner > layer.index else token
            first = max(0, token - window + 1) if has_window and window else 0
            mixed = torch.zeros(heads, size, dtype=torch.float64)
            for head in range(heads):
                group = head // (heads // groups)
                seen = range(first, last + 1)
                if len(seen):
                    scores = (
                        torch.stack([turned(query[head], token) @ keys[owner, other][group] for other in seen])
                        / size**0.5
                    )
                    for weight, other in zip(scores.softmax(0), seen, strict=True):
                        mixed[head] += weight * values[owner, other][group]
            hidden = hidden + layer.sites["o"].weight @ mixed.flatten()
            hidden = hidden + layer.ffn(layer.norms["ffn_input"](hidden))
        rows.append(found.head(found.final_norm(hidden)))
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES)
def test_sharing_equals_the_loops(case: str) -> None:
    model = model_of()
    changed, _ = applied(model, case)
    plans = {"cla": "0_0_2_2_4", "cla3": "0_0_0_3_3", "yoco": "0s_1s_2_2_2", "lckv": "0_3_3_3_4"}
    with torch.no_grad():
        expected = naive(changed, parsed(plans[case]), window=3)
    # transformers turns positions into angles in float32, whatever the model's format.
    torch.testing.assert_close(logits(changed, ids_of())[0], expected, atol=1e6 * EXACT, rtol=0)
    assert not torch.allclose(logits(changed, ids_of()), logits(model, ids_of()), atol=1e3 * EXACT)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_groups_of_one_layer_are_the_untouched_model(family: str, kernel: str) -> None:
    model = model_of(family)
    model.set_attn_implementation(kernel)
    changed, report = applied(model, "cla", "surgery.group=1")
    torch.testing.assert_close(logits(changed, ids_of()), logits(model, ids_of()), atol=EXACT, rtol=0)
    assert report.metrics["lisa/kv_ratio"] == report.metrics["lisa/total_params_ratio"] == 1


@pytest.mark.parametrize(("family", "case"), [(family, case) for family in PLAIN for case in CASES])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_cached_decoding_equals_the_full_pass(family: str, case: str, kernel: str) -> None:
    model = model_of(family, **({"layer_types": None} if family == "qwen3" else {}))
    model.set_attn_implementation(kernel)
    changed, _ = applied(model, case)
    whole = logits(changed, ids_of())
    tolerance = SOFTMAX_FLOAT32 if kernel == "eager" else 1e3 * EXACT
    for cuts in (list(range(1, 9)), [4]):
        torch.testing.assert_close(decoded(changed, cuts), whole, atol=tolerance, rtol=0)


def test_readers_keep_nothing_in_a_cache_and_it_reorders() -> None:
    for case, kept in (("cla", [0, 2, 4]), ("lckv", [0, 3, 4]), ("yoco", [0, 1, 2])):
        model, report = applied(model_of(), case)
        cache = DynamicCache(config=model.config)
        logits(model, ids_of()[:, :6], past_key_values=cache, use_cache=True)
        assert [index for index, layer in enumerate(cache.layers) if layer.is_initialized] == kept
        numbers = sum(cache.layers[index].keys[0, :, 0].numel() * 2 for index in kept)
        assert report.metrics["lisa/kv_bytes_per_token"] == 8 * numbers
        assert kv_cache_bytes(backbone(model), num_rows=1, length=1, number_bytes=8) == 8 * numbers
        assert report.metrics["lisa/total_params_ratio"] < 1
        for index in kept:
            cache.layers[index].reorder_cache(torch.tensor([1, 0]))
        step = logits(model, ids_of().flip(0)[:, 6:7], past_key_values=cache, use_cache=True)
        whole = logits(model, ids_of().flip(0)[:, :7])[:, 6:]
        torch.testing.assert_close(step, whole, atol=1e3 * EXACT, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_checkpointing_gives_the_same_gradients(case: str) -> None:
    model, gradients = applied(model_of(), case)[0].train(), []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(ids_of(), use_cache=False).logits.square().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("case", CASES)
def test_later_tokens_and_padding_change_nothing(case: str) -> None:
    model, ids = applied(model_of(), case, *(["surgery.passes=12"] if case == "lckv" else []))[0], ids_of()
    other = ids.clone()
    other[:, 6] = (ids[:, 6] + 1) % 47 + 3
    assert torch.equal(logits(model, other)[:, :6], logits(model, ids)[:, :6])
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), ids], 1)
    mask = (torch.arange(12) >= 3).long().expand(2, 12)
    positions = (torch.arange(12) - 3).clamp_min(0).expand(2, 12)
    found = logits(model, padded, attention_mask=mask, position_ids=positions)[:, 3:]
    torch.testing.assert_close(found, logits(model, ids), atol=1e3 * EXACT, rtol=0)


def test_passes_give_as_many_tokens_exactly() -> None:
    exact = logits(applied(model_of(), "lckv")[0], ids_of())
    few = logits(applied(model_of(), "lckv", "surgery.passes=4")[0], ids_of())
    torch.testing.assert_close(few[:, :4], exact[:, :4], atol=1e3 * EXACT, rtol=0)
    assert not torch.allclose(few[:, 4:], exact[:, 4:], atol=1e3 * EXACT)
    model = applied(model_of(), "lckv", "surgery.passes=4", "surgery.gradient_passes=1")[0]
    model(ids_of(), use_cache=False).logits.sum().backward()
    alone = backbone(model).layers[3].sites["k"].weight.grad
    full = applied(model_of(), "lckv", "surgery.passes=4", "surgery.gradient_passes=4")[0]
    full(ids_of(), use_cache=False).logits.sum().backward()
    assert not torch.allclose(alone, backbone(full).layers[3].sites["k"].weight.grad, atol=1e3 * EXACT)


@pytest.mark.parametrize("case", CASES)
def test_export_and_reload(case: str, tmp_path: Path) -> None:
    model = applied(model_of("phi3"), case)[0]
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(logits(again, ids_of()), logits(model, ids_of()), atol=1e3 * EXACT, rtol=0)


@pytest.mark.parametrize(
    ("family", "case"), [*(("llama", case) for case in CASES), ("mistral", "lckv"), ("gemma3_text", "cla")]
)
def test_the_native_engine_gives_the_tokens_of_transformers(family: str, case: str) -> None:
    torch.manual_seed(0)
    base = build(hf_config(FAMILIES[family] | {"vocab_size": 300})).eval()
    changed = applied(base, case, *(["surgery.passes=20"] if case == "lckv" else []))[0]
    changed.generation_config.eos_token_id = changed.config.eos_token_id = None
    engine = NativeEngine(NativeConfig(_target_="", batch_size=4), model=changed, tokenizer=byte_tokenizer())
    prompts = [Prompt(token_ids=list(range(70, 70 + length)), max_new_tokens=6) for length in (3, 9, 5)]
    answers = engine.generate(prompts, rule=SamplingRule(), end_token_ids=())
    for prompt, [sample] in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt.token_ids])
        expected = changed.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert sample.token_ids == expected[0, ids.shape[1] :].tolist()


def test_the_notation() -> None:
    assert parsed("0s_0_12") == [(0, True), (0, False), (12, False)]


def test_models_that_do_not_fit() -> None:
    with pytest.raises(SurgeryError, match="layer 4: full_attention would read layer 3, sliding_attention"):
        applied(model_of("gemma3_text"), "cla3")
    with pytest.raises(SurgeryError, match="needs at least 3 layers, the decoder has 2"):
        applied(model_of(num_hidden_layers=2), "lckv")
    with pytest.raises(SurgeryError, match="took its queries, keys or values away"):
        applied(applied(model_of(), "cla")[0], "cla")
    changed = applied(model_of(), "cla")[0]
    changed.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(SurgeryError, match="compute with eager or sdpa"):
        backbone(changed).decoder(input_ids=ids_of())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["surgery=cla", "surgery.group=0"], "surgery.group: got 0"),
        (["surgery=lckv", "surgery.passes=1"], "surgery.passes: got 1"),
        (["surgery=lckv", "surgery.gradient_passes=8"], "at most passes = 7"),
        (["surgery=yoco", "surgery.window=0"], "surgery.window: got 0"),
    ],
)
def test_configs_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(overrides)


def test_gemma_shares_within_neighbours_of_one_kind() -> None:
    changed, _ = applied(model_of("gemma3_text"), "cla")
    whole = logits(changed, ids_of())
    for cuts in (list(range(1, 9)), [4]):
        torch.testing.assert_close(decoded(changed, cuts), whole, atol=1e3 * EXACT, rtol=0)
