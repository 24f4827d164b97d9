"""The documents say what is there: commands, links, and the tests that hold the requirements."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from later.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

ROWS = [
    *(f"0.{n}" for n in (*range(1, 17), *range(22, 27))),
    *(f"3.{n}" for n in (*range(1, 8), 9, 10, 14)),
    *(f"4.{n}" for n in (*range(1, 15), 16)),
]
"""The rows of the requirements that are held so far."""


def readme() -> str:
    return (ROOT / "README.md").read_text()


def requirements() -> dict[str, list[str]]:
    """Row → the tests that hold it, as `path::name`."""
    table = (ROOT / "docs" / "requirements.md").read_text()
    rows = re.findall(r"^\| (\d+\.\d+) \|(?:[^|]*)\|([^|]*)\|$", table, re.M)
    return {row: re.findall(r"`([^`]+)`", tests) for row, tests in rows}


def test_the_first_two_fenced_blocks_run_the_demo_and_the_tests():
    run, test = re.findall(r"^```sh\n(.*?)^```$", readme(), re.M | re.S)[:2]
    assert run.rstrip().endswith("later demo")
    assert test.rstrip().endswith("-m pytest")


def test_the_readme_names_every_command():
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", readme())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_commands_and_options_there_are(page):
    for words in re.findall(
        r"`(?:sudo )?later ([a-z][a-z-]*)((?: [^`]*)?)`|^\$ later ([a-z-]+)(.*)$", page.read_text(), re.M
    ):
        name, rest = words[0] or words[2], words[1] + words[3]
        assert name in COMMANDS, f"{page.name}: later {name}"
        command = cli.get_command(None, name)
        known = {option for parameter in command.params for option in parameter.opts}
        for group in getattr(command, "commands", {}).values():
            known |= {option for parameter in group.params for option in parameter.opts}
        for option in re.findall(r"(?<![\w-])--[a-z-]+", rest):
            assert option in known, f"{page.name}: later {name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} → {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_files_there_are(page):
    for name in re.findall(r"`((?:later|tests)/[\w./*{}]+)`", page.read_text()):
        assert list(ROOT.glob(name)), f"{page.name}: {name}"


def test_every_row_of_the_requirements_has_a_test_that_exists():
    table = requirements()
    assert list(table) == ROWS
    for row, tests in table.items():
        assert tests, f"row {row} names no test"
        for test in tests:
            path, _, name = test.partition("::")
            tree = ast.parse((ROOT / path).read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
            assert name in names, f"row {row}: {test}"
