"""Config -> weights, data and parts, wired: for the training of a phase, and for the evaluation of what it left."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from hydra.utils import get_class

from athlos.config.part_report import PartReport
from athlos.config.schema import EngineConfig, ModelConfig, RunConfig
from athlos.data.datamodule import DataModule
from athlos.data.picture_questions import PictureInput, PictureQuestionsConfig
from athlos.data.records import Record
from athlos.data.source import build_source
from athlos.errors import ConfigError
from athlos.generation.config import NativeConfig, SelfGeneratorConfig, TransformersConfig
from athlos.generation.http_config import LlamaCppConfig
from athlos.generation.interface import Engine
from athlos.generation.native import NativeEngine, misfit
from athlos.generation.transformers_engine import TransformersEngine
from athlos.judging.building import build_judge
from athlos.models.config import NoSurgeryConfig
from athlos.models.forward import causal_model
from athlos.models.loading import LoadedModel, load_model
from athlos.models.sites import check_operable
from athlos.models.vision_language import PictureInputs, is_vision_language, tower_trains
from athlos.parts import PartContext
from athlos.retrieval.building import build_index
from athlos.stages import StageStore, cache_dir
from athlos.text.prompts import build_prompt, completion
from athlos.training.module import MethodModule

log = logging.getLogger(__name__)

LoadModel = Callable[[], LoadedModel]


@dataclass(kw_only=True)
class Assembly:
    """A method's module with its parts applied, and what they told."""

    module: MethodModule[Any]
    context: PartContext
    tuning: Any = None
    """The tuning that was applied; None where nothing trains."""
    reports: list[PartReport] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """What the parts measured."""
        return {name: value for report in self.reports for name, value in report.metrics.items()}


def load(run: RunConfig, model: ModelConfig, *, stages: StageStore) -> LoadedModel:
    """The weights of a model config, whose source is no `run:`; texts and words come from the run's data."""
    loaded = load_model(
        model,
        seed=run.seed,
        stages=stages,
        training_texts=lambda: training_texts(run),
        words=lambda: build_source(run).words(),
    )
    return dataclasses.replace(loaded, source=run.model.source)


def open_data(run: RunConfig, loaded: LoadedModel | None, *, stages: StageStore) -> DataModule:
    """The data of a run as a model reads it; `loaded` is None where a server answers."""
    tokenizer: Any = None if loaded is None else loaded.tokenizer
    data = DataModule(run, tokenizer=tokenizer, stages=stages, text_of=lambda record: text_of(record, run.prompt_style))
    if loaded is not None and isinstance(run.data, PictureQuestionsConfig) and is_vision_language(loaded.model):
        data.pictures = PictureInputs(
            loaded.model, stages=stages, is_cached=run.data.picture_input is PictureInput.features
        )
    return data


def for_training(
    run: RunConfig,
    start: LoadedModel,
    *,
    applies_surgery: bool,
    load_base: LoadModel | None,
    stages: StageStore,
    writer: LoadedModel | None = None,
) -> Assembly:
    """A phase ready to train: construction, surgery, selection and tuning, objective, and the method's module around.

    `applies_surgery` is False where the weights that the phase starts from have been through its surgery already;
    `load_base` loads the model before all phases, and is None where `start` is that. `writer` is what the construction
    reads, where that is not `start`.
    """
    context = _context(run, start, load_base=load_base, stages=stages)
    assert context.data is not None
    reports = []
    read = context
    if writer is not None:
        read = _context(run, writer, load_base=load_base or (lambda: start), stages=stages)
    context.made = get_class(run.construct._target_)(run.construct).build(context=read)
    if context.made is not None:
        reports.append(context.made.report)
    context.data = context.data.with_made(context.made)
    model = start.model
    if applies_surgery:
        model, report = _operated(run, model, context=context)
        reports.append(report)
    chosen = get_class(run.selection._target_)(run.selection).choose(model, context=context)
    tuning = get_class(run.tuning._target_)(run.tuning)
    model, report = tuning.apply(model, chosen, context=context)
    reports.append(report)
    _check_tower(run, model)
    objective = get_class(run.objective._target_)(run.objective)
    if (report := objective.prepare(model, context=context)) is not None:
        reports.append(report)
    module = _module(run, model=model, objective=objective, context=context)
    _tell_engine(run, module)
    module.prepare(context=context)
    return Assembly(module=module, context=context, tuning=tuning, reports=reports)


def for_evaluation(
    run: RunConfig,
    loaded: LoadedModel | None,
    *,
    applies_surgery: bool,
    load_base: LoadModel | None,
    stages: StageStore,
) -> Assembly:
    """The method's module around weights that nothing trains any more; `loaded` is None where a server answers."""
    context = _context(run, loaded, load_base=load_base, stages=stages)
    reports = []
    model: Any = None
    if loaded is not None:
        model = loaded.model
        if applies_surgery:
            model, report = _operated(run, model, context=context)
            reports.append(report)
        model.requires_grad_(False)
    objective = get_class(run.objective._target_)(run.objective)
    module = _module(run, model=model, objective=objective, context=context)
    if not run.num_steps:
        _tell_engine(run, module)
    module.prepare(context=context)
    return Assembly(module=module, context=context, reports=reports)


def _operated(run: RunConfig, model: Any, *, context: PartContext) -> tuple[Any, PartReport]:
    """The model behind the run's surgery, whose new weights are drawn by the run's seed.

    Raises `SurgeryError` where surgeries do not know the layers.

    Modules of torch draw from its global state; the fork gives it the seed and leaves the caller's state alone. Without
    it the draws would hang on what the process did before, such as the other runs of a sweep.
    """
    if not isinstance(run.surgery, NoSurgeryConfig):
        check_operable(model)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        operated: tuple[Any, PartReport] = get_class(run.surgery._target_)(run.surgery).apply(model, context=context)
    return operated


def untouched(run: RunConfig, loaded: LoadedModel, *, stages: StageStore) -> MethodModule[Any]:
    """The model as loaded, for the base evaluation: asked by the run's decoding rule, without its method."""
    context = _context(run, loaded, load_base=None, stages=stages)
    objective = get_class(run.objective._target_)(run.objective)
    return _module(run, model=loaded.model, objective=objective, context=context, module_class=MethodModule)


def _context(
    run: RunConfig, loaded: LoadedModel | None, *, load_base: LoadModel | None, stages: StageStore
) -> PartContext:
    data = open_data(run, loaded, stages=stages)
    return PartContext(
        config=run,
        stages=stages,
        data=data,
        start=loaded,
        load_base=load_base,
        generator=_generator(run, loaded, stages=stages),
        judge=build_judge(run.judge, stages=stages),
        index=build_index(run, source=data.source, stages=stages),
    )


def _module(
    run: RunConfig, *, model: Any, objective: Any, context: PartContext, module_class: Any = None
) -> MethodModule[Any]:
    tokenizer = None if context.start is None else context.start.tokenizer
    make = module_class or get_class(run.method._target_)
    module: MethodModule[Any] = make(
        run,
        model=model,
        tokenizer=tokenizer,
        objective=objective,
        decoding=get_class(run.decoding._target_)(run.decoding),
        engine=build_engine(run, model=model, tokenizer=tokenizer, stages=context.stages),
        data=context.data,
    )
    return module


def build_engine(run: RunConfig, *, model: Any, tokenizer: Any, stages: StageStore) -> Engine:
    """The engine of a run: around its model, or, with none, one that asks a server."""
    if run.engine.is_remote:
        return _remote(run.engine, run, stages=stages)
    engine_class = get_class(run.engine._target_)
    if isinstance(run.engine, NativeConfig):
        return _native(run.engine, model=model, tokenizer=tokenizer)
    engine: Engine = engine_class(run.engine, model=model, tokenizer=tokenizer)
    return engine


def _remote(config: EngineConfig, run: RunConfig, *, stages: StageStore) -> Engine:
    places: dict[str, Any] = {"cache_root": cache_dir(run.cache_dir)}
    if isinstance(config, LlamaCppConfig):
        places["stages"] = stages
    engine: Engine = get_class(config._target_)(config, **places)
    return engine


def _native(config: NativeConfig, *, model: Any, tokenizer: Any) -> Engine:
    """The native engine, or, for a model that it does not fit, that of transformers."""
    if misfit(causal_model(model)):
        loop = TransformersConfig(_target_="", batch_size=config.batch_size)
        return TransformersEngine(loop, model=model, tokenizer=tokenizer)
    return NativeEngine(config, model=model, tokenizer=tokenizer)


def _tell_engine(run: RunConfig, module: MethodModule[Any]) -> None:
    """Say that another engine answers than the run names, once: before the training, where there is one."""
    if isinstance(run.engine, NativeConfig) and isinstance(module.engine, TransformersEngine):
        model_type = causal_model(module.model).config.model_type
        log.info("engine: transformers, since engine=native does not know the layers of a %s model", model_type)


def _generator(run: RunConfig, loaded: LoadedModel | None, *, stages: StageStore) -> Engine:
    if not isinstance(run.generator, SelfGeneratorConfig):
        return _remote(run.generator, run, stages=stages)
    if loaded is None:  # the model is a server's
        return build_engine(run, model=None, tokenizer=None, stages=stages)
    # Not the run's engine: that is evaluation's, and what it writes must not change a training.
    config = NativeConfig(_target_="", batch_size=run.eval.batch_size)
    return _native(config, model=loaded.model, tokenizer=loaded.tokenizer)


def _check_tower(run: RunConfig, model: Any) -> None:
    """Features are encoded once, so a tower that trains would never be seen to change."""
    if isinstance(run.data, PictureQuestionsConfig) and run.data.picture_input is PictureInput.features:
        inner = causal_model(model)
        if is_vision_language(inner) and tower_trains(inner):
            raise ConfigError(
                "data.picture_input: got features, which are encoded once, but the selection lets the vision tower "
                "train; use data.picture_input=pixels or another selection"
            )


def text_of(record: Record, style: str) -> tuple[str, str]:
    """Prompt and completion of a record for training, without worked examples."""
    return build_prompt(record, shots=(), style=style), completion(record, style)


def training_texts(run: RunConfig) -> Iterator[str]:
    """Texts a `bpe` tokenizer is trained on: prompts and completions of the training split."""
    split = run.data.train_split or run.data.test_split
    assert split is not None
    for record in build_source(run).records(split, limit=run.data.limit_train):
        yield "".join(text_of(record, run.prompt_style))
