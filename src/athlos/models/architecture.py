"""From the plain `model.architecture` of a config to a checked transformers config and the class that runs it."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from athlos.errors import ModelError, did_you_mean
from athlos.models import surgical, vision_encoders  # noqa: F401  (they register the model types of athlos.hf)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)
BuiltT = TypeVar("BuiltT")

ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor")
"""Spellings of published config files that transformers 5 folds into `rope_parameters`."""


def hf_config(architecture: Mapping[str, Any], *, vocab_size: int | None = None) -> "PreTrainedConfig":
    """The transformers config of an architecture; raises `ModelError` on a key or value it does not know.

    `vocab_size` is the number of tokens of the tokenizer in use; an architecture that names a smaller one is an error,
    a larger one (padded) is kept.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = dict(architecture)
    if not values:
        raise ModelError("model.architecture: empty; expected the keys of a transformers config, model_type among them")
    model_type = values.pop("model_type", None)
    known_types = list(CONFIG_MAPPING.keys())
    if model_type not in known_types:
        near = did_you_mean(str(model_type), known_types)
        raise ModelError(f"model.architecture.model_type: got '{model_type}', unknown to transformers{near}")
    config_class = CONFIG_MAPPING[model_type]
    _check_keys(values, config_class=config_class, path="model.architecture")
    if vocab_size is not None:
        _fit_vocabulary(values, vocab_size=vocab_size)
    try:
        return config_class(**values)
    except Exception as error:  # transformers raises its own validation classes, which share no base with a name
        reason = " ".join(str(error).split())
        raise ModelError(f"model.architecture: not a valid {model_type} config: {reason}") from error


def _check_keys(values: Mapping[str, Any], *, config_class: "type[PreTrainedConfig]", path: str) -> None:
    """transformers keeps an unknown key as an attribute nobody reads; here it is an error, nested configs included."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    fields = {field.name for field in dataclasses.fields(config_class)}
    known = sorted(fields | set(config_class.attribute_map) | set(ROPE_KEYS))
    for key, value in values.items():
        if key not in known:
            near = did_you_mean(key, known) or f"; accepted: {', '.join(known)}"
            raise ModelError(f"{path}.{key}: unknown key of a {config_class.model_type} config{near}")
        if key in config_class.sub_configs and isinstance(value, Mapping):
            inner_type = str(value.get("model_type"))
            if inner_type not in CONFIG_MAPPING:
                raise ModelError(f"{path}.{key}.model_type: got '{inner_type}', unknown to transformers")
            inner = {name: item for name, item in value.items() if name != "model_type"}
            _check_keys(inner, config_class=CONFIG_MAPPING[inner_type], path=f"{path}.{key}")


def _fit_vocabulary(values: dict[str, Any], *, vocab_size: int) -> None:
    place = values
    if "text_config" in values:
        place = values["text_config"] = dict(values["text_config"])
    asked = place.get("vocab_size", vocab_size)
    if asked < vocab_size:
        raise ModelError(
            f"model.architecture.vocab_size: got {asked}, but the tokenizer has {vocab_size} tokens; leave it out"
        )
    place["vocab_size"] = asked


def auto_class(config: "PreTrainedConfig") -> Any:
    """The transformers class that builds a model of this config with a language-model head."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    if "vision_config" in type(config).sub_configs:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def build(config: "PreTrainedConfig", **options: Any) -> "PreTrainedModel":
    """A model with fresh weights from torch's current random state, on torch's current device."""
    try:
        make: Callable[..., PreTrainedModel] = auto_class(config).from_config
        return on_supported_attention(make, config, **options)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"model.architecture: no language model can be built of {config.model_type}: {reason}"
        ) from error


def on_supported_attention(make: Callable[..., BuiltT], *arguments: Any, **options: Any) -> BuiltT:
    """`make(*arguments, **options)`, with eager attention where the architecture lacks `attn_implementation`.

    Gemma 2 has no sdpa, since it caps its scores, and Mamba has no attention. The change is told in a line.
    """
    try:
        return make(*arguments, **options)
    except ValueError as error:
        wanted = options.get("attn_implementation")
        # transformers raises a plain ValueError for many reasons; this one names torch's function.
        if wanted != "sdpa" or "scaled_dot_product_attention" not in str(error):
            raise
        log.info("model.attention: eager, since this architecture has no %s", wanted)
        return make(*arguments, **{**options, "attn_implementation": "eager"})
