"""One run, from a checked config to a finished run folder: chain, evaluation, record."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.compose import engine_signature, plain
from athlos.config.schema import RunConfig
from athlos.data.source import build_source, test_split
from athlos.errors import AthlosError, NumericalError
from athlos.generation.llama_cpp_server import stop_servers
from athlos.models.source import check_source
from athlos.runs.folder import RunFolder
from athlos.runs.watcher import Watcher
from athlos.stages import StageStore, cache_dir
from athlos.training.stability import DIVERGED

if TYPE_CHECKING:
    from athlos.evaluation.suite import SuiteResult
    from athlos.models.loading import LoadedModel
    from athlos.runs.chain import Trained
    from athlos.runs.train import Start
    from athlos.training.module import MethodModule
    from athlos.training.tracking import Tracking

log = logging.getLogger(__name__)


def process_rank() -> int:
    """Rank of this process in a run of several: set by Lightning, torchrun or Slurm."""
    for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 0


def execute(run: RunConfig, *, watcher: Watcher | None = None, overrides: Sequence[str] = ()) -> Path:
    """Do the run, resume it, or say that it is done; returns the run folder.

    The state of the folder is written in every case, ctrl-C included; the error goes on to the caller. `overrides` are
    the words of the command line, for the record.
    """
    with RunFolder(run, is_writer=process_rank() == 0) as folder:
        if folder.is_finished:
            log.info("already finished, nothing to do: %s", folder.path)
            return folder.path
        start = time.monotonic()
        folder.started()
        try:
            _Execution(run=run, folder=folder, watcher=watcher or Watcher(), overrides=overrides, begun=start).do()
        except KeyboardInterrupt:
            folder.interrupted(wall_s=time.monotonic() - start)
            raise
        except AthlosError as error:
            folder.failed(error, wall_s=time.monotonic() - start)
            if isinstance(error, NumericalError) and folder.is_writer:
                folder.write_metrics(DIVERGED, {})  # a sweep counts it as diverged, not as missing
            raise
        except Exception as error:
            folder.failed(error, wall_s=time.monotonic() - start)
            raise
        finally:
            stop_servers()
        return folder.path


@dataclass(kw_only=True)
class _Execution:
    """The work of `execute` in an open run folder."""

    run: RunConfig
    folder: RunFolder
    watcher: Watcher
    overrides: Sequence[str]
    begun: float
    """Reading of the monotonic clock."""
    metrics: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def do(self) -> None:
        self._check_files()
        from athlos.evaluation.evaluate import ratios
        from athlos.runs import chain, provenance
        from athlos.training import tracking
        from athlos.training.trainer import quiet_lightning, set_threads

        run, folder = self.run, self.folder
        quiet_lightning()
        set_threads(run.hardware)
        provenance.reset_peak()
        self.stages = StageStore(cache_dir(run.cache_dir), is_writer=folder.is_writer)
        folder.clear_results()
        if folder.is_writer:
            self.watcher.run_starts(run, run_dir=folder.path)
        run = self.run = chain.served(run, stages=self.stages, watcher=self._watcher())
        start = None if run.engine.is_remote else chain.start_of(run, stages=self.stages, watcher=self._watcher())
        if run.eval.base and start is not None:
            self._evaluate_base(start)
        with tracking.open_tracking(
            run.tracking,
            run_dir=folder.path,
            run_name=folder.path.name,
            group=run.tracking.group or run.study,
            study=run.study,
            tags=run.tags,
            plain_config=plain(run),
            is_writer=folder.is_writer,
        ) as record:
            trained, seconds = self._train(start, record)
            module, loaded, results = self._evaluate(start, trained, record)
            self.metrics |= ratios(self.metrics)
            self.metrics["cost/wall_s"] = (
                self.metrics.get("cost/train_s", 0.0) + time.monotonic() - self.begun - seconds
            )
            self.metrics["cost/peak_mb"] = max(self.metrics.get("cost/peak_mb", 0.0), provenance.peak_mb())
            if not folder.is_writer:
                return
            self._record(record, results, module=module, loaded=loaded, trained=trained)
        folder.finished(wall_s=time.monotonic() - self.begun)
        self._note_products()
        self.watcher.run_ends(self.metrics, run_dir=folder.path, next_steps=self._next_steps())

    def _note_products(self) -> None:
        """Tell the cache what this run uses, so that nobody prunes it as unused."""
        if self.folder.is_writer:
            self.stages.note_user(self.folder.path, [(product.name, product.key) for product in self.stages.history])

    def _watcher(self) -> Watcher:
        """The one who is told: nobody in a process that is not the writer."""
        return self.watcher if self.folder.is_writer else Watcher()

    def _check_files(self) -> None:
        """A missing split, folder, file or tokenizer, and a first record that cannot be read, are told now.

        That is before torch is imported or anything is trained.
        """
        run, source = self.run, build_source(self.run)
        if run.data.dir:
            _ = source.folder
        splits = [test_split(run.data), *((run.data.train_split, run.data.val_split) if run.num_steps else ())]
        if run.data.dir or source.hub is None:  # else the hub has them
            for split in filter(None, splits):
                if source.files(split):
                    next(source.records(split), None)
        if not run.engine.is_remote:
            check_source(run.model)

    def _evaluate_base(self, start: "Start") -> None:
        """The untouched model; a stage product, so that a sweep measures its base once."""
        from athlos.evaluation.evaluate import base_evaluation, named
        from athlos.runs import assemble

        loaded = assemble.load(self.run, start.model, stages=self.stages)
        module = assemble.untouched(self.run, loaded, stages=self.stages)
        assert module.data is not None
        results = base_evaluation(
            self.run,
            module,
            module.data,
            split=module.data.test_split,
            stages=self.stages,
            model_fingerprint=loaded.fingerprint,
            progress=self._watcher().suite_starts,
        )
        self._join(*named(results, split="test", suffix="_base"))

    def _train(self, start: "Start | None", record: "Tracking") -> tuple[list["Trained"], float]:
        """The trained phases, and the seconds that this took here."""
        from athlos.runs import chain
        from athlos.runs.train import MODEL

        begun = time.monotonic()
        if start is None or not self.run.num_steps:
            return [], 0.0
        trained = chain.chain(
            self.run,
            stages=self.stages,
            start=start,
            watcher=self._watcher(),
            log_point=lambda metrics, step: record.log(metrics, step=step),
            saved=lambda: self.folder.progressed(time.monotonic() - self.begun),
        )
        self._note_products()
        self.metrics |= chain.training_metrics(trained)
        if self.folder.is_writer:
            self.folder.adopt(trained[-1].product.path / MODEL)
            for trained_phase in trained:
                for picture in sorted((trained_phase.product.path / "figures").glob("*.png")):
                    name = picture.stem if len(trained) == 1 else f"{trained_phase.phase.name}/{picture.stem}"
                    record.figure(name, self.folder.write_figure(name, picture.read_bytes()))
        return trained, time.monotonic() - begun

    def _evaluate(
        self, start: "Start | None", trained: Sequence["Trained"], record: "Tracking"
    ) -> tuple["MethodModule[Any]", "LoadedModel | None", dict[str, "SuiteResult"]]:
        """Suites on the last weights, on those of phases that ask for it, and what the method measures itself."""
        from athlos.evaluation.evaluate import evaluate, named

        for trained_phase in trained[:-1]:
            if trained_phase.phase.is_evaluated:
                module, _ = self._module(trained_phase.start, base=start)
                self._join(*named(self._suites(module), split="test", suffix=f"@{trained_phase.phase.name}"))
        module, loaded = self._module(trained[-1].start if trained else start, base=start)
        assert module.data is not None
        results = self._suites(module)
        self._join(*named(results, split="test"))
        for suffix, variant in module.variants():
            evaluated = evaluate(
                self.run, variant, module.data, split=module.data.test_split, progress=self._watcher().suite_starts
            )
            self._join(*named(evaluated, split="test", suffix=suffix))
        measured, figures = module.measurements()
        self.metrics |= measured
        for title, picture in figures.items() if self.folder.is_writer else ():
            record.figure(title, self.folder.write_figure(title, picture))
        if not trained:
            total = float(sum(parameter.numel() for parameter in module.parameters()))
            none = {"cost/trainable_params": 0.0, "cost/total_params": total, "cost/trainable_share": 0.0}
            self.metrics = {"cost/flops": 0.0, "cost/tokens_per_s": 0.0, **none, **self.metrics}
        return module, loaded, results

    def _module(
        self, weights: "Start | None", *, base: "Start | None"
    ) -> tuple["MethodModule[Any]", "LoadedModel | None"]:
        """The method's module around some weights, and these as loaded."""
        from athlos.runs import assemble

        loaded = None if weights is None else assemble.load(self.run, weights.model, stages=self.stages)
        assembly = assemble.for_evaluation(
            self.run,
            loaded,
            applies_surgery=weights is not None and weights.needs_surgery(self.run),
            load_base=None
            if base is None or weights is base
            else partial(assemble.load, self.run, base.model, stages=self.stages),
            stages=self.stages,
        )
        self.metrics |= assembly.metrics
        return assembly.module, loaded

    def _suites(self, module: "MethodModule[Any]") -> dict[str, "SuiteResult"]:
        from athlos.evaluation.evaluate import evaluate

        assert module.data is not None
        return evaluate(
            self.run, module, module.data, split=module.data.test_split, progress=self._watcher().suite_starts
        )

    def _join(self, metrics: Mapping[str, float], details: Mapping[str, Any]) -> None:
        self.metrics |= metrics
        self.details |= details

    def _record(
        self,
        record: "Tracking",
        results: Mapping[str, "SuiteResult"],
        *,
        module: "MethodModule[Any]",
        loaded: "LoadedModel | None",
        trained: Sequence["Trained"],
    ) -> None:
        """Predictions, figures, provenance and metrics, into the run folder and to the sinks."""
        folder = self.folder
        assert module.data is not None
        if module.data.source.num_bad:
            self.metrics["data/num_bad"] = float(module.data.source.num_bad)
            log.warning("left out %d unreadable records (data.on_bad=skip)", module.data.source.num_bad)
        for name, result in results.items():
            folder.write_predictions(name, result.predictions)
            record.table(name, result.predictions)
            for title, picture in result.figures.items():
                record.figure(title, folder.write_figure(title, picture))
        record.summary(self.metrics)
        folder.write_provenance(self._provenance(results, module=module, loaded=loaded, trained=trained))
        folder.write_metrics(self.metrics, self.details)

    def _provenance(
        self,
        results: Mapping[str, "SuiteResult"],
        *,
        module: "MethodModule[Any]",
        loaded: "LoadedModel | None",
        trained: Sequence["Trained"],
    ) -> dict[str, Any]:
        from athlos.evaluation.evaluate import signatures
        from athlos.runs import provenance

        run = self.run
        assert module.data is not None
        splits = {run.data.test_split, *((run.data.train_split, run.data.val_split) if trained else ())}
        model = getattr(module.engine, "weights", None)
        if loaded is not None:
            model = {"source": run.model.source, "license": loaded.license, "fingerprint": loaded.fingerprint}
        return {
            **provenance.code_state(),
            "overrides": list(self.overrides),
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "seed": run.seed,
            "model": model,
            "judges": self._judges(),
            "engine": self._engine(module),
            "data": {
                "name": run.data.name,
                "splits": {split: module.data.source.fingerprint(split) for split in sorted(filter(None, splits))},
            },
            "phases": [
                {
                    "name": trained_phase.phase.name,
                    "key": trained_phase.product.key,
                    "steps": trained_phase.phase.run.num_steps,
                }
                for trained_phase in trained
            ],
            "stages": [
                {"name": product.name, "key": product.key, "reused": product.reused, "seconds": product.seconds}
                for product in self.stages.history
            ],
            "signatures": signatures(dict(results)),
            "bootstrap": {"resamples": run.eval.bootstrap, "seed": run.eval.bootstrap_seed},
        }

    def _judges(self) -> dict[str, dict[str, str]]:
        """Key of the config -> the judge's identity, and how well it agrees with people."""
        from athlos.judging.validation import caveat
        from athlos.objectives.judged_reward import judges_of

        return {
            path: {**judge.identity, "id": judge.id, "agreement": caveat(judge.id)}
            for path, judge in judges_of(self.run, stages=self.stages).items()
        }

    def _engine(self, module: "MethodModule[Any]") -> dict[str, Any]:
        """The engine that answered, which is not always the one that the run names (`assemble.build_engine`)."""
        from athlos.generation.local import LocalEngine
        from athlos.generation.native import NativeEngine

        engine = module.engine
        if isinstance(engine, NativeEngine):
            return {"name": engine.name, "dtype": engine.number_format}
        if isinstance(engine, LocalEngine):
            return {"name": engine.name}
        return {"name": engine_signature(self.run), **getattr(engine, "counters", {})}

    def _next_steps(self) -> list[str]:
        """Where a reader of the end panel may want to look."""
        run, folder = self.run, self.folder
        steps = [f"metrics       {folder.path / 'metrics.json'}"]
        if (folder.path / "predictions").is_dir():
            steps.append(f"predictions   {folder.path / 'predictions'}")
        if run.num_steps:
            steps.append(f"weights       athlos export {folder.path} --out <folder>")
        if "wandb" in run.tracking.sinks and run.tracking.wandb_mode == "offline":
            steps.append(f"wandb         wandb sync {folder.events / 'wandb'}/offline-run-*")
        return steps
