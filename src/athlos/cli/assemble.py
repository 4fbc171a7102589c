"""Config -> model, data and parts, wired. Used by `run` and `export`."""

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hydra.utils import get_class

from athlos.cli.pretrained import is_trained_here, trained_model
from athlos.config.parts import PartContext, PartReport
from athlos.config.schema import RunConfig
from athlos.data.datamodule import DataModule, build_source
from athlos.data.picture_questions import PictureInput, PictureQuestionsConfig
from athlos.data.records import Record
from athlos.errors import ConfigError
from athlos.generation.interface import Engine
from athlos.models.forward import causal_model
from athlos.models.loading import LoadedModel, load_model
from athlos.models.vision_language import PictureInputs, is_vision_language, tower_trains
from athlos.stages import StageStore, cache_dir
from athlos.text.prompts import build_prompt, completion
from athlos.training.module import MethodModule

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Assembly:
    loaded: LoadedModel | None
    """None where a server answers and nothing is trained."""
    data: DataModule
    stages: StageStore
    base: MethodModule
    """The model as loaded, for the base evaluation. The same object as `module.model` until parts change it."""
    module: MethodModule | None = None
    selection: Any = None
    reports: list[PartReport] = field(default_factory=list)


def open_run(config: RunConfig) -> Assembly:
    """Load model and data; no part is applied yet."""
    if config.data.dir:
        _ = build_source(config).folder  # a misspelt folder is told before a model is loaded, which may take a minute
    stages = StageStore(cache_dir(config.cache_dir))
    loaded = None if config.engine.is_remote else _loaded(config, stages=stages)
    tokenizer: Any = None if loaded is None else loaded.tokenizer
    data = DataModule(
        config, tokenizer=tokenizer, stages=stages, text_of=lambda record: text_of(record, config.eval.prompt)
    )
    model: Any = None if loaded is None else loaded.model
    if loaded is not None and isinstance(config.data, PictureQuestionsConfig) and is_vision_language(model):
        data.pictures = PictureInputs(
            model, stages=stages, is_cached=config.data.picture_input is PictureInput.features
        )
    base = MethodModule(
        config,
        model=model,
        tokenizer=tokenizer,
        objective=get_class(config.objective._target_)(config.objective),
        decoding=get_class(config.decoding._target_)(config.decoding),
        engine=build_engine(config, model=model, tokenizer=tokenizer),
    )
    return Assembly(loaded=loaded, data=data, stages=stages, base=base)


def _loaded(config: RunConfig, *, stages: StageStore) -> LoadedModel:
    model_config = trained_model(config, stages=stages) if is_trained_here(config.model) else config.model
    loaded = load_model(
        model_config,
        seed=config.seed,
        stages=stages,
        training_texts=lambda: training_texts(config),
        words=lambda: build_source(config).words(),
    )
    return dataclasses.replace(loaded, source=config.model.source)


def _check_tower(config: RunConfig, model: Any) -> None:
    """Features are encoded once, so a tower that trains would never be seen to change."""
    if isinstance(config.data, PictureQuestionsConfig) and config.data.picture_input is PictureInput.features:
        inner = causal_model(model)
        if is_vision_language(inner) and tower_trains(inner):
            raise ConfigError(
                "data.picture_input: got features, which are encoded once, but the selection lets the vision tower "
                "train; use data.picture_input=pixels or another selection"
            )


def build_engine(config: RunConfig, *, model: Any, tokenizer: Any) -> Engine:
    """The engine of a run: around its model, or, with none, one that asks a server."""
    engine_class = get_class(config.engine._target_)
    if config.engine.is_remote:
        remote: Engine = engine_class(config.engine, cache_root=cache_dir(config.cache_dir))
        return remote
    engine: Engine = engine_class(config.engine, model=model, tokenizer=tokenizer)
    return engine


def text_of(record: Record, style: str) -> tuple[str, str]:
    """Prompt and completion of a record for training, without worked examples."""
    return build_prompt(record, shots=(), style=style), completion(record, style)


def training_texts(config: RunConfig) -> Iterator[str]:
    """Texts a `bpe` tokenizer is trained on: prompts and completions of the training split."""
    split = config.data.train_split or config.data.test_split
    assert split is not None
    for record in build_source(config).records(split, limit=config.data.limit_train):
        yield "".join(text_of(record, config.eval.prompt))


def apply_parts(config: RunConfig, assembly: Assembly) -> MethodModule:
    """Construction, surgery, selection, what the objective prepares, then the method's module around them."""
    method_class = get_class(config.method._target_)
    if assembly.loaded is None:
        assembly.module = method_class(
            config,
            model=None,
            tokenizer=None,
            objective=assembly.base.objective,
            decoding=assembly.base.decoding,
            engine=assembly.base.engine,
        )
        return assembly.module
    context = PartContext(
        config=config,
        tokenizer=assembly.loaded.tokenizer,
        stages=assembly.stages,
        model_fingerprint=assembly.loaded.fingerprint,
        data=assembly.data,
        base_model=assembly.loaded.model,
    )
    if config.num_steps:
        context.constructed, report = get_class(config.construct._target_)(config.construct).build(context=context)
        assembly.reports.append(report)
    model, report = get_class(config.surgery._target_)(config.surgery).apply(assembly.loaded.model, context=context)
    assembly.reports.append(report)
    if config.num_steps:
        assembly.selection = get_class(config.selection._target_)(config.selection)
        model, report = assembly.selection.apply(model, context=context)
        assembly.reports.append(report)
        _check_tower(config, model)
        prepared = assembly.base.objective.prepare(context=context)
        if prepared is not None:
            assembly.reports.append(prepared)
    else:
        model.requires_grad_(False)
    assembly.module = method_class(
        config,
        model=model,
        tokenizer=assembly.loaded.tokenizer,
        objective=assembly.base.objective,
        decoding=assembly.base.decoding,
        engine=build_engine(config, model=model, tokenizer=assembly.loaded.tokenizer),
    )
    assembly.module.prepare(context=context)
    return assembly.module
