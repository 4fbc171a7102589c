"""`model.source=run:<experiment>`: trained once, found again, named without a path, and refused clearly."""

import json
import re
from pathlib import Path

import pytest
from athlos.cli.pretrained import BASE_RUN_VERSION, RECORD, base_run, is_trained_here, trained_model
from tests.cli.conftest import curve

from athlos.cli.main import main
from athlos.config.compose import identity, run_config
from athlos.config.schema import RunConfig
from athlos.data.datamodule import build_source
from athlos.errors import ConfigError, ModelError
from athlos.stages import Stage, StageStore

WORLD = [
    "data.world.num_none=60", "data.world.num_rare=20", "data.world.num_frequent=20",
    "data.world.rare_exposures=1", "data.world.frequent_exposures=2", "data.world.background_exposures=2",
]  # fmt: skip
RUN = ["model=lab/base", "data=lab", "eval=premises", "eval.bootstrap=0", "hardware=cpu_smoke", "train.max_steps=0",
       "tracking=none", "progress=false", "study=tiny", *WORLD]  # fmt: skip
NUM_WEIGHTS = 1_298_176
"""Of model=lab/tiny with the word list of this world."""


def configured(*overrides: str) -> RunConfig:
    return run_config([*RUN, *overrides])


def key(config: RunConfig) -> str:
    """The key of the base of a run: its config and its training text."""
    base = base_run(config)
    inputs = {"data": build_source(base).fingerprint("train")}
    return Stage(
        name="base_run", version=BASE_RUN_VERSION, config=identity(base), inputs=inputs, build=lambda folder: None
    ).key


def provenance(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache holds the base, trained by a first run in `results/`."""
    folder = tmp_path_factory.mktemp("pretrained")
    assert main(["run", *RUN, f"cache_dir={folder / 'cache'}", f"run_dir={folder / 'first'}"]) == 0
    return folder


def test_the_first_run_trains_the_base_and_leaves_only_the_product(place):
    [product] = [path for path in (place / "cache" / "base_run").iterdir() if path.is_dir()]
    assert not product.name.endswith((".run", ".building"))
    assert {path.name for path in product.iterdir()} == {"model", "stage.json", *RECORD}
    assert (product / "model" / "model.safetensors").is_file()
    [stage] = provenance(place / "first")["stages"]
    assert (stage["name"], stage["key"], stage["reused"]) == ("base_run", product.name, False)
    assert "val/loss" in json.loads((product / "metrics.json").read_text())
    assert curve_length(place / "first") == 0


def curve_length(folder: Path) -> int:
    """Training steps that a run did itself."""
    return len([event for event in curve(folder) if "train/loss" in event])


def test_the_key_of_the_product_is_that_of_the_bases_config(place):
    assert (place / "cache" / "base_run" / key(configured())).is_dir()


def test_the_second_run_reuses_the_base_and_goes_on_training(place, tmp_path):
    folder = tmp_path / "second"
    more = ["seed=2", "train.max_steps=2", "train.batch_size=2", "train.micro_batch_size=2", "train.max_length=160",
            "data.kinds=[sum]", "data.limit_train=8", "train.val_every=0", "train.checkpoint_every=2",
            "train.log_every=1"]  # fmt: skip
    assert main(["run", *RUN, *more, f"cache_dir={place / 'cache'}", f"run_dir={folder}"]) == 0
    stages = {stage["name"]: stage for stage in provenance(folder)["stages"]}
    assert stages["base_run"]["reused"]
    assert stages["base_run"]["key"] == key(configured())
    assert provenance(folder)["model"] == provenance(place / "first")["model"]
    assert curve_length(folder) == 2


def test_a_product_in_place_is_found_without_training(place):
    stages = StageStore(place / "cache")
    config = trained_model(configured(), stages=stages)
    [product] = stages.history
    assert product.reused
    assert config.source == f"dir:{product.path / 'model'}"
    assert config.tokenizer == configured().model.tokenizer
    assert not is_trained_here(config)


def test_provenance_names_the_experiment_and_no_path(place):
    found = provenance(place / "first")
    assert found["model"]["source"] == "run:lab/base"
    text = json.dumps(found)
    assert str(place) not in text
    assert not re.search(r'"/|dir:', text)


@pytest.mark.parametrize(
    "change", ["data.world.seed=2", "data.world.num_rare=21", "hardware.max_steps_cap=3", "hardware.limit_items_cap=3"]
)
def test_another_world_is_another_base(change):
    assert key(configured(change)) != key(configured())


@pytest.mark.parametrize(
    "change", ["seed=2", "train.lr=0.5", "data.kinds=[sum]", "data.limit_train=9", "cache_dir=elsewhere", "study=other",
               "decoding=sampling", "eval.base=true"],
)  # fmt: skip
def test_a_run_shares_its_base_with_others(change):
    assert key(configured(change)) == key(configured())


def test_the_base_is_trained_on_the_runs_world_and_keeps_its_own_mixture():
    base = base_run(configured("data.world.seed=5", "data.mixture.num_sums=3", "data.train_languages=[latn]"))
    shipped = run_config(["experiment=lab/base"])
    assert vars(base.data)["world"].seed == 5
    assert vars(base.data)["mixture"] == vars(shipped.data)["mixture"]
    assert vars(base.data)["train_languages"] == []
    assert base.train == shipped.train
    assert (base.num_steps, base.tracking.sinks) == (2, [])


def test_a_run_without_a_lab_world_takes_the_base_as_shipped(tmp_path):
    config = run_config(["model=lab/base", "data=shakespeare", f"data.dir={tmp_path}"])
    assert base_run(config).data == run_config(["experiment=lab/base"]).data


def test_an_unknown_experiment_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"model.source: got 'run:lab/bace'; did you mean 'lab/base'\?"):
        base_run(configured("model.source=run:lab/bace"))


def test_an_experiment_by_its_old_name_is_answered_with_the_new_one():
    with pytest.raises(ConfigError, match=r"^model.source: 'run:lab_base' was renamed to 'run:lab/base'$"):
        base_run(configured("model.source=run:lab_base"))


def test_an_unknown_experiment_ends_the_command(place, capsys, tmp_path):
    code = main(["run", *RUN, "model.source=run:lab/bace", f"cache_dir={place / 'cache'}", f"run_dir={tmp_path / 'x'}"])
    assert code == ConfigError.exit_code
    assert "did you mean 'lab/base'?" in capsys.readouterr().err


def test_run_needs_a_name():
    with pytest.raises(ModelError, match=r"model\.source: got 'run:' without an experiment; expected run:<experiment>"):
        is_trained_here(configured("model.source='run:'").model)


def test_a_base_of_a_base_is_refused():
    with pytest.raises(ConfigError, match=r"model\.source: run:lab/premises starts from run:lab/base itself"):
        base_run(configured("model.source=run:lab/premises"))


def test_a_base_that_trains_nothing_is_refused():
    assert run_config(["experiment=eval/gemma3_mgsm"]).num_steps == 0
    with pytest.raises(ConfigError, match=r"model.source: run:eval/gemma3_mgsm trains nothing \(train.max_steps=0\)"):
        base_run(configured("model.source=run:eval/gemma3_mgsm"))


def test_several_devices_do_not_train_the_base(place, tmp_path):
    several = configured(
        "hardware=ddp", "train.micro_batch_size=8", "hardware.max_steps_cap=2", "hardware.limit_items_cap=2"
    )
    assert several.num_devices == 2
    empty = StageStore(tmp_path)
    with pytest.raises(ConfigError, match=r"run:lab/base is not trained yet.*hardware=cpu train.max_steps=0"):
        trained_model(several, stages=empty)
    assert empty.history == []
    stages = StageStore(place / "cache")
    assert trained_model(several, stages=stages).source.startswith("dir:")
    assert stages.history[0].reused


def test_the_command_that_several_devices_are_told_makes_the_base_they_look_for():
    several = key(run_config([*RUN, "hardware=ddp", "train.micro_batch_size=8"]))
    assert key(run_config([*RUN, "hardware=cpu", "train.max_steps=0"])) == several


def test_a_dry_run_counts_the_base_and_trains_nothing(tmp_path, capsys):
    code = main(["run", *RUN, "dry_run=true", f"cache_dir={tmp_path / 'cache'}", f"results_dir={tmp_path / 'results'}"])
    assert code == 0
    assert re.search(r"parameters", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
