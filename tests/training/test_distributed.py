"""Two processes on the CPU give the curve of one: DDP and FSDP2, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run_record import curve

pytestmark = pytest.mark.slow


def distributed(arguments: list[str], strategy: str, folder: Path) -> Path:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "athlos.cli.main",
            "run",
            *arguments,
            f"hardware={strategy}",
            "hardware.accelerator=cpu",
            f"run_dir={folder}",
        ],
        capture_output=True,
        text=True,
        timeout=250,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder)]
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_curve_of_one(tiny, run, tmp_path, strategy):
    shared = [*tiny, "train.batch_size=8", "train.batching=bucket", "train.max_length=64"]
    _, out, _ = run("run", *shared)
    one = Path(out.splitlines()[-1])
    two = distributed(shared, strategy, tmp_path / strategy)
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=1e-3)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[0]["test/ppl"] == pytest.approx(metrics[1]["test/ppl"], rel=1e-3)
    assert metrics[0]["cost/flops"] == pytest.approx(metrics[1]["cost/flops"], rel=0.05)


SUMS = {
    "de": ("Wie viel ist {} plus 3?", "Wir rechnen. Die Antwort ist {}."),
    "th": ("{} บวก 3 เท่ากับเท่าไร", "คำตอบคือ {}"),
}


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """Sums in two languages: 8 to train on in each, 3 to test."""
    folder = tmp_path / "sums"
    folder.mkdir()
    for split, numbers in (("train", range(1, 9)), ("test", range(30, 33))):
        lines = [
            {
                "id": f"{language}-{number}",
                "language": language,
                "question": question.format(number),
                "answer": str(number + 3),
                "solution": solution.format(number + 3),
            }
            for language, (question, solution) in SUMS.items()
            for number in numbers
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def same_evaluation(one: Path, two: Path) -> bool:
    """Whether the metrics are equal to the last digit, costs and the curve left out, and the predictions row by row."""
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    tested = [{name: value for name, value in found.items() if name.startswith("test/")} for found in metrics]
    files = [{path.name: path.read_text() for path in folder.glob("predictions/*")} for folder in (one, two)]
    return tested[0] == tested[1] and bool(tested[0]) and files[0] == files[1]


def test_two_processes_that_share_the_evaluation_give_the_metrics_of_one(tiny, run, tmp_path, sums):
    """So small a learning rate moves no weight, so that both runs evaluate equal weights."""
    kept = [item for item in tiny if not item.startswith(("data", "train.val", "eval.suites"))]
    asked = [
        *kept,
        "data=traces",
        f"data.dir={sums}",
        "eval=math",
        "eval.shots=0",
        "+suite@eval.suites.margin=margin",
        "+suite@eval.suites.calibration=calibration",
        "eval.suites.math.samples=3",
        "eval.suites.calibration.samples=3",
        "decoding=sampling",
        "decoding.max_new_tokens=6",
        "train.max_length=128",
    ]
    read = [
        *tiny,
        "eval.batch_size=2",
        "eval.every=3",
        "train.batch_size=8",
        "train.batching=bucket",
        "train.max_length=64",
    ]
    for name, arguments in (("asked", asked), ("read", read)):
        still = [*arguments, "train.lr=1e-30", "train.max_steps=6"]
        code, out, err = run("run", *still)
        assert code == 0, err
        two = distributed(still, "ddp", tmp_path / name)
        assert same_evaluation(Path(out.splitlines()[-1]), two)
