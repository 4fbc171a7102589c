"""Whole runs of RHIO on a tiny model: phases, products, what is asked behind [POS], refusals of the config, stacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.run_record import metrics_of
from transformers import AutoTokenizer

from athlos.config.compose import run_config
from athlos.data.config import NoConstructConfig
from athlos.errors import ConfigErrors
from athlos.methods.rhio.config import RhioConstructConfig
from athlos.models.control_tokens import control_ids
from athlos.objectives.config import ControlConfig, NextTokenConfig
from athlos.runs.chain import phases_of
from athlos.runs.identity import training_identity

DETECT = ["lengths=[70]", "num_depths=2", "num_needles=2", "max_new_tokens=4"]


@pytest.fixture
def rhio(tmp_path: Path, cache: Path) -> list[str]:
    """Sixteen questions of a small world and an untrained model: two steps of SFT, two of FAT."""
    return [
        "experiment=rhio/lab",
        "model=lab/tiny",
        f"results_dir={tmp_path / 'results'}",
        "tracking=none",
        "study=tiny",
        "model.architecture.hidden_size=16",
        "model.architecture.initializer_range=0.6",  # else it says one token again and again
        "model.architecture.intermediate_size=24",
        "model.architecture.num_hidden_layers=2",
        "model.architecture.num_attention_heads=4",
        "model.architecture.num_key_value_heads=2",
        *[f"construct.detect.{item}" for item in DETECT],
        *[f"method.decore.{item}" for item in DETECT],
        "construct.num_questions=16",
        "construct.min_pairs=1",
        "construct.negatives.max_new_tokens=4",
        "construct.negatives.filters.min_distinct=0",
        "data.num_train=16",
        "data.num_val=4",
        "data.num_test=4",
        "method.sft.steps=2",
        "train.max_steps=4",
        "train.batch_size=4",
        "train.micro_batch_size=4",
        "train.log_every=1",
        "decoding.max_new_tokens=4",
        "eval.bootstrap=0",
    ]


def finished(run: Callable[..., tuple[int, str, str]], *arguments: str) -> Path:
    code, out, error = run("run", *arguments)
    assert code == 0, error
    return Path(out.splitlines()[-1])


def test_sft_then_fat_and_what_each_reads(rhio: list[str]) -> None:
    [sft, fat] = phases_of(run_config(rhio))
    assert (sft.name, fat.name, sft.is_evaluated) == ("sft", "fat", True)
    assert (sft.run.num_steps, fat.run.num_steps) == (2, 2)
    assert isinstance(sft.run.construct, NoConstructConfig)
    assert isinstance(sft.run.objective, NextTokenConfig)
    assert isinstance(fat.run.construct, RhioConstructConfig)
    assert isinstance(fat.run.objective, ControlConfig)
    [alone] = phases_of(run_config([*rhio, "method.fat.enabled=false", "decoding=greedy"]))
    assert (alone.name, alone.run.num_steps) == ("sft", 4), "plain tuning has all the steps"


@pytest.mark.parametrize(
    "change",
    ["construct.negatives.source=entity_swap", "construct.mask.mode=uniform_causal", "construct.detect.score=count"],
)
def test_a_sweep_over_negatives_tunes_plainly_once(rhio: list[str], change: str) -> None:
    first, other = (phases_of(run_config(overrides)) for overrides in (rhio, [*rhio, change]))
    assert training_identity(first[0].run) == training_identity(other[0].run)
    assert training_identity(first[1].run) != training_identity(other[1].run)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.sft.steps=4"], "expected less than train.max_steps = 4"),
        (["objective=next_token"], "objective: got one without pairs, expected objective=control"),
        (["construct.negatives.source=other_model"], "generator: got self"),
        (["construct.detect.ask=what"], "a text with {question} in it"),
        (["construct.detect.lengths=[]"], "expected one or more integers >= 3"),
        (["construct.mask.mode=half"], "construct.mask.mode"),
        (["engine=transformers", "decoding=greedy"], "retrieval_mask asks the model itself"),
        (["judge=lexical", "judge@construct.judge=lexical"], "construct.judge: is the run's judge"),
    ],
)
def test_configs_that_make_no_sense(rhio: list[str], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors) as error:
        run_config([*rhio, *overrides])
    assert message in str(error.value)


@pytest.mark.slow
def test_a_run_has_heads_negatives_and_both_tokens(rhio: list[str], run: Any) -> None:
    folder = finished(run, *rhio)
    metrics = metrics_of(folder)
    assert metrics["data/pairs"] == metrics["construct/pairs"] > 0
    total = sum(metrics[f"construct/drop_{reason}"] for reason in ("copy", "degenerate", "faithful"))
    assert total + metrics["construct/pairs"] == 16
    assert 0 <= metrics["detect/top_share"] <= 1
    assert metrics["val/kl_pos_neg"] > 0
    assert {"test/faith", "test/faith@sft", "test/answer_tokens"} <= set(metrics)
    made = folder / "checkpoints" / "final"
    tokenizer = AutoTokenizer.from_pretrained(made)
    assert control_ids(tokenizer)[1] == control_ids(tokenizer)[0] + 1
    code, _, error = run("export", str(folder), "--out", str(folder / "exported"))
    assert code == 0, error
    assert control_ids(AutoTokenizer.from_pretrained(folder / "exported")) == control_ids(tokenizer)

    # The tokens of a trained model serve any method, and detection any decoding, without training anew.
    own = [item for item in rhio if not item.startswith("model")]
    source = ["model=own", f"model.source=dir:{folder / 'exported'}", "train.max_steps=0"]
    again = finished(run, *own, *source)
    assert metrics_of(again)["test/faith"] == metrics["test/faith"]
    decore = finished(run, *rhio, "decoding=decore", "decoding.heads=[detected]", "decoding.max_new_tokens=4")
    assert metrics_of(decore)["construct/pairs"] == metrics["construct/pairs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["construct.negatives.source=entity_swap", "tuning=lora"],
        ["construct.negatives.source=prompt", "construct.negatives.model=base", "selection=slam/top", "selection.k=1"],
        ["construct.negatives.source=random_mask", "objective=preference", "decoding=greedy"],
        ["construct.negatives.source=relation_perturb", "surgery=spannorm"],
    ],
    ids=lambda overrides: overrides[0].partition("=")[2],
)
def test_sources_and_stacks(rhio: list[str], run: Any, overrides: list[str]) -> None:
    folder = finished(run, *rhio, *overrides)
    metrics = metrics_of(folder)
    assert metrics["construct/pairs"] > 0


@pytest.mark.slow
def test_the_suite_of_heads(rhio: list[str], run: Any) -> None:
    changes = ["eval=heads", "eval.suites.heads.counts=[0,2]", "eval.suites.heads.num_needles=2", "train.max_steps=0"]
    changes += [f"eval.suites.heads.detect.{item}" for item in DETECT] + ["decoding=greedy", "method.sft.steps=0"]
    metrics = metrics_of(finished(run, *rhio, *changes, "decoding.max_new_tokens=4"))
    for kind in ("mask0", "mask2_retrieval", "mask2_random"):
        assert {f"test/{name}@{kind}" for name in ("faith", "f1", "rouge_l", "needle")} <= set(metrics)
    assert metrics["test/detect_best"] >= 0
