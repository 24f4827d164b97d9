"""Bad input gets one clear sentence and exit status 2, and nothing is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.asking import tasks
from tests.program import Program

YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d %H:%M}"

BAD = {
    "no text": (["add"], "Missing argument 'TEXT...'"),
    "empty text": (["add", ""], "the inbox needs a text"),
    "no time within": (["add", "x", "--within", "0s"], "leaves no time at all"),
    "a negative time": (["add", "x", "--in", "-5m"], "cannot be negative"),
    "a negative window": (["add", "x", "--within", "-5m"], "cannot be negative"),
    "an unknown unit": (["add", "x", "--within", "99999y"], "that is not a duration"),
    "beyond all years": (["add", "x", "--within", "99999w"], "beyond the year 2100"),
    "an empty duration": (["add", "x", "--in", ""], "that is not a duration"),
    "an empty time": (["add", "x", "--at", ""], "is not a time"),
    "a past time": (["add", "x", "--at", YESTERDAY], "in the past"),
    "a past instant": (["add", "x", "--at", "2020-01-01T00:00:00Z"], "in the past"),
    "no time of any day": (["add", "x", "--at", "2045-02-30 10:00"], "is not a time"),
    "words for a time": (["add", "x", "--at", "soon"], "is not a time"),
    "after without within": (["add", "x", "--after", "1d"], "say the latest too"),
    "after beyond within": (["add", "x", "--after", "3d", "--within", "1d"], "make the window longer"),
    "two times": (["add", "x", "--in", "1d", "--at", "2045-01-01 00:00"], "contradict each other"),
    "a time and none": (["add", "x", "--in", "1d", "--hold"], "contradict each other"),
    "an unknown action": (["add", "x", "--action", "emial"], "no action 'emial'; known: "),
    "nobody to see it": (["add", "x", "--action", "console"], "nobody would see it"),
    "mail to nobody": (["add", "x", "--action", "email"], "to"),
    "an id with a space": (["add", "x", "--id", "a b"], "cannot be an id"),
    "an id with a slash": (["add", "x", "--id", "a/b"], "cannot be an id"),
    "an empty id": (["add", "x", "--id", ""], "cannot be an id"),
    "a long id": (["add", "x", "--id", "a" * 201], "cannot be an id"),
    "a long text": (["add", "a" * 65_537], "the text has 65,537 bytes; at most 65,536 are kept"),
    "a longer text": (["add", *["a" * 65_536] * 17], "the body is larger than 1,048,576 bytes"),
    "no text of any language": (["add", "caf\udce9"], "Unicode"),
    "an unknown option": (["add", "x", "--wihtin", "3d"], "'--within'?"),
    "an unknown command": (["lst"], "Did you mean 'list'?"),
    "an unknown status": (["list", "--status", "done"], "'done' is not one of"),
    "get a bad id": (["get", "a b"], "cannot be an id"),
    "get no id": (["get", ""], "cannot be an id"),
    "delete a bad id": (["delete", "../x"], "cannot be an id"),
    "snooze a bad id": (["snooze", "é", "1d"], "cannot be an id"),
    "snooze into the past": (["snooze", "x", "-5m"], "cannot be negative"),
    "snooze too far": (["snooze", "x", "99999w"], "beyond the year 2100"),
    "snooze by what": (["snooze", "x", "tomorrow"], "that is not a duration"),
    "change nothing": (["update", "x"], "say what to change"),
    "retry nothing": (["retry"], "say which one by its ID, or --all"),
    "retry too much": (["retry", "x", "--all"], "say which one by its ID, or --all"),
    "no such shell": (["shell-init", "ksh"], "'ksh' is not one of"),
    "no history": (["history", "--limit", "0"], "0 is not in the range"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_sentence_and_nothing_stored(later: Program, case: str) -> None:
    words, sentence = BAD[case]
    before = tasks(later)
    done = later.run(*words, check=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("later: ")
    assert sentence in done.stderr
    assert tasks(later) == before


@pytest.mark.parametrize("words", [["add", "x", "--within", "0s"], ["add"], ["get", "a b"], ["lst"]])
def test_with_json_the_sentence_is_a_problem(later: Program, words: list[str]) -> None:
    done = later.run(*words, "--json", check=2)
    problem = json.loads(done.stderr)
    assert done.stdout == ""
    assert {"type", "title", "detail"} <= set(problem)
    assert problem["type"] == "about:blank"


def test_a_text_that_says_json_asks_for_none(later: Program) -> None:
    done = later.run("add", "--in", "-1d", "--", "--json", check=2)
    assert done.stderr.startswith("later: ")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LATER_WITHN", "3d", "there is no setting LATER_WITHN; did you mean LATER_WITHIN?"),
        ("LATER_WORKER", "3", "there is no setting LATER_WORKER; did you mean LATER_WORKERS?"),
        ("LATER_WITHIN", "soon", "LATER_WITHIN=soon and LATER_AFTER=24h give no moment: 'soon'"),
        ("LATER_WITHIN", "2h", "LATER_WITHIN=2h and LATER_AFTER=24h give no moment"),
        ("LATER_AFTER", "20d", "LATER_WITHIN=14d and LATER_AFTER=20d give no moment"),
        ("LATER_URL", "localhost:8080", "LATER_URL is not an address; use http://host:port or https://host"),
        ("LATER_URL", "http://localhost:http", "LATER_URL is not an address; use http://host:port or https://host"),
    ],
)
def test_settings_are_refused_by_name(later: Program, name: str, value: str, sentence: str) -> None:
    before = tasks(later)
    done = later.run("add", "x", check=2, **{name: value})
    assert done.stderr.startswith(f"later: {sentence}")
    assert len(done.stderr.splitlines()) == 1
    assert tasks(later) == before


def test_the_file_of_settings_is_looked_at_too(later: Program) -> None:
    config = later.home / "config"
    (config / "later").mkdir(parents=True, exist_ok=True)
    (config / "later" / "env").write_text("LATER_EMIAL__HOST=mail.example.org\n")
    done = later.run("list", check=2, XDG_CONFIG_HOME=str(config))
    assert done.stderr == "later: there is no setting LATER_EMIAL__HOST; did you mean LATER_EMAIL__HOST?\n"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LATER_WORKRS", "3", "there is no setting LATER_WORKRS; did you mean LATER_WORKERS?"),
        ("LATER_WORKERS", "many", "LATER_WORKERS: "),
        ("LATER_EMAIL__PORT", "0", "LATER_EMAIL__PORT: "),
        ("LATER_PORT", "8080", "LATER_PORT opens the API to the network, so LATER_TOKEN must be set"),
        ("LATER_ZONE", "Mars/Olympus", "LATER_ZONE: 'Mars/Olympus' is not a time zone"),
    ],
)
def test_a_daemon_refuses_them_too(later: Program, name: str, value: str, sentence: str) -> None:
    done = later.run("run", check=2, LATER_STATE_DIR=str(later.home / "other"), **{name: value})
    assert done.stderr.startswith(f"later: {sentence}")
    assert len(done.stderr.splitlines()) == 1
    assert not (later.home / "other").exists()
