"""Whole runs of SLAM in the lab: what moves, export, the two-stage recipe, and under another method."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.assembled import moved
from tests.methods.lang.test_run import lang as lang
from tests.methods.lang.test_run import sums as sums
from tests.run_record import curve, metrics_of
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM

from athlos.config.compose import run_config
from athlos.runs.identity import training_identity

LAB = [
    "data=lab_alignment",
    "prompt_style=bare",
    "model=lab/tiny",
    "eval=translation",
    "eval.shots=0",
    "tracking=none",
    "train.log_every=1",
    "model.architecture.hidden_size=16",
    "model.architecture.intermediate_size=24",
    "eval.bootstrap=0",
    "model.architecture.num_hidden_layers=4",
    "model.architecture.num_attention_heads=2",
    "model.architecture.num_key_value_heads=2",
    "data.num_pairs=12",
    "data.num_probe_items=20",
    "data.num_probes=1",
    "selection=slam",
    "selection.reference=latn",
    "selection.probe.num_questions=20",
    "selection.probe.resamples=5",
    "train.max_steps=4",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.max_length=192",
    "train.batching=bucket",
    "train.val_every=0",
    "train.lr=1e-2",
    "train.weight_decay=0",
    "decoding.max_new_tokens=4",
]


@pytest.fixture
def lab(tmp_path: Path, cache: Path) -> list[str]:
    return [*LAB, f"results_dir={tmp_path / 'results'}"]


def test_only_the_chosen_matrices_are_kept_and_base_plus_delta_is_the_export(
    lab: list[str], run: Any, tmp_path: Path
) -> None:
    slam = ["method=slam", "method.reference=latn", "method.align_items=20"]
    code, out, err = run("run", *lab, *slam)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    metrics = metrics_of(folder)
    layers = [int(name.split("/")[-1]) for name in metrics if name.startswith("diag/layer_chosen/")]
    assert layers
    assert max(layers) < 2  # the lower half of four
    chosen = {f"model.layers.{index}.mlp.{part}_proj.weight" for index in layers for part in ("up", "down")}
    trained = load_file(folder / "checkpoints" / "final" / "model.safetensors")
    delta = {name: trained[name] for name in chosen}
    assert metrics["cost/trainable_params"] == sum(value.numel() for value in delta.values())
    assert metrics["cost/train_cpu_s"] > 0
    assert {"diag/alignment_cosine_before/4", "diag/alignment_cosine_after/0"} <= set(metrics)
    code, _, err = run("run", *lab, "method=finetune", "train.max_steps=0", "run_dir=" + str(tmp_path / "base"))
    assert code == 0, err
    for name, source in (("tuned", folder), ("plain", tmp_path / "base")):
        code, _, err = run("export", str(source), "--out", str(tmp_path / name))
        assert code == 0, err
    tuned, plain = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("tuned", "plain"))
    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(value, plain.state_dict()[name])}
    assert changed == chosen
    plain.load_state_dict(delta, strict=False)
    ids = torch.tensor([[5, 9, 300, 400]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, tuned(ids).logits, atol=FLOAT32, rtol=0)


def test_the_two_stage_recipe_goes_on_with_worked_problems(lab: list[str], run: Any) -> None:
    code, out, err = run(
        "run", *lab, "method=slam", "selection.selector=all", "selection.parts=all", "method.reason_steps=2"
    )
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    provenance, metrics = json.loads((folder / "provenance.json").read_text()), metrics_of(folder)
    assert [(phase["name"], phase["steps"]) for phase in provenance["phases"]] == [("translate", 2), ("reason", 2)]
    assert sum(stage["name"] == "encode" for stage in provenance["stages"]) == 2  # pairs, and problems
    assert metrics["cost/tokens"] == metrics["cost/translate/tokens"] + metrics["cost/reason/tokens"]
    assert [point["step"] for point in curve(folder) if "train/translate/loss" in point] == [1, 2]
    assert [point["step"] for point in curve(folder) if "train/reason/loss" in point] == [3, 4]


def test_a_sweep_over_the_second_stage_trains_the_first_once() -> None:
    def identities(split: str, steps: int) -> list[dict[str, Any]]:
        recipe = ["method=slam", f"method.reason_split={split}", f"method.reason_steps={steps}"]
        run = run_config([*LAB, *recipe, f"train.max_steps={4 + steps}"])
        return [training_identity(phase.run) for phase in run.method.phases(run)]

    [first, second], [shared, other], [longer, _] = identities("a", 2), identities("b", 2), identities("a", 3)
    assert first == shared
    assert second != other
    # One schedule spans both stages, so a longer second one changes the rates of the first, and nothing else of it.
    assert (first["train"].pop("schedule_steps"), longer["train"].pop("schedule_steps")) == (6, 7)
    assert first == longer


def test_the_selection_stands_under_another_method(lab: list[str], run: Any) -> None:
    code, out, err = run("run", *lab, "method=finetune", "selection.k=1", "selection.selector=grad")
    assert code == 0, err
    metrics = metrics_of(Path(out.splitlines()[-1]))
    assert metrics["cost/trainable_params"] == 2 * 16 * 24
    assert all(metrics[f"diag/layer_gap/{index}"] > 0 for index in range(4))


def test_languages_without_probe_text_are_refused(lab: list[str], run: Any) -> None:
    code, _, err = run("run", *lab, "selection.probe.languages=[latn,de]")
    assert code == 3
    assert "no text in 'de'" in err


def test_reinforcement_learning_in_the_chosen_layers(lang: list[str], run: Any) -> None:
    """The stack of two methods: LANG's objective, SLAM's selection, probed on the training questions."""
    slam = [
        "selection=slam",
        "selection.reference=de",
        "selection.probe.split=train",
        "selection.probe.num_questions=20",
        "selection.probe.resamples=5",
        "selection.k=1",
    ]
    code, out, err = run("run", *lang, *slam)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    assert moved(folder) == [f"model.layers.0.mlp.{part}_proj.weight" for part in ("down", "up")]
    metrics = metrics_of(folder)
    assert metrics["diag/layer_gap/0"] > 0
