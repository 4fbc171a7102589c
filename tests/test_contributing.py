"""The steps of CONTRIBUTING.md, carried out as printed in a copy of the source tree."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.tolerances import FLOAT64

ROOT = Path(__file__).resolve().parent.parent


def printed_files() -> dict[str, str]:
    """Path -> content of the code blocks whose first line is a comment with a path."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```\w+\n(.*?)^ *```", text, re.M | re.S)]
    found = {}
    for block in blocks:
        first, _, rest = block.strip("\n").partition("\n")
        found[first.removeprefix("# ")] = rest
    return found


@pytest.mark.slow
def test_the_printed_steps_add_a_method_without_editing_a_file(tmp_path: Path):
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = printed_files()
    assert len(files) == 5
    for name, content in files.items():
        path = tmp_path / name
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tmp_path / "src/athlos/methods/halfway/__init__.py").touch()

    def athlos(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "athlos.cli.main", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "ATHLOS_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip

    assert "halfway" in athlos("list", "methods").stdout
    quick = ["tracking=none", "eval.suites.perplexity.limit_tokens=500"]
    done = athlos("run", "experiment=halfway/tiny", *quick)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.splitlines()[-1]) / "metrics.json").is_file()
    typo = athlos("run", "experiment=halfway/tiny", "method.shar=1")
    assert (typo.returncode, "did you mean 'method.share'?" in typo.stderr) == (2, True)
    wrong = athlos("run", "experiment=halfway/tiny", "method.share=2")
    assert (wrong.returncode, "method.share: got 2.0" in wrong.stderr) == (2, True)
    claim = athlos("claims", "halfway", "--runs", "results")
    assert (claim.returncode, "no run with" in claim.stdout) == (0, True)
    assert athlos("run", "experiment=halfway/tiny", "method=finetune", *quick).returncode == 0
    joined = json.loads(athlos("claims", "halfway", "--runs", "results", "--json").stdout)
    [row] = joined[0]["rows"]
    ours, other = row["arms"]["ours"], row["arms"]["against"]
    assert abs(row["value"] - 100 * (ours / other - 1)) < FLOAT64
    assert joined[0]["verdict"] in ("partly", "not reproduced"), "one seed reproduces nothing"
