"""What makes two trainings the same: the key of the stage that a training is. No torch here."""

from typing import Any

from athlos.config.compose import decisive, plain
from athlos.config.schema import Dtype, RunConfig
from athlos.generation.config import NumberFormat

CHANGES_WEIGHTS = (
    "seed",
    "surgery",
    "construct",
    "objective",
    "selection",
    "tuning",
    "index",
    "prompt_style",
    "train",
)
"""Keys of a run that change what is trained as they stand; `method`, `generator`, `judge`, `reward`, `model`, `data`,
`corpus` and `hardware` do in part."""
ELSEWHERE = ("dir", "path", "limit_test")
"""Keys of `data` that do not change what is trained: where the files lie, whose content is hashed; test items."""


def training_identity(run: RunConfig) -> dict[str, Any]:
    """The part of a config that changes the weights, or the curve, of its training; plain values.

    Nothing of evaluation, decoding, engine and tracking is in it, unless suites run during the training, whose results
    are then part of it. Where the weights come from is the key of `Start`; their format is in here.
    """
    values = plain(run)
    identity = {name: values[name] for name in CHANGES_WEIGHTS}
    for name in ("generator", "judge", "reward"):
        identity[name] = decisive(values[name], config=vars(run)[name])
    identity["judge"] = _without(identity["judge"], run.judge.evaluation_only)
    identity["method"] = _without(values["method"], run.method.evaluation_only) | {"version": run.method.version}
    if identity["method"].get("rollout_dtype") == NumberFormat.float32:
        del identity["method"]["rollout_dtype"]  # trainings from before there was a choice keep their key
    identity["model"] = _without(values["model"], ("name", "source", "attention"))
    identity["data"] = _without(values["data"], ELSEWHERE)
    identity["corpus"] = _without(values["corpus"], run.corpus.elsewhere)
    identity["precision"] = run.hardware.precision
    if run.model.dtype is not Dtype.float32 or run.hardware.precision == "bf16-true":
        identity["steps_on"] = "float32 copies"  # before, weights of 16 bits were stepped on as they are
    if run.eval.every:
        identity |= {"eval": values["eval"], "decoding": values["decoding"]}
        identity["engine"] = _without(values["engine"], run.engine.operational)
    return identity


def _without(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
