"""A training is a stage: its product is the trained model, found again by every run that wants the same one.

A product holds `model/` (the weights as transformers reads them, wrappers merged), `metrics.json` and `figures/` (what
was measured in training), `events/metrics.jsonl` (the curve) and `made/` (files of the construction). While it trains,
its resumable state stands in the folder that the stage is built in, and a killed training goes on from there.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.compose import plain
from athlos.config.schema import ModelConfig, RunConfig, TokenizerConfig
from athlos.data.source import build_source
from athlos.errors import ConfigError, TrainingError
from athlos.models.wheels import LICENSE_NAME_FILE
from athlos.retrieval.building import build_corpus
from athlos.retrieval.config import NoCorpusConfig
from athlos.runs.folder import to_json, write_atomically
from athlos.runs.identity import training_identity
from athlos.runs.watcher import Watcher
from athlos.stages import Product, Stage, StageStore
from athlos.training.checkpoints import latest, step_of
from athlos.training.events import RESERVED, EventWriter, read_events, truncate_events

if TYPE_CHECKING:
    from athlos.runs.assemble import Assembly, LoadModel

TRAINING = "training"
TRAINING_VERSION = 1
"""Raised when the same config trains to other weights: a change of trainer, data order or initialisation."""
MODEL, METRICS, FIGURES, MADE, CHECKPOINTS = "model", "metrics.json", "figures", "made", "checkpoints"
GENERATED_LICENSE = "none (weights trained here on generated text)"
GENERATED = ("lab", "lab_sums", "lab_pictures", "lab_streams", "lab_answers")
"""Data sources whose text nobody has written."""

LogPoint = Callable[[Mapping[str, float], int], None]
"""Takes one point of the curve: metrics, and the optimizer step they belong to."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights that a training, or an evaluation, starts from."""

    model: ModelConfig
    """Its source is no `run:`."""
    key: str
    """Content hash of the weights, or of all that they were trained from."""
    surgery: Mapping[str, Any] | None = None
    """Config of the surgery that they have been through in this run; None for the run's model itself."""

    def needs_surgery(self, run: RunConfig) -> bool:
        """Whether the surgery of a run is still to be applied."""
        return bool(self.surgery != plain(run)["surgery"])


def start_from(product: Product, run: RunConfig) -> Start:
    """The weights that the training of `run` left."""
    model = replace(
        run.model,
        source=f"dir:{product.path / MODEL}",
        architecture={},
        tokenizer=TokenizerConfig(kind="source"),
    )
    return Start(model=model, key=product.key, surgery=plain(run)["surgery"])


def training_stage(
    run: RunConfig, *, start: Start, writer: Start | None = None, build: Callable[[Path], None]
) -> Stage:
    """The stage of a training. Its inputs are the weights that it starts from, those that its construction reads where
    they are others, and the files that it reads."""
    source = build_source(run)
    splits = {"train": run.data.train_split, "val": run.data.val_split}
    inputs = {name: source.fingerprint(split) for name, split in splits.items() if split}
    if not isinstance(run.corpus, NoCorpusConfig):
        inputs["corpus"] = build_corpus(run, source=source).fingerprint()
    if writer is not None:
        inputs["made_by"] = writer.key
    return Stage(
        name=TRAINING,
        version=TRAINING_VERSION,
        config=training_identity(run),
        inputs={**inputs, "start": start.key},
        build=build,
        is_resumable=True,
    )


def train(
    run: RunConfig,
    *,
    start: Start,
    writer: Start | None = None,
    stages: StageStore,
    phase: str = "train",
    load_base: "LoadModel | None" = None,
    watcher: Watcher | None = None,
    log_point: LogPoint | None = None,
    saved: Callable[[], None] | None = None,
    may_train: bool = True,
) -> Product:
    """The trained weights of a run or phase, trained now if they are not there. `writer` is what its construction
    reads, where that is not `start`.

    `log_point` gets every point of the curve, also of one that was trained before; `saved` is called after each
    checkpoint. Training resumes where a killed process left it. Raises `ConfigError` where it `may_train` nothing and
    the weights are not there.
    """
    watcher, log_point = watcher or Watcher(), log_point or (lambda metrics, step: None)
    told = saved or (lambda: None)

    def build(folder: Path) -> None:
        from athlos.runs import assemble

        def assembly() -> "Assembly":
            return assemble.for_training(
                run,
                assemble.load(run, start.model, stages=stages),
                applies_surgery=start.needs_surgery(run),
                load_base=load_base,
                stages=stages,
                writer=None if writer is None else assemble.load(run, writer.model, stages=stages),
            )

        _Training(
            run=run,
            folder=folder,
            phase=phase,
            watcher=watcher,
            log_point=log_point,
            saved=told,
            is_writer=stages.is_writer,
        ).do(assembly)

    stage = training_stage(run, start=start, writer=writer, build=build)
    if not may_train and not stages.ready(stage):
        raise ConfigError(
            f"model.source: {run.study} is not trained yet, which one process must do: "
            "first run the same command with hardware=cpu train.max_steps=0"
        )
    product = stages.get(stage)
    if product.reused:
        _tell_again(product.path, log_point)
    watcher.trained(phase, product)
    return product


@dataclass(kw_only=True)
class _Training:
    """The work of one training in the folder that its product becomes."""

    run: RunConfig
    folder: Path
    phase: str
    watcher: Watcher
    log_point: LogPoint
    saved: Callable[[], None]
    is_writer: bool
    checkpoint: Path | None = None
    """What a killed process left."""

    def do(self, assemble: "Callable[[], Assembly]") -> None:
        from athlos.runs import provenance
        from athlos.training.checkpoints import trained_weights

        provenance.reset_peak()
        self.checkpoint = latest(self.folder / CHECKPOINTS)
        assembly = assemble()
        metrics = {**assembly.metrics, **self._sizes(assembly)}
        metrics |= self._fit(assembly)
        weights = trained_weights(assembly.module)  # on every process: sharded weights are gathered by all of them
        if self.run.hardware.strategy == "fsdp2":
            # What comes now reads the model outside the trainer, so it needs whole weights: a model of its own.
            assembly = assemble()
            assembly.module.before_training(context=assembly.context)
            assembly.module.load_state_dict(weights, strict=False)
        assembly.module.eval()
        measured, figures = assembly.module.after_training()
        if not self.is_writer:
            return
        metrics |= measured | {"cost/peak_mb": provenance.peak_mb()}
        self._write(assembly, metrics, figures)

    def _sizes(self, assembly: "Assembly") -> dict[str, float]:
        parameters = list(assembly.module.model.parameters())
        total = sum(parameter.numel() for parameter in parameters)
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        if self.is_writer:
            self.watcher.training_starts(
                self.run,
                phase=self.phase,
                parts=[report.summary for report in assembly.reports],
                total_params=total,
                trainable_params=trainable,
                license=_license(assembly, self.run),
                resumed_from=None if self.checkpoint is None else step_of(self.checkpoint),
            )
        return {
            "cost/trainable_params": float(trainable),
            "cost/total_params": float(total),
            "cost/trainable_share": trainable / total if total else 0.0,
        }

    def _fit(self, assembly: "Assembly") -> dict[str, float]:
        """Train to the end; returns what the curve, the clock and the validation split say."""
        from athlos.evaluation.evaluate import evaluate, named
        from athlos.models.flops import is_counted, step_flops
        from athlos.models.forward import causal_model
        from athlos.training import callbacks
        from athlos.training.trainer import build_trainer, fit

        run, module = self.run, assembly.module
        curve_log = self._curve_log(resumed_from=0 if self.checkpoint is None else step_of(self.checkpoint))
        curve = callbacks.Curve(
            curve_log, self.watcher, log_every=run.train.log_every, recorded_val_step=_last_val_step(self.folder)
        )
        clock = callbacks.Clock()
        hooks: list[Any] = [
            curve,
            clock,
            callbacks.FolderCheckpoints(
                self.folder / CHECKPOINTS, every=run.train.checkpoint_every, on_saved=self.saved
            ),
            callbacks.FailureRecord(self.folder / "failure"),
        ]
        if run.eval.every and run.data.val_split and module.data is not None:
            data, split = module.data, run.data.val_split
            hooks.append(
                callbacks.SuiteEvery(
                    lambda: named(evaluate(run, module, data, split=split), split="val")[0],
                    curve_log,
                    every=run.eval.every,
                )
            )
        if run.hardware.compile:
            causal_model(module.model).base_model.compile()
        module.before_training(context=assembly.context)
        trainer = build_trainer(run, callbacks=hooks, run_dir=self.folder)
        try:
            fit(trainer, module, checkpoint=self.checkpoint)
        finally:
            self.watcher.training_stops()
        metrics = dict(curve.stability.metrics)
        if run.data.val_split is not None:
            if curve.last_val_step != trainer.global_step:
                trainer.validate(module, verbose=False)
            metrics |= {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        curve_log.close()
        mean_length = min(run.train.max_length, curve.tokens / max(1, curve.rows))
        flops = math.nan
        if is_counted(module.model):
            flops = step_flops(module.model, num_rows=run.train.batch_size, length=round(mean_length))
        return metrics | {
            "cost/flops": trainer.global_step * flops,
            "cost/tokens": float(curve.tokens),
            "cost/tokens_per_s": curve.tokens / curve.seconds if curve.seconds else 0.0,
            "cost/step_s": curve.seconds,
            "cost/train_s": clock.wall_s,
            "cost/train_cpu_s": clock.cpu_s,
        }

    def _curve_log(self, *, resumed_from: int) -> "_CurveLog":
        """The record of the curve, less what a killed process wrote behind its last checkpoint."""
        if not self.is_writer:
            return _CurveLog(None, lambda metrics, step: None)
        truncate_events(self.folder, after_step=resumed_from)
        _tell_again(self.folder, self.log_point)
        return _CurveLog(EventWriter(self.folder), self.log_point)

    def _write(self, assembly: "Assembly", metrics: Mapping[str, float], figures: Mapping[str, bytes]) -> None:
        """What the product holds; the resumable state is no longer needed."""
        from athlos.models.quiet import quiet_transformers

        model = assembly.tuning.merge(assembly.module.model)
        try:
            with quiet_transformers():
                model.save_pretrained(self.folder / MODEL)
            assembly.module.tokenizer.save_pretrained(self.folder / MODEL)
            (self.folder / MODEL / LICENSE_NAME_FILE).write_text(f"{_license(assembly, self.run)}\n", encoding="utf-8")
            for name, picture in figures.items():
                (self.folder / FIGURES).mkdir(exist_ok=True)
                (self.folder / FIGURES / f"{name}.png").write_bytes(picture)
            for path in assembly.context.made.files if assembly.context.made else ():
                (self.folder / MADE).mkdir(exist_ok=True)
                shutil.copyfile(path, self.folder / MADE / path.name)
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.folder}: {error.strerror or error}; free space or set cache_dir"
            ) from error
        numbers = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        write_atomically(self.folder / METRICS, to_json(numbers))
        for scratch in (CHECKPOINTS, "failure"):
            shutil.rmtree(self.folder / scratch, ignore_errors=True)


def _license(assembly: "Assembly", run: RunConfig) -> str:
    """The licence of the weights that it starts from; of random ones trained on generated text, that there is none."""
    assert assembly.context.start is not None
    is_own = run.model.source == "random" and run.data.name in GENERATED
    return GENERATED_LICENSE if is_own else assembly.context.start.license


def _tell_again(folder: Path, log_point: LogPoint) -> None:
    """Hand on the points of a curve that stands in a folder."""
    for event in read_events(folder):
        log_point({name: value for name, value in event.items() if name not in RESERVED}, event["step"])


def _last_val_step(folder: Path) -> int:
    """The step of the last validation in the curve that stands in a folder; -1 without any."""
    return max((event["step"] for event in read_events(folder) if "val/loss" in event), default=-1)


class _CurveLog:
    """Writes points of the curve to the product and hands them on."""

    def __init__(self, events: EventWriter | None, log_point: LogPoint) -> None:
        self._events, self._log_point = events, log_point

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        if self._events is not None:
            self._events.append(metrics, step=step)
        self._log_point(metrics, step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def metrics_of(product: Product) -> dict[str, float]:
    """What a training measured; undefined values are nan."""
    stored = json.loads((product.path / METRICS).read_text(encoding="utf-8"))
    return {name: math.nan if value is None else float(value) for name, value in stored.items()}
