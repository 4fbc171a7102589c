"""README.md and docs/ tell what is there."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.test_experiments import written_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer

from athlos.cli.claims import computed, summary
from athlos.config.catalogue import METHODS
from athlos.config.compose import conf_dir, group_options, run_config, sweep_configs
from athlos.config.registry import GROUPS, registry
from athlos.models.architecture import build, hf_config
from athlos.models.tokenizers import byte_tokenizer

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def test_every_method_stands_in_the_table_with_its_state():
    for method in METHODS:
        state = "here" if ("method", method.slug) in registry().parts else "planned"
        assert re.search(
            rf"^\| `{method.slug}` \|.*{re.escape(method.title)}.*\| {state} \|$", PAGES["methods.md"], re.M
        ), method.slug


def test_every_group_and_its_choices_are_named():
    table = PAGES["configuration.md"]
    for group in GROUPS:
        assert f"`{group}`" in table
    for group in set(GROUPS) - {"method", "model", "data", "eval", "sweep", "experiment"}:
        row = next(line for line in table.splitlines() if line.startswith("| ") and f"`{group}`" in line.split("|")[1])
        for option in group_options(group):
            assert f"`{option}`" in row, (group, option)
    row = next(line for line in table.splitlines() if line.startswith("| `eval`"))
    assert all(f"`{name}`" in row for name in registry().names("suite"))


def test_the_verdicts_are_those_of_the_records():
    assert summary(computed([])) in TEXT


def test_links_lead_somewhere():
    for folder, text in ((ROOT, TEXT), *((ROOT / "docs", text) for text in PAGES.values())):
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (folder / link).exists(), link


def test_the_printed_run_commands_compose():
    commands = re.findall(r"^    athlos run ([^#\n]+)", TEXT, re.M)
    assert len(commands) >= 10
    for command in commands:
        words = shlex.split(re.sub(r"<[^>]*>", "folder", command))
        overrides = [word for word in words if not word.startswith("-")]
        if "-m" in words:
            assert len(sweep_configs(overrides)) > 1, command
        else:
            run_config(overrides)


WIKITEXT = "\n = Title = \n\n Some text of an article , in the tokens of WikiText , " + "and more of it . " * 40 + "\n"
SMALL = ["hardware=cpu_smoke", "tracking=none", "decoding.max_new_tokens=4"]
INSTEAD = {
    "experiment=finetune/smollm2": ["model=small/tiny_llama"],  # weights come from a package index
    "experiment=eval/gemma3_mgsm": ["model=small/tiny_llama", "eval.shots=0"],
}
"""What a command gets in place of what no test may fetch."""


def start_commands(page: str) -> list[str]:
    """The commands of the section Start, comments cut off."""
    section = page[page.index("## Start") : page.index("## Your own file")]
    return [line.partition("#")[0].strip() for line in re.findall(r"^    (.+)$", section, re.M)]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """What stands in angle brackets in the commands, with a file or two in the official formats."""
    wikitext, mgsm = tmp_path / "wikitext", tmp_path / "mgsm"
    wikitext.mkdir()
    mgsm.mkdir()
    for split in ("valid", "test"):
        (wikitext / f"{split}.txt").write_text(WIKITEXT, encoding="utf-8")
    for language in ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"):
        (mgsm / f"mgsm_{language}.tsv").write_text("1 + 1?\t2\n2 + 3?\t5\n", encoding="utf-8")
    return {"<folder of WikiText-2>": wikitext, "<folder of MGSM>": mgsm}


SMALLER = {
    "data/lab.yaml": {
        "num_documents": "60",
        "num_recitals": "20",
        "num_sums": "60",
        "chain_repeats": "1",
        "rare_exposures": "1",
        "frequent_exposures": "2",
        "background_exposures": "2",
        "num_train": "[20, 5, 2]",
    },
    "experiment/lang/lab_base.yaml": {"num_train": "100"},
}
"""Amounts of the lab's text, which a smoke test does not lower: the commands make it in minutes."""


@pytest.fixture
def smaller_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(conf_dir(), tmp_path / "conf")
    for name, amounts in SMALLER.items():
        path = tmp_path / "conf" / name
        text = path.read_text(encoding="utf-8")
        for key, amount in amounts.items():
            text, number = re.subn(rf"(?m)^( *{key}): .+$", rf"\1: {amount}", text)
            assert number == 1, (name, key)
        path.write_text(text, encoding="utf-8")
    for module in ("config.compose", "cli.sweep"):
        monkeypatch.setattr(f"athlos.{module}.conf_dir", lambda: tmp_path / "conf")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cache", "smaller_lab")
def test_each_command_of_the_start_does_what_it_says(
    tmp_path: Path,
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    run: Callable[..., tuple[int, str, str]],
):
    """In order, at the size of a smoke test; `make` targets are those of the Makefile, and `test_demo.py` runs two."""
    monkeypatch.chdir(tmp_path)
    pair = {"premise": "The mayor of Rome is Livia Carta.", "hypothesis": "Livia Carta is mayor of Rome."}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    said = []
    for command in start_commands(TEXT):
        program, *words = shlex.split(command.replace("<", "'<").replace(">", ">'"))
        if program == "make":
            assert set(words) <= set(targets)
            continue
        assert program == "athlos"
        words = [re.sub("<[^>]+>", lambda name: str(found(name[0], folders)), word) for word in words]
        if words[0] == "run" and "dry_run=true" not in words:
            words += [*SMALL, *(item for word in words for item in INSTEAD.get(word, []))]
        code, out, error = run(*words)
        assert code == 0, f"{command}: {error}"
        said.append(out)
    assert len(said) == len(re.findall(r"^    athlos ", TEXT[: TEXT.index("## Your own file")], re.M)) >= 18
    assert len(list((tmp_path / "results" / "finetune_tiny").iterdir())) == 4
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert AutoModelForCausalLM.from_pretrained("my-model").config.model_type == "llama"
    assert all(out.strip() for out in said)
    assert caplog.text.count("already finished, nothing to do") == 1  # seed 1 of the sweep is the first run
    assert "all 3 runs are finished already, nothing to do" in caplog.text
    records = [json.loads(path.read_text(encoding="utf-8")) for path in Path("results").glob("[!.]*/*/provenance.json")]
    trainings = [record["phases"] for record in records if "experiment=lang/lab_base" in record["overrides"]]
    assert len(trainings) == 2
    assert trainings[0] == trainings[1]


def found(name: str, folders: dict[str, Path]) -> Path | str:
    """The folder that a command's angle brackets stand for; of a run, the name of the first one."""
    if name != "<run>":
        return folders[name]
    return min(path.name for path in Path("results/finetune_tiny").iterdir())


@pytest.mark.slow
def test_the_commands_for_ones_own_file_and_model_do_what_they_say(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
):
    monkeypatch.chdir(tmp_path)
    architecture = {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 512}
    tokens = {"vocab_size": 259, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    build(hf_config({**architecture, **tokens}), dtype=torch.float32).save_pretrained("my-model")
    byte_tokenizer().save_pretrained("my-model")
    records = [{"prompt": f"{number} + 1 =", "completion": f" {number + 1}"} for number in range(100)]
    Path("mine.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    page = TEXT[TEXT.index("## Your own file, your own model") :]
    commands = (shlex.split(line)[1:] for line in re.findall(r"^    (athlos .+)$", page, re.M)[:4])
    lora, layers, export, preference = commands
    folder = ""
    for command in (lora, layers):
        code, out, error = run(*command, "train.max_steps=2", "tracking=none", "hardware=cpu_smoke")
        assert code == 0, error
        folder = out.splitlines()[-1]
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
        assert metrics["test/nll"] > 0
        assert ("test/nll_base" in metrics) == (command is lora)
        assert Path(folder).parent == tmp_path / "results" / "adhoc"
    code, _, error = run(*(folder if word == "results/adhoc/<run>" else word for word in export))
    assert code == 0, error
    assert AutoModelForCausalLM.from_pretrained("my-new-model").config.model_type == "gpt2"
    assert AutoTokenizer.from_pretrained("my-new-model").encode("a") == [97]
    written_pairs(tmp_path)
    code, out, error = run(*preference, "train.max_steps=2", "tracking=none", "hardware=cpu_smoke")
    assert code == 0, error
    metrics = json.loads((Path(out.splitlines()[-1]) / "metrics.json").read_text())
    assert {"test/pair_acc", "test/pair_acc_base", "data/reference_acc", "val/loss"} <= set(metrics)


@pytest.mark.slow
def test_the_commands_for_ones_own_texts_do_what_they_say(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, str, str]]
):
    monkeypatch.chdir(tmp_path)
    architecture = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 2048}
    tokens = {"vocab_size": 259, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
    build(hf_config({**architecture, **tokens}), dtype=torch.float32).save_pretrained("my-model")
    byte_tokenizer().save_pretrained("my-model")
    Path("notes/more").mkdir(parents=True)
    Path("notes/rome.md").write_text("# Rome\n\nThe mayor of Rome is Livia Carta.\n", encoding="utf-8")
    Path("notes/more/people.txt").write_text("Livia Carta was born in Ostia.\n", encoding="utf-8")
    page = TEXT[TEXT.index("## Your own texts, and a question to them") :]
    index, ask, cited = (shlex.split(line)[1:] for line in re.findall(r"^    (athlos .+)$", page, re.M)[:3])
    code, out, error = run(*index)
    assert (code, out.startswith("2 passages (en 2), index ")) == (0, True), error
    code, out, error = run(*ask, "decoding.max_new_tokens=4")
    assert code == 0, error
    assert out.startswith(
        "question   Where was the mayor of Rome born?\n\nsearch (en)   Where was the mayor of Rome born?"
    )
    assert re.search(r"^   1  rome.md#1   Rome   score [\d.]+   file rome.md$", out, re.M)
    assert re.search(r"^   2  more/people.txt#1   people   score [\d.]+   file more/people.txt$", out, re.M)
    assert "\nsources    rome.md#1, more/people.txt#1\ncost       1 calls, 1 searches, " in out
    assert len(list(cache.glob("index/*/stage.json"))) == 1  # the one that the first command built
    code, out, error = run(*cited, "decoding.max_new_tokens=4")
    assert code == 0, error
    assert "read, from 2 passages   Where was the mayor of Rome born?" in out
    assert "\nsources    rome.md#1, more/people.txt#1\ncost       1 calls, 1 searches, " in out
