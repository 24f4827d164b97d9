"""The shape of the code: which way imports point, and what a Lua script says of itself and may call."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "later/store/lua").glob("*.lua"))
MODULES = sorted((ROOT / "later").rglob("*.py"))
WALKS = {"KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "RANDOMKEY", "FLUSHALL", "FLUSHDB", "WATCH"}


def test_imports_point_one_way() -> None:
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed (extra: dev)")
    words = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_in_its_first_line_what_it_owns(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said
    assert said.splitlines()[0].endswith((".", ":"))


def test_there_is_a_script_for_each_transition_and_no_other() -> None:
    assert [path.stem for path in SCRIPTS] == ["add", "claim", "examine", "extend", "move", "recover", "settle"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
class TestScript:
    def test_its_header_is_its_contract(self, path: Path) -> None:
        header = header_of(path)
        assert header[0] in ("#!lua", "#!lua flags=allow-oom")
        assert header[1].startswith(f"-- {path.stem}: ")
        assert header[1].endswith(".")
        said = [line.split()[1] for line in header[2:] if re.match(r"-- [A-Z]", line)]
        assert [word for word in said if word in ("KEYS", "ARGV", "Returns")] == ["KEYS", "ARGV", "Returns"]
        assert [line for line in path.read_text().splitlines() if len(line) > 120] == []

    def test_its_header_counts_the_keys_that_it_takes(self, path: Path) -> None:
        header = "\n".join(header_of(path))
        numbered = [int(number) for number in re.findall(r"(\d+) ", section(header, "KEYS", "ARGV"))]
        assert numbered == list(range(1, len(numbered) + 1))
        assert len(numbered) == len(taken(path, "KEYS"))

    def test_every_answer_that_its_header_names_is_given(self, path: Path) -> None:
        answers = set(re.findall(r"'([a-z]+)'", section("\n".join(header_of(path)), "Returns", None)))
        assert answers <= set(re.findall(r"'([a-z]+)'", code_of(path)))

    def test_it_reads_the_servers_clock_and_answers_with_it(self, path: Path) -> None:
        assert "redis.call('TIME')" in path.read_text()
        assert "-- Returns {now µs, " in path.read_text()

    def test_it_walks_over_nothing(self, path: Path) -> None:
        called = set(re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text()))
        assert called
        assert called & WALKS == set()
        assert not re.search(r"redis\.p?call\((?!')", path.read_text()), "a command must be named where it is called"

    def test_all_its_keys_are_of_one_partition(self, path: Path) -> None:
        """Keys come from KEYS, or begin with the partition's root, in which the hash tag is."""
        assert "later:" not in code_of(path)
        built = re.findall(r"(\w+) \.\. '(?:task|user|due|running):'", code_of(path))
        assert set(built) <= {"root"}

    def test_only_add_is_refused_by_a_full_server(self, path: Path) -> None:
        assert ("allow-oom" in header_of(path)[0]) is (path.stem != "add")


def header_of(path: Path) -> list[str]:
    lines = path.read_text().split("\n")
    return lines[: next(at for at, line in enumerate(lines) if not line.startswith(("#!", "--")))]


def code_of(path: Path) -> str:
    return re.sub(r"--.*", "", path.read_text().removeprefix("#!lua"))


def section(header: str, begin: str, end: str | None) -> str:
    return header.split(f"-- {begin}")[1].split(f"-- {end}")[0] if end else header.split(f"-- {begin}")[1]


def taken(path: Path, name: str) -> list[str]:
    """The names that a script gives its keys."""
    code = code_of(path)
    if match := re.search(rf"local ([\w, ]+) = unpack\({name}\)", code):
        return match[1].split(", ")
    return re.findall(rf"{name}\[\d\]", code)
