"""One run, from a checked config to a finished run folder."""

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from athlos.config.compose import engine_signature, plain
from athlos.config.schema import RunConfig
from athlos.errors import AthlosError, ConfigErrors, NumericalError
from athlos.training.run_folder import RunFolder
from athlos.training.stability import DIVERGED

log = logging.getLogger(__name__)


def process_rank() -> int:
    """Rank of this process in a run of several: set by Lightning, torchrun or Slurm."""
    for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 0


def execute(config: RunConfig) -> Path:
    """Do the run, resume it, or say that it is done; returns the run folder.

    The state of the folder is written in every case, ctrl-C included; the error goes on to the caller.
    """
    with RunFolder(config, is_writer=process_rank() == 0) as folder:
        if folder.is_finished:
            log.info("already finished, nothing to do: %s", folder.path)
            return folder.path
        start = time.monotonic()
        folder.started()
        try:
            _run(config, folder, start=start)
        except KeyboardInterrupt as error:
            folder.failed(error, wall_s=time.monotonic() - start, state="interrupted")
            raise
        except AthlosError as error:
            folder.failed(error, wall_s=time.monotonic() - start)
            if isinstance(error, NumericalError) and folder.is_writer:
                folder.write_metrics(DIVERGED, {})  # a sweep counts it as diverged, not as missing
            raise
        except Exception as error:
            folder.failed(error, wall_s=time.monotonic() - start)
            raise
        return folder.path


def _run(config: RunConfig, folder: RunFolder, *, start: float) -> None:
    from athlos.cli import assemble, panels
    from athlos.evaluation.evaluate import base_evaluation, evaluate, named, ratios, signatures, suite_errors
    from athlos.evaluation.suite import suite_names
    from athlos.training import provenance, tracking
    from athlos.training.trainer import quiet_lightning, set_threads

    if errors := suite_errors(config, suite_names()):
        raise ConfigErrors(errors)
    quiet_lightning()
    set_threads(config.hardware)
    provenance.reset_peak()
    assembly = assemble.open_run(config)
    split = assembly.data.test_split
    assembly.data.source.files(split)  # a missing file is told now, not after the training
    progress = panels.evaluation_progress if config.progress else None
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}

    if config.eval.base and assembly.loaded is not None:
        base_results = base_evaluation(
            config, assembly.base, assembly.data, split=split, stages=assembly.stages,
            model_fingerprint=assembly.loaded.fingerprint, progress=progress,
        )  # fmt: skip
        base_metrics, base_details = named(base_results, split="test", suffix="_base")
        metrics |= base_metrics
        details |= base_details

    module = assemble.apply_parts(config, assembly)
    parameters = [] if assembly.loaded is None else list(module.model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    resumed_from = folder.resume_step
    if resumed_from is None:
        folder.clear_results()
    elif folder.is_writer:
        tracking.truncate_events(folder.path, after_step=resumed_from)
    if config.progress and folder.is_writer:
        panels.start_panel(
            config, device=config.hardware.accelerator, total_params=total, trainable_params=trainable,
            run_dir=folder.path, license=assembly.loaded.license if assembly.loaded else "",
            stages=assembly.stages.history, resumed_from=resumed_from,
        )  # fmt: skip

    with tracking.open_tracking(
        config.tracking, run_dir=folder.path, run_name=folder.path.name, group=config.tracking.group or config.study,
        study=config.study, tags=config.tags, plain_config=plain(config), is_writer=folder.is_writer,
    ) as record:  # fmt: skip
        for report in assembly.reports:
            metrics |= report.metrics
        if config.num_steps:
            metrics |= train(config, assembly, folder, record, start=start)
            module = assembly.module
        results = evaluate(config, module, assembly.data, split=split, progress=progress)
        test_metrics, test_details = named(results, split="test")
        metrics |= test_metrics
        details |= test_details
        for suffix, variant in module.variants():
            found, found_details = named(
                evaluate(config, variant, assembly.data, split=split, progress=progress), split="test", suffix=suffix
            )
            metrics |= found
            details |= found_details
        metrics |= ratios(metrics)
        metrics |= measure(module, folder, record)
        wall_s = folder.resumed_wall_s + time.monotonic() - start
        metrics |= {
            "cost/wall_s": wall_s,
            "cost/peak_mb": provenance.peak_mb(),
            "cost/trainable_params": float(trainable),
            "cost/total_params": float(total),
            "cost/trainable_share": trainable / total if total else 0.0,
        }
        metrics.setdefault("cost/flops", 0.0)
        metrics.setdefault("cost/tokens_per_s", 0.0)
        if assembly.data.source.num_bad:
            metrics["data/num_bad"] = float(assembly.data.source.num_bad)
            log.warning("left out %d unreadable records (data.on_bad=skip)", assembly.data.source.num_bad)
        if not folder.is_writer:
            return
        write_results(results, folder, record)
        record.summary(metrics)
        folder.write_provenance(
            {
                **provenance.code_state(),
                "versions": provenance.versions(),
                "hardware": provenance.hardware(),
                "seed": config.seed,
                "model": loaded_model(assembly),
                "engine": {"name": engine_signature(config), **getattr(module.engine, "counters", {})},
                "data": {"name": config.data.name, "splits": data_hashes(config, assembly.data)},
                "stages": [
                    {"name": product.name, "key": product.key, "reused": product.reused, "seconds": product.seconds}
                    for product in assembly.stages.history
                ],
                "signatures": signatures(results),
                "bootstrap": {"resamples": config.eval.bootstrap, "seed": config.eval.bootstrap_seed},
            }
        )  # fmt: skip
        folder.write_metrics(metrics, details)
    folder.finished(wall_s=time.monotonic() - start)
    if config.progress:
        panels.end_panel(metrics, folder.path, next_steps(config, folder))


def loaded_model(assembly: Any) -> dict[str, Any] | None:
    """Where the weights came from; nothing where a server has them."""
    loaded = assembly.loaded
    if loaded is None:
        return None
    return {"source": loaded.source, "license": loaded.license, "fingerprint": loaded.fingerprint}


def write_results(results: Any, folder: RunFolder, record: Any) -> None:
    """Predictions and figures of all suites, into the run folder and to the sinks."""
    for name, result in results.items():
        folder.write_predictions(name, result.predictions)
        record.table(name, result.predictions)
        for title, picture in result.figures.items():
            record.figure(title, folder.write_figure(title, picture))


def measure(module: Any, folder: RunFolder, record: Any) -> dict[str, float]:
    """What the method measures itself; its figures go into the run folder and to the sinks."""
    metrics: dict[str, float]
    metrics, figures = module.measurements()
    for title, picture in figures.items() if folder.is_writer else ():
        record.figure(title, folder.write_figure(title, picture))
    return metrics


def data_hashes(config: RunConfig, data: Any) -> dict[str, str]:
    """Content hashes of the splits this run read."""
    splits = {config.data.test_split}
    if config.num_steps:
        splits |= {config.data.train_split, config.data.val_split}
    return {split: data.source.fingerprint(split) for split in sorted(filter(None, splits))}


def train(config: RunConfig, assembly: Any, folder: RunFolder, record: Any, *, start: float) -> dict[str, float]:
    """Train to the end, or load the final weights of an earlier try; returns the training metrics."""
    from safetensors.torch import load_file

    from athlos.cli import assemble
    from athlos.training.checkpoints import trained_weights

    module = assembly.module
    notes = folder.final_weights.with_name("training.json")
    if folder.final_weights.is_file() and notes.is_file():
        log.info("training is done already; loading %s", folder.final_weights)
        module.load_state_dict(load_file(folder.final_weights), strict=False)
        found: dict[str, float] = json.loads(notes.read_text(encoding="utf-8"))
        return found
    metrics = _fit(config, assembly, folder, record, start=start)
    weights = trained_weights(module)  # on every process: sharded weights are gathered by all of them
    if folder.is_writer:
        _write_final(weights, folder, metrics)
    if config.hardware.strategy == "fsdp2":
        # Evaluation reads the model outside the trainer, so it needs whole weights: build the run's model again.
        fresh = assemble.open_run(config)
        assembly.module = assemble.apply_parts(config, fresh)
        assembly.module.load_state_dict(weights, strict=False)
    return metrics


def _fit(config: RunConfig, assembly: Any, folder: RunFolder, record: Any, *, start: float) -> dict[str, float]:
    from athlos.cli import panels
    from athlos.evaluation.evaluate import evaluate, named
    from athlos.models.budget import step_flops
    from athlos.models.forward import causal_model
    from athlos.training import callbacks
    from athlos.training.run_folder import latest
    from athlos.training.trainer import build_trainer, fit

    module, data = assembly.module, assembly.data
    bar = panels.TrainingProgress(enabled=config.progress and folder.is_writer)
    curve = callbacks.Curve(record, bar, log_every=config.train.log_every)
    hooks: list[Any] = [
        curve,
        callbacks.FolderCheckpoints(
            folder.checkpoints,
            every=config.train.checkpoint_every,
            on_saved=lambda: folder.progressed(time.monotonic() - start),
        ),
        callbacks.FailureRecord(folder.path / "failure"),
    ]
    if config.eval.every and config.data.val_split:
        hooks.append(
            callbacks.SuiteEvery(
                lambda: named(evaluate(config, module, data, split=config.data.val_split or ""), split="val")[0],
                record,
                every=config.eval.every,
            )
        )
    if config.hardware.compile:
        causal_model(module.model).base_model.compile()
    checkpoint = latest(folder.checkpoints)
    trainer = build_trainer(config, callbacks=hooks, run_dir=folder.path)
    bar.start(config.num_steps)
    try:
        fit(trainer, module, data, checkpoint=checkpoint)
    finally:
        bar.close()
    metrics = {"cost/tokens_per_s": curve.tokens / curve.seconds if curve.seconds else 0.0, **curve.stability.metrics}
    metrics |= module.training_metrics()
    if config.data.val_split is not None:
        if curve.last_val_step != config.num_steps:
            trainer.validate(module, datamodule=data, verbose=False)
        metrics |= {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
    mean_length = min(config.train.max_length, curve.tokens / max(1, curve.rows))
    metrics["cost/flops"] = config.num_steps * step_flops(
        module.model, num_rows=config.train.batch_size, length=round(mean_length)
    )
    return metrics


def _write_final(weights: Any, folder: RunFolder, metrics: dict[str, float]) -> None:
    """What trained, as safetensors, written aside and renamed; the resumable state is no longer needed."""
    from athlos.training.checkpoints import save_weights

    target = folder.final_weights.parent
    scratch = target.with_name(".final.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_weights(weights, scratch / folder.final_weights.name)
    (scratch / "training.json").write_text(json.dumps(metrics), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    for step in folder.checkpoints.glob("step-*"):
        shutil.rmtree(step)


def next_steps(config: RunConfig, folder: RunFolder) -> list[str]:
    """Where a reader of the end panel may want to look."""
    steps = [f"metrics       {folder.path / 'metrics.json'}"]
    if (folder.path / "predictions").is_dir():
        steps.append(f"predictions   {folder.path / 'predictions'}")
    if config.num_steps:
        steps.append(f"weights       athlos export {folder.path} --out <folder>")
    if "wandb" in config.tracking.sinks and config.tracking.wandb_mode == "offline":
        steps.append(f"wandb         wandb sync {folder.events / 'wandb'}/offline-run-*")
    return steps
