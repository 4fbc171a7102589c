"""The steps of CONTRIBUTING.md, carried out as printed in a copy of the source tree."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.tolerances import FLOAT64

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("halfway", "rehearse")
MANY = """
import contextlib, io, json, sys
from athlos.cli.main import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""Several commands of Athlos in one process, a line of JSON each: code, stdout, stderr."""
SMALL = (
    "tracking=none",
    "train.max_steps=64",
    "train.val_batches=1",
    "method.warmup_steps=60",
    "construct.num_questions=16",
    "data.num_test=4",
    "data.sums.min_steps=1",
    "data.sums.max_steps=1",
    "data.sums.max_start=5",
    "data.sums.max_operand=2",
)
"""`rehearse/tiny` in seconds: sums so few that a model knows some of them by heart after 60 steps."""


def printed_files() -> dict[str, str]:
    """Path -> content of the code blocks whose first line is a comment with a path."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```\w+\n(.*?)^ *```", text, re.M | re.S)]
    files = {}
    for block in blocks:
        first, _, rest = block.strip("\n").partition("\n")
        files[first.removeprefix("# ")] = rest
    return files


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A copy of the source, with the printed files in it."""

    root: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A process of Python in the copy, with a cache of its own."""
        source, cache = str(self.root / "src"), str(self.root / "cache")
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=250,
            env={**os.environ, "PYTHONPATH": source, "ATHLOS_CACHE": cache},
        )

    def athlos(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.python("-m", "athlos.cli.main", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    def all_of(self, *commands: Sequence[str]) -> list[tuple[int, str, str]]:
        """Code, stdout and stderr of light commands."""
        done = self.python("-c", MANY, json.dumps(commands))
        assert done.returncode == 0, done.stderr
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    def finished_folders(self, stdout: str) -> list[Path]:
        """Run folders of a sweep's jobs, from the list at its end."""
        return [self.root / path for path in re.findall(r"^finished +(\S+)", stdout, re.M)]

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        """Of the products of a stage, in the order in which they were made."""
        files = [*(self.root / "cache" / stage).glob("*/stage.json")]
        return [json.loads(path.read_text()) for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)]

    def kept_records(self, key: str) -> list[dict[str, Any]]:
        """What a round of `rehearse` trains on."""
        path = self.root / "cache/rehearse_answers" / key / "answers.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("contributing")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = printed_files()
    assert len(files) == 13
    for name, content in files.items():
        path = root / name
        assert not path.exists(), f"{name} is there already: the steps edit no existing file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for method in METHODS:
        (root / "src/athlos/methods" / method / "__init__.py").touch()
    return Tree(root=root)


def test_the_printed_methods_compose_and_refuse_mistakes(tree: Tree):
    refused = {
        ("halfway", "method.shar=1"): "did you mean 'method.share'?",
        ("halfway", "method.share=2"): "method.share: got 2.0, expected a number in (0, 1]",
        ("rehearse", "method.roundz=1"): "did you mean 'method.rounds'?",
        ("rehearse", "method.rounds=0"): "method.rounds: got 0, expected an integer >= 1",
        ("rehearse", "method.warmup_steps=239"): "method.warmup_steps: got 239, expected at most",
        ("rehearse", "construct.temperature=0"): "construct.temperature: got 0.0, expected a number > 0",
        ("rehearse", "construct=none"): "construct: got another, expected construct=rehearse",
        ("rehearse", "judge=none"): "judge: got none",
    }
    composed = [("run", "--cfg", f"experiment={method}/tiny") for method in METHODS]
    wrong = [("run", f"experiment={method}/tiny", override) for method, override in refused]
    methods, *outcomes = tree.all_of(("list", "methods"), *composed, *wrong)
    assert all(method in methods[1] for method in METHODS)
    assert [code for code, _, _ in outcomes[: len(METHODS)]] == [0] * len(METHODS), outcomes
    for (method, override), (code, _, error) in zip(refused, outcomes[len(METHODS) :], strict=True):
        assert code == 2, (method, override, error)
        assert refused[method, override] in error, error
        assert len(error.splitlines()) == 1, error


def test_each_printed_file_passes_the_linter(tree: Tree):
    folders = [str(tree.root / "src/athlos/methods" / method) for method in METHODS]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(ROOT / "pyproject.toml"), *folders],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_method_of_one_phase_trains_once_for_two_evaluations(tree: Tree):
    short = ("experiment=halfway/tiny", "tracking=none", "train.val_batches=1", "eval.bootstrap=10")
    done = tree.athlos("run", "-m", *short, "eval.suites.perplexity.limit_tokens=500,200")
    _, second = tree.finished_folders(done.stdout)
    assert (done.stderr.count("-- training: trained in"), done.stderr.count("-- training: reused")) == (1, 1)
    claim = tree.athlos("claims", "halfway", "--runs", "results")
    assert "no run with" in claim.stdout
    tree.athlos("run", *short, "method=finetune", "eval.suites.perplexity.limit_tokens=500")
    shutil.rmtree(second)  # it was evaluated on fewer tokens than the other arm
    joined = json.loads(tree.athlos("claims", "halfway", "--runs", "results", "--json").stdout)
    [row] = joined[0]["rows"]
    ours, other = row["arms"]["ours"], row["arms"]["against"]
    assert abs(row["value"] - 100 * (ours / other - 1)) < FLOAT64
    assert joined[0]["verdict"] == "inconclusive", "one seed tells nothing"


@pytest.mark.slow
def test_a_method_with_rounds_asks_the_newest_weights_and_shares_its_trainings(tree: Tree):
    done = tree.athlos("run", "-m", "experiment=rehearse/tiny", *SMALL, "decoding=greedy,sampling")
    for phase in ("warmup", "round-1", "round-2"):
        states = re.findall(rf"^-- training {phase}: (trained|reused)", done.stderr, re.M)
        assert states == ["trained", "reused"], "the second decoding rule trains nothing"

    trainings, answers = tree.manifests("training"), tree.manifests("rehearse_answers")
    warmup, first, second = trainings[-3:]
    assert (first["inputs"]["start"], second["inputs"]["start"]) == (warmup["key"], first["key"])
    assert len({manifest["inputs"]["model"] for manifest in answers}) == 2, "each round asks other weights"
    kept = [record for manifest in answers for record in tree.kept_records(manifest["key"])]
    own = [record for record in kept if record["meta"]["teacher"] == "self"]
    assert own
    assert all(re.findall(r"\d+", record["solution"])[-1] == record["answer"] for record in own)

    made = tree.root / "cache/training" / second["key"] / "made/answers.jsonl"
    assert len(made.read_text(encoding="utf-8").splitlines()) == len(tree.kept_records(answers[1]["key"]))
    folder, sampled = tree.finished_folders(done.stdout)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"test/acc", "test/acc@warmup", "data/round-1/own_share", "data/round-2/own_share"} <= set(metrics)
    assert metrics["data/round-2/answers"] == len(tree.kept_records(answers[1]["key"]))
    shutil.rmtree(sampled)  # two runs of one seed would be two answers to the claim
    [claim] = json.loads(tree.athlos("claims", "rehearse", "--runs", "results", "--json").stdout)
    assert claim["rows"][0]["arms"] == {"ours": metrics["test/acc"], "against": metrics["test/acc@warmup"]}

    other = tree.athlos("run", "experiment=rehearse/tiny", *SMALL, "construct.temperature=0.7", "method.round_lr=1e-3")
    states = re.findall(r"^-- training (warmup|round-\d): (trained|reused)", other.stderr, re.M)
    assert states == [("warmup", "reused"), ("round-1", "trained"), ("round-2", "trained")]

    tree.athlos("export", str(folder), "--out", "my-model")
    exported = (tree.root / "my-model/model.safetensors").read_bytes()
    assert exported == (tree.root / "cache/training" / second["key"] / "model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_printed_test_passes_and_both_experiments_run_within_the_caps(tree: Tree):
    tests = tree.python("-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "tests")
    assert "2 passed" in tests.stdout, tests.stdout
    names = ",".join(f"{method}/tiny" for method in METHODS)
    smoke = tree.athlos("run", "-m", f"experiment={names}", "hardware=cpu_smoke", "tracking=none")
    assert len(tree.finished_folders(smoke.stdout)) == len(METHODS), smoke.stdout
    budget = tree.athlos("run", "experiment=rehearse/tiny", "dry_run=true").stdout
    phases = re.findall(r"^rehearse_tiny: (\S+): (\d+) steps", budget, re.M)
    assert phases == [("warmup", "200"), ("round-1", "20"), ("round-2", "20")]
