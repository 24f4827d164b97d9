"""The lock: every dependency at one version, with hashes, in step with pyproject.toml, and from no particular host."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

ANEW = (
    "make it anew: uv pip compile --universal --generate-hashes --no-emit-index-url --no-header "
    "--output-file requirements.lock pyproject.toml"
)
LOCK = (ROOT / "requirements.lock").read_text()
PINS = {
    canonicalize_name(pin.name): pin for pin in map(Requirement, re.findall(r"^(\w.*?)(?: \\)?$", LOCK, re.MULTILINE))
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_dependency_is_pinned_within_its_range():
    for wanted in map(Requirement, PROJECT["dependencies"]):
        pin = PINS.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{wanted} is not locked; {ANEW}"
        assert wanted.specifier.contains(version(pin)), f"{wanted} is locked as {pin}; {ANEW}"
        assert str(pin.marker) == str(wanted.marker), f"{wanted} is locked as {pin}; {ANEW}"


def test_what_the_dependencies_need_is_pinned_too():
    missing = {str(need) for need in needed() if canonicalize_name(need.name) not in PINS}
    assert not missing, ANEW


def test_what_only_tests_and_developers_need_is_not_pinned():
    extras = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]
    assert not {canonicalize_name(extra.name) for extra in extras} & set(PINS)


def test_every_pin_has_its_hashes():
    for block in re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", block, re.MULTILINE), block


def test_it_names_no_host_and_no_path():
    assert "://" not in LOCK
    assert not re.search(r"^--", LOCK, re.MULTILINE)
    assert not re.search(r"(?<!pyproject\.toml\))\s/\w", LOCK)


def version(pin: Requirement) -> str:
    (only,) = pin.specifier
    assert only.operator == "=="
    return only.version


def needed() -> set[Requirement]:
    """What Later needs on this machine, and what that needs, as the installed packages say."""
    found: set[Requirement] = set()
    waiting = [need for need in map(Requirement, PROJECT["dependencies"]) if applies(need)]
    while waiting:
        need = waiting.pop()
        if need in found:
            continue
        found.add(need)
        try:
            beyond = requires(need.name) or []
        except PackageNotFoundError:
            continue
        waiting += [further for further in map(Requirement, beyond) if applies(further, need.extras)]
    return found


def applies(need: Requirement, extras: set[str] = frozenset()) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
