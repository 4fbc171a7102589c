"""LISA's surgery against loops, the untouched model, direct sharing, caches, checkpointing, and its own export."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import loaded
from tests.methods.lisa import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64, LOGITS_FLOAT32
from transformers import DynamicCache, StaticCache

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.data.encoding import Rows
from athlos.errors import ConfigErrors, SurgeryError
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.generation.rollouts import response_log_probs, sample_group
from athlos.methods.lisa.attention import ARGUMENT, LayerScores, grouped_scores
from athlos.methods.lisa.config import AlignInit
from athlos.methods.lisa.layer_choice import chosen
from athlos.methods.lisa.lowrank import automatic_rank, kept_pairs, kept_rows
from athlos.methods.lisa.similarity import measured
from athlos.methods.lisa.surgery import LisaSurgery, directly_shared, head_map, shared_attentions
from athlos.models.architecture import build, hf_config
from athlos.models.sites import backbone
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore

BASE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention"] * 4 + ["full_attention"]}
FAMILIES = {
    "llama": BASE | {"model_type": "llama"},
    "qwen2": BASE | {"model_type": "qwen2"},
    "qwen3": BASE | {"model_type": "qwen3", "head_dim": 12},
    "mistral": BASE | {"model_type": "mistral", "sliding_window": 5},
    "gemma3_text": BASE | {"model_type": "gemma3_text", "head_dim": 12} | SLIDING,
    "phi3": BASE | {"model_type": "phi3", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
EXPLICIT = ["surgery.layers.select=explicit", "surgery.layers.explicit=[2,3]", "surgery.layers.count=0"]
PURE = [*EXPLICIT, "surgery.align.init=identity", "surgery.align.hidden=3"]


def model_of(family: str = "llama", **changes: Any) -> Any:
    torch.manual_seed(0)
    return build(hf_config(FAMILIES[family] | changes), dtype=torch.float64).eval()


def ids_of(rows: int = 2, length: int = 9) -> torch.Tensor:
    return torch.randint(3, 50, (rows, length), generator=torch.Generator().manual_seed(1))


class Text:
    """A training split of random rows."""

    pad_id = 0

    def __init__(self) -> None:
        tokens = np.random.default_rng(0).integers(3, 50, 240).astype(np.int32)
        starts = np.arange(0, 240, 12)
        self.all = Rows(
            tokens_T=tokens,
            is_target_T=np.ones(240, bool),
            starts_R=starts,
            ends_R=starts + 12,
            num_targets_R=np.full(20, 11),
        )
        self.source = SimpleNamespace(fingerprint=lambda split: "text")

    def rows(self, split: str) -> Rows:
        return self.all


def applied(model: Any, *overrides: str, surgery: str = "lisa", tmp_path: Path | None = None) -> tuple[Any, Any]:
    config = run_config([f"surgery={surgery}", *overrides])
    stages: Any = StageStore(tmp_path) if tmp_path else None
    data: Any = Text()
    context = PartContext(config=config, stages=stages, data=data, start=loaded(model))  # type: ignore[arg-type]
    return LisaSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]


def stirred(model: Any) -> Any:
    """The same model with random weights in everything that LISA added."""
    torch.manual_seed(2)
    with torch.no_grad():
        for attention in shared_attentions(model):
            for parameter in attention.added():
                parameter.normal_(std=0.3)
    return model


def logits(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **options).logits


def test_a_shared_layer_equals_the_loops() -> None:
    model, _ = applied(model_of(), *PURE)
    found, ids, inputs = backbone(stirred(model)), ids_of(length=5), {}
    attention = found.layers[2].attention
    attention.register_forward_pre_hook(lambda module, _, given: inputs.update(given), with_kwargs=True)
    outputs = []
    attention.register_forward_hook(lambda module, _, output: outputs.append(output[0]))
    scores = LayerScores(is_kept=True)
    with torch.no_grad():
        found.decoder(input_ids=ids, use_cache=False, **{ARGUMENT: scores})
    aligner, low_rank = attention.aligner, attention.low_rank
    numbers = {name: value.detach().numpy() for name, value in attention.state_dict().items()}
    output, expected = reference.shared_layer(
        inputs["hidden_states"].numpy(),
        scores.by_layer[1].numpy(),
        aligner={
            "mix": np.eye(4),
            "w1": numbers["aligner.inner.weight"],
            "b1": numbers["aligner.inner.bias"],
            "w2": numbers["aligner.outer.weight"],
            "b2": numbers["aligner.outer.bias"],
        },
        uq=numbers["low_rank.query.weight"],
        uk=numbers["low_rank.key.weight"],
        wv=found.layers[2].sites["v"].weight.detach().numpy(),
        wo=found.layers[2].sites["o"].weight.detach().numpy(),
        frequencies=10000.0 ** (-np.arange(6) / 6),
        pairs=low_rank.pairs.numpy(),
        head_size=12,
    )
    assert aligner.has_mix is False
    seen = ~np.isnan(expected)
    # transformers turns positions into angles in float32, whatever the model's format.
    np.testing.assert_allclose(scores.by_layer[2].numpy()[seen], expected[seen], atol=FLOAT32)
    np.testing.assert_allclose(outputs[0].numpy(), output, atol=FLOAT32)


@pytest.mark.parametrize("is_autocast", [True, False])
@torch.no_grad()
def test_scores_are_float32_products_in_16_bits(is_autocast: bool) -> None:
    """Under autocast and with 16-bit weights: a product that is rounded to bfloat16 and widened is off by 2^-9."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 7, 64, generator=generator).bfloat16() for heads in (4, 2))
    model = stirred(applied(model_of(), *PURE)[0]).to(torch.float32 if is_autocast else torch.bfloat16)
    aligner = shared_attentions(model)[0].aligner
    below = torch.randn(2, 4, 7, 7, generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        scores, aligned = grouped_scores(query, key, scaling=0.125), aligner(below)
    assert scores.dtype == aligned.dtype == torch.float32
    exact = 0.125 * query.double() @ key.double().repeat_interleave(2, 1).transpose(2, 3)
    torch.testing.assert_close(scores.double(), exact, atol=FLOAT32, rtol=0)
    torch.testing.assert_close(aligned.double(), aligner.double()(below.double()), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "phi3"])
def test_full_rank_without_alignment_is_the_untouched_model(family: str) -> None:
    model = model_of(family)
    options = ["surgery.align.enabled=false", "surgery.lowrank.rank=12", "surgery.lowrank.init=energy_pairs"]
    changed, _ = applied(model, *EXPLICIT, *options)
    torch.testing.assert_close(logits(changed, ids_of()), logits(model, ids_of()), atol=EXACT, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_identity_without_rank_is_direct_sharing(family: str) -> None:
    model = model_of(family)
    changed, report = applied(model, *EXPLICIT, surgery="shared_attention")
    assert report.metrics["lisa/new_params"] == 0
    direct = logits(directly_shared(model, [2, 3]), ids_of())
    torch.testing.assert_close(logits(changed, ids_of()), direct, atol=EXACT, rtol=0)
    start, _ = applied(model, *PURE)  # zero queries and a zero outer matrix: training starts there too
    torch.testing.assert_close(logits(start, ids_of()), direct, atol=EXACT, rtol=0)
    assert not torch.allclose(direct, logits(model, ids_of()), atol=1e3 * EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_the_full_pass(family: str) -> None:
    model = model_of(family)
    for changed in (stirred(applied(model, *PURE)[0]), directly_shared(model, [2, 3])):
        whole = logits(changed, ids_of())
        for cuts in (list(range(1, 9)), [4]):  # token by token, and in two chunks
            cache, parts = DynamicCache(config=changed.config), []
            for piece in torch.tensor_split(ids_of(), cuts, dim=1):
                parts.append(logits(changed, piece, past_key_values=cache, use_cache=True))
            torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e3 * EXACT, rtol=0)


def test_the_cache_holds_low_rank_keys_and_full_values_and_reorders() -> None:
    model, report = applied(model_of(), *PURE)
    cache = DynamicCache(config=model.config)
    logits(model, ids_of(), past_key_values=cache, use_cache=True)
    assert [tuple(layer.keys.shape[1:]) for layer in cache.layers[:3]] == [(2, 9, 12), (2, 9, 12), (2, 9, 2)]
    assert cache.layers[2].values.shape[1:] == (2, 9, 12)
    numbers = sum(layer.keys[0, :, 0].numel() + layer.values[0, :, 0].numel() for layer in cache.layers)
    assert report.metrics["lisa/kv_bytes_per_token"] == 8 * numbers
    for changed in (stirred(model), directly_shared(model_of(), [2, 3])):
        cache = DynamicCache(config=changed.config)
        logits(changed, ids_of()[:, :6], past_key_values=cache, use_cache=True)
        cache.reorder_cache(torch.tensor([1, 0]))
        step = logits(changed, ids_of().flip(0)[:, 6:7], past_key_values=cache, use_cache=True)
        torch.testing.assert_close(step[:, 0], logits(changed, ids_of().flip(0))[:, 6], atol=1e3 * EXACT, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_checkpointing_gives_the_same_gradients(family: str) -> None:
    model, gradients = stirred(applied(model_of(family), *PURE)[0]).train(), []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        model(ids_of(), use_cache=False).logits.square().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=EXACT, rtol=EXACT)


def test_the_base_keeps_its_function_and_shares_its_weights() -> None:
    model = model_of()
    before = logits(model, ids_of())
    changed, _ = applied(model, *PURE)
    assert torch.equal(logits(model, ids_of()), before)
    own = {id(parameter) for parameter in model.parameters()}
    new = [parameter for parameter in changed.parameters() if id(parameter) not in own]
    assert {id(parameter) for parameter in new} == {id(p) for one in shared_attentions(changed) for p in one.added()}


def test_later_tokens_and_padding_change_nothing() -> None:
    model, ids = stirred(applied(model_of(), *PURE)[0]), ids_of()
    other = ids.clone()
    other[:, 6] = (ids[:, 6] + 1) % 47 + 3
    assert torch.equal(logits(model, other)[:, :6], logits(model, ids)[:, :6])
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), ids], 1)
    mask = (torch.arange(12) >= 3).long().expand(2, 12)
    positions = (torch.arange(12) - 3).clamp_min(0).expand(2, 12)
    found = logits(model, padded, attention_mask=mask, position_ids=positions)[:, 3:]
    torch.testing.assert_close(found, logits(model, ids), atol=1e3 * EXACT, rtol=0)


def test_permuted_heads_below_are_undone() -> None:
    """Heads of a layer in another order, values and output matrix with them, compute the same; direct sharing breaks,
    one-to-one matching does not."""
    model = model_of(num_key_value_heads=4)
    twin = model_of(num_key_value_heads=4)
    order = torch.tensor([2, 0, 3, 1])
    rows = (order[:, None] * 12 + torch.arange(12)).flatten()
    batches = [collate(Text().rows("train"), np.arange(6), pad_id=0, step_targets=1)]
    with torch.no_grad():
        layer = backbone(twin).layers[1]
        for name in ("q", "k", "v"):
            layer.sites[name].weight.copy_(backbone(model).layers[1].sites[name].weight[rows])
        layer.sites["o"].weight.copy_(backbone(model).layers[1].sites["o"].weight[:, rows])
    torch.testing.assert_close(logits(twin, ids_of()), logits(model, ids_of()), atol=1e3 * EXACT, rtol=0)
    plain, shuffled = measured(model, batches), measured(twin, batches)
    before = head_map(plain, 2, AlignInit.hungarian)
    after = head_map(shuffled, 2, AlignInit.hungarian)
    assert torch.equal(after, before[:, order])
    lstsq = head_map(shuffled, 2, AlignInit.lstsq)
    torch.testing.assert_close(lstsq, head_map(plain, 2, AlignInit.lstsq)[:, order], atol=FLOAT32, rtol=FLOAT32)


def test_least_squares_and_similarity_against_plain_sums() -> None:
    model, text = model_of(), Text()
    batch = collate(text.rows("train"), np.array([0, 1]), pad_id=0, step_targets=1)
    found = measured(model, [batch])
    with torch.no_grad():
        # The decoder's own way to hand out weights: eager attention of transformers.
        model.set_attn_implementation("eager")
        weights = model(batch["input_ids"], output_attentions=True).attentions
    cosines, divergences = [], []
    for row in range(2):
        for i in range(1, 12):
            p, q = weights[3][row, 1, i].numpy(), weights[2][row, 2, i].numpy()
            cosines.append(p @ q / np.linalg.norm(p) / np.linalg.norm(q))
            middle = (p + q) / 2
            seen = slice(0, i + 1)
            kl = [np.sum(one[seen] * np.log2(one[seen] / middle[seen])) for one in (p, q)]
            divergences.append(sum(kl) / 2)
    assert found.cosine_LHH[3, 1, 2] == pytest.approx(np.mean(cosines), abs=FLOAT32)
    assert found.divergence_LHH[3, 1, 2] == pytest.approx(np.mean(divergences), abs=FLOAT32)
    assert np.isnan(found.adjacent(with_matching=True)[0])
    assert (found.adjacent(with_matching=True)[1:] <= 1).all()


@pytest.mark.parametrize(("head_size", "rank"), [(128, 20), (64, 10), (32, 4), (16, 2)])
def test_the_rank_of_the_paper(head_size: int, rank: int) -> None:
    assert automatic_rank(head_size) == rank


@torch.no_grad()
def test_kept_pairs_are_those_of_most_energy_and_each_head_keeps_its_groups() -> None:
    """By hand: group 0 has its energy in pairs 1 and 4, group 1 in pairs 0 and 5; heads 0 and 1 are of group 0."""
    layer = backbone(model_of()).layers[2]
    heads, groups, size, rank = 4, 2, 12, 4
    for name, num in (("q", heads), ("k", groups)):
        rows = layer.sites[name].weight.view(num, 2, size // 2, -1)
        for head in range(num):
            group = head * groups // num
            strong = [(1, 4), (0, 5)][group]
            rows[head, :, [pair for pair in range(size // 2) if pair not in strong]] *= 0.1
    pairs = kept_pairs(layer, num_heads=heads, num_groups=groups, head_size=size, rank=rank)
    assert pairs.tolist() == [[1, 4], [0, 5]]
    for name, num in (("q", heads), ("k", groups)):
        weight, bias = kept_rows(layer.sites[name], pairs, heads=num, head_size=size)
        assert bias is None
        expected = []
        for head in range(num):
            first, second = pairs[head * groups // num].tolist()
            expected += [head * size + place for place in (first, second, first + 6, second + 6)]
        assert torch.equal(weight, layer.sites[name].weight[expected])


def test_the_counts_of_the_specification_on_meta() -> None:
    smollm2 = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
    with torch.device("meta"):
        model = build(hf_config(smollm2))
    config = run_config(["surgery=lisa", "surgery.layers.count=16", "dry_run=true"])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    changed, report = LisaSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]
    assert report.metrics["lisa/new_params"] == 16 * 69_433
    assert report.metrics["lisa/kv_ratio"] == pytest.approx(0.775, abs=5e-4)
    assert report.metrics["lisa/shared_layer_share"] == pytest.approx(16 / 30)
    assert report.metrics["lisa/qk_compression"] == pytest.approx(6.4)
    assert len(backbone(changed).layers) == 30
    assert report.metrics["lisa/kv_bytes_per_token"] == pytest.approx(46_080 * 0.775)


@pytest.mark.parametrize(("count", "ratio", "new"), [(17, 0.776, 5_242_880), (27, 0.644, 5_242_880)])
def test_the_counts_of_the_papers_models(count: int, ratio: float, new: int) -> None:
    """LLaMA2-7B; D r (H + G) new numbers a layer, and the aligner's."""
    llama2_7b = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    }
    with torch.device("meta"):
        model = build(hf_config(llama2_7b))
    config = run_config(["surgery=lisa", f"surgery.layers.count={count}", "dry_run=true"])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    changed, report = LisaSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]
    assert report.metrics["lisa/kv_ratio"] == pytest.approx(ratio, abs=5e-4)
    assert report.metrics["lisa/new_params"] == count * (new + 2 * 32 * 16 + 16 + 32)
    shared = shared_attentions(changed)[0]
    assert shared.cache_numbers / (2 * 32 * 128) == pytest.approx(0.578, abs=5e-4)
    # 0.9 * 80 GiB less 16-bit weights, over 16-bit caches of 2,048 tokens.
    rows = (0.9 * 80 * 2**30 - 2 * 6_738_415_616) / (2 * 32 * 2 * 32 * 128 * 2048)
    assert report.metrics["lisa/best_batch_80gb_base"] == int(rows)
    assert report.metrics["lisa/best_batch_80gb"] > rows / ratio


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["surgery.layers.explicit=[0]", "surgery.layers.select=explicit"], "layer 0 has no layer below"),
        (["surgery.lowrank.rank=3"], "expected an even number"),
        (["surgery.lowrank.init=energy_pairs"], "counts the scores twice"),
        (["surgery.align.enabled=false", "surgery.lowrank.enabled=false"], "no scores"),
        (["surgery=none", "selection=lisa"], "another surgery"),
        (["surgery=shared_attention", "selection=lisa"], "adds nothing that trains"),
        (["surgery.layers.explicit=[3]"], "surgery.layers.explicit"),
    ],
)
def test_configs_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["surgery=lisa", *overrides])


def test_models_that_do_not_fit() -> None:
    with pytest.raises(SurgeryError, match="at most the head size 12"):
        applied(model_of(), *PURE, "surgery.lowrank.rank=14")
    with pytest.raises(SurgeryError, match="layer 4: full_attention above sliding_attention"):
        applied(model_of("gemma3_text"), *PURE, "surgery.layers.explicit=[4]")
    options = ["surgery.align.enabled=false", "surgery.lowrank.init=energy_pairs"]
    with pytest.raises(SurgeryError, match="normalises its queries and keys"):
        applied(model_of("qwen3"), *EXPLICIT, *options)
    with pytest.raises(SurgeryError, match="expected any of 1"):
        chosen("explicit", num_layers=5, count=0, explicit=[7], adjacent_L=None)
    with pytest.raises(SurgeryError, match="took its queries and keys away"):
        applied(applied(model_of(), *PURE)[0], *PURE)


@pytest.mark.parametrize("rank", ["surgery.lowrank.enabled=true", "surgery.lowrank.enabled=false"])
@torch.no_grad()
def test_a_static_cache_is_refused(rank: str) -> None:
    model = applied(model_of(), *PURE, rank)[0]
    with pytest.raises(SurgeryError, match="static cache"):
        model(ids_of(), past_key_values=StaticCache(config=model.config, max_cache_len=16))


def test_layers_are_chosen_by_rule(tmp_path: Path) -> None:
    adjacent = np.array([np.nan, 0.9, 0.2, 0.8, 0.5, 0.7])
    assert chosen("last_k", num_layers=6, count=2, explicit=[], adjacent_L=None) == [4, 5]
    assert chosen("alternate", num_layers=6, count=2, explicit=[], adjacent_L=None) == [3, 5]
    assert chosen("similarity", num_layers=6, count=2, explicit=[], adjacent_L=adjacent) == [3, 5]
    _, report = applied(model_of(), tmp_path=tmp_path)
    assert report.metrics["lisa/shared_layers"] == 3  # ceil(0.53 * 5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_the_native_engine_knows_these_caches(family: str) -> None:
    """Greedy answers to prompts of unlike length, token by token as transformers gives them one by one."""
    torch.manual_seed(0)
    base = build(hf_config(FAMILIES[family] | {"vocab_size": 300})).eval()
    for changed in (stirred(applied(base, *PURE)[0]), directly_shared(base, [2, 3])):
        changed.generation_config.eos_token_id = changed.config.eos_token_id = None
        engine = NativeEngine(NativeConfig(_target_="", batch_size=4), model=changed, tokenizer=byte_tokenizer())
        prompts = [Prompt(token_ids=list(range(70, 70 + length)), max_new_tokens=6) for length in (3, 9, 5)]
        for prompt, [sample] in zip(prompts, engine.generate(prompts, rule=SamplingRule()), strict=True):
            ids = torch.tensor([prompt.token_ids])
            expected = changed.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
            answer = expected[0, ids.shape[1] :].tolist()
            assert sample.token_ids == answer[: len(sample.token_ids)]
            assert sample.finished or len(sample.token_ids) == 6


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_rollouts_know_these_caches(family: str) -> None:
    torch.manual_seed(0)
    base = build(hf_config(FAMILIES[family] | {"vocab_size": 259})).eval()
    for changed in (stirred(applied(base, *PURE)[0]), directly_shared(base, [2, 3])):
        found = sample_group(
            changed,
            byte_tokenizer(),
            ["abc", "abcdefghi", "abcde"],
            group_size=3,
            max_new_tokens=8,
            temperature=1.0,
            generator=torch.Generator().manual_seed(0),
        )
        expected = response_log_probs(changed, found, temperature=1.0)
        torch.testing.assert_close(found.log_probs, expected, atol=LOGITS_FLOAT32, rtol=0)


def test_shared_weights_and_shared_scores_are_the_same_without_an_aligner_of_its_own() -> None:
    """The logarithm of the weights is the scores less a constant of the row: only the small number added tells."""
    options = ["surgery.lowrank.enabled=false", "surgery.align.hidden=0"]
    model = model_of()
    before, after = (
        applied(model, *PURE, *options, f"surgery.share_point={point}")[0] for point in ("logits", "probs")
    )
    torch.testing.assert_close(logits(after, ids_of()), logits(before, ids_of()), atol=FLOAT64, rtol=0)
    # A unit's nonlinearity sees the constant, so with hidden units the two differ.
    before, after = (stirred(applied(model, *PURE, f"surgery.share_point={point}")[0]) for point in ("logits", "probs"))
    assert (logits(after, ids_of()) - logits(before, ids_of())).abs().max() > 1e3 * FLOAT32


def test_gates_begin_where_they_say() -> None:
    model, found = model_of(), {}
    for gate in ("none", "free", "sigmoid"):
        changed = applied(model, *PURE, f"surgery.gate={gate}", "surgery.align.hidden=0")[0]
        with torch.no_grad():
            for attention in shared_attentions(changed):
                torch.nn.init.constant_(attention.low_rank.query.weight, 0.05)
        found[gate] = changed
    assert torch.equal(logits(found["free"], ids_of()), logits(found["none"], ids_of()))
    with torch.no_grad():
        for attention in shared_attentions(found["none"]):
            attention.low_rank.query.weight.mul_(0.5)
    torch.testing.assert_close(
        logits(found["sigmoid"], ids_of()), logits(found["none"], ids_of()), atol=1e3 * EXACT, rtol=0
    )


def test_a_random_start_has_queries_and_keys_of_its_own() -> None:
    model = model_of()
    changed, _ = applied(model, *PURE, "surgery.lowrank.init=random")
    kept, _ = applied(model, *PURE)
    for one, other in zip(shared_attentions(changed), shared_attentions(kept), strict=True):
        assert one.low_rank.query.weight.std().item() == pytest.approx(0.02, rel=0.3)
        assert not torch.equal(one.low_rank.key.weight, other.low_rank.key.weight)
        assert torch.equal(one.low_rank.pairs, other.low_rank.pairs)


@pytest.mark.parametrize("init", ["hungarian", "lstsq"])
def test_the_head_map_is_measured_on_the_model(init: str, tmp_path: Path) -> None:
    changed, _ = applied(model_of(), *EXPLICIT, f"surgery.align.init={init}", tmp_path=tmp_path)
    batches = [collate(Text().rows("train"), np.array([row]), pad_id=0, step_targets=1) for row in range(20)]
    alike = measured(model_of(), batches)
    for attention in shared_attentions(changed):
        expected = head_map(alike, attention.layer_idx, AlignInit(init))
        torch.testing.assert_close(attention.aligner.mix.float(), expected, atol=FLOAT32, rtol=FLOAT32)


def test_a_sliding_layer_may_take_the_scores_of_a_global_one() -> None:
    layers = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    model = model_of("gemma3_text", layer_types=layers)
    with pytest.raises(SurgeryError, match="allow_mixed=true"):
        applied(model, *PURE)
    changed = stirred(applied(model, *PURE, "surgery.allow_mixed=true")[0])
    cache, parts = DynamicCache(config=changed.config), []
    for piece in ids_of().split(1, dim=1):
        parts.append(logits(changed, piece, past_key_values=cache, use_cache=True))
    torch.testing.assert_close(torch.cat(parts, 1), logits(changed, ids_of()), atol=1e3 * EXACT, rtol=0)
