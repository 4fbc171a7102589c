"""Runs put together for tests, as `runs.train` and `runs.execute` do it."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.evaluation.suite import Suite, build_suite
from athlos.models.config import FullConfig
from athlos.models.loading import LoadedModel
from athlos.models.tuning import FullTuning
from athlos.parts import PartContext, Selection, Tuning
from athlos.runs import assemble, chain
from athlos.runs.export import stored_config
from athlos.stages import StageStore, cache_dir


def loaded(model: Any, tokenizer: Any = None, *, fingerprint: str = "tiny") -> LoadedModel:
    """A model that a test made, as if a run had loaded it."""
    return LoadedModel(model=model, tokenizer=tokenizer, fingerprint=fingerprint, license="none", source="random")


def tuned(
    selection: Selection, model: Any, *, context: PartContext, tuning: Tuning | None = None
) -> tuple[Any, PartReport]:
    """The model in which what is selected trains, by default itself."""
    chosen = selection.choose(model, context=context)
    return (tuning or FullTuning(FullConfig())).apply(model, chosen, context=context)


def ready_to_train(run: RunConfig) -> assemble.Assembly:
    """The first phase of a run, its parts applied."""
    stages = StageStore(cache_dir(run.cache_dir))
    start = chain.start_of(run, stages=stages)
    phase = chain.phases_of(run)[0]
    loaded = assemble.load(run, start.model, stages=stages)
    return assemble.for_training(phase.run, loaded, applies_surgery=True, load_base=None, stages=stages)


def context_as_loaded(run: RunConfig) -> PartContext:
    """What parts may use before any of them is applied."""
    stages = StageStore(cache_dir(run.cache_dir))
    start = chain.start_of(run, stages=stages)
    loaded = assemble.load(run, start.model, stages=stages)
    return PartContext(config=run, stages=stages, data=assemble.open_data(run, loaded, stages=stages), start=loaded)


def suite_of(run: RunConfig) -> Suite:
    """The suite of a run that has one."""
    [config] = run.eval.suites.values()
    return build_suite(config, run)


def moved(run_folder: Path) -> list[str]:
    """Names of the weights that the training of a run changed, of those that its model has with the surgery applied."""
    assembly = ready_to_train(stored_config(run_folder))
    before = assembly.tuning.merge(assembly.module.model).state_dict()
    after = load_file(run_folder / "checkpoints" / "final" / "model.safetensors")
    return sorted(name for name, value in after.items() if not torch.equal(value, before[name]))
