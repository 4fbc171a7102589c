"""The README tells what is there."""

import re
from pathlib import Path

from athlos.config.catalogue import METHODS
from athlos.config.compose import group_options, run_config
from athlos.config.registry import GROUPS, registry

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_every_method_stands_in_the_table_with_its_state():
    for method in METHODS:
        state = "here" if ("method", method.slug) in registry().parts else "planned"
        assert re.search(rf"^\| `{method.slug}` \|.*{re.escape(method.title)}.*\| {state} \|$", TEXT, re.M), method.slug


def test_every_group_and_its_choices_are_named():
    table = TEXT[TEXT.index("## Configuration") : TEXT.index("## The twelve methods")]
    for group in GROUPS:
        assert f"`{group}`" in table
    for group in ("surgery", "objective", "reward", "selection", "decoding", "engine", "scale", "hardware", "tracking"):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{group}`"))
        for option in group_options(group):
            assert f"`{option}`" in row, (group, option)
    row = next(line for line in table.splitlines() if line.startswith("| `eval`"))
    assert all(f"`{name}`" in row for name in registry().names("suite"))


def test_the_printed_run_commands_compose():
    commands = re.findall(r"^    athlos run (?!-m )([^#\n]+)", TEXT, re.M)
    assert len(commands) >= 5
    for command in commands:
        overrides = re.sub(r"<[^>]*>", "folder", command).split()
        run_config([item for item in overrides if not item.startswith("--")])
