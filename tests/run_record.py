"""What tests read out of a run folder."""

import json
from pathlib import Path


def only_run(results: Path) -> Path:
    """The one run folder below a folder of results."""
    [folder] = list(results.glob("[!.]*/*"))
    return folder


def metrics_of(folder: Path) -> dict:
    """`metrics.json`; undefined values are None."""
    return json.loads((folder / "metrics.json").read_text())


def without_clock(metrics: dict) -> dict:
    """The metrics that two runs of one config share: no seconds, no memory."""
    clock = ("cost/wall_s", "cost/tokens_per_s", "cost/peak_mb", "cost/step_s", "cost/train_s", "cost/train_cpu_s")
    return {name: value for name, value in metrics.items() if name not in clock}


def curve(folder: Path) -> list[dict]:
    """The recorded curve without clock values, which differ between two runs of one config."""
    lines = (folder / "events" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    clock = ("time", "train/tokens_per_s")
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]
