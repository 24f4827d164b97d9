"""Settings: all listed in `.env.example`, read from one file and the environment, and refused by name when unusable."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from later.core.errors import InvalidSetting
from later.loading import default_env_file, load, names
from later.settings import Settings
from tests.program import Program

EXAMPLE = Path(__file__).parent.parent / ".env.example"
TOKEN = "open-sesame-and-a-half"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with no settings in it, and the caller's own are somewhere else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def kept(text: str, *, mode: int = 0o600) -> Path:
    """The file of settings, saying this."""
    path = default_env_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def refused() -> str:
    with pytest.raises(InvalidSetting) as refusal:
        load()
    return refusal.value.message


# .env.example


def test_the_example_lists_every_setting_in_order():
    listed = re.findall(r"^#(\w+)=", EXAMPLE.read_text(), re.M)
    assert listed == names()


def test_the_example_explains_each_setting_in_the_line_above_it():
    lines = EXAMPLE.read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#\w+=", line):
            assert re.match(r"# \S", above), f"no explanation above {line}"


def test_the_example_shows_the_defaults():
    before = load()
    kept(re.sub(r"^#(?=\w+=)", "", EXAMPLE.read_text(), flags=re.M))
    assert load() == before == Settings()


def test_the_example_uncommented_is_understood_line_by_line():
    kept(re.sub(r"^#(?=\w+=)", "", EXAMPLE.read_text(), flags=re.M) + "LATER_WORKERS=7\n")
    assert load().workers == 7


# where settings come from


def test_the_file_is_read_and_then_the_environment_wins(monkeypatch):
    kept("LATER_WORKERS=7\nLATER_BATCH=8\nLATER_EMAIL__HOST=mail.example.org\nLATER_EMAIL__PORT=25\n")
    monkeypatch.setenv("LATER_BATCH", "9")
    monkeypatch.setenv("LATER_EMAIL__PORT", "465")
    found = load()
    assert (found.workers, found.batch, found.email.host, found.email.port) == (7, 9, "mail.example.org", 465)


def test_an_empty_variable_leaves_the_file_its_word(monkeypatch):
    kept("LATER_WORKERS=7\n")
    monkeypatch.setenv("LATER_WORKERS", "")
    assert load().workers == 7


def test_the_file_lies_where_xdg_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert kept("LATER_WORKERS=7\n") == tmp_path / "elsewhere" / "later" / "env"
    assert load().workers == 7


def test_the_working_directory_is_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".env", "env", ".env.example"):
        Path(name).write_text("LATER_WORKERS=7\n")
    assert load().workers == Settings().workers


def test_env_file_names_another_file_instead(tmp_path):
    kept("LATER_WORKERS=7\nLATER_BATCH=8\n")
    other = tmp_path / "other"
    other.write_text("LATER_WORKERS=9\n")
    found = load(other)
    assert (found.workers, found.batch) == (9, Settings().batch)


def test_env_file_must_name_a_file(tmp_path):
    with pytest.raises(InvalidSetting, match=r"there is no file .*/nowhere; --env-file must name one"):
        load(tmp_path / "nowhere")


def test_the_daemon_takes_env_file_too(program: Program):
    settings = program.home / "mine"
    settings.write_text("LATER_WORKERS=3\n")
    program.start("--env-file", str(settings))
    assert program.json("stats")["workers"]["places"] == 3


@pytest.mark.parametrize("value", ["a${HOME}b", "$HOME", "a'b", "a\\b", "später"])
def test_the_file_is_taken_to_the_letter(value):
    kept(f"LATER_EMAIL__PASSWORD={value}\n")
    password = load().email.password
    assert password is not None
    assert password.get_secret_value() == value


@pytest.mark.parametrize("line", ["WAKEUP_BEFORE_SECONDS=2.5", "LATER_WAKEUP_BEFORE_SECONDS=2.5"])
def test_wakeup_before_seconds_goes_by_both_names(line, monkeypatch):
    kept(line)
    assert load().wakeup_before_seconds == 2.5
    monkeypatch.setenv("WAKEUP_BEFORE_SECONDS", "4")
    assert load().wakeup_before_seconds == 4


def test_a_home_can_be_written_as_a_tilde(home):
    kept("LATER_STATE_DIR=~/tasks\n")
    assert load().state_dir == home / "tasks"


# what is refused


def test_an_unknown_setting_is_refused_with_the_nearest_one(monkeypatch):
    monkeypatch.setenv("LATER_WORKERZ", "7")
    assert refused() == "there is no setting LATER_WORKERZ; did you mean LATER_WORKERS?"


def test_an_unknown_setting_in_the_file_is_refused_too():
    kept("LATER_EMAIL__PASWORD=geheim\n")
    assert refused() == "there is no setting LATER_EMAIL__PASWORD; did you mean LATER_EMAIL__PASSWORD?"


def test_what_resembles_nothing_is_refused_without_a_guess(monkeypatch):
    monkeypatch.setenv("LATER_QUITE_ANOTHER_THING", "7")
    assert refused() == "there is no setting LATER_QUITE_ANOTHER_THING; the README lists those there are"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LATER_WORKERS", "many", "valid integer"),
        ("LATER_WORKERS", "0", "greater than or equal to 1"),
        ("LATER_WAKEUP_BEFORE_SECONDS", "nan", "less than or equal to 60"),
        ("LATER_RETRY__ATTEMPTS", "0", "greater than or equal to 1"),
        ("LATER_RETRY__WITHIN", "soon", "use w, d, h, m and s"),
        ("LATER_WITHIN", "0s", "greater than 0"),
        ("LATER_ZONE", "Europe/Lissabon", "is not a time zone"),
        ("LATER_OWNER", "a b", "cannot be an owner"),
        ("LATER_QUEUES", "default,,mine", "cannot be a queue"),
        ("LATER_EMAIL__SECURITY", "ssl", "'starttls', 'tls' or 'none'"),
        ("LATER_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("LATER_PORT", "70000", "less than or equal to 65535"),
        ("LATER_REDIS_URL", "localhost:6379", "redis://"),
        ("LATER_SOCKET", "/" + "x" * 200, "too long for a socket"),
    ],
)
def test_an_unusable_value_is_refused_by_its_name(name, value, reason, monkeypatch):
    monkeypatch.setenv(name, value)
    assert name in refused()
    assert reason in refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LATER_TOKEN", "geheim"),
        ("LATER_REDIS_URL", "geheim"),
        ("LATER_REDIS_URL", "http://me:geheim@store"),
        ("LATER_REDIS_URL", "redis://me:geheim/1@store"),
        ("LATER_REDIS_URL", "redis://me:geheim[@store"),
        ("LATER_REDIS_URL", "redis://me:geheim@store:99999"),
    ],
)
def test_a_refusal_never_shows_a_secret(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert refused().startswith(f"{name}: ")
    assert "geheim" not in refused()


def test_settings_in_a_log_show_no_secret(monkeypatch):
    monkeypatch.setenv("LATER_TOKEN", TOKEN)
    monkeypatch.setenv("LATER_REDIS_URL", f"redis://me:{TOKEN}@store")
    monkeypatch.setenv("LATER_EMAIL__PASSWORD", TOKEN)
    assert TOKEN not in f"{load()!r} {load()} {load().model_dump()}"


def test_a_port_needs_a_token(monkeypatch):
    monkeypatch.setenv("LATER_PORT", "8080")
    assert refused().startswith("LATER_PORT opens the API to the network, so LATER_TOKEN must be set")
    monkeypatch.setenv("LATER_TOKEN", TOKEN)
    assert load().port == 8080


def test_replicas_are_those_of_a_redis_that_is_named(monkeypatch):
    monkeypatch.setenv("LATER_REDIS_REPLICAS", "1")
    assert refused().startswith("LATER_REDIS_REPLICAS is for the Redis that LATER_REDIS_URL names")
    monkeypatch.setenv("LATER_REDIS_URL", "redis://localhost")
    assert load().redis_replicas == 1


def test_the_earliest_moment_comes_before_the_latest(monkeypatch):
    monkeypatch.setenv("LATER_WITHIN", "1h")
    assert refused().startswith("LATER_AFTER must be shorter than LATER_WITHIN")


@pytest.mark.parametrize("name", ["LATER_TOKEN", "later_token"])
def test_a_file_with_a_secret_must_be_private(name):
    path = kept(f"{name}={TOKEN}\n", mode=0o644)
    assert refused() == f"{path} holds {name} and others can read it; run: chmod 600 {path}"


def test_a_file_without_a_secret_may_be_public():
    kept("LATER_WORKERS=7\n", mode=0o644)
    assert load().workers == 7


@pytest.mark.parametrize("line", ["LATER_WORKERS 7", "LATER_WORKERS", "LATER_TO='me"])
def test_a_line_that_says_nothing_is_refused_by_its_number(line):
    path = kept(f"# mine\n\n{line}\n")
    assert refused() == f"{path}, line 3: write NAME=value, or # before a remark"


def test_a_file_that_is_not_text_is_refused():
    path = kept("")
    path.write_bytes(b"LATER_TO=\xff\n")
    assert refused() == f"{path} cannot be read: it is not UTF-8 text"


def test_a_directory_in_its_place_is_refused():
    default_env_file().mkdir(parents=True)
    assert "cannot be read: Is a directory" in refused()


def test_the_program_says_it_in_one_sentence_with_status_2(program: Program):
    done = program.run("run", check=2, LATER_WORKERZ="7")
    assert done.stderr == "later: there is no setting LATER_WORKERZ; did you mean LATER_WORKERS?\n"
    assert done.stdout == ""
