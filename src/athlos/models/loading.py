"""`model.source` -> a model and its tokenizer. Weights come as safetensors only; no code of a model's author runs."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.errors import ModelError
from athlos.models import wheels
from athlos.models.architecture import auto_class, build, hf_config, on_supported_attention
from athlos.models.forward import check_logits
from athlos.models.quiet import quiet_transformers
from athlos.models.sites import vision_parts
from athlos.models.source import NO_TOKENIZER, Source, model_folder, parse_source
from athlos.models.tokenizers import TextSource, bpe_tokenizer, byte_tokenizer, tokenizer_hash, word_tokenizer
from athlos.models.vocabulary import Vocabulary, cut_rows, trimmed
from athlos.stages import StageStore, content_hash, file_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FINGERPRINT_VERSION = 1
UNKNOWN_LICENSE = "unknown"
HUB_ADVICE = "; is the hub in reach? Otherwise model.source=dir:<folder> or wheel:<distribution>==<version>"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in eval mode, ready for surgery and selection."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    fingerprint: str
    """Content hash of weights and tokenizer as loaded: equal for equal weights, whatever the machine."""
    license: str
    """Licence of the weights as their source names it, `none (random weights)`, or `unknown`."""
    source: str


def source_key(config: ModelConfig) -> str:
    """Content hash of what a source stands for, without loading it: files of a folder, a wheel, a hub revision.

    Random weights are a function of architecture and seed, which are told elsewhere. Raises `ModelError` as
    `load_model` does for a source that cannot be had, or for one that names no content, such as `run:`.
    """
    source = parse_source(config.source)
    if source.kind == "random":
        return "random"
    if source.kind == "dir":
        folder = model_folder(source)
        return content_hash({path.name: file_hash(path) for path in _content_files(folder)})
    if source.kind == "wheel":
        return content_hash({"wheel": wheels.find(source.reference).sha256, "conversion": wheels.CONVERSION_VERSION})
    if source.kind == "run":
        raise ModelError(f"model.source: run:{source.reference} is a run to do first, no folder; use `athlos run`")
    return content_hash(f"hub:{source.reference}@{source.revision}")


def load_model(
    config: ModelConfig,
    *,
    seed: int,
    stages: StageStore,
    training_texts: TextSource | None = None,
    words: TextSource | None = None,
) -> LoadedModel:
    """Load or build the model of a config, with its dtype, attention kernel and activation checkpointing applied.

    `seed` decides random weights; `training_texts` gives a pass over the training text, for `tokenizer.kind=bpe`;
    `words` gives the data source's word list, for `tokenizer.kind=words`.
    Raises `ModelError` when the source is out of reach, incomplete, pickled, or contradicts its tokenizer.
    """
    source = parse_source(config.source)
    place = _place(source, stages=stages, config=config, seed=seed, words=words)
    tokenizer = _tokenizer(
        config, source=source, place=place, stages=stages, training_texts=training_texts, words=words
    )
    if source.kind == "random":
        model = _random_model(config, seed=seed, tokenizer=tokenizer)
        content = {
            "architecture": json.loads(model.config.to_json_string(use_diff=False)),
            "seed": seed,
            "tokenizer": tokenizer_hash(tokenizer),
        }
        license_name = "none (random weights)"
    else:
        model = _from_pretrained(config, place=place, revision=source.revision)
        content, license_name = _identity(model, source=source, place=place)
        if config.tokenizer.kind == "trimmed" and source.kind != "llava":
            vocabulary = _cut(_source_tokenizer(place, revision=source.revision), words)
            cut_rows(model, vocabulary)
            content["trimmed"] = tokenizer_hash(vocabulary.tokenizer)
        _fit_vocabulary(model, tokenizer=tokenizer)
        _warn_of_differences(config, model=model)
        if source.kind in ("dir", "hub") and vision_parts(model) is None:  # the others are known
            check_logits(model)
        log.info("model %s: licence %s", config.name, license_name)
    if vision_parts(model) is not None:
        _ready_for_pictures(model, tokenizer=tokenizer)
    if config.activation_checkpointing:
        _checkpoint_activations(model)
    fingerprint = content_hash({"version": FINGERPRINT_VERSION, "dtype": config.dtype.value, **content})
    return LoadedModel(
        model=model.eval(), tokenizer=tokenizer, fingerprint=fingerprint, license=license_name, source=config.source
    )


def load_tokenizer(config: ModelConfig, *, stages: StageStore) -> "PreTrainedTokenizerBase":
    """The tokenizer alone. Without a pad token of its own it pads with its end token: go by attention_mask, not id."""
    source = parse_source(config.source)
    place = _place(source, stages=stages, config=config, words=None)
    return _tokenizer(config, source=source, place=place, stages=stages, training_texts=None, words=None)


def _tokenizer(
    config: ModelConfig,
    *,
    source: Source,
    place: str,
    stages: StageStore,
    training_texts: TextSource | None,
    words: TextSource | None,
) -> "PreTrainedTokenizerBase":
    kind = config.tokenizer.kind
    if kind == "trimmed" and source.kind == "llava":
        return _source_tokenizer(place, revision=source.revision)
    if (source.kind == "random") != (kind in ("byte", "bpe", "words")):
        reason = "random weights have none of their own; accepted: byte, bpe, words"
        if source.kind != "random":
            reason = "trained weights only fit their own tokenizer; accepted: source (which model=own sets), trimmed"
        raise ModelError(f"model.tokenizer.kind: got '{kind}' with model.source={config.source}: {reason}")
    if kind == "byte":
        return byte_tokenizer()
    if kind == "bpe":
        if training_texts is None:
            raise ModelError("model.tokenizer.kind: bpe is trained on the run's training text, and this run has none")
        return bpe_tokenizer(training_texts, vocab_size=config.tokenizer.vocab_size, stages=stages)
    if kind == "words":
        if words is None:
            raise ModelError("model.tokenizer.kind: words needs the word list of a data source, and this run has none")
        return word_tokenizer(words())
    tokenizer = _source_tokenizer(place, revision=source.revision)
    return tokenizer if kind == "source" else _cut(tokenizer, words).tokenizer


def _cut(tokenizer: "PreTrainedTokenizerBase", words: TextSource | None) -> Vocabulary:
    if words is None:
        raise ModelError("model.tokenizer.kind: trimmed needs the texts of a data source, and this run has none")
    return trimmed(tokenizer, list(words()))


def _place(
    source: Source, *, stages: StageStore, config: ModelConfig, seed: int = 0, words: TextSource | None = None
) -> str:
    """Where transformers finds a source: a folder, made first for a wheel, or the name of a hub repository."""
    if source.kind == "llava":
        return str(_composed(source, config=config, seed=seed, stages=stages, words=words))
    if source.kind == "wheel":
        return str(wheels.converted(wheels.find(source.reference), stages=stages).path)
    if source.kind == "dir":
        return str(model_folder(source))
    if source.kind == "run":
        raise ModelError(f"model.source: run:{source.reference} is a run to do first, no folder; use `athlos run`")
    return source.reference


def _composed(source: Source, *, config: ModelConfig, seed: int, stages: StageStore, words: TextSource | None) -> Path:
    """The folder of a vision-language model made of parts; its decoder is loaded as any source of text models."""
    from athlos.models.composed import composed, parts_of

    inner = ModelConfig(
        name=config.name, source=parts_of(source.reference)[0], tokenizer=TokenizerConfig(kind="source")
    )

    def decoder() -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        loaded = load_model(inner, seed=seed, stages=stages)
        return loaded.model, loaded.tokenizer

    product = composed(config, reference=source.reference, decoder=decoder, texts=words, seed=seed, stages=stages)
    return product.path


def _ready_for_pictures(model: "PreTrainedModel", *, tokenizer: "PreTrainedTokenizerBase") -> None:
    from athlos.models.vision_language import check_image_token, keep_tower_still

    check_image_token(model, tokenizer)
    keep_tower_still(model)


def _random_model(config: ModelConfig, *, seed: int, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    import torch

    shape = hf_config(config.architecture, vocab_size=len(tokenizer))
    text = shape.get_text_config()
    text.pad_token_id, text.bos_token_id, text.eos_token_id = (
        tokenizer.pad_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    )
    # transformers initialises from torch's global state; the fork gives it a seed and leaves the caller's state alone.
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(shape, dtype=getattr(torch, config.dtype.value), attn_implementation=config.attention.value)


def _identity(model: "PreTrainedModel", *, source: Source, place: str) -> tuple[dict[str, Any], str]:
    """What identifies the content of trained weights, and their licence."""
    if source.kind == "wheel":
        wheel = wheels.find(source.reference)
        return {"wheel": wheel.sha256, "conversion": wheels.CONVERSION_VERSION}, wheel.license
    if source.kind in ("dir", "llava"):
        files = {path.name: file_hash(path) for path in _content_files(Path(place))}
        return {"files": files}, folder_license(Path(place))
    # transformers notes the commit that a branch or tag stood for when it was fetched.
    return {"repository": source.reference, "commit": model.config._commit_hash or source.revision}, UNKNOWN_LICENSE


def _from_pretrained(config: ModelConfig, *, place: str, revision: str) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig

    options = fetch_options(revision)
    with quiet_transformers():
        try:
            shape = AutoConfig.from_pretrained(place, trust_remote_code=False, **options)
            if "auto_map" in shape.to_dict():
                log.info(
                    "model.source: %s brings code of its own (auto_map), which is not run; that of transformers is",
                    config.source,
                )
            load: Callable[..., tuple[PreTrainedModel, dict[str, Any]]] = auto_class(shape).from_pretrained
            model, report = on_supported_attention(
                load,
                place,
                config=shape,
                dtype=getattr(torch, config.dtype.value),
                attn_implementation=config.attention.value,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        except Exception as error:  # hub clients raise many classes; each of them means: these weights cannot be had
            raise _unreachable(config, error=error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"model.source: {config.source} lacks {len(missing)} tensors of a {shape.model_type} model, "
            f"such as {', '.join(missing[:3])}"
        )
    return model


def fetch_options(revision: str) -> dict[str, Any]:
    """A folder needs no network; a hub repository is fetched at its revision."""
    return {"revision": revision} if revision else {"local_files_only": True}


def _source_tokenizer(place: str, *, revision: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **fetch_options(revision))
        except Exception as error:  # see _from_pretrained
            advice = HUB_ADVICE if revision else NO_TOKENIZER
            raise ModelError(f"model.source: no tokenizer in {place}: {_first_line(error)}{advice}") from error
    if not tokenizer.is_fast or tokenizer.eos_token is None:
        missing = "names no end-of-sequence token" if tokenizer.is_fast else "has no fast form"
        raise ModelError(
            f"model.source: the tokenizer in {place} {missing}; expected a tokenizer.json, and an eos_token in "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _content_files(folder: Path) -> list[Path]:
    names = ("config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja")
    return [*sorted(folder.glob("*.safetensors")), *(folder / name for name in names if (folder / name).is_file())]


def folder_license(folder: Path) -> str:
    """The licence named beside the weights: by Athlos itself, or in the front matter of a model card."""
    named = folder / wheels.LICENSE_NAME_FILE
    if named.is_file():
        return named.read_text(encoding="utf-8").strip()
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:50]:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip()
    return UNKNOWN_LICENSE


def _fit_vocabulary(model: "PreTrainedModel", *, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Give tokens without a row in the embedding one each, as transformers does: tokenizers are often extended alone.

    The new rows are drawn about the mean of the others with a fixed seed, so that a folder is always the same model.
    """
    import torch

    rows = model.get_input_embeddings().get_parameter("weight").shape[0]
    if len(tokenizer) <= rows:
        return
    log.warning(
        "model.source: the tokenizer has %d tokens, the embedding %d rows; the missing rows are new and not trained",
        len(tokenizer),
        rows,
    )
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer))


def _warn_of_differences(config: ModelConfig, *, model: "PreTrainedModel") -> None:
    """Say where the loaded config differs from `model.architecture`, on which dry runs and budgets rest."""
    if not config.architecture:
        return
    model_type = config.architecture.get("model_type", model.config.model_type)
    expected = hf_config({"model_type": model_type, **config.architecture})
    values, actual = expected.to_dict(), model.config.to_dict()
    for name in config.architecture:
        key = expected.attribute_map.get(name, name)
        if key in values and not _same(values[key], actual.get(key)):
            log.warning("model.architecture.%s: %s here, but the weights say %s", name, values[key], actual.get(key))


def _same(expected: Any, actual: Any) -> bool:
    """Equal; numbers that went through float32 count as equal, nested values are compared where both have them."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        stated = {key: value for key, value in expected.items() if value is not None and key in actual}
        return all(_same(value, actual[key]) for key, value in stated.items())
    if isinstance(expected, float) and isinstance(actual, float):
        return math.isclose(expected, actual, rel_tol=1e-6)
    return bool(expected == actual)


def _checkpoint_activations(model: "PreTrainedModel") -> None:
    with warnings.catch_warnings():
        # The name is deprecated since transformers 5.2x, but the only one that every release in our range has.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing_enable.*", category=FutureWarning)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _unreachable(config: ModelConfig, *, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"model.source: {config.source} needs code of its own (auto_map), which is not run; accepted: "
            "architectures of transformers"
        )
    advice = HUB_ADVICE if config.source.startswith("hub:") else ""
    return ModelError(f"model.source: {config.source} cannot be loaded: {_first_line(error)}{advice}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
