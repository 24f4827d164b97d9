"""The family of errors: its tree is true, and each member says something of use by itself."""

from __future__ import annotations

import inspect
import re

import pytest

from later.core import errors
from later.core.errors import LaterError, StoreFull, TaskRunning

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LaterError)]


def test_the_tree_at_the_head_of_the_file_is_the_real_one() -> None:
    assert drawn(errors.__doc__ or "") == {kind.__name__: kind.__base__.__name__ for kind in FAMILY}


@pytest.mark.parametrize("kind", FAMILY)
def test_a_docstring_is_a_sentence_for_people(kind: type[LaterError]) -> None:
    sentence = kind.__doc__
    assert sentence is not None
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert sentence[0].isupper()
    assert len(sentence) >= 20
    assert not re.search(r"\b(exception|error|raised|class)\b", sentence, re.IGNORECASE)


@pytest.mark.parametrize("kind", FAMILY)
def test_a_docstring_is_the_default_message(kind: type[LaterError]) -> None:
    assert kind().message == str(kind()) == kind.__doc__
    assert kind("milk is out").message == str(kind("milk is out")) == "milk is out"


def test_who_waits_for_a_running_task_learns_until_when() -> None:
    assert TaskRunning(lease_until=5).lease_until == 5
    assert TaskRunning().lease_until is None


def test_a_full_store_may_have_room_later() -> None:
    assert issubclass(StoreFull, errors.Unavailable)


def drawn(text: str) -> dict[str, str]:
    """Each class of the tree in the text, and the class that it hangs from."""
    parents, path = {}, ["Exception"]
    for line in text.splitlines():
        if match := re.match(r"    ((?:[│ ]   |[├└]── )*)([A-Z]\w+)(?:  |$)", line):
            depth = len(match[1]) // 4 + 1
            del path[depth:]
            parents[match[2]] = path[-1]
            path.append(match[2])
    return parents
