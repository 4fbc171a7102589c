"""Runs the suites of a config on records and names the results."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.config.schema import RunConfig
from athlos.data.datamodule import DataModule
from athlos.evaluation import sharding
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult, build_suite
from athlos.generation.local import LocalEngine
from athlos.models.forward import evaluation_device, evaluation_precision
from athlos.stages import Stage, StageStore

BASE_EVALUATION_VERSION = 1


def evaluate(
    config: RunConfig,
    answerer: Answerer,
    data: DataModule,
    *,
    split: str,
    progress: Callable[[str], Any] | None = None,
) -> dict[str, SuiteResult]:
    """Results by suite on a split. `progress(suite name)` gives a callback for (done, all, tokens).

    Processes of one run share the work (`evaluation.sharding`): all call this, and all get the whole result.
    """
    records = data.eval_records(split)
    shots_pool = data.shots_pool()
    if not config.engine.is_remote:
        answerer.model.to(evaluation_device(config.hardware))  # type: ignore[arg-type]  # transformers wraps it without types
    results = {}
    for name, settings in config.eval.suites.items():
        suite = build_suite(settings, config)
        callback = progress(name) if progress else None
        with evaluation_precision(config.hardware):
            results[name] = suite.evaluate(answerer, records, shots_pool=shots_pool, progress=callback)
        signatures = results[name].signatures
        if not config.engine.is_remote:
            signatures["precision"] = f"weights:{config.model.dtype.value}|compute:{config.hardware.precision}"
        if f"{name}_engine" in signatures and isinstance(answerer.engine, LocalEngine):
            signatures[f"{name}_engine"] = answerer.engine.name  # it may have been chosen for the model
    return results


def base_evaluation(
    config: RunConfig,
    answerer: Answerer,
    data: DataModule,
    *,
    split: str,
    stages: StageStore,
    model_fingerprint: str,
    progress: Callable[[str], Any] | None = None,
) -> dict[str, SuiteResult]:
    """The same for the untouched model, as a stage product: a sweep measures its base once."""

    def build(folder: Path) -> None:
        with sharding.alone():
            results = evaluate(config, answerer, data, split=split, progress=progress)
        text = json.dumps(
            {name: dataclasses.asdict(dataclasses.replace(result, figures={})) for name, result in results.items()},
            ensure_ascii=False,
        )
        (folder / "results.json").write_text(text, encoding="utf-8")

    values, suites = plain(config), [build_suite(suite, config) for suite in config.eval.suites.values()]
    stage = Stage(
        name="base_evaluation",
        version=BASE_EVALUATION_VERSION,
        inputs={"model": model_fingerprint, "data": data.source.fingerprint(split)},
        config={
            "eval": {key: value for key, value in values["eval"].items() if key not in ("base", "every", "batch_size")},
            "decoding": values["decoding"],
            "prompt_style": config.prompt_style,
            "engine": {key: value for key, value in values["engine"].items() if key != "batch_size"},
            "data": {key: value for key, value in values["data"].items() if key not in ("dir", "path")},
            "limit": data.limit(split),
            "dtype": values["model"]["dtype"],
            "precision": config.hardware.precision,
            "seed": config.seed if any(suite.is_seeded for suite in suites) else None,
        },
        build=build,
    )
    stored = json.loads((stages.get(stage).path / "results.json").read_text(encoding="utf-8"))
    return {name: _result(fields) for name, fields in stored.items()}


def _result(fields: dict[str, Any]) -> SuiteResult:
    details = {name: MetricDetail(**detail) for name, detail in fields.pop("details").items()}
    return SuiteResult(details=details, **fields)


def named(results: dict[str, SuiteResult], *, split: str, suffix: str = "") -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and their details under their full names: `test/acc/de`, and `test/acc_base/de` with a suffix.

    A metric that several suites give (`answer_tokens`) takes the suite's name, `test/qa_answer_tokens`: else
    one would hide the other.
    """
    heads = Counter(head for result in results.values() for head in {name.partition("/")[0] for name in result.metrics})
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    for suite, result in results.items():

        def full(name: str, suite: str = suite) -> str:
            own = f"{suite}_{name}" if heads[name.partition("/")[0]] > 1 else name
            return full_name(own, split=split, suffix=suffix)

        metrics |= {full(name): value for name, value in result.metrics.items()}
        details |= {full(name): dataclasses.asdict(detail) for name, detail in result.details.items()}
    return metrics, details


def ratios(metrics: dict[str, float]) -> dict[str, float]:
    """`test/ppl_ratio` of `test/ppl` and every variant of it to the untouched model's, where that was evaluated."""
    base = metrics.get("test/ppl_base")
    variants = [name for name in metrics if name.startswith("test/ppl") and "/" not in name.removeprefix("test/")]
    if base is None:
        return {}
    return {
        name.replace("test/ppl", "test/ppl_ratio"): metrics[name] / base for name in variants if name != "test/ppl_base"
    }


def full_name(name: str, *, split: str, suffix: str) -> str:
    head, slash, rest = name.partition("/")
    return f"{split}/{head}{suffix}{slash}{rest}"


def signatures(results: dict[str, SuiteResult]) -> dict[str, str]:
    return {key: value for result in results.values() for key, value in sorted(result.signatures.items())}
