"""Whole runs of LANG on a tiny model: it learns from its rollouts, resumes exactly, and stacks."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.assembled import moved
from tests.tolerances import FLOAT32, LOGITS_FLOAT32

from athlos.config.compose import run_config
from athlos.data.records import MathRecord
from athlos.errors import ConfigError
from athlos.methods.lang.module import LangModule
from athlos.text.prompts import stop_strings
from athlos.training.callbacks import FolderCheckpoints

WORDS = {
    "de": ("Wie viel ist {} plus {}?", "Wir rechnen {} + {} = {}. Also ist die Antwort {}."),
    "th": ("{} บวก {} เท่ากับเท่าไร", "เราคำนวณ {} + {} = {}\nดังนั้นคำตอบคือ {}"),
}


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """Sums with traces in two languages: 20 to train on in each, 4 to test."""
    folder = tmp_path / "sums"
    folder.mkdir()
    for split, numbers in (("train", range(1, 21)), ("test", range(30, 34))):
        lines = [
            {
                "id": f"{language}-{number}",
                "language": language,
                "question": question.format(number, 3),
                "answer": str(number + 3),
                "solution": solution.format(number, 3, number + 3, number + 3),
            }
            for number in numbers
            for language, (question, solution) in WORDS.items()
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def lang(tiny: list[str], sums: Path) -> list[str]:
    """Four prompts of four responses an RL step, two updates a step, three RL steps; reward by language alone."""
    kept = [item for item in tiny if not item.startswith(("data", "train.max_length", "eval.suites"))]
    return [
        *kept,
        "method=lang",
        "objective=policy",
        "data=traces",
        f"data.dir={sums}",
        "eval=math",
        "eval.shots=0",
        "method.prompts_per_step=4",
        "method.chunk_prompts=2",
        "method.groups.high=[de]",
        "method.groups.mid=[ru]",
        "method.groups.low=[th]",
        "objective.group_size=4",
        "objective.max_new_tokens=40",
        "train.batch_size=8",
        "train.micro_batch_size=4",
        "train.max_steps=6",
        "train.checkpoint_every=2",
        "reward.accuracy=false",
        "reward.format=false",
        "method.switch.t_min=0",
        "method.switch.tau=0.05",
        "train.lr=1e-2",
        "decoding.max_new_tokens=8",
        "train.max_length=64",
        "model.tokenizer.kind=bpe",
        "model.tokenizer.vocab_size=300",
    ]


def events(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "events" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_tells_what_its_rollouts_were(lang: list[str], run: Callable[..., Any]) -> None:
    code, out, err = run("run", *lang)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    curve = [entry for entry in events(folder) if "train/reward" in entry]
    assert [entry["step"] for entry in curve] == [1, 2, 3, 4, 5, 6]
    # Two updates share an RL step; the first of them is taken at ratio 1, the second is not.
    for first, second in zip(curve[::2], curve[1::2], strict=True):
        assert first["train/reward"] == second["train/reward"] == first["train/lc"]
        assert first["train/ratio_gap"] <= LOGITS_FLOAT32
        assert abs(first["train/loss"]) <= FLOAT32  # advantages of a group add up to 0
    assert curve[1]["train/ratio_gap"] > 10 * curve[0]["train/ratio_gap"]
    assert curve[0]["train/grad_norm"] > 0
    assert curve[0]["train/acc"] == 0
    assert 0 < curve[0]["train/truncated"] <= 1
    assert 0 < curve[0]["train/entropy"] <= 5.8  # at most log 300
    # A group goes without hints from the step after the one in which it carried signal; nobody asks in Russian.
    assert curve[0]["train/switch_ema/high"] == pytest.approx(0.1, abs=FLOAT32)
    switched = {
        group: next(step for step, entry in enumerate(curve[::2]) if entry[f"train/switch_ema/{group}"] >= 0.05)
        for group in ("high", "low")
    }
    assert [curve[0][f"train/hint_ratio/{group}"] for group in ("high", "mid", "low")] == [1.0, 1.0, 1.0]
    assert [curve[2][f"train/hint_ratio/{group}"] for group in ("high", "mid")] == [0.0, 0.75]
    assert curve[2]["train/hint_ratio/low"] == (0.0 if switched["low"] == 0 else 0.75)
    assert curve[0]["train/hint_units"] > 0
    assert curve[2]["train/hint_units"] == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [metrics[f"diag/switch_step/{group}"] for group in ("high", "mid", "low")] == [0.0, None, switched["low"]]
    # The German traces have full stops, the Thai ones two lines.
    assert 0 < metrics["diag/hint_cut/sentences"] <= metrics["diag/hint_cut/lines"]
    assert metrics["diag/hint_cut/sentences"] + metrics["diag/hint_cut/lines"] == pytest.approx(1)
    assert metrics["cost/tokens_per_s"] > 0
    assert "train/diverged" not in metrics  # a policy loss near 0 says nothing of the kind
    assert {"test/acc", "test/lc", "test/lc_acc", "test/lc_acc/th"} <= set(metrics)
    assert (folder / "figures" / "lang_traces.png").stat().st_size > 10_000
    prompts = [json.loads(line)["prompt"] for line in (folder / "predictions" / "math.jsonl").open(encoding="utf-8")]
    assert not [prompt for prompt in prompts if "rechnen" in prompt or "คำนวณ" in prompt]


class Stopped(KeyboardInterrupt):
    """ctrl-C at a chosen place."""


@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_stopped_run_goes_on_as_if_uninterrupted(
    lang: list[str], run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Stopped in the middle of an RL step: rollouts, averages, switched groups and weights are what they were."""
    whole = Path(run("run", *lang, f"run_dir={tmp_path / 'whole'}")[1].splitlines()[-1])
    parts = [f"run_dir={tmp_path / 'parts'}", f"cache_dir={tmp_path / 'fresh_cache'}"]
    original = FolderCheckpoints.on_train_batch_end

    def stop(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        original(self, trainer, module, outputs, batch, batch_index)
        if trainer.global_step == stop_at:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(FolderCheckpoints, "on_train_batch_end", stop)
        code, _, _ = run("run", *lang, *parts)
    assert code == 130
    code, out, err = run("run", *lang, *parts)
    assert code == 0, err
    stopped = Path(out.splitlines()[-1])
    clock = ("time", "cost/", "train/tokens_per_s")
    for one, other in zip(events(whole), events(stopped), strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(clock)} == {
            k: v for k, v in other.items() if not k.startswith(clock)
        }
    weights = [load_file(folder / "checkpoints" / "final" / "model.safetensors") for folder in (whole, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("objective=next_token", "objective: got NextToken, but method=lang learns from rewards: use objective=policy"),
        ("train.batch_size=6", "train.batch_size: got 6, expected a multiple of objective.group_size x devices = 4"),
        ("method.prompts_per_step=5", "method.prompts_per_step: got 5, expected groups that fill whole mini-batches"),
        ("train.max_steps=1", "train.max_steps: got 1, expected at least 2"),
        ("train.checkpoint_every=3", "train.checkpoint_every: got 3, expected a multiple of 2"),
        ("method.hint.p0=0", "method.hint.p0: got 0.0, expected a number in (0, 1]"),
        ("method.switch.tau=0", "method.switch.tau: got 0.0, expected a number in (0, 1]"),
        ("method.switch.tau=1.1", "method.switch.tau: got 1.1, expected a number in (0, 1]"),
        ("method.switch.ema_alpha=1", "method.switch.ema_alpha: got 1.0, expected a number in [0, 1)"),
        ("method.switch.t_min=-1", "method.switch.t_min: got -1, expected an integer >= 0"),
        ("method.chunk_prompts=0", "method.chunk_prompts: got 0, expected an integer >= 1"),
        ("reward.lc=false", "reward: lc, format and accuracy are all false"),
        ("reward.rule=weighted", "reward.accuracy: got false, but reward.rule=weighted counts it"),
        ("reward.min_chars=-1", "reward.min_chars: got -1, expected an integer >= 0"),
        ("method.groups.high=[]", "method.groups.high: got no languages"),
        ("method.groups.high=[de,th]", "method.groups.low: 'th' is in high too"),
        ("method.hint.schedule=step", "method.hint.schedule: got 'step'"),
        ("hardware=fsdp2", "hardware.strategy: got 'fsdp2', expected auto or ddp"),
        ("method=finetune", "objective=policy: it needs rollouts"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_loaded(lang: list[str], change: str, message: str) -> None:
    # Another part has other keys, and another method another reward.
    gone = {"method=finetune": ("method.", "reward."), "objective=next_token": ("objective.",)}.get(change, ())
    items = [item for item in lang if not item.startswith(gone)]
    with pytest.raises(ConfigError) as caught:
        run_config([*items, change])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.groups.low=[id]", "its language 'th' is in none of method.groups"),
        ("data.test_split=train", "its question is a test item"),
        ("method.teacher=r1", "no training prompts are left; method.teacher is 'r1'"),
    ],
)
def test_what_the_data_lacks_is_told_before_training(
    lang: list[str], run: Callable[..., Any], change: str, message: str
) -> None:
    code, _, err = run("run", *lang, change)
    assert code == 3
    assert message in err


@pytest.mark.parametrize(
    ("stack", "trained"),
    [
        (
            ["selection=layers", "selection.layers=[]", "selection.sites=[q,v]", "tuning=lora", "tuning.rank=2"],
            r"layers\.\d\.self_attn\.[qv]_proj",
        ),
        (["selection=layers", "selection.layers=[0]"], r"layers\.0\."),
        (["surgery=spannorm"], r"."),
        (
            [
                "selection=slam",
                "selection.reference=de",
                "selection.k=1",
                "selection.probe.split=train",
                "selection.probe.num_questions=20",
                "selection.probe.resamples=5",
            ],
            r"layers\.\d\.mlp\.(up|down)_proj",
        ),
        (["objective.kl=0.1", "objective.denominator=token"], r"."),
    ],
    ids=["lora", "layers", "spannorm", "slam", "kl"],
)
def test_it_stacks(lang: list[str], run: Callable[..., Any], stack: list[str], trained: str) -> None:
    code, out, err = run("run", *lang, *stack, "train.max_steps=2", "method.lens_prompts=4")
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    [first, _] = [entry for entry in events(folder) if "train/reward" in entry]
    assert first["train/ratio_gap"] <= LOGITS_FLOAT32  # the rollouts came from the model that the stack made
    assert first["train/grad_norm"] > 0
    names = moved(folder)
    assert any("layers." in name for name in names)
    assert [name for name in names if not re.search(trained, name)] == []
    if "selection=slam" in stack:
        assert len(names) == 2  # up and down of one layer
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"diag/lens_language/1", "diag/lens_language/2", "diag/lens_de/2", "diag/lens_th/2"} <= set(metrics)
    assert (folder / "figures" / "lang_lens.png").stat().st_size > 10_000


def test_a_response_ends_where_any_language_begins_another_problem(lang: list[str]) -> None:
    parts: Any = dict.fromkeys(("model", "tokenizer", "objective", "decoding", "engine"))
    module = LangModule(run_config(lang), **parts)
    records = [MathRecord(identifier="1", language=code, question="?", answer="1") for code in ("de", "th", "de")]
    stops = module.stops(records)
    assert stops == list(dict.fromkeys(stops))
    for record in records:
        assert set(stop_strings(record, "default")) <= set(stops)
    assert len(stops) > len(stop_strings(records[0], "default"))


def test_skipped_rows_change_nothing_in_a_run(lang: list[str], run: Callable[..., Any], tmp_path: Path) -> None:
    """Rewards are rare in two micro batches of the run, which are empty once rows without advantage are left out."""
    folders = [
        Path(run("run", *lang, f"objective.skip_zero={skip}", f"run_dir={tmp_path / skip}")[1].splitlines()[-1])
        for skip in ("true", "false")
    ]
    for one, other in zip(*map(events, folders), strict=True):
        for name in ("train/loss", "train/grad_norm", "train/reward"):
            assert one.get(name) == pytest.approx(other.get(name), abs=LOGITS_FLOAT32)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_share_the_prompts_of_a_step(lang: list[str], tmp_path: Path) -> None:
    """Two gloo processes: one switch, one denominator over both, and ratio 1 at first on each.

    By this seed some groups hold responses in the language asked for and others, so that there is something to learn.
    """
    folder = tmp_path / "two"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "athlos.cli.main",
            "run",
            *lang,
            "train.max_steps=4",
            "hardware=ddp",
            "hardware.accelerator=cpu",
            "train.micro_batch_size=2",
            "objective.denominator=token",
            f"run_dir={folder}",
            "seed=3",
        ],
        capture_output=True,
        text=True,
        timeout=550,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    curve = [entry for entry in events(folder) if "train/reward" in entry]
    assert [entry["step"] for entry in curve] == [1, 2, 3, 4]
    assert curve[0]["train/ratio_gap"] <= LOGITS_FLOAT32
    assert curve[0]["train/grad_norm"] > 0
    # Each process asks in one language here, and both count: means are over 16 responses of 4 prompts.
    assert curve[0]["train/reward"] * 16 == pytest.approx(round(curve[0]["train/reward"] * 16), abs=LOGITS_FLOAT32)
    assert curve[0]["train/signal_share"] in (0.25, 0.5, 0.75, 1.0)
    assert curve[0]["train/hint_ratio/low"] == pytest.approx(1.0, abs=FLOAT32)
    shares = [curve[0][f"train/switch_ema/{group}"] for group in ("high", "low")]
    assert sum(shares) * 10 / 2 == pytest.approx(curve[0]["train/signal_share"], abs=LOGITS_FLOAT32)
    assert 0 < curve[0]["train/entropy"] <= 5.8


def test_lab_sums_are_asked_and_judged_in_their_languages(
    tiny: list[str], run: Callable[..., Any], tmp_path: Path
) -> None:
    """The lab's languages, words and detector; an untrained model mixes scripts, so that no response is in one."""
    others = ("data", "model.", "train.batch", "train.micro", "eval.suites")
    kept = [item for item in tiny if not item.startswith(others)]
    lab = [
        "method=lang",
        "objective=policy",
        "data=lab_sums",
        "data.num_train=40",
        "data.num_test=2",
        "model=lab/lang",
        "data.val_split=null",
        "eval=math",
        "prompt_style=bare",
        "eval.shots=0",
        "eval.suites.math.language_detector=lab",
        "reward.language_detector=lab",
        "method.groups.high=[latn]",
        "method.groups.mid=[cyrl,grek]",
        "method.groups.low=[thai,hani]",
        "method.prompts_per_step=5",
        "method.chunk_prompts=5",
        "reward.format_rule=answer",
        "objective.group_size=2",
        "objective.max_new_tokens=12",
        "decoding.max_new_tokens=12",
        "train.batch_size=10",
        "train.micro_batch_size=5",
        "train.max_steps=2",
    ]
    code, out, err = run("run", *kept, *lab)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    curve = [entry for entry in events(folder) if "train/reward" in entry]
    assert curve[0]["train/hint_units"] > 0
    assert [entry["train/reward"] for entry in curve] == [0.0, 0.0]
    assert [entry["train/grad_norm"] for entry in curve] == [0.0, 0.0]  # groups that agree have no gradient
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {f"test/lc/{language}" for language in ("latn", "cyrl", "grek", "thai", "hani")} <= set(metrics)
    assert metrics["cost/tokens_per_s"] > 0  # skipped rows were worked on too
