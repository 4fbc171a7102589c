"""Composing: what is accepted, and the one clear line for what is not."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from tests.test_experiments import FOLDER, command_of

from athlos.config.compose import (
    compose_dict,
    conf_dir,
    expand_sweep,
    group_options,
    identity,
    plain,
    run_config,
    sweep_configs,
)
from athlos.config.renamed import MOVED, RENAMED
from athlos.config.schema import Batching
from athlos.errors import ConfigError, ConfigErrors


def test_defaults_compose_and_are_typed():
    config = run_config([])
    assert config.train.batching is Batching.pack
    assert type(config.method).__name__ == "FinetuneConfig"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train=5"], "train: got '5', but it holds keys; set one of these"),
        (["train.lrr=1"], "train.lrr: unknown key; did you mean 'train.lr'?"),
        (["+train.lrr=1"], "train.lrr: unknown key; did you mean 'lr'?"),
        (["+method.rnak=3"], "method.rnak: unknown key; accepted: _target_"),
        (
            ["experiment=lang/lab", "objective=next_token"],
            "objective.max_new_tokens: conf/experiment/lang/lab.yaml sets it, but objective=next_token has no such key",
        ),
        (["+colour=red"], "colour: unknown key; accepted: cache_dir"),
        (["train.lr=fast"], "train.lr: got 'fast' (str), expected Float"),
        (["train.lr=-1"], "train.lr: got -1.0, expected a number > 0"),
        (["train.lr=inf"], "train.lr: got inf, expected a finite number"),
        (["train.weight_decay=nan"], "train.weight_decay: got nan, expected a finite number"),
        (["method=lisa", "method.loss.attn=nan"], "method.loss.attn: got nan, expected a finite number"),
        (["+model.architecture.rope_theta=nan"], "model.architecture.rope_theta: got nan, expected a finite number"),
        (["seed=20261129173000"], "seed: got 20261129173000, expected an integer in [0, 4294967295]"),
        (["seed=-1"], "seed: got -1, expected an integer in [0, 4294967295]"),
        (["eval.bootstrap_seed=-1"], "eval.bootstrap_seed: got -1, expected an integer in [0, 4294967295]"),
        (["train.max_steps=9223372036854775808"], "train.max_steps: got 9223372036854775808, expected an integer of"),
        (["train.batching=pak"], "train.batching: got 'pak', expected one of [pack, bucket]"),
        (["train.batch_size=3"], "train.batch_size: got 3, expected a multiple of"),
        (["experiment=finetune/tinny"], "experiment: got 'finetune/tinny'; did you mean 'finetune/tiny'?"),
        (["model=no_such_model"], "model: got 'no_such_model'"),
        (["method._target_=os.system"], "method._target_: 'os.system' is not allowed"),
        (["tuning=lora", "tuning.rank=0"], "tuning.rank: got 0, expected an integer >= 1"),
        (["selection=layers", "selection.sites=[qq]"], "selection.sites: got 'qq'"),
        (["decoding=sampling", "decoding.temperature=0"], "decoding.temperature: got 0.0"),
        (["objective.label_smoothing=1"], "objective.label_smoothing: got 1.0"),
        (["prompt_style=bar"], "prompt_style: got 'bar', expected one of default, bare, cited, closed_book"),
        (["prompt_style=bar"], "; did you mean 'bare'?"),
        (["tracking.sinks=[wanb]"], "tracking.sinks: got 'wanb', expected any of wandb, tensorboard, trackio; did you"),
        (["hardware.precision=bf16"], "hardware.precision: got 'bf16', expected one of 32-true, bf16-mixed"),
        (["eval.shots=-1"], "eval.shots: got -1, expected an integer >= 0"),
        (["data.limit_val=0"], "data.limit_val: got 0, expected an integer >= 1, or null for all"),
        (["method=lisa", "method.loss.attn=-1"], "method.loss.attn: got -1.0, expected a number >= 0"),
        (["train.log_every=0", "method=spannorm"], "train.log_every: got 0, expected an integer >= 1"),
        (["data.train_split=null"], "data.train_split: data=shakespeare names no training split"),
        (["study=${nowhere}"], "study: Interpolation"),
    ],
)
def test_a_mistake_gives_one_line_that_names_the_key(overrides: list[str], expected: str):
    with pytest.raises(ConfigError) as caught:
        run_config(overrides)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["eval.limit_tokens=9"], "eval.limit_tokens: moved to eval.suites.perplexity.limit_tokens"),
        (["eval=math", "+eval.language_groups.low=[th]"], "moved to eval.suites.math.language_groups.low"),
        (["eval.suites=[qa]"], "eval.suites: got '[qa]'; to add a suite write +suite@eval.suites.<name>=<suite>"),
        (["suite=qa"], "suite: got 'qa'; to add a suite write +suite@eval.suites.<name>=<suite>"),
        (["eval.suites.qa=qa"], "to add a suite write +suite@eval.suites.qa=<suite>, one of "),
        (["+eval.suites.qa.samples=2"], "qa.samples: unknown key; to add a suite write +suite@eval.suites.qa="),
        (["+suite@eval.suites.qa=qaa"], "suite: got 'qaa'; did you mean 'qa'?"),
        (["eval.suites.perplexity.strid=9"], "unknown key; did you mean 'eval.suites.perplexity.stride'?"),
        (["+eval.suites.perplexity.strid=9"], "eval.suites.perplexity.strid: unknown key; did you mean 'stride'?"),
        (
            ["experiment=rhio/lab", "construct=none"],
            "construct.judge: conf/experiment/rhio/lab.yaml sets it, but construct=none has no such key",
        ),
        (["experiment=lang/lab", "eval=qa"], "conf/experiment/lang/lab.yaml sets it, but eval=qa has no such key"),
        (["reward=sum", "reward.parts.em.rule=x"], "to add a reward write +reward@reward.parts.em=<reward>, one of"),
        (["eval.suites.perplexity.stride=0"], "eval.suites.perplexity.stride: got 0, expected an integer >= 1"),
        (["eval.suites.perplexity.max_length=32"], "stride: got 64, expected at most eval.suites.perplexity.max"),
        (["eval=completions", "eval.suites.completions.max_length=2"], "completions.max_length: got 2"),
    ],
)
def test_a_mistake_about_suites_says_where_the_value_belongs(overrides: list[str], expected: str):
    with pytest.raises(ConfigError) as caught:
        run_config(overrides)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", MOVED)
def test_a_moved_key_has_its_new_place_and_has_left_its_old_one(key: str):
    suites = [f"+suite@eval.suites.{name}={name}" for name in group_options("suite") if name != "perplexity"]
    config = compose_dict([*suites, "selection=plast", "tuning=lora"])
    assert OmegaConf.select(config, key, default="gone") == "gone"
    for place in MOVED[key].split(" or "):
        assert OmegaConf.select(config, place.partition("=")[0], default="gone") != "gone", place


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["selection=lora"], "selection=lora: moved to tuning=lora"),
        (["selection=slam", "selection.lora.enabled=true"], "selection.lora.enabled: moved to tuning=lora"),
        (["selection=slam", "selection.lora.rank=4"], "selection.lora.rank: moved to tuning.rank"),
        (["selection=slam", "selection.selector=lape"], "selection.selector=lape: moved to selection.selector=spec"),
        (
            ["selection=plast", "selection.arm=full"],
            "selection.arm: moved to selection=plast/full or tuning=lora_equal",
        ),
    ],
)
def test_how_the_chosen_trains_is_told_to_be_an_axis_of_its_own(overrides: list[str], expected: str):
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        run_config(overrides)
    with pytest.raises(ConfigErrors, match=re.escape(expected)):
        sweep_configs([*overrides, "seed=1,2"])


@pytest.mark.parametrize("tuning", ["lora", "lora_equal"])
@pytest.mark.parametrize(
    ("overrides", "misfit"),
    [
        (["surgery=lisa", "selection=lisa"], "selection=lisa"),
        (["selection=layers", "selection.embeddings=true"], "selection.embeddings=true"),
        (["selection=layers", "selection.head=true"], "selection.head=true"),
        (["selection=layers", "selection.projector=true"], "selection.projector=true"),
        (["selection=layers", "selection.sites=[q,norms]"], "selection.sites=[q,norms]"),
        (["selection=slam", "selection.train_emb=true"], "selection.train_emb=true"),
        (
            ["selection=slam", "selection.neuron_mask=random50", "train.weight_decay=0"],
            "selection.neuron_mask=random50",
        ),
    ],
)
def test_what_no_low_rank_update_stands_beside_is_refused_in_one_line(tuning: str, overrides: list[str], misfit: str):
    run_config(overrides)
    with pytest.raises(ConfigErrors) as caught:
        run_config([*overrides, f"tuning={tuning}"])
    [line] = caught.value.errors
    assert line.startswith(f"tuning: got {tuning} with {misfit}, expected full: ")


@pytest.mark.parametrize("base", [[], ["selection=slam/full"], ["experiment=plast/lab", "selection=plast/full"]])
def test_updates_of_equal_size_want_a_selection_of_some_layers(base: list[str]):
    run_config([*base, "tuning=lora"])
    with pytest.raises(ConfigErrors, match="tuning: got lora_equal, expected full or lora"):
        run_config([*base, "tuning=lora_equal"])


OWN = ["data=own", "data.path=mine.jsonl"]
"""Data of any type."""


def test_suites_are_chosen_added_and_taken_away_by_name():
    assert list(run_config([*OWN, "eval=qa"]).eval.suites) == ["qa"]
    config = run_config([*OWN, "eval=qa", "+suite@eval.suites.text=perplexity", "eval.suites.text.stride=7"])
    assert [type(suite).__name__ for suite in config.eval.suites.values()] == ["QuestionsConfig", "PerplexityConfig"]
    assert (config.eval.suites["text"].stride, config.eval.running_text) == (7, config.eval.suites["text"])
    study = ["experiment=slam/gemma3", "data.dir=."]
    assert list(run_config(study).eval.suites) == ["translation", "margin", "qa", "perplexity"]
    assert list(run_config([*study, "~suite@eval.suites.qa"]).eval.suites) == ["translation", "margin", "perplexity"]


@pytest.mark.parametrize(
    ("data", "suites"),
    [
        ("gsm8k", ["math"]),
        ("xquad", ["qa"]),
        ("po_tm", ["translation"]),
        ("mmbench", ["picture_choices"]),
        ("next_line", ["completions"]),
        ("clapnq", []),
        ("shakespeare", ["perplexity"]),
    ],
)
def test_data_bring_a_suite_that_fits_and_the_command_line_has_the_last_word(data: str, suites: list[str]):
    assert list(run_config([f"data={data}", "train.max_steps=0"]).eval.suites) == suites
    assert list(run_config([f"data={data}", "train.max_steps=0", "eval=throughput"]).eval.suites) == ["throughput"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["data=gsm8k", "eval=perplexity"],
            "eval.suites.perplexity: it needs a TextRecord, data=gsm8k has a MathRecord",
        ),
        (["data=gsm8k", "eval=qa"], "; use eval=calibration or margin or math"),
        (["data=wikitext2", "eval=translation"], "eval.suites.translation: it needs a ParallelRecord, data=wikitext2"),
        (["data=squad", "+suite@eval.suites.sums=math"], "eval.suites.sums: it needs a MathRecord, data=squad has a"),
        (["data=clapnq", "eval=calibration"], "it needs a MathRecord or QuestionRecord, data=clapnq has a LongAnswer"),
    ],
)
def test_a_suite_that_the_data_cannot_serve_is_refused(overrides: list[str], expected: str):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        run_config(overrides)
    assert run_config(["data=squad", "eval=calibration"]).eval.suites
    assert run_config(["data=lab", "prompt_style=bare", "eval=perplexity"]).eval.suites  # texts and questions


def test_a_scale_widens_the_windows_of_the_perplexity():
    windows = [run_config(scale).eval.running_text for scale in ([], ["scale=small"], ["scale=paper"])]
    assert [(suite.max_length, suite.stride) for suite in windows] == [(128, 64), (512, 512), (2048, 2048)]


@pytest.mark.parametrize("group", RENAMED)
def test_a_renamed_option_has_its_new_name_and_has_lost_its_old_one(group: str):
    options = set(group_options(group))
    assert set(RENAMED[group].values()) <= options
    assert not set(RENAMED[group]) & options


@pytest.mark.parametrize("group", RENAMED)
def test_an_old_name_is_answered_with_the_new_one(group: str):
    old, new = list(RENAMED[group].items())[-1]
    with pytest.raises(ConfigError) as caught:
        run_config([f"{group}={old}"])
    assert str(caught.value) == f"{group}: '{old}' was renamed to '{new}'"


def test_a_sweep_answers_old_names_too():
    with pytest.raises(ConfigError, match=r"^experiment: 'lab_ndp' was renamed to 'ndp/lab'$"):
        expand_sweep(["experiment=lab_ndp", "seed=1,2"])
    with pytest.raises(ConfigErrors) as caught:
        sweep_configs(["experiment=ndp/lab", "objective=ndp/div,ndp_div"])
    assert caught.value.errors == [
        "[experiment=ndp/lab objective=ndp_div] objective: 'ndp_div' was renamed to 'ndp/div'"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/a=b",
        "/tmp/日本語",
        "/tmp/a(b)",
        "/tmp/it's",
        "/tmp/a=b\\",
        "/tmp/a=\\'b",
        '/tmp/"x"',
        "/tmp/a b ",
        "/tmp/é#&;~",
    ],
)
def test_a_path_reaches_the_config_as_it_is(path: str):
    assert run_config([f"data.dir={path}"]).data.dir == path.strip()
    assert expand_sweep([f"data.dir={path},x", "seed=1"])[1] == ["data.dir=x", "seed=1"]
    [job, _] = expand_sweep([f"data.dir={path},x"])
    assert run_config(job).data.dir == path.strip()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.files={train:a=b}", "data.files: cannot read {train:a=b}; quote texts inside it"),
        ("tags=[qa", "tags: cannot read [qa; quote texts inside it"),
        ("eval.suites=[qa", "eval.suites: got '[qa'; to add a suite write +suite@eval.suites.<name>=<suite>"),
        ("data.dir='a", "data.dir: cannot read 'a; quote"),
        ("種=1", "override '種=1': cannot be read, expected <key>=<value>"),
        ("seed", "override 'seed': cannot be read, expected <key>=<value>"),
    ],
)
def test_an_override_that_cannot_be_read_names_its_key(override: str, expected: str):
    with pytest.raises(ConfigError) as caught:
        run_config([override])
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_largest_seed_and_an_infinite_limit_of_an_architecture_are_accepted():
    config = run_config(["seed=4294967295", "+model.architecture.time_step_limit=[0.0,inf]"])
    assert config.seed == 2**32 - 1
    assert config.model.architecture["time_step_limit"] == [0.0, float("inf")]


def test_all_errors_are_shown_at_once():
    with pytest.raises(ConfigErrors) as caught:
        run_config(["train.lr=-1", "train.max_length=1", "seed=-5"])
    assert {line.split(":")[0] for line in caught.value.errors} == {"train.lr", "train.max_length", "seed"}


def test_targets_of_the_users_own_package_need_the_environment(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="not allowed"):
        run_config(["objective._target_=mylab.Loss"])
    monkeypatch.setenv("ATHLOS_ALLOWED_TARGETS", "mylab.")
    assert run_config(["objective._target_=mylab.Loss"]).objective._target_ == "mylab.Loss"


def test_a_sweep_expands_as_hydra_does_and_names_the_bad_job():
    assert len(expand_sweep(["seed=1,2", "train.lr=0.1,0.2,0.3"])) == 6
    assert [config.seed for config in sweep_configs(["sweep=seeds"])] == [1, 2, 3]
    assert [config.seed for config in sweep_configs(["sweep=seeds", "seed=7,8"])] == [7, 8]
    with pytest.raises(ConfigErrors) as caught:
        sweep_configs(["seed=1,2", "train.lr=0.1,-1"])
    assert len(caught.value.errors) == 2
    assert caught.value.errors[0].startswith("[seed=1 train.lr=-1]")


def test_identity_leaves_out_where_a_run_is_recorded():
    here = identity(run_config(["results_dir=a", "tracking=none", "progress=false"]))
    there = identity(run_config(["results_dir=b", "tracking=wandb"]))
    assert here == there
    assert identity(run_config(["seed=2"])) != here


def test_a_sweep_overwrites_its_experiment():
    of_study = run_config(["experiment=lisa/smollm2", "data.dir=."])
    first = sweep_configs(["experiment=lisa/smollm2", "sweep=lisa/curve", "data.dir=."])[0]
    assert first.study == "lisa_curve"
    assert first.train.max_steps < of_study.train.max_steps
    assert first.train.batch_size == of_study.train.batch_size


def test_precedence_is_command_line_then_experiment_then_scale():
    assert run_config(["scale=paper", "model=small/tiny_llama"]).model.name == "tiny_llama"
    assert run_config(["scale=paper", "experiment=finetune/tiny"]).train.max_steps == 120
    assert run_config(["experiment=finetune/tiny", "train.max_steps=3"]).train.max_steps == 3


def by_hydra(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("run", overrides=overrides)


EXPERIMENTS = [
    pytest.param(name, marks=() if name == "lisa/lab" else pytest.mark.slow) for name in group_options("experiment")
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_composition_is_hydras(name: str):
    """Choices and values apart, as jobs of a sweep share the first, or all at once."""
    overrides = command_of(FOLDER / f"{name}.yaml")
    assert OmegaConf.to_yaml(compose_dict(overrides)) == OmegaConf.to_yaml(by_hydra(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "train.lr=1e-4", "data=shakespeare", "seed=4"],
        ["+suite@eval.suites.text=perplexity", "eval.suites.text.stride=7", "~suite@eval.suites.perplexity"],
        ["+model.architecture.attention_dropout=0.5", "model.tokenizer.kind=byte", "~model.architecture.head_dim"],
        ["reward=sum", "+reward@reward.parts.em=exact_match", "++tracking.tags=[a,b]", "selection=slam/random"],
        ["surgery=lisa", "surgery.layers={select: last_k, count: 2}", "results_dir=/tmp/a b"],
    ],
)
def test_values_and_choices_in_any_order_are_hydras(overrides: list[str]):
    for ordered in (overrides, overrides[::-1]):
        try:
            expected = OmegaConf.to_yaml(by_hydra(ordered))
        except HydraException:
            with pytest.raises(ConfigError):
                compose_dict(ordered)
        else:
            assert OmegaConf.to_yaml(compose_dict(ordered)) == expected


def test_a_composition_leaves_no_trace_in_the_next():
    first = OmegaConf.to_yaml(compose_dict([]))
    changed = compose_dict(["model.architecture.hidden_size=8"])
    changed.train.lr = 7
    assert OmegaConf.to_yaml(compose_dict([])) == first


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(conf_dir(), tmp_path / "conf")
    monkeypatch.setattr("athlos.config.compose.conf_dir", lambda: tmp_path / "conf")
    assert compose_dict(["model=small/tiny_llama"]).model.name == "tiny_llama"
    path = tmp_path / "conf" / "model" / "small" / "tiny_llama.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("name: tiny_llama", "name: renamed"), encoding="utf-8")
    assert compose_dict(["model=small/tiny_llama"]).model.name == "renamed"


def container(config: Any) -> Any:
    """What OmegaConf itself makes of a config."""
    return OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_plain_values_are_those_of_omegaconf(name: str):
    """By their JSON, so that an integer in place of a number and another order of keys would be seen."""
    run = run_config(command_of(FOLDER / f"{name}.yaml"))
    for config in (run, *(phase.run for phase in run.method.phases(run))):
        assert json.dumps(plain(config)) == json.dumps(container(config))
    assert plain(dataclasses.replace(run.train, batching=Batching.pack))["batching"] == "pack"
