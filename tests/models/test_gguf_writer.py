"""Weights of our own as a GGUF file: llama.cpp says what transformers says, in every family and tokenizer.

B batch of one, T positions, V vocabulary.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from tests.weights import gemma3, real_stages, smollm2
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from athlos.errors import ConfigError, ModelError
from athlos.generation.config import NativeConfig
from athlos.generation.http_config import Api, LlamaCppConfig
from athlos.generation.interface import Prompt, Sample, SamplingRule
from athlos.generation.llama_cpp_engine import LlamaCppEngine
from athlos.generation.llama_cpp_server import ServerSettings, server_url, stop_servers
from athlos.generation.local import encoded_prompt
from athlos.generation.native import NativeEngine
from athlos.models.config import GGUFFormat
from athlos.models.gguf_files import gguf_file
from athlos.models.gguf_vocabulary import TokenType
from athlos.models.tokenizers import byte_tokenizer, word_tokenizer
from athlos.models.wheels import GGUF_NAME
from athlos.stages import StageStore

pytest.importorskip("xllamacpp", reason="the extra `llama-cpp` is not installed")
gguf = pytest.importorskip("gguf", reason="the extra `llama-cpp` is not installed")

GREEDY = SamplingRule()
CLOSE = 0.01
"""Nats: llama.cpp keeps keys and values in float16, a relative 5e-4 of logits below ten; the most seen is 0.003."""
HALF = 0.05
"""Nats: matrices in 16 bit too, of which bfloat16 keeps a relative 4e-3; the most seen is 0.02."""
SIZES = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}
WINDOW = 8
GEMMA = {
    "num_hidden_layers": 7,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": WINDOW,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 700.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    },
}
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES, **THETA, num_hidden_layers=2, rms_norm_eps=0.03, head_dim=32),
    "llama, tied": lambda: LlamaConfig(**SIZES, num_hidden_layers=2, tie_word_embeddings=True),
    "llama, more rows": lambda: LlamaConfig(**{**SIZES, "vocab_size": 270}, num_hidden_layers=1),
    "qwen2": lambda: Qwen2Config(**{**SIZES, "vocab_size": 260}, **THETA, num_hidden_layers=2),
    # A row more: transformers gives the tokenizers of these two a token of their own.
    "gemma3": lambda: Gemma3TextConfig(**{**SIZES, "vocab_size": 260}, **GEMMA),
}
TEXTS = ["hello ab", "x", "12 + 30 = a sum, and so on to a longer text."]
BYTES = range(3, 259)
"""Of a word tokenizer."""
WORDS = [" one", " two", " three", "+", "=", "\u98df", "\u8033", " teke"]


@pytest.fixture(scope="module", autouse=True)
def _stopped():
    yield
    stop_servers()


def saved(
    folder: Path, config: Any, *, tokenizer: Any = None, dtype: torch.dtype = torch.float32, silent: Any = ()
) -> Path:
    """A model with random weights, biases and norms among them, and its tokenizer. It says none of the `silent` ids."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.get_output_embeddings().weight.data[list(silent)] = 0
    model.to(dtype).save_pretrained(folder)
    (tokenizer or byte_tokenizer()).save_pretrained(folder)
    return folder


def engine(folder: Path, stages: StageStore, *, number_format: str = "f32", **values: Any) -> LlamaCppEngine:
    kept = {"api": Api.completions, "context_length": 256, "num_slots": 2, "num_threads": 1, "cache": None}
    source = f"dir:{folder}"
    config = LlamaCppConfig(_target_="", source=source, format=GGUFFormat(number_format), **{**kept, **values})
    return LlamaCppEngine(config, stages=stages)


def native(folder: Path) -> NativeEngine:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return NativeEngine(NativeConfig(_target_="", batch_size=4), model=model, tokenizer=tokenizer)


def answers(folder: Path, served: LlamaCppEngine, texts: list[str], *, num_tokens: int) -> list[tuple[Sample, Sample]]:
    """Of each text what the native engine says, and what llama.cpp says."""
    own = native(folder)
    prompts = [Prompt(text=text, max_new_tokens=num_tokens) for text in texts]
    ours = own.generate([replace(prompt, token_ids=own.encode(prompt.text)) for prompt in prompts], rule=GREEDY)
    theirs = served.generate(prompts, rule=GREEDY)
    return [(one, other) for [one], [other] in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_next_token_of_each_family_is_that_of_transformers(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "model", CONFIGS[name]())
    texts = [text[:end] for text in TEXTS for end in range(1, len(text) + 1)]
    served = engine(folder, StageStore(tmp_path / "cache"))
    told = [pair for pair in answers(folder, served, texts, num_tokens=1) if pair[1].token_ids]
    assert len(told) > len(texts) / 4  # the others are no letter, so that the server tells nothing of them
    for one, other in told:
        assert other.num_prompt_tokens == one.num_prompt_tokens
        assert other.log_probs == pytest.approx(one.log_probs, abs=CLOSE)
    ties = [pair for pair in told if pair[0].token_ids != pair[1].token_ids]
    assert len(ties) <= len(told) / 20  # as likely as each other, to CLOSE


@pytest.mark.parametrize("number_format", ["f16", "bf16"])
def test_formats_of_16_bits_are_near(tmp_path: Path, number_format: str) -> None:
    folder = saved(tmp_path / "model", CONFIGS["llama"](), dtype=torch.bfloat16)
    stages = StageStore(tmp_path / "cache")
    served = engine(folder, stages, number_format=number_format)
    told = [pair for pair in answers(folder, served, TEXTS, num_tokens=1) if pair[0].token_ids == pair[1].token_ids]
    assert told
    for one, other in told:
        assert other.log_probs == pytest.approx(one.log_probs, abs=HALF)
    sizes = {kind: gguf_of(folder, stages, kind).stat().st_size for kind in ("f32", number_format)}
    assert sizes[number_format] < 0.65 * sizes["f32"]
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read(gguf_of(folder, stages, number_format)).tensors}
    assert kinds["blk.0.attn_q.weight"] == number_format.upper()
    assert kinds["output_norm.weight"] == "F32"


def gguf_of(folder: Path, stages: StageStore, number_format: str) -> Path:
    return gguf_file(f"dir:{folder}", number_format=GGUFFormat(number_format), stages=stages).path


def read(path: Path) -> Any:
    return gguf.GGUFReader(path)


def test_a_folder_is_converted_once_for_its_content_and_format(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", CONFIGS["llama, tied"]())
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    stages = StageStore(tmp_path / "cache")
    made = gguf_file(f"dir:{folder}", number_format=GGUFFormat.f32, stages=stages)
    assert (made.license, made.folder, made.path.name) == ("mit", folder, GGUF_NAME)
    moved = folder.rename(tmp_path / "moved")
    again = gguf_file(f"dir:{moved}", number_format=GGUFFormat.f32, stages=stages)
    assert (again.path, stages.history[-1].reused) == (made.path, True)
    assert gguf_file(f"dir:{moved}", number_format=GGUFFormat.f16, stages=stages).path != made.path
    saved(moved, CONFIGS["llama"]())
    assert gguf_file(f"dir:{moved}", number_format=GGUFFormat.f32, stages=stages).path != made.path


def test_tied_weights_stand_once(tmp_path: Path) -> None:
    stages = StageStore(tmp_path / "cache")
    for name, has_output in (("llama", True), ("llama, tied", False)):
        folder = saved(tmp_path / name, CONFIGS[name]())
        names = {tensor.name for tensor in read(gguf_of(folder, stages, "f32")).tensors}
        assert ("output.weight" in names) == has_output


# Tokenizers


def test_words_of_the_lab_are_cut_by_its_own_tokenizer(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(WORDS)
    sizes = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    folder = saved(tmp_path / "model", LlamaConfig(**sizes, num_hidden_layers=2), tokenizer=tokenizer, silent=BYTES)
    served = engine(folder, StageStore(tmp_path / "cache"))
    texts = ["one two", "\u98df\u8033 teke", "three zebras\nand +", "= one"]
    pairs = answers(folder, served, texts, num_tokens=6)
    for one, other in pairs:
        assert other.num_prompt_tokens == one.num_prompt_tokens
        assert (other.text, other.token_ids) == (one.text, one.token_ids)
    assert any(one.text[:1].isalpha() and " " in one.text for one, _ in pairs), "no answer begins with a word"
    types = read(served.gguf.path).fields["tokenizer.ggml.token_type"].contents()
    assert {types[index] for index in BYTES} == {TokenType.BYTE}  # else llama.cpp would spell out their names


def byte_level(*, splits_digits: bool) -> PreTrainedTokenizerFast:
    from tokenizers import pre_tokenizers

    tokenizer = byte_tokenizer()
    steps = [pre_tokenizers.Digits(individual_digits=True)] if splits_digits else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend = merged(tokenizer, [("a", "b"), ("1", "2"), ("ab", "a")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def merged(tokenizer: Any, pairs: list[tuple[str, str]]) -> Any:
    """The byte tokenizer with merges of its own."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = []
    for pair in pairs:
        state["model"]["vocab"]["".join(pair)] = len(state["model"]["vocab"])
    state["model"]["merges"] = [list(pair) for pair in pairs]
    return Tokenizer.from_str(json.dumps(state))


def characters(*, merges: list[tuple[str, str]], begins: bool = False) -> PreTrainedTokenizerFast:
    """BPE of characters with bytes behind it and a begin token, as Gemma's."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    letters = ["\u2581", *"abcdeh", *dict.fromkeys("".join(pair) for pair in merges)]
    entries = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{value:02X}>" for value in range(256)), *letters]
    vocab = {entry: index for index, entry in enumerate(entries)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    mark = normalizers.Replace(" ", "\u2581")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), mark]) if begins else mark
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    backend.add_tokens([AddedToken("<p>", special=False, normalized=False)])
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


# "bc" is made before "ab", so that "abc" has two ways.
MERGES = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("\u2581", "a"), ("d", "e")]
TOKENIZERS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], str]] = {
    "bytes": (byte_tokenizer, "gpt2"),
    "byte-level BPE": (lambda: byte_level(splits_digits=False), "gpt2"),
    "every digit alone": (lambda: byte_level(splits_digits=True), "gpt2"),
    "characters": (lambda: characters(merges=MERGES), "llama"),
    "characters behind a space": (lambda: characters(merges=[("a", "b"), ("\u2581", "a")], begins=True), "llama"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tokenizer_of_the_file_cuts_a_text_as_ours(tmp_path: Path, name: str) -> None:
    make, kind = TOKENIZERS[name]
    tokenizer = make()
    sizes = {**SIZES, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    folder = saved(tmp_path / "model", LlamaConfig(**sizes, num_hidden_layers=1), tokenizer=tokenizer)
    served = engine(folder, StageStore(tmp_path / "cache"))
    model = read(served.gguf.path).fields["tokenizer.ggml.model"].contents()
    assert model == kind
    texts = ["abc abab", " a", "1212  34", "\u00e9t\u00e9 \u4e16de", "ab<p>de", "abcabc de", "bc<eos>a", "a\n\nb  c"]
    for text in texts:
        if "<" in text and name == "characters behind a space":
            continue  # transformers puts a space behind each token that stands for itself too
        assert cut_there(served, text) == encoded_prompt(tokenizer, text), text


def cut_there(served: LlamaCppEngine, text: str) -> list[int]:
    """The ids that llama.cpp makes of a text."""
    settings = ServerSettings(path=served.gguf.path, context_length=256, num_slots=1, num_threads=1)
    asked = {"content": text, "add_special": True, "parse_special": True}
    answer = httpx2.post(server_url(settings).removesuffix("v1") + "tokenize", json=asked)
    ids: list[int] = answer.json()["tokens"]
    return ids


def test_a_chat_goes_through_the_template_of_the_folder(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    folder = saved(tmp_path / "plain", CONFIGS["llama"](), tokenizer=tokenizer)
    stages = StageStore(tmp_path / "cache")
    asked = [Prompt(text="x", max_new_tokens=6)]
    with pytest.raises(ConfigError, match=r"engine\.api: got chat, but dir:.*plain has no chat template"):
        engine(folder, stages, api=Api.chat).generate(asked, rule=GREEDY)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %} ->"
    folder = saved(tmp_path / "chat", CONFIGS["llama"](), tokenizer=tokenizer)
    [[answer]] = engine(folder, stages, api=Api.chat).generate(asked, rule=GREEDY)
    [[written]] = engine(folder, stages).generate([Prompt(text="[user] x ->", max_new_tokens=6)], rule=GREEDY)
    assert (answer.text, answer.num_prompt_tokens) == (written.text, written.num_prompt_tokens)


# What is refused


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "family": (
        lambda: Qwen3Config(**SIZES, num_hidden_layers=1),
        r"a qwen3 model, which is not converted to GGUF; accepted: llama, qwen2, gemma3_text$",
    ),
    "activation": (
        lambda: LlamaConfig(**SIZES, num_hidden_layers=1, hidden_act="relu"),
        r"its activation is relu, and llama\.cpp computes silu only",
    ),
    "rope": (
        lambda: LlamaConfig(
            **SIZES,
            num_hidden_layers=1,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        ),
        r"rope_type is linear, and llama\.cpp computes default only",
    ),
    "gemma's layers": (
        lambda: Gemma3TextConfig(**SIZES, **{**GEMMA, "layer_types": ["full_attention"] * 7}),
        r"layer_types is .*, and llama\.cpp computes \['sliding_attention'",
    ),
    "gemma's scale": (
        lambda: Gemma3TextConfig(**SIZES, **{**GEMMA, "query_pre_attn_scalar": 16}),
        r"query_pre_attn_scalar is 16, and llama\.cpp computes 32 only",
    ),
    "a window": (
        lambda: Qwen2Config(
            **SIZES, num_hidden_layers=1, use_sliding_window=True, sliding_window=4, max_window_layers=0
        ),
        r"sliding attention is True, and llama\.cpp computes False only",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_compute_in_another_way_is_refused(tmp_path: Path, name: str) -> None:
    config, line = REFUSED[name]
    folder = saved(tmp_path / "model", config())
    with pytest.raises(ModelError, match=line):
        gguf_of(folder, StageStore(tmp_path / "cache"), "f32")


def test_a_tokenizer_without_a_form_there_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    spaced = byte_level(splits_digits=False)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # "abc" is the third merge and the last, with another token between.
    apart = characters(merges=[("a", "b"), ("b", "c"), ("ab", "c"), ("d", "e"), ("a", "bc")])
    fewer = characters(merges=[("a", "b"), ("b", "c"), ("ab", "c")])
    for name, tokenizer, line in (
        (
            "spaced",
            spaced,
            r"llama\.cpp has no form of this tokenizer \(BPE\); accepted: byte-level BPE",
        ),
        ("apart", apart, r"its merges are in no order of their tokens"),
        ("fewer", fewer, r"its merges leave out a \+ bc"),
    ):
        config = LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer)}, num_hidden_layers=1)
        folder = saved(tmp_path / name, config, tokenizer=tokenizer)
        with pytest.raises(ModelError, match=line):
            gguf_of(folder, StageStore(tmp_path / "cache"), "f32")
    folder = saved(tmp_path / "fewer", LlamaConfig(**{**SIZES, "vocab_size": 258}, num_hidden_layers=1))
    with pytest.raises(ModelError, match=r"the tokenizer has 259 tokens, the embedding 258 rows"):
        gguf_of(folder, StageStore(tmp_path / "cache"), "f32")


def test_numbers_and_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "model", CONFIGS["llama"]())
    path, stages = folder / "model.safetensors", StageStore(tmp_path / "cache")
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][0, 0] = 1e6
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"format: got f16, which holds nothing as great as .* of {name}; bf16"):
        gguf_of(folder, stages, "f16")
    assert gguf_of(folder, stages, "bf16").is_file()
    save_file({**tensors, "model.layers.0.extra.weight": torch.ones(3)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"llama\.cpp knows no model\.layers\.0\.extra\.weight in a llama model"):
        gguf_of(folder, stages, "f32")


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model", CONFIGS["llama, tied"]())
    monkeypatch.setattr("athlos.models.gguf_files.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"writing a GGUF file needs .* gguf: pip install 'athlos\[llama-cpp\]'"):
        gguf_of(folder, StageStore(tmp_path / "cache"), "f32")


# Real weights


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("load", [smollm2, gemma3])
def test_real_weights_say_the_same_through_llama_cpp(tmp_path: Path, load: Callable[..., Any]) -> None:
    loaded = load()
    folder = next(product.path for product in real_stages_of(load))
    texts = ["The capital of France is", "In 1666 the Great\n\n12  34", "\u4e16\u754c is a word. Stra\u00dfe is a"]
    served = engine(folder, StageStore(tmp_path / "cache"))
    pairs = answers(folder, served, texts, num_tokens=6)
    assert loaded.tokenizer.encode(texts[0]) == native(folder).encode(texts[0])
    for one, other in pairs:
        assert (other.text, other.token_ids, other.num_prompt_tokens) == (
            one.text,
            one.token_ids,
            one.num_prompt_tokens,
        )
        assert other.log_probs == pytest.approx(one.log_probs, abs=CLOSE)


def real_stages_of(load: Callable[..., Any]) -> list[Any]:
    """The products that the real weights came from."""
    stages = real_stages()
    load(stages)
    return stages.history
