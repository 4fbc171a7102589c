"""`athlos report`: what it prints, how it fails, how fast it is."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.report.run_folders import decay, math_metrics, rows, write_run, write_sweep

from athlos.cli.report import write_report
from athlos.config.claims import all_claims

Run = Callable[..., tuple[int, str, str]]


def data_of(page: Path) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def test_the_page_is_written_and_its_path_printed_last(tmp_path: Path, run: Run):
    write_sweep(tmp_path / "results", lrs=[1e-3], seeds=[1, 2])
    out = tmp_path / "pages" / "report.html"
    code, printed, _ = run(
        "report", str(tmp_path / "results"), "--out", str(out), "--title", "Ours", "--predictions", "3"
    )
    assert (code, printed.splitlines()[-1]) == (0, str(out))
    data = data_of(out)
    assert (data["title"], len(data["runs"])) == ("Ours", 2)
    assert [len(one["predictions"]["math"]["rows"]) for one in data["runs"]] == [3, 3]


def test_a_real_run_is_shown_with_the_command_that_repeats_it(tmp_path: Path, tiny: list[str], run: Run):
    code, _, _ = run("run", *tiny, "progress=false", "seed=3")
    assert code == 0
    [provenance] = (tmp_path / "results").glob("*/*/provenance.json")
    provenance.write_text(json.dumps({**json.loads(provenance.read_text()), "overrides": [*tiny, "seed=3"]}))
    out = write_report(tmp_path / "results", out=tmp_path / "report.html")
    [one] = data_of(out)["runs"]
    assert (one["state"], one["seed"]) == ("finished", 3)
    assert "problems" not in one
    assert one["command"].startswith("athlos run ")
    assert "train.max_steps=12" in one["command"]
    assert "seed=3" in one["command"]
    assert "train/loss" in data_of(out)["curves"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{}/missing"], 3, "no such folder"),
        (["{}"], 3, "no run folder found; looked in all folders below for config.yaml"),
        (["{}/results", "--out", "{}"], 2, "--out: {} is a folder"),
        (["{}/results", "--out", "{}/file/report.html"], 2, "--out: cannot write"),
        (["{}/results", "--predictions", "-1"], 2, "--predictions: got -1, expected an integer >= 0"),
        (["{}/results", "--wandb", "{}/missing"], 3, "no such folder"),
        (["{}/results", "--wandb", "{}/empty"], 3, "no offline run of wandb found"),
    ],
)
def test_errors_are_one_line_and_a_code(tmp_path: Path, run: Run, arguments: list[str], code: int, message: str):
    if "{}" not in arguments[:1]:
        write_run(tmp_path / "results" / "a", metrics={})
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    found, printed, error = run("report", *(one.replace("{}", str(tmp_path)) for one in arguments))
    assert found == code
    assert printed == ""
    assert message.replace("{}", str(tmp_path)) in error
    assert "Traceback" not in error


def test_offline_runs_of_wandb_join(tmp_path: Path):
    wandb = pytest.importorskip("wandb")
    with wandb.init(project="p", name="theirs", mode="offline", dir=str(tmp_path), config={"lr": 0.5}) as theirs:
        for step in range(5):
            theirs.log({"loss": 5.0 - step}, step=step)
    wandb.teardown()  # its service writes the end of the log after the run has finished
    write_run(tmp_path / "results" / "ours", metrics={"test/acc": 0.5})
    out = write_report(tmp_path / "results", out=tmp_path / "report.html", wandb_folders=[tmp_path / "wandb"])
    data = data_of(out)
    ours, imported = data["runs"]
    assert "imported" not in ours
    assert imported["imported"] is True
    assert "command" not in imported
    assert "theirs" in imported["name"]
    assert imported["curves"][str(data["curves"].index("loss"))][1] == [5, 4, 3, 2, 1]
    (tmp_path / "none").mkdir()
    alone = write_report(tmp_path / "none", out=tmp_path / "b.html", wandb_folders=[tmp_path / "wandb"])
    assert len(data_of(alone)["runs"]) == 1, "a folder without runs of ours is no hindrance"


def test_committed_claims_join_on_request(tmp_path: Path, run: Run):
    write_run(tmp_path / "results" / "a", metrics={"test/acc": 0.5})
    out = tmp_path / "report.html"
    code, _, _ = run("report", str(tmp_path / "results"), "--out", str(out), "--with-records")
    data = data_of(out)
    assert code == 0
    assert (len(data["runs"]), data["claims"]) == (1, [])
    told = {claim["id"] for claim in data["committed"]}
    for slug, claims in all_claims().items():
        assert told & {claim.id for claim in claims}, f"the page shows nothing of {slug}"


def test_no_torch_is_needed(tmp_path: Path):
    write_run(tmp_path / "results" / "a", metrics={"test/acc": 1.0})
    code = (
        "import sys; from athlos.cli.main import main; "
        f"code = main(['report', {str(tmp_path / 'results')!r}, '--out', {str(tmp_path / 'r.html')!r}]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers', 'wandb')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.slow
def test_two_thousand_runs_take_less_than_half_a_minute(tmp_path: Path):
    """Of processor time, so that other work on the machine does not count; about 8 s when it was written."""
    for number in range(2000):
        lr = (1e-3, 2e-3, 3e-3, 5e-3)[number % 4]
        metrics, details = math_metrics(lr=lr, seed=number)
        write_run(
            tmp_path / "results" / f"study-{number % 7}" / f"run-{number:04d}",
            config={"study": f"study-{number % 7}", "seed": number, "train.lr": lr},
            metrics=metrics,
            details=details,
            curve=decay(lr=lr, seed=number, steps=range(1, 201)),
            predictions={"math": rows(20, seed=number)},
        )
    before = time.process_time()
    out = write_report(tmp_path / "results", out=tmp_path / "report.html")
    assert time.process_time() - before < 30
    assert out.stat().st_size < 30_000_000
    assert len(data_of(out)["runs"]) == 2000
