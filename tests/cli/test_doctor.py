"""`athlos doctor`: each check against a machine made up for the test, and one look at the real one."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from athlos.cli import doctor
from athlos.cli.doctor import MISSING, OK, WARN, Check


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package index and no hub is asked."""
    monkeypatch.setattr(doctor, "index_answers", lambda: False)
    monkeypatch.setattr(doctor, "hub_problem", lambda: "out of reach (ConnectError)")


def requirement(name: str, *, extra: str = "", accepts: Callable[[str], bool] = lambda _: True) -> doctor.Requirement:
    return doctor.Requirement(name=name, accepts=accepts, specifier=">=2", extra=extra)


def by_name(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


# Installation and extras


def test_packages_are_compared_with_their_range_and_the_tested_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"same": "2.5+cpu", "other": "2.6", "old": "1.0", "unpinned": "3.0"}
    needs = [*map(requirement, ("same", "other", "absent", "unpinned")), requirement("old", accepts=lambda _: False)]
    monkeypatch.setattr(doctor, "requirements", lambda: [*needs, requirement("only_for_an_extra", extra="x")])
    monkeypatch.setattr(doctor, "installed", versions.get)
    monkeypatch.setattr(doctor, "tested_pins", lambda: {"same": "2.5", "other": "2.5", "old": "2.5"})
    found = by_name(doctor.installation())
    assert {name: check.state for name, check in found.items() if name != "python"} == {
        "same": OK, "other": WARN, "absent": MISSING, "unpinned": OK, "old": MISSING,
    }  # fmt: skip
    assert "tested with 2.5" in found["other"].advice
    assert found["absent"].advice == "pip install 'absent>=2'"
    assert found["old"].advice == "needs >=2: pip install 'old>=2'"


def test_a_missing_extra_says_what_it_would_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [requirement("here", extra="trackio"), requirement("gone", extra="gguf"), requirement("here", extra="gguf")]
    monkeypatch.setattr(doctor, "requirements", lambda: needs)
    monkeypatch.setattr(doctor, "installed", {"here": "1"}.get)
    found = by_name(doctor.extras())
    assert found["trackio"].state == OK
    assert (found["gguf"].state, found["gguf"].detail) == (MISSING, "no gone")
    assert "pip install 'athlos[gguf]'" in found["gguf"].advice
    assert "smollm2_135m" in found["gguf"].advice


def test_every_extra_of_the_package_is_explained() -> None:
    declared = {need.extra for need in doctor.requirements() if need.extra}
    assert declared == set(doctor.EXTRAS)


def test_a_requirement_knows_its_range() -> None:
    [hydra] = [need for need in doctor.requirements() if need.name == "hydra-core"]
    assert hydra.accepts("1.3.8")
    assert not hydra.accepts("1.4.0")


def test_pins_are_read_with_names_in_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# head\nrouge_score==0.1.2  # note\n\ntorch==2.13.0\n", encoding="utf-8"
    )
    monkeypatch.setattr(doctor, "conf_dir", lambda: tmp_path / "conf")
    assert doctor.tested_pins() == {"rouge-score": "0.1.2", "torch": "2.13.0"}
    monkeypatch.setattr(doctor, "conf_dir", lambda: tmp_path / "elsewhere" / "conf")
    assert doctor.tested_pins() == {}


def test_the_pins_of_this_checkout_satisfy_the_ranges() -> None:
    """`make` installs requirements.txt and then Athlos without dependencies: the two must agree, and be complete."""
    pins = doctor.tested_pins()
    lacking, outside = [], []
    for need in doctor.requirements():
        if need.extra in ("notebooks", "lm-eval"):  # not needed by `make`
            continue
        version = pins.get(doctor.canonical(need.name))
        if version is None:
            lacking.append(need.name)
        elif not need.accepts(version):
            outside.append(f"{need.name}=={version}")
    assert (lacking, outside) == ([], [])


# Hardware


def test_disks_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=10 * doctor.GIB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert doctor._disk("results disk", tmp_path / "not" / "yet").state == OK
    usage.free = doctor.GIB // 2
    low = doctor._disk("results disk", tmp_path)
    assert (low.state, low.detail.startswith("0.5 GB free")) == (WARN, True)
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    assert doctor._disk("results disk", tmp_path).advice.startswith("set results_dir")
    assert doctor._disk("cache disk", tmp_path).state == MISSING


def test_a_container_limit_lowers_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    real = doctor.Path
    monkeypatch.setattr(doctor, "Path", lambda name: limit if "cgroup" in str(name) else real(name))
    without = doctor.memory_gb()
    limit.write_text("max\n", encoding="utf-8")
    assert doctor.memory_gb() == without
    limit.write_text(f"{doctor.GIB // 2}\n", encoding="utf-8")
    assert doctor.memory_gb() == 0.5


# Weights


def test_converted_models_are_found_and_damaged_ones_passed_over(cache: Path, apart: None) -> None:
    for key, content in (("a", '{"config": {"distribution": "llm-x"}}'), ("b", "{"), ("c", '{"config": []}')):
        (cache / "wheel_model" / key).mkdir(parents=True)
        (cache / "wheel_model" / key / "stage.json").write_text(content, encoding="utf-8")
    found = by_name(doctor.weights())
    assert (found["converted models"].state, found["converted models"].detail) == (OK, "llm-x")
    assert str(cache) in found["cache"].detail
    assert found["package index"].state == found["hub"].state == MISSING


def test_an_empty_cache_is_no_error(cache: Path, apart: None) -> None:
    found = by_name(doctor.weights())
    assert found["cache"].detail.endswith("empty")
    assert found["converted models"].state == WARN
    assert not cache.exists()  # doctor looks and writes nothing


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


def test_why_the_hub_does_not_answer_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import OfflineModeIsEnabled

    error: Exception = OfflineModeIsEnabled("offline")

    def ask(*_: object, **options: object) -> None:
        assert options["token"] is False  # no credential leaves for a check
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    assert doctor.hub_problem() == "switched off by HF_HUB_OFFLINE"
    error = OSError("cannot connect to proxy.example.org:3128")
    assert doctor.hub_problem() == "out of reach (OSError)"
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    assert doctor.hub_problem() == ""


# Data


def test_data_folders_are_recognised_by_their_files_and_content(tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    line = '{"question": "One and one?", "answer": "1 + 1 = 2\\n#### 2"}\n'
    for split in ("train", "test"):  # the file names of several data sets: the content decides
        (tmp_path / "math" / f"{split}.jsonl").write_text(line, encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.doc").write_text("?", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    found = by_name(doctor.data_folders(tmp_path))
    assert list(found) == ["math", "other"]
    assert (found["math"].state, found["math"].detail) == (OK, "data=gsm8k (train, test)")
    assert found["math"].advice == f"data.dir={tmp_path / 'math'}"
    assert found["other"].state == WARN


def test_a_data_folder_that_is_none_is_told(tmp_path: Path) -> None:
    [check] = doctor.data_folders(tmp_path / "absent")
    assert (check.state, check.detail) == (MISSING, "not a folder")


@pytest.mark.shared
def test_the_real_files_are_recognised(shared_data: Path) -> None:
    found = by_name(doctor.data_folders(shared_data))
    for folder, data in {"mgsm": "mgsm (test)", "wikitext2": "wikitext2 (valid, test)", "gsm8k": "gsm8k (train, test)",
                         "xquad": "xquad (test)", "po_tm": "po_tm (train, val, test)"}.items():  # fmt: skip
        assert f"data={data}" in found[folder].detail


# What that allows


def scales(memory: float, monkeypatch: pytest.MonkeyPatch, **states: str) -> dict[str, str]:
    monkeypatch.setattr(doctor, "memory_gb", lambda: memory)
    sections = {"torch": "installation", "gguf": "extras", "gpu": "hardware"}
    checks = [
        Check(section=sections.get(name, "weights"), name=name.replace("_", " "), state=state, detail="")
        for name, state in states.items()
    ]
    return {check.name: check.state for check in doctor.allowed(checks)}


@pytest.mark.parametrize(
    ("memory", "states", "expected"),
    [
        (16, {"hub": OK, "gpu": OK}, (OK, OK, OK)),
        (16, {"hub": MISSING, "gpu": WARN}, (OK, WARN, WARN)),
        (16, {"gguf": OK, "package_index": OK}, (OK, OK, WARN)),
        (16, {"gguf": MISSING, "package_index": OK}, (OK, WARN, WARN)),
        (16, {"converted_models": OK}, (OK, OK, WARN)),
        (4, {"converted_models": OK}, (OK, WARN, WARN)),
        (1, {"hub": OK, "gpu": OK}, (WARN, WARN, WARN)),
        (16, {"torch": MISSING, "hub": OK, "gpu": OK}, (WARN, WARN, WARN)),
        (16, {"torch": WARN, "hub": OK, "gpu": OK}, (OK, OK, OK)),
    ],
)
def test_what_a_machine_allows(
    memory: float, states: dict[str, str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scales(memory, monkeypatch, **states) == dict(zip(("lab", "small", "paper"), expected, strict=True))


# The whole


def test_a_check_that_breaks_is_a_line_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, apart: None) -> None:
    def broken() -> Iterator[Check]:
        raise RuntimeError("secret.example.org")
        yield

    monkeypatch.setattr(doctor, "hardware", broken)
    found = list(doctor.checks(None))
    [line] = [check for check in found if check.section == "hardware"]
    assert (line.state, line.detail) == (WARN, "could not be looked at (RuntimeError)")
    assert found[-1].name == "paper"


def test_json_and_lines_hold_the_same_checks(
    cache: Path, apart: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    code = doctor.print_doctor(data_dir=tmp_path / "data", as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert code == (0 if {row["name"]: row["state"] for row in rows}["lab"] == OK else 1)
    doctor.print_doctor(data_dir=tmp_path / "data", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    sections = list(dict.fromkeys(row["section"] for row in rows))
    assert [line for line in lines if not line.startswith(" ")] == sections
    assert [line.split()[0] for line in lines if line.startswith(" ")] == [row["state"] for row in rows]


def test_without_a_fit_package_the_exit_code_says_so(
    cache: Path, apart: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: [requirement("not_there")])
    assert doctor.print_doctor(data_dir=None, as_json=False) == 1
    assert "lab: not_there missing or unfit" in capsys.readouterr().out
