"""Run folders with invented content, in the format of `athlos.runs.folder`."""

import json
import math
import random
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LANGUAGES = ("bn", "de", "en", "sw", "th", "zh")
CONFIG = {
    "study": "demo",
    "seed": 1,
    "method": {"_target_": "athlos.methods.finetune.module.FinetuneModule"},
    "surgery": {"_target_": "athlos.models.surgery.NoSurgery"},
    "model": {"name": "tiny", "source": "random", "architecture": {"hidden_size": 64, "num_hidden_layers": 2}},
    "data": {"name": "sums", "dir": "somewhere", "test_split": "test"},
    "train": {"max_steps": 200, "lr": 1e-3, "batch_size": 8},
    "eval": {"suites": ["math"], "stop": []},
    "results_dir": "results",
    "tracking": {"sinks": []},
    "tags": [],
}


def png(width: int = 60, height: int = 30, grey: int = 160) -> bytes:
    """A picture of one grey."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes([grey]) * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of a config with dotted keys set."""
    copy: dict[str, Any] = json.loads(json.dumps(config))
    for key, value in values.items():
        *parents, last = key.split(".")
        node = copy
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return copy


def decay(*, lr: float, seed: int, steps: Sequence[int]) -> list[dict[str, Any]]:
    """A curve that falls faster with a greater lr, with noise; a look at the validation split every 50 steps."""
    noise = random.Random(f"{lr}/{seed}")
    records: list[dict[str, Any]] = []
    for step in steps:
        loss = 1.2 + 3 * math.exp(-step * lr * 20) + noise.gauss(0, 0.06)
        records.append({"step": step, "time": 1.7e9 + step, "train/loss": loss, "train/lr": lr * (1 - step / 400)})
        if step % 50 == 0:
            records.append({"step": step, "time": 1.7e9 + step, "val/loss": loss + 0.1})
    return records


def rows(num_rows: int, *, seed: int = 1, languages: Sequence[str] = LANGUAGES) -> list[dict[str, Any]]:
    """Predictions of a math suite; which are right depends on the seed."""
    choice = random.Random(seed)
    found = []
    for index in range(num_rows):
        is_right = choice.random() < 0.5
        found.append(
            {
                "id": str(index),
                "language": languages[index % len(languages)],
                "prompt": f"Question: Ada has {index + 2} apples and buys {index} more. How many has she now?\nAnswer:",
                "prediction": f"She has {index + 2} + {index} = {2 * index + 2 + (not is_right)}.",
                "gold": str(2 * index + 2),
                "acc": float(is_right),
                "lc": 1.0,
                "num_tokens": 17,
                "log_prob": -3.25,
                "finished": True,
            }
        )
    return found


def write_run(
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    state: str = "finished",
    metrics: Mapping[str, float | None] | None = None,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    curve: Sequence[Mapping[str, Any]] = (),
    predictions: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    figures: Mapping[str, bytes] | None = None,
    provenance: Mapping[str, Any] | None = None,
    **status: Any,
) -> Path:
    """One run folder. `config` holds dotted keys that are changed in `CONFIG`."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(with_values(CONFIG, config or {}), sort_keys=False))
    start = {"start": "2026-11-20T10:00:00+00:00", "end": "2026-11-20T10:05:00+00:00", "wall_s": 300.0}
    (folder / "status.json").write_text(json.dumps({"state": state, **start, **status}))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "metric_details.json").write_text(json.dumps(details or {}))
    if metrics is not None or provenance is not None:
        (folder / "provenance.json").write_text(
            json.dumps(
                provenance
                or {
                    "athlos": "0.1.0",
                    "commit": "0123456789abcdef0123456789abcdef01234567",
                    "dirty": False,
                    "seed": 1,
                    "hardware": {"cpu": "a processor", "cores": 2, "gpus": []},
                    "versions": {"torch": "2.13.0"},
                }
            )
        )
    if curve:
        (folder / "events").mkdir()
        lines = "".join(json.dumps(record) + "\n" for record in curve)
        (folder / "events" / "metrics.jsonl").write_text(lines)
    for name, items in (predictions or {}).items():
        (folder / "predictions").mkdir(exist_ok=True)
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (folder / "predictions" / f"{name}.jsonl").write_text(lines)
    for name, content in (figures or {}).items():
        path = folder / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def math_metrics(*, lr: float, seed: int) -> tuple[dict[str, float | None], dict[str, dict[str, Any]]]:
    """Metrics with languages, cost, and intervals; one language is undefined."""
    chance = random.Random(f"metrics/{lr}/{seed}")
    by_language: dict[str, float | None] = {language: round(chance.uniform(0.1, 0.9), 3) for language in LANGUAGES}
    by_language["th"] = None
    known = [value for value in by_language.values() if value is not None]
    acc = sum(known) / len(known)
    metrics: dict[str, float | None] = {
        "test/acc": acc,
        "test/runaway_rate": round(chance.uniform(0, 0.2), 3),
        "val/loss": 1.1 + chance.random() / 5,
        "cost/wall_s": 200 + 100 * chance.random(),
        "cost/peak_mb": 700.0 + seed,
        "cost/tokens_per_s": 9000.0 * (1 + lr),
        "cost/flops": 2.0e11,
        "cost/trainable_params": 759296.0,
        **{f"test/acc/{language}": value for language, value in by_language.items()},
    }
    details: dict[str, dict[str, Any]] = {
        "test/acc": {"low": acc - 0.05, "high": acc + 0.06, "n": 48, "undefined": 8},
        **{
            f"test/acc/{language}": {"low": value - 0.1, "high": value + 0.1, "n": 8, "undefined": 0}
            for language, value in by_language.items()
            if value is not None
        },
    }
    return metrics, details


def write_sweep(results: Path, *, lrs: Sequence[float] = (1e-3, 3e-3, 1e-2), seeds: Sequence[int] = (1, 2, 3)) -> None:
    """Finished runs of lr x seed, with everything a run can hold."""
    for lr in lrs:
        for seed in seeds:
            metrics, details = math_metrics(lr=lr, seed=seed)
            write_run(
                results / "demo" / f"finetune-tiny-s{seed}-lr{lr}",
                config={"train.lr": lr, "seed": seed},
                metrics=metrics,
                details=details,
                curve=decay(lr=lr, seed=seed, steps=range(5, 205, 5)),
                predictions={"math": rows(12, seed=seed)},
                figures={"attention.png": png(grey=80 * seed)},
            )
