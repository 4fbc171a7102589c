"""Whole runs of KMKC on a tiny model: phases, stages, curves, refusals of the config, and stacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.data.regions import Region, read_regions
from athlos.errors import ConfigError
from athlos.methods.kmkc.module import question_at
from athlos.runs.chain import phases_of
from athlos.runs.identity import training_identity


@pytest.fixture
def kmkc(tmp_path: Path, cache: Path) -> list[str]:
    """24 training facts of a small world, an untrained model: rounds of two SFT and two RL steps."""
    return [
        "method=kmkc",
        "data=lab_facts",
        "eval=kmkc",
        "model=lab/lang",
        "prompt_style=bare",
        f"results_dir={tmp_path / 'results'}",
        "tracking=none",
        "study=tiny",
        "model.architecture.hidden_size=16",
        "model.architecture.intermediate_size=24",
        "model.architecture.num_hidden_layers=2",
        "model.architecture.num_attention_heads=2",
        "model.architecture.num_key_value_heads=2",
        "data.world.num_none=20",
        "data.world.num_rare=20",
        "data.world.num_frequent=20",
        "data.shares=[0.4,0.2,0.4]",
        "construct.profile.num_samples=4",
        "construct.profile.max_new_tokens=4",
        "method.prompts_per_step=4",
        "method.chunk_prompts=2",
        "method.cgke.steps=2",
        "method.cgke.batch_size=8",
        "objective.group_size=4",
        "objective.max_new_tokens=4",
        "train.max_steps=4",
        "train.batch_size=16",
        "train.micro_batch_size=8",
        "train.max_length=48",
        "train.batching=bucket",
        "train.checkpoint_every=1",
        "train.log_every=1",
        "train.val_every=0",
        "train.lr=1e-3",
        "decoding.max_new_tokens=4",
        "eval.bootstrap=0",
        "eval.suites.kmkc.profile.num_samples=4",
        "eval.suites.kmkc.profile.max_new_tokens=4",
        "eval.suites.kmkc.by=region",
    ]


def events(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "events" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_rounds_are_phases_and_share_the_steps(kmkc: list[str]) -> None:
    names = {
        "": ["cgke", "cdkc"],
        "method.rounds=2": ["cgke-1", "cdkc-1", "cgke-2", "cdkc-2"],
        "method.cgke.enabled=false": ["cdkc"],
        "method.cdkc.enabled=false": ["cgke"],
    }
    for change, expected in names.items():
        phases = phases_of(run_config([*kmkc, *([change] if change else [])]))
        assert [phase.name for phase in phases] == expected
        steps = {"cgke": 0, "cdkc": 0}
        for phase in phases:
            steps[phase.name.partition("-")[0]] += phase.run.num_steps
        # Whoever tunes takes two steps of it, whoever learns from rewards takes two of these: volumes are equal.
        assert all(number in (0, 2) for number in steps.values())
    [cgke, cdkc] = phases_of(run_config(kmkc))
    assert cgke.run.train.batch_size == 8
    assert (cgke.run.construct.augments, cdkc.run.construct.augments) == (True, False)  # type: ignore[attr-defined]
    assert cgke.is_evaluated


def test_a_sweep_over_the_reward_tunes_once(kmkc: list[str]) -> None:
    runs = [phases_of(run_config([*kmkc, f"reward.entropy_term={term}"])) for term in ("reward", "loss", "disabled")]
    assert len({json.dumps(training_identity(cgke.run), sort_keys=True) for cgke, _ in runs}) == 1
    assert len({json.dumps(training_identity(cdkc.run), sort_keys=True) for _, cdkc in runs}) == 3


def test_a_run_profiles_teaches_and_calibrates(kmkc: list[str], run: Callable[..., Any], cache: Path) -> None:
    code, out, err = run("run", *kmkc)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["train/sft_rows"] == 16
    assert metrics["train/rollouts"] == 32
    for name in (
        "acc",
        "acc_mastered",
        "acc_confused",
        "acc_missing",
        "ece_mass",
        "ece_width",
        "brier",
        "auroc",
        "aurc",
        "region_f1",
        "ar",
        "kei",
        "npv",
        "cbs",
        "cae",
        "temperature",
        "ece_mass_scaled",
        "ece_debiased",
        "reliability/0/confidence",
        "ece_mass@cgke",
    ):
        assert f"test/{name}" in metrics
    shares = [metrics[f"profile/share_{region}"] for region in Region]
    assert sum(shares) == pytest.approx(1, abs=FLOAT32)
    curve = [entry for entry in events(folder) if "train/cdkc/reward" in entry]
    for entry in curve:
        parts = entry["train/cdkc/reward/right"], entry["train/cdkc/reward/format"]
        assert abs(entry["train/cdkc/reward"] - parts[0] - 0.1 * parts[1]) <= 0.15 + FLOAT32
        assert entry["train/cdkc/h_ref"] > 0
        assert 0 <= entry["train/cdkc/h_clipped"] <= 1
        assert 0 <= entry["train/cdkc/flat_group_share"] <= 1
        assert entry["train/cdkc/response_len"] > 0
    assert (folder / "figures" / "reliability.png").stat().st_size > 10_000
    rows = [json.loads(line) for line in (folder / "predictions" / "kmkc.jsonl").open(encoding="utf-8")]
    assert len(rows) == 24
    assert {row["region"] for row in rows} <= set(Region)
    assert len({row["held_out"] for row in rows}) == 2
    # The regions by question are a file that other methods read.
    products = sorted((cache / "training").glob("*/made/regions.jsonl"))
    assert products
    regions = read_regions(products[0])
    assert len(regions) == 24
    assert all(isinstance(one.region, Region) for one in regions.values())
    # Another assigner profiles nobody again.
    before = len(list((cache / "kmkc_profile").glob("*/stage.json")))
    code, _, err = run("run", *kmkc, "construct.assigner=random", "method.cdkc.enabled=false")
    assert code == 0, err
    assert len(list((cache / "kmkc_profile").glob("*/stage.json"))) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("construct.profile.num_samples=1", "construct.profile.num_samples: got 1, expected one of 4, 8, 16, 32"),
        ("construct.region.low=0.8", "construct.region.low: got 0.8, expected less than construct.region.high = 0.75"),
        ("construct.strategies=[]", "construct.strategies: got none"),
        ("construct.strategies=[expand]", "construct.strategies: got 'expand', expected any of expansion"),
        ("construct=none", "construct: got another, expected construct=kmkc"),
        ("method.rounds=4", "method.rounds: got 4"),
        ("method.rounds=3", "method.cgke: got 2 of train.max_steps = 4 in 3 rounds, expected at least one a round"),
        ("method.cgke.steps=4", "method.cdkc: got 0 of train.max_steps = 4"),
        ("reward.lambdas.missing=[1,0.9]", "reward.lambdas.missing: got [1.0, 0.9], expected less than 1.8 in sum"),
        ("objective=next_token", "method=kmkc learns from rewards"),
        ("eval.suites.kmkc.held_out=0", "eval.suites.kmkc.held_out: got 0, but eval.suites.kmkc.refusal=threshold"),
        ("eval.suites.kmkc.confidence=verbalised", "ask in English, prompt_style=bare"),
        ("eval.suites.kmkc.confidence=p_true", "p_true needs an engine that tells the likeliest first tokens"),
    ],
)
def test_what_cannot_be_run_is_refused(kmkc: list[str], change: str, message: str) -> None:
    gone = {"construct=none": "construct.", "objective=next_token": "objective."}.get(change, "?")
    with pytest.raises(ConfigError) as caught:
        run_config([*(item for item in kmkc if not item.startswith(gone)), change])
    assert message in str(caught.value)


def test_training_on_test_facts_is_refused(kmkc: list[str], run: Callable[..., Any]) -> None:
    code, _, err = run("run", *kmkc, "data.test_split=train")
    assert code == 3
    assert "asks what test item" in err


def test_epochs_ask_each_question_once_in_new_orders() -> None:
    from athlos.data.records import TextRecord

    questions = [TextRecord(identifier=str(index), text="") for index in range(7)]
    drawn = [question_at(questions, place, seed=1).identifier for place in range(14)]
    assert sorted(drawn[:7]) == sorted(drawn[7:]) == [str(index) for index in range(7)]
    assert drawn[:7] != drawn[7:]


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_uninterrupted(
    kmkc: list[str], run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of entropies comes back with the weights, so rewards and H_ref are what they were."""
    from athlos.training.callbacks import FolderCheckpoints

    rl = [*kmkc, "method.cgke.enabled=false", "method.cgke.steps=0", "train.max_steps=3"]
    whole = Path(run("run", *rl, f"run_dir={tmp_path / 'whole'}")[1].splitlines()[-1])
    original = FolderCheckpoints.on_train_batch_end
    parts = [f"run_dir={tmp_path / 'parts'}", f"cache_dir={tmp_path / 'fresh'}"]

    def stop(self: Any, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        original(self, trainer, module, outputs, batch, batch_index)
        if trainer.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FolderCheckpoints, "on_train_batch_end", stop)
        assert run("run", *rl, *parts)[0] == 130
    code, out, err = run("run", *rl, *parts)
    assert code == 0, err
    clock = ("time", "cost/", "train/tokens_per_s")
    for one, other in zip(events(whole), events(Path(out.splitlines()[-1])), strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(clock)} == {
            k: v for k, v in other.items() if not k.startswith(clock)
        }


@pytest.mark.slow
def test_the_reward_stacks_under_langs_hints(tiny: list[str], run: Callable[..., Any]) -> None:
    """LANG's prompts with hints, KMKC's reward: word problems, equal weights, no regions."""
    others = ("data", "model.", "train.batch", "train.micro", "eval.suites")
    kept = [item for item in tiny if not item.startswith(others)]
    lab = [
        "method=lang",
        "objective=policy",
        "reward=calibration",
        "reward.lambda_mode=equal",
        "reward.language_detector=lab",
        "data=lab_sums",
        "data.num_train=40",
        "data.num_test=2",
        "model=lab/lang",
        "data.val_split=null",
        "eval=math",
        "prompt_style=bare",
        "eval.shots=0",
        "eval.suites.math.language_detector=lab",
        "method.groups.high=[latn]",
        "method.groups.mid=[cyrl,grek]",
        "method.groups.low=[thai,hani]",
        "method.prompts_per_step=5",
        "method.chunk_prompts=5",
        "objective.group_size=2",
        "objective.max_new_tokens=12",
        "decoding.max_new_tokens=12",
        "train.batch_size=10",
        "train.micro_batch_size=5",
        "train.max_steps=2",
    ]
    code, out, err = run("run", *kept, *lab)
    assert code == 0, err
    curve = [entry for entry in events(Path(out.splitlines()[-1])) if "train/reward" in entry]
    assert curve[0]["train/hint_units"] > 0
    assert curve[0]["train/h_ref"] > 0
    assert curve[0]["train/grad_norm"] > 0  # wrong answers that differ in their entropy teach something


@pytest.mark.slow
@pytest.mark.parametrize(
    "stack",
    [
        ["selection=layers", "selection.layers=[0]"],
        ["selection=layers", "selection.layers=[]", "selection.sites=[q,v]", "tuning=lora", "tuning.rank=2"],
        ["surgery=spannorm"],
        ["reward.entropy_term=loss"],
        ["method.rounds=2", "reward.direction=wrong_only", "reward.lambda_mode=equal"],
        ["construct.use_regions=false", "method.cdkc.enabled=false"],
        ["construct.assigner=acc_only", "construct.strategies=[foundation]"],
        ["eval.suites.kmkc.confidence=majority"],
    ],
    ids=["layers", "lora", "spannorm", "loss", "rounds", "plain", "one strategy", "majority"],
)
def test_it_stacks(kmkc: list[str], run: Callable[..., Any], stack: list[str]) -> None:
    code, out, err = run("run", *kmkc, *stack)
    assert code == 0, err
    assert json.loads((Path(out.splitlines()[-1]) / "metrics.json").read_text())["test/acc"] >= 0
