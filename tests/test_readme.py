"""README.md and docs/ tell what is there."""

import re
import shlex
from pathlib import Path

from athlos.cli.claims import computed, summary
from athlos.config.catalogue import METHODS
from athlos.config.compose import group_options, run_config, sweep_configs
from athlos.config.registry import GROUPS, registry

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
