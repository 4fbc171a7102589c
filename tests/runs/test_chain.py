"""`model.source=run:<experiment>`: trained once, found again, named without a path, to any depth, refused clearly."""

import json
import re
from pathlib import Path

import pytest

from athlos.cli.main import main
from athlos.config.compose import run_config
from athlos.config.schema import RunConfig
from athlos.errors import ConfigError, ConfigErrors, ModelError
from athlos.runs.chain import base_run, is_trained_here, start_of
from athlos.stages import StageStore

WORLD = [
    "data.world.num_none=60",
    "data.world.num_rare=20",
    "data.world.num_frequent=20",
    "data.world.rare_exposures=1",
    "data.world.frequent_exposures=2",
    "data.world.background_exposures=2",
]
RUN = [
    "model=lab/base",
    "data=lab",
    "prompt_style=bare",
    "eval=premises",
    "eval.bootstrap=0",
    "hardware=cpu_smoke",
    "train.max_steps=0",
    "tracking=none",
    "progress=false",
    "study=tiny",
    *WORLD,
]
DEEP = "model.source='run:finetune/lab,seed=2'"
"""A run that starts from `finetune/lab` with an override, which starts from `lab/base`."""


def configured(*overrides: str) -> RunConfig:
    return run_config([*RUN, *overrides])


def provenance(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def trainings(folder: Path) -> list[dict]:
    return [stage for stage in provenance(folder)["stages"] if stage["name"] == "training"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache holds the base, trained by a first run in `first`."""
    folder = tmp_path_factory.mktemp("chain")
    assert main(["run", *RUN, f"cache_dir={folder / 'cache'}", f"run_dir={folder / 'first'}"]) == 0
    return folder


def key(place: Path, *overrides: str) -> str:
    """The key of the weights that a run starts from, which are trained where they are not there."""
    return start_of(configured(*overrides), stages=StageStore(place / "cache")).key


@pytest.mark.slow
def test_the_first_run_trains_the_base_and_leaves_only_the_product(place):
    [training] = trainings(place / "first")
    [product] = [path for path in (place / "cache" / "training").iterdir() if path.is_dir()]
    assert (training["key"], training["reused"]) == (product.name, False)
    assert {path.name for path in product.iterdir()} == {"model", "metrics.json", "events", "stage.json"}
    assert "val/loss" in json.loads((product / "metrics.json").read_text())
    assert not (place / "first" / "checkpoints").exists()


@pytest.mark.slow
def test_the_second_run_reuses_the_base_and_goes_on_training(place, tmp_path):
    more = [
        "seed=2",
        "train.max_steps=2",
        "train.batch_size=2",
        "train.micro_batch_size=2",
        "train.max_length=160",
        "data.kinds=[sum]",
        "data.limit_train=8",
        "train.val_every=0",
        "train.checkpoint_every=2",
        "train.log_every=1",
    ]
    folder = tmp_path / "second"
    assert main(["run", *RUN, *more, f"cache_dir={place / 'cache'}", f"run_dir={folder}"]) == 0
    base, own = trainings(folder)
    assert (base["reused"], own["reused"]) == (True, False)
    assert base["key"] == trainings(place / "first")[0]["key"]
    assert provenance(folder)["model"]["source"] == "run:lab/base"


@pytest.mark.slow
def test_a_chain_of_depth_three_is_trained_once(place, tmp_path):
    cache = f"cache_dir={place / 'cache'}"
    assert main(["run", *RUN, DEEP, "train.max_steps=1", cache, f"run_dir={tmp_path / 'deep'}"]) == 0
    base, middle, own = trainings(tmp_path / "deep")
    assert base["key"] == trainings(place / "first")[0]["key"]
    assert [one["reused"] for one in (base, middle, own)] == [True, False, False]
    assert main(["run", *RUN, DEEP, "train.max_steps=1", "eval.bootstrap=9", cache, f"run_dir={tmp_path / 'b'}"]) == 0
    assert [one["reused"] for one in trainings(tmp_path / "b")] == [True, True, True]


@pytest.mark.slow
def test_the_key_of_a_chain_changes_with_an_override_and_not_with_evaluation(place):
    deep = key(place, DEEP)
    assert key(place, DEEP.replace("seed=2", "seed=3")) != deep
    assert key(place, "model.source=run:finetune/lab") != deep
    for same in ("eval.bootstrap=3", "decoding=sampling", "eval.batch_size=3", "seed=7", "study=other"):
        assert key(place, DEEP, same) == deep
    assert key(place, DEEP.replace("seed=2", "seed=2,eval.bootstrap=3")) == deep


@pytest.mark.parametrize("change", ["data.world.seed=2", "data.world.num_rare=21"])
def test_another_world_is_another_base_at_every_depth(change):
    for source in ("model.source=run:lab/base", DEEP):
        run, other = configured(source), configured(source, change)
        while is_trained_here(run.model):
            run, other = base_run(run), base_run(other)
            assert vars(run.data)["world"] != vars(other.data)["world"]


def test_the_world_that_the_source_names_stands():
    base = base_run(configured("model.source='run:lab/base,data.world.seed=9'"))
    assert vars(base.data)["world"].seed == 9


def test_the_base_is_trained_on_the_runs_world_and_keeps_its_own_mixture():
    base = base_run(configured("data.world.seed=5", "data.mixture.num_sums=3", "data.train_languages=[latn]"))
    shipped = run_config(["experiment=lab/base", "hardware=cpu_smoke"])
    assert vars(base.data)["world"].seed == 5
    assert vars(base.data)["mixture"] == vars(shipped.data)["mixture"]
    assert vars(base.data)["train_languages"] == []
    assert base.train == shipped.train
    assert (base.num_steps, base.tracking.sinks) == (2, [])


def test_a_run_without_a_lab_world_takes_the_base_as_shipped(tmp_path):
    run = run_config(["model=lab/base", "data=shakespeare", f"data.dir={tmp_path}"])
    assert base_run(run).data == run_config(["experiment=lab/base"]).data


def test_overrides_may_hold_commas_of_their_own():
    base = base_run(configured("model.source='run:lab/base,tags=[a,b],seed=4'"))
    assert (base.tags, base.seed) == (["a", "b"], 4)


def test_provenance_names_the_experiment_and_no_path(place):
    found = provenance(place / "first")
    assert found["model"]["source"] == "run:lab/base"
    kept = {name: value for name, value in found.items() if name != "overrides"}
    assert not re.search(r'"/|dir:', json.dumps(kept))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("run:lab/bace", r"model.source: got 'run:lab/bace'; did you mean 'lab/base'\?"),
        ("run:lab_base", r"model.source: 'run:lab_base' was renamed to 'run:lab/base'"),
        ("run:eval/gemma3_mgsm", r"model.source: run:eval/gemma3_mgsm trains nothing \(train.max_steps=0\)"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(tmp_path, source, message):
    with pytest.raises(ConfigError, match=message):
        start_of(configured(f"model.source='{source}'"), stages=StageStore(tmp_path))


def test_a_source_that_starts_from_itself_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="run:lab/base starts from run:x starts from run:lab/base, which is itself"):
        start_of(configured(), stages=StageStore(tmp_path), path=("run:lab/base", "run:x"))


def test_an_override_that_the_experiment_does_not_take_is_refused():
    with pytest.raises((ConfigError, ConfigErrors), match="sead"):
        base_run(configured("model.source='run:lab/base,sead=4'"))


def test_an_unknown_experiment_ends_the_command(place, capsys, tmp_path):
    code = main(["run", *RUN, "model.source=run:lab/bace", f"cache_dir={place / 'cache'}", f"run_dir={tmp_path / 'x'}"])
    assert code == ConfigError.exit_code
    assert "did you mean 'lab/base'?" in capsys.readouterr().err


def test_run_needs_a_name():
    with pytest.raises(ModelError, match=r"model\.source: got 'run:' without an experiment; expected run:<experiment>"):
        is_trained_here(configured("model.source='run:'").model)


def test_several_devices_do_not_train_the_base(place, tmp_path):
    several = configured(
        "hardware=ddp", "train.micro_batch_size=8", "hardware.max_steps_cap=2", "hardware.limit_items_cap=2"
    )
    assert several.num_devices == 2
    empty = StageStore(tmp_path)
    with pytest.raises(ConfigError, match=r"lab_base is not trained yet.*hardware=cpu train.max_steps=0"):
        start_of(several, stages=empty)
    assert not [product for product in empty.history if product.name == "training"]
    assert start_of(several, stages=StageStore(place / "cache")).key == trainings(place / "first")[0]["key"]


def test_a_dry_run_lists_every_training_and_does_none(tmp_path, capsys):
    code = main(
        [
            "run",
            *RUN,
            DEEP,
            "train.max_steps=1",
            "dry_run=true",
            f"cache_dir={tmp_path / 'cache'}",
            f"results_dir={tmp_path / 'results'}",
        ]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert re.findall(r"^(.*): (\d+) steps$", out, re.M) == [
        ("lab_base: train", "2"),
        ("lab_finetune: train", "2"),
        ("tiny: train", "1"),
    ]
    for line in ("parameters", "memory: training", "FLOPs a step"):
        assert len(re.findall(rf"^{line} ", out, re.M)) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_the_phases_of_a_method(capsys):
    assert main(["run", "experiment=slam/lab", "method.reason_steps=96", "train.max_steps=156", "dry_run=true"]) == 0
    found = re.findall(r"^(.*): (\d+) steps$", capsys.readouterr().out, re.M)
    assert found[-2:] == [("lab_slam: translate", "60"), ("lab_slam: reason", "96")]
