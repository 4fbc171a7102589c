"""What the registry finds by scanning, and what it refuses."""

import sys
from pathlib import Path

import pytest

import athlos.methods
from athlos.config.compose import run_config
from athlos.config.prompt_style import PromptStyle
from athlos.config.registry import GROUPS, Registry, conf_dir, registry
from athlos.data.records import MathRecord, QuestionRecord
from athlos.errors import ConfigError
from athlos.evaluation.suite import build_suite

STYLES = """
from athlos.config.prompt_style import PromptStyle
from athlos.data.records import MathRecord

PROMPT_STYLES = [
    PromptStyle(
        record_type=MathRecord, name="riddle", question=lambda record: "?" + record.question, answer=lambda record: "!"
    )
]
"""

SUITE_SCHEMA = """
from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import SuiteConfig


@dataclass(kw_only=True)
class RiddleSuiteConfig(SuiteConfig):
    depth: int = 3


PARTS = [
    Part(
        group="suite", name="riddles", schema=RiddleSuiteConfig, target="athlos.methods.riddles.suites.RiddleSuite",
        summary="riddles", check=lambda run: ["eval: too deep"] if run.eval.suites["own"].depth > 9 else [],
    )
]
"""
SUITE = """
from athlos.evaluation.suite import SuiteResult


class RiddleSuite:
    is_seeded = False

    def __init__(self, config, run):
        self.config, self.run = config, run

    def evaluate(self, answerer, records, *, shots_pool=(), progress=None):
        return SuiteResult(metrics={"depth": self.config.depth + self.run.seed})
"""


def style(name: str, *, record_type: type = MathRecord) -> PromptStyle[MathRecord]:
    return PromptStyle(record_type=record_type, name=name, question=lambda record: "", answer=lambda record: "")


@pytest.fixture
def method_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of a method `riddles` that stands beside those of the package."""
    registry()  # scanned and kept before the folder is there
    folder = tmp_path / "riddles"
    folder.mkdir()
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "config.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(athlos.methods, "__path__", [*athlos.methods.__path__, str(tmp_path)])
    for name in ("", ".config", ".prompt_styles", ".suites"):
        monkeypatch.delitem(sys.modules, f"athlos.methods.riddles{name}", raising=False)
    return folder


def test_a_method_brings_prompt_styles_by_a_file_of_its_own(method_folder: Path) -> None:
    (method_folder / "prompt_styles.py").write_text(STYLES, encoding="utf-8")
    of_problems = registry.__wrapped__().styles[MathRecord]
    assert list(of_problems) == [*registry().styles[MathRecord], "riddle"]
    problem = MathRecord(identifier="p", question="Two and three", answer="5")
    assert of_problems["riddle"].question(problem) == "?Two and three"


def test_a_style_that_is_there_already_is_refused(method_folder: Path) -> None:
    (method_folder / "prompt_styles.py").write_text(STYLES.replace("riddle", "direct"), encoding="utf-8")
    with pytest.raises(ConfigError, match="prompt_style=direct: brought twice for MathRecord"):
        registry.__wrapped__()


def test_types_of_records_share_names_of_styles_but_none_is_called_default() -> None:
    known = Registry()
    known.add_style(style("riddle"))
    known.add_style(style("riddle", record_type=QuestionRecord))
    known.add_style(style("plain"))
    assert known.style_names() == ["plain", "riddle"]
    with pytest.raises(ConfigError, match="prompt_style=default: no name for a style of MathRecord"):
        known.add_style(style("default"))


def test_a_method_brings_a_suite_by_files_of_its_own(method_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (method_folder / "config.py").write_text(SUITE_SCHEMA, encoding="utf-8")
    (method_folder / "suites.py").write_text(SUITE, encoding="utf-8")
    scanned = registry.__wrapped__()
    monkeypatch.setattr("athlos.config.registry.registry", lambda: scanned)
    # The schema stands in for conf/suite/riddles.yaml, which would name it in its defaults.
    added = ["data=squad", "+schema/suite@eval.suites.own=riddles", "eval.suites.own.depth=5"]
    run = run_config(added)
    assert build_suite(run.eval.suites["own"], run).evaluate(None, []).metrics == {"depth": 6}
    with pytest.raises(ConfigError, match="eval: too deep"):
        run_config([*added[:-1], "eval.suites.own.depth=10"])


def test_suites_are_a_group_inside_the_evaluation() -> None:
    assert GROUPS.index("suite") == GROUPS.index("eval") + 1
    assert set(registry().names("suite")) == {path.stem for path in (conf_dir() / "suite").glob("*.yaml")}
