"""Models whose structure a surgery changed, as classes that transformers itself saves and loads.

A surgery that leaves other modules or shapes behind calls `record_surgery`. The model then is of a subclass of its own
class whose config carries the list of surgeries, so `save_pretrained` writes them and, after `import athlos.hf`,
`AutoModelForCausalLM.from_pretrained` builds the base model, lets each surgery change its structure again and loads the
weights. Plain transformers refuses such a folder (`model_type: athlos`) instead of loading half of it.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from hydra.utils import get_class
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from athlos.config.registry import registry
from athlos.errors import SurgeryError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPE = "athlos"
BASE_KEY, SURGERIES_KEY = "base_model_type", "athlos_surgeries"
"""Keys of `config.json`: the model type the surgeries began with, and their list."""


class AthlosConfig(PreTrainedConfig):
    """Reads `config.json` of a changed model into the config class of its base model."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        values = dict(config_dict)
        config_class: Any = surgical_classes(values.pop(BASE_KEY, ""))[0]
        return config_class.from_dict(values, **options)


AutoConfig.register(MODEL_TYPE, AthlosConfig)


def record_surgery(model: "PreTrainedModel", *, name: str, plan: dict[str, Any]) -> None:
    """Note on a changed model what `rebuild(model, plan)` of surgery `name` needs to change a fresh one alike.

    `plan` holds plain JSON values: shapes and choices, no weights. Surgeries are rebuilt in the order of their records.
    Raises `SurgeryError` for a model that is no causal language model of transformers.
    """
    config = model.config
    if config.model_type != MODEL_TYPE:
        known_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if type(model) is not known_class:
            raise SurgeryError(f"surgery={name}: {type(model).__name__} is no causal language model of transformers")
        config.__class__, model.__class__ = surgical_classes(config.model_type)
    setattr(config, SURGERIES_KEY, [*surgeries(config), {"name": name, "plan": plan}])


def surgeries(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """The surgeries of a model's config, in order: `name` and `plan` of each."""
    applied: list[dict[str, Any]] = getattr(config, SURGERIES_KEY, None) or []
    return applied


@cache
def surgical_classes(base_model_type: str) -> tuple[type, type]:
    """Config and model class for surgeries on a model type of transformers, known to its Auto classes."""
    if base_model_type not in CONFIG_MAPPING:
        raise SurgeryError(f"{BASE_KEY}: got '{base_model_type}', unknown to transformers")
    base_config: Any = CONFIG_MAPPING[base_model_type]
    base_model: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(base_config, None)
    if base_model is None:
        raise SurgeryError(f"{BASE_KEY}: transformers has no causal language model for '{base_model_type}'")

    def to_dict(self: Any) -> dict[str, Any]:
        values: dict[str, Any] = base_config.to_dict(self)
        return {**values, "model_type": MODEL_TYPE, BASE_KEY: base_model_type}

    def initialise(self: Any, config: Any, *arguments: Any, **options: Any) -> None:
        base_model.__init__(self, config, *arguments, **options)
        for surgery in surgeries(config):
            _rebuild(self, **surgery)

    config_class = type(f"Athlos{base_config.__name__}", (base_config,), {"model_type": MODEL_TYPE, "to_dict": to_dict})
    model_class = type(
        f"Athlos{base_model.__name__}", (base_model,), {"config_class": config_class, "__init__": initialise}
    )
    AutoModelForCausalLM.register(config_class, model_class)
    return config_class, model_class


def _rebuild(model: "PreTrainedModel", *, name: str, plan: dict[str, Any]) -> None:
    surgery: Any = get_class(registry().get("surgery", name).target)
    surgery.rebuild(model, plan)
