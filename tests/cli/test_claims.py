"""`athlos claims`: what it prints, how it fails, and that every method's list can be read."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.report.run_folders import write_run

from athlos.cli.claims import computed
from athlos.config.catalogue import METHODS
from athlos.config.claims import all_claims
from athlos.report.ledger import Verdict

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parent.parent.parent
STEP = {"study": "spannorm_step", "benchmark": "spannorm_step", "options.layers": 12, "options.hidden": 256}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A benchmark's record with a ratio that no committed record has."""
    details = {"ratio/spannorm/prenorm": {"n": 20, "undefined": 0, "low": 0.9, "high": 1.0}}
    write_run(
        tmp_path / "results" / "step",
        config={**STEP, "seed": None, "options.layers": 7},
        metrics={"ratio/spannorm/prenorm": 0.95125},
        details=details,
    )
    return tmp_path / "results"


def test_json_joins_claims_and_runs(run: Run, results: Path):
    code, printed, _ = run("claims", "spannorm", "--runs", str(results), "--json")
    assert code == 0
    entries = {entry["id"]: entry for entry in json.loads(printed)}
    assert set(entries) == {claim.id for claim in all_claims()["spannorm"]}
    [row] = [
        row for row in entries["span.cost"]["rows"] if row["label"] == "step, spannorm / prenorm layers=7 hidden=256"
    ]
    assert (row["value"], row["low"], row["high"], row["verdict"]) == (0.95125, 0.9, 1.0, "reproduced")
    assert row["command"].startswith("python benchmarks/spannorm_step.py --layers 7")
    assert row["commits"] == ["012345678"]
    assert entries["span.depth"]["verdict"] == "not measured"
    assert entries["span.depth"]["rows"][0]["reason"] == "GPUs for 6.5 B parameters"


def test_people_read_the_same_numbers(run: Run, results: Path):
    code, printed, error = run("claims", "spannorm", "--runs", str(results))
    assert (code, error) == (0, "")
    for text in ("span.cost", "0.9513 [0.9, 1]", "012345678", "128 layers (note)"):
        assert text in printed
    assert "lisa." not in printed
    code, printed, error = run("claims", "spannorm", "--runs", str(results), "--markdown")
    assert (code, error) == (0, "")
    for text in (
        "step, spannorm / prenorm layers=7 hidden=256 | 0.9513 [0.9, 1] |",
        "one run over its 20 items or rounds",
        "| 128 layers | second-hand (note) |",
        "not measured: GPUs for 6.5 B parameters",
        "012345678",
    ):
        assert text in printed


def test_all_methods_in_the_order_of_the_catalogue(run: Run):
    code, printed, _ = run("claims", "--json")
    assert code == 0
    methods = list(dict.fromkeys(entry["method"] for entry in json.loads(printed)))
    assert methods == [method.slug for method in METHODS if method.slug in all_claims()]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["spanorm"], 2, "claims: got 'spanorm'; did you mean 'spannorm'?"),
        (["lisa", "--runs", "{}/missing"], 3, "no such folder"),
        (["lisa", "--runs", "{}"], 3, "no run folder found"),
    ],
)
def test_errors_are_one_line_and_a_code(tmp_path: Path, run: Run, arguments: list[str], code: int, message: str):
    found, printed, error = run("claims", *(one.replace("{}", str(tmp_path)) for one in arguments))
    assert (found, printed) == (code, "")
    assert message in error
    assert "Traceback" not in error


def test_a_planned_method_says_so(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("athlos.cli.claims.all_claims", lambda: {"lisa": all_claims()["lisa"]})
    code, _, error = run("claims", "spannorm")
    assert (code, "claims: 'spannorm' lists none yet; methods with claims: lisa" in error) == (2, True)


def test_a_damaged_folder_is_named_and_the_rest_is_shown(run: Run, results: Path, caplog: pytest.LogCaptureFixture):
    write_run(results / "torn", metrics={})
    (results / "torn" / "config.yaml").write_text("a: [")
    code, printed, _ = run("claims", "spannorm", "--runs", str(results), "--markdown")
    assert code == 0
    assert "0.9513" in printed
    assert f"skipped {results / 'torn'}: config.yaml: cannot be read" in caplog.text


def test_names_in_a_run_folder_are_not_interpreted(run: Run, results: Path):
    write_run(
        results / "odd",
        config={**STEP, "seed": None, "options.hidden": "\x1b[31m|[bold]"},
        metrics={"ratio/spannorm/prenorm": 1.5},
    )
    code, printed, _ = run("claims", "spannorm", "--runs", str(results))
    assert code == 0
    assert "\x1b" not in printed
    _, printed, _ = run("claims", "spannorm", "--runs", str(results), "--markdown")
    tables = [line for line in printed.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in tables} == {8}


@pytest.mark.parametrize("slug", sorted(all_claims()))
def test_every_list_names_what_runs_have(slug: str):
    """Identifiers, tags, and a metric of that name in each committed run that a claim chooses."""
    claims = all_claims()[slug]
    starts = {claim.id.partition(".")[0] for claim in claims}
    assert len(starts) == 1
    assert all(claim.text and claim.source for claim in claims)
    for entry in computed([slug]):
        for row in entry.rows:
            assert not row.reason.startswith("an arm is not one arm"), (entry.claim.id, row.label, row.reason)
            if row.verdict is not Verdict.NOT_MEASURED:
                assert row.value is not None
                assert row.num_seeds >= 1


def test_no_torch_is_needed():
    code = (
        "import sys; from athlos.cli.main import main; code = main(['claims', 'lisa', '--json']); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers', 'wandb')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
