"""Athlos's own model types for transformers' AutoConfig, without importing transformers before the user does.

`athlos` is a model that a surgery changed, `athlos_vision` a convolutional picture encoder.

`import athlos` calls `register_when_imported`; nothing else happens until transformers' own registry is imported.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODEL_TYPE = "athlos"
VISION_TYPE = "athlos_vision"
BASE_KEY, SURGERIES_KEY = "base_model_type", "athlos_surgeries"
"""Keys of `config.json`: the model type the surgeries began with, and their list."""
REGISTRY = "transformers.models.auto.configuration_auto"


def register_when_imported() -> None:
    """Make `AutoConfig` know Athlos models: now if it is imported already, else as soon as it is."""
    if REGISTRY in sys.modules:
        _register(sys.modules[REGISTRY])
    else:
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds nothing itself; has the registry's own loader call `_register` once it is done."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            _register(module)

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def _register(registry: Any) -> None:
    from transformers import PreTrainedConfig

    class AthlosConfig(PreTrainedConfig):
        """Reads `config.json` of a changed model into the config class of its base model."""

        model_type = MODEL_TYPE

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
            # By name: this module stands left of all others, and what it starts is only needed for such a folder.
            surgical = importlib.import_module("athlos.models.surgical")
            values = dict(config_dict)
            config_class = surgical.surgical_classes(values.pop(BASE_KEY, ""))[0]
            return config_class.from_dict(values, **options)

    class AthlosVisionConfig(PreTrainedConfig):
        """A picture encoder made of convolutions; `athlos.models.vision_encoders` holds the modules."""

        model_type = VISION_TYPE

        encoder: str = "tiny_cnn"
        """`tiny_cnn` or `efficientnet_lite0`."""
        image_size: int = 32
        """Pixels a side; pictures are enlarged or shrunk to it."""
        num_tokens_a_side: int = 4
        """The map of features is averaged to a grid of this size, row by row one token a place."""
        hidden_size: int = 64
        """Channels of a token; 1280 in `efficientnet_lite0`."""

        def __post_init__(self, **values: Any) -> None:
            super().__post_init__(**values)
            importlib.import_module("athlos.models.vision_encoders")  # makes AutoModel know the class

    for name, known in ((MODEL_TYPE, AthlosConfig), (VISION_TYPE, AthlosVisionConfig)):
        if name not in registry.CONFIG_MAPPING:
            registry.AutoConfig.register(name, known)
