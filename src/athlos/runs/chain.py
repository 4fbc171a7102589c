"""A run's trainings one after another: those that make its model, then the phases of its method.

`model.source=run:<experiment>` is the same chain: the experiment is composed, with the overrides that stand behind
commas, and trained as any run is, to any depth. Where both it and the run speak of a lab world, it is trained on the
run's world, so a dial of the world is one override for all.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.caps import capped
from athlos.config.compose import group_options, run_config, unknown_option
from athlos.config.schema import EngineConfig, ModelConfig, Phase, RunConfig
from athlos.errors import ConfigError, choices
from athlos.generation.http_config import LlamaCppConfig
from athlos.models.loading import source_key
from athlos.models.source import parse_source
from athlos.runs.train import LogPoint, Start, metrics_of, start_from, train
from athlos.runs.watcher import Watcher
from athlos.stages import Product, StageStore

if TYPE_CHECKING:
    from athlos.models.loading import LoadedModel

TOTALS, PEAKS = ("cost/flops", "cost/tokens", "cost/step_s", "cost/train_s", "cost/train_cpu_s"), ("cost/peak_mb",)
"""Costs that add up over phases, and those of which the greatest counts."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training of a run."""

    phase: Phase
    product: Product
    start: Start
    """The weights it left, for what comes next."""

    @property
    def metrics(self) -> dict[str, float]:
        return metrics_of(self.product)


def is_trained_here(model: ModelConfig) -> bool:
    """Whether a model is the result of an experiment."""
    return parse_source(model.source).kind == "run"


def base_run(run: RunConfig, *, path: Sequence[str] = ()) -> RunConfig:
    """The run that makes the model of a config with `model.source=run:<experiment>[,override...]`.

    `path` names the runs that led here. Raises `ConfigError` for an unknown experiment, for one that trains nothing and
    for one that starts from itself; `ConfigErrors` for overrides that the experiment does not take.
    """
    name, overrides = _experiment_of(run.model)
    source = f"run:{name}"
    if name not in group_options("experiment"):
        raise ConfigError(unknown_option("experiment", name, key="model.source", prefix="run:"))
    if run.model.source in path:
        raise ConfigError(f"model.source: {' starts from '.join([*path, run.model.source])}, which is itself")
    base = run_config([f"experiment={name}", *overrides])
    if not base.num_steps:
        raise ConfigError(f"model.source: {source} trains nothing (train.max_steps=0)")
    names_world = any(override.startswith("data.world") for override in overrides)
    if _world(base) is not None and _world(run) is not None and not names_world:
        base.data = dataclasses.replace(base.data, world=_world(run))  # type: ignore[call-arg]
    if type(base.data) is type(run.data) and base.data.dir is None:
        base.data = dataclasses.replace(base.data, dir=run.data.dir)  # the files that the run itself reads
    base = dataclasses.replace(
        base,
        hardware=dataclasses.replace(
            base.hardware,
            num_threads=run.hardware.num_threads,
            max_steps_cap=run.hardware.max_steps_cap,
            limit_items_cap=run.hardware.limit_items_cap,
        ),
        cache_dir=run.cache_dir,
        progress=run.progress,
        tracking=dataclasses.replace(base.tracking, sinks=[]),
    )
    return capped(base)


def _experiment_of(model: ModelConfig) -> tuple[str, list[str]]:
    """Name and overrides of a `run:` source; commas inside brackets and braces belong to a value."""
    parts = re.split(r",(?![^\[{]*[\]}])", parse_source(model.source).reference)
    return parts[0].strip(), [part.strip() for part in parts[1:]]


def _world(run: RunConfig) -> object | None:
    """`data.world` of a run, where its data source is a lab one."""
    return vars(run.data).get("world")


def start_of(run: RunConfig, *, stages: StageStore, watcher: Watcher | None = None, path: Sequence[str] = ()) -> Start:
    """The weights that a run starts from, trained now where an experiment makes them.

    Raises `ConfigError` in a run of several processes that would have to train them first.
    """
    if not is_trained_here(run.model):
        return Start(model=run.model, key=source_key(run.model))
    base = base_run(run, path=path)
    trained = chain(
        base, stages=stages, watcher=watcher, path=(*path, run.model.source), may_train=run.num_devices == 1
    )
    return dataclasses.replace(trained[-1].start, surgery=None)


def served(run: RunConfig, *, stages: StageStore, watcher: Watcher | None = None) -> RunConfig:
    """The run, its llama.cpp told where the weights of a `run:` source lie, which are trained now if need be."""

    def told(engine: EngineConfig) -> EngineConfig:
        if not isinstance(engine, LlamaCppConfig) or parse_source(engine.source).kind != "run":
            return engine
        model = dataclasses.replace(run.model, source=engine.source)
        start = start_of(dataclasses.replace(run, model=model), stages=stages, watcher=watcher)
        return dataclasses.replace(engine, trained_at=start.model.source)

    return dataclasses.replace(run, engine=told(run.engine), generator=told(run.generator))


def chain(
    run: RunConfig,
    *,
    stages: StageStore,
    start: Start | None = None,
    watcher: Watcher | None = None,
    log_point: LogPoint | None = None,
    saved: Callable[[], None] | None = None,
    path: Sequence[str] = (),
    may_train: bool = True,
) -> list[Trained]:
    """All trainings of a run's method, in order; none for a run without steps.

    `path` names the sources of the runs that this one makes the model of; `may_train` is False where several processes
    want it, of which one must have trained it before.

    `start` is what the run's model is, where the caller knows it already. Points of the curve are handed on with the
    phase in their names and steps that go on from phase to phase, where there are several.
    """
    from athlos.runs import assemble

    base = start or start_of(run, stages=stages, watcher=watcher, path=path)
    trained: dict[str, Trained] = {}
    phases = phases_of(run)
    first_step = 0

    def load_base() -> "LoadedModel":
        return assemble.load(run, base.model, stages=stages)

    for phase in phases:
        begin = _start_named(phase, phase.start, trained, base=base)
        writer = _start_named(phase, phase.made_by, trained, base=base) if phase.made_by else begin
        product = train(
            phase.run,
            start=begin,
            writer=None if writer.key == begin.key else writer,
            stages=stages,
            phase=phase.name,
            load_base=None if begin is base else load_base,
            watcher=watcher,
            log_point=_shifted(log_point, phase=phase.name if len(phases) > 1 else "", first_step=first_step),
            saved=saved,
            may_train=may_train,
        )
        trained[phase.name] = Trained(phase=phase, product=product, start=start_from(product, phase.run))
        first_step += phase.run.num_steps
    return list(trained.values())


def phases_of(run: RunConfig) -> list[Phase]:
    """The phases of a run's method that train. Raises `ConfigError` for names or starts that make no sense."""
    if not run.num_steps:
        return []
    phases = list(run.method.phases(run))
    for position, phase in enumerate(phases):
        before = [other.name for other in phases[:position]]
        if phase.name in before:
            raise ConfigError(f"method: two phases are called '{phase.name}'")
        for does, name in (("starts from", phase.start), ("is made by", phase.made_by or phase.start)):
            if name not in ("previous", "base", *before):
                known = choices(name, ["previous", "base", *before])
                raise ConfigError(f"method: phase '{phase.name}' {does} '{name}'{known}")
    return [phase for phase in phases if phase.run.num_steps]


def _start_named(phase: Phase, name: str, trained: Mapping[str, Trained], *, base: Start) -> Start:
    if not trained or name == "base":
        return base
    name = list(trained)[-1] if name == "previous" else name
    if name not in trained:
        raise ConfigError(f"method: phase '{phase.name}' starts from '{name}', which trains nothing")
    return trained[name].start


def _shifted(log_point: LogPoint | None, *, phase: str, first_step: int) -> LogPoint | None:
    """The same, told in the run's steps and, where a phase is named, with it in the metrics' names."""
    if log_point is None:
        return None

    def told(metrics: Mapping[str, float], step: int) -> None:
        log_point({in_phase(name, phase): value for name, value in metrics.items()}, first_step + step)

    return told


def in_phase(metric: str, phase: str) -> str:
    """`train/loss` -> `train/warmup/loss`; itself where the phase has no name."""
    group, _, rest = metric.partition("/")
    return f"{group}/{phase}/{rest}" if phase else metric


def training_metrics(trained: Sequence[Trained]) -> dict[str, float]:
    """Metrics of all phases: each under its phase's name where there are several, and together under their own.

    Together, costs are totals (`cost/peak_mb` the greatest), a speed is all tokens over all seconds in steps, and of
    everything else the last phase that has it counts.
    """
    metrics: dict[str, float] = {}
    of_phases = [phase.metrics for phase in trained]
    for phase, own in zip(trained, of_phases, strict=True):
        metrics |= own
        if len(trained) > 1:
            metrics |= {in_phase(name, phase.phase.name): value for name, value in own.items()}
    for name in TOTALS:
        metrics[name] = sum(own.get(name, 0.0) for own in of_phases)
    for name in PEAKS:
        metrics[name] = max((own.get(name, 0.0) for own in of_phases), default=0.0)
    metrics["cost/tokens_per_s"] = metrics["cost/tokens"] / metrics["cost/step_s"] if metrics["cost/step_s"] else 0.0
    return metrics


def planned(run: RunConfig, *, path: Sequence[str] = ()) -> list[tuple[str, RunConfig]]:
    """Name and config of everything that a run would train, in order, without a look at any weights.

    The model of each is one that a dry run can build: where an experiment makes it, that experiment's own. A run that
    trains nothing stands in the list as itself.
    """
    before: list[tuple[str, RunConfig]] = []
    model = run.model
    if is_trained_here(run.model):
        base = base_run(run, path=path)
        before = planned(base, path=(*path, run.model.source))
        model = before[-1][1].model
    phases = phases_of(run) or [Phase(name="evaluation", run=run)]
    own = [(f"{run.study}: {phase.name}", dataclasses.replace(phase.run, model=model)) for phase in phases]
    return [*before, *own]
