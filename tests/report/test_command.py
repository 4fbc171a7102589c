"""The command that is found again from a config gives that config."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlos.config.compose import compose_dict, group_options, identity, run_config
from athlos.report.command import _hydra_value, run_command
from athlos.runs.folder import flat


def stored(overrides: list[str]) -> dict:
    config = run_config(overrides)
    return {"study": config.study, **flat(identity(config))}


@pytest.mark.parametrize("experiment", group_options("experiment"))
def test_an_experiment_is_found_by_its_name(experiment: str):
    overrides = [f"experiment={experiment}", "seed=7", "train.weight_decay=0.25", "data.dir=some/folder"]
    # What a paper's data lack for training is no matter in a dry run, which is no part of a run's identity.
    dry = ["dry_run=true"] if experiment.endswith("_paper") else []
    wanted = stored(overrides + dry)
    words = shlex.split(run_command(wanted) or "")
    assert words[:2] == ["athlos", "run"]
    assert stored(words[2:] + dry) == wanted
    assert len(words) <= 2 + len(overrides), words


def test_an_experiment_with_another_model_says_no_more():
    overrides = ["experiment=spannorm_depth", "model=depth_48", "data.dir=../text", "surgery.placement=prenorm"]
    words = shlex.split(run_command(stored(overrides)) or "")
    assert sorted(words[2:]) == sorted(overrides)


def test_an_older_config_lacks_what_came_since():
    wanted = stored(["experiment=finetune_tiny", "train.lr=0.5"])
    older = {key: value for key, value in wanted.items() if key not in ("train.clip_norm", "eval.shots")}
    assert run_command(older) is None, "it is not said what these were"
    words = shlex.split(run_command(older, is_older=True) or "")
    assert sorted(words[2:]) == ["experiment=finetune_tiny", "train.lr=0.5"]
    assert run_command({**older, "train.gone": 1}, is_older=True) is None


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["scale=small", "model=gemma3_270m", "selection=lora", "decoding=sampling"],
        ["data=mgsm", "data.dir='a folder/with \\'quotes\\''", "eval=math", "train.max_steps=0"],
        ["data=mgsm", "data.dir=x", "eval=qa", "train.max_steps=0", "data.languages=[de,en]"],
        ["model.architecture.hidden_size=64", "+model.architecture.rope_theta=5e5"],
        ["~model.architecture.num_hidden_layers", "eval.bootstrap=0"],
        ['decoding.stop=["\\n\\n","a, b","]"]', "hardware=cpu_smoke"],
    ],
)  # fmt: skip
def test_choices_and_values_are_found(overrides: list[str]):
    wanted = stored(overrides)
    command = run_command(wanted)
    assert command is not None
    assert stored(shlex.split(command)[2:]) == wanted


def test_nothing_is_said_where_it_cannot_be():
    wanted = stored([])
    assert run_command({**wanted, "train.unheard_of": 1}) is None
    assert run_command({key: value for key, value in wanted.items() if key != "train.lr"}) is None
    assert run_command({**wanted, "data.dir": "${oc.env:HOME}"}) is None
    assert run_command({"study": "x"}) is None


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
def test_any_text_goes_through_the_grammar(text: str):
    value = _hydra_value(text)
    if value is not None:
        assert compose_dict([f"model.name={value}"]).model.name == text
    assert (value is None) == ("${" in text)
