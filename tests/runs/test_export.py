"""Export: a plain Hugging Face folder with the numbers of the run."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from tests.run_record import only_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from athlos.config.compose import plain, run_config
from athlos.errors import ConfigError
from athlos.evaluation.suites.perplexity import stream_nll
from athlos.runs.export import stored_config


@pytest.mark.parametrize("selection", [["selection=all"], ["tuning=lora"], ["selection=layers"]])
def test_the_exported_model_has_the_perplexity_of_the_run(tiny, run, tmp_path, text_dir, selection):
    _, out, _ = run("run", *tiny, *selection, "train.lr=0.05")
    folder = Path(out.splitlines()[-1])
    code, out, _ = run("export", str(folder), "--out", str(tmp_path / "exported"))
    assert code == 0
    assert out.strip() == str(tmp_path / "exported")
    assert not list((tmp_path / "exported").glob("*.bin"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    text = (text_dir / "test.txt").read_text(encoding="utf-8").replace("\n\n", "\n")
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:300])
    nll, count = stream_nll(model, tokens, length=32, stride=32, batch_size=4, prefix=None)
    expected = json.loads((folder / "metrics.json").read_text())["test/ppl"]
    assert math.exp(nll / count) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_exported_says_why(tiny, run, tmp_path):
    code, _, err = run("export", str(tmp_path), "--out", str(tmp_path / "x"))
    assert (code, "no config.yaml; expected a run folder" in err) == (2, True)
    _, out, _ = run("run", *tiny)
    folder = Path(out.splitlines()[-1])
    code, _, err = run("export", str(folder), "--out", str(folder))
    assert (code, "is not empty" in err) == (2, True)
    (folder / "checkpoints" / "final" / "model.safetensors").unlink()
    code, _, err = run("export", str(folder), "--out", str(tmp_path / "x"))
    assert (code, "the run is not finished" in err) == (2, True)


def test_a_run_whose_evaluation_failed_leaves_weights_that_export(tiny, run, tmp_path, monkeypatch):
    from athlos.evaluation.suites.perplexity import PerplexitySuite

    def broken(*_, **__):
        raise ConfigError("eval.suites: nothing to ask")

    monkeypatch.setattr(PerplexitySuite, "evaluate", broken)
    code, _, err = run("run", *tiny)
    assert (code, "nothing to ask" in err) == (2, True)
    folder = only_run(tmp_path / "results")
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    assert run("export", str(folder), "--out", str(tmp_path / "x"))[0] == 0
    trained, kept = (
        AutoModelForCausalLM.from_pretrained(place).state_dict()
        for place in (tmp_path / "x", folder / "checkpoints" / "final")
    )
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.items())


def test_a_stored_config_has_the_types_of_its_parts_and_suites_again(tmp_path: Path):
    config = run_config(["experiment=slam/gemma3", "data.dir=.", "eval.suites.perplexity.stride=9"])
    values = plain(config)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    config.run_dir = str(tmp_path)
    assert stored_config(tmp_path) == config
    values["eval"]["suites"]["qa"]["_target_"] = "athlos.gone.Suite"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"eval\.suites\.qa\._target_: no part 'athlos\.gone\.Suite' is installed"):
        stored_config(tmp_path)
