"""`later service`: refused where it cannot be, and, where systemd runs, a service that outlives a power cut."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from later.cli import service
from later.cli.output import Refused
from tests.packaging import machine as machines
from tests.packaging.container import Image
from tests.packaging.machine import Machine
from tests.program import Program


def slow(test):
    """Boots a machine."""
    return pytest.mark.timeout(1200)(pytest.mark.slow(test))


@pytest.fixture
def machine(base: Path, image: Image, yard: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine that has just booted, with Later in /opt/later and a user `ann`."""
    home = yard / request.node.name
    home.mkdir()
    machine = machines.made(home / "root", base, image.root / "opt/later")
    try:
        machine.boot()
        yield machine
    finally:
        machine.cut_power()


# Where it cannot be


def test_without_systemd_for_this_user_nothing_is_changed(program: Program):
    done = program.run("service", "install", check=69)
    assert done.stderr.startswith("later: systemd does not ")
    assert "so nothing was changed; " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(program.home.rglob("later.service"))


@pytest.mark.parametrize("verb", ["uninstall", "status"])
def test_what_is_not_installed_has_no_status_and_cannot_be_removed(program: Program, verb: str):
    done = program.run("service", verb, check=3)
    unit = program.home / ".config/systemd/user/later.service"
    assert done.stderr == f"later: there is no {unit}; `later service install` makes one\n"


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_the_machines_service_is_roots_business(verb: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Refused, match=rf"^this needs root; run: sudo /.* service {verb} --system$") as refusal:
        service.service.main([verb, "--system"], standalone_mode=False)
    assert refusal.value.status == 1


def test_a_program_in_a_home_is_refused_as_a_system_service(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "prefix", "/home/ann/venv")
    with pytest.raises(
        Refused, match="lies in a home directory, which the system service cannot see; run `sudo python3"
    ):
        service._require_visible_program()


# Where systemd runs


@slow
def test_a_system_service_serves_its_group_also_after_a_power_cut(machine: Machine):
    said = machine.run("later", "service", "install", "--system")
    assert said.splitlines() == [
        "Later runs as a service: /etc/systemd/system/later.service",
        "its settings: /etc/later/env; who may use it: sudo usermod -aG later USER",
    ]
    assert "active (running)" in machine.run("later", "service", "status", "--system")
    refusal = machine.run("later", "list", user="ann", check=69)
    assert "sudo usermod -aG later" in refusal

    machine.run("usermod", "-aG", "later", "ann")
    machine.run("later", "add", "before", "--in", "0s", user="ann")
    machine.wait_for("before", "later", "history", user="ann")
    machine.run("later", "add", "after", "--in", "5s", user="ann")
    assert "does not have here" in machine.run("later", "stop", user="ann", check=1)

    machine.cut_power()
    machine.boot()
    machine.wait_for("after", "later", "history", user="ann")
    assert machine.run("later", "doctor", user="ann") == "all is well\n"


@slow
def test_a_stopped_system_service_is_missed_and_a_removed_one_is_not(machine: Machine):
    machine.run("later", "service", "install", "--system")
    machine.run("usermod", "-aG", "later", "ann")
    machine.run("later", "stop")
    machine.wait_for("inactive", "systemctl", "show", "--property=ActiveState", "later")
    machine.run("later", "service", "status", "--system", check=69)
    assert "no daemon answers at" in machine.run("later", "add", "tea", user="ann", check=69)

    machine.run("later", "service", "install", "--system")
    assert "removed /etc/systemd/system/later.service" in machine.run("later", "service", "uninstall", "--system")
    assert "No such file" in machine.run("ls", "/run/later", check=2)
    assert "redis" in machine.run("ls", "/var/lib/later")
    assert "started a daemon in the background" in machine.run("later", "add", "tea", user="ann")


@slow
def test_a_system_services_settings_are_roots_secret(machine: Machine):
    settings = machine.root / "etc/later/env"
    settings.parent.mkdir()
    settings.write_text("LATER_WORKERS=7\nLATER_TOKEN=open-sesame-and-a-half\n")
    settings.chmod(0o600)
    machine.run("later", "service", "install", "--system")
    assert "of 7 busy" in machine.run("later", "stats")


@slow
def test_a_persons_service_takes_over_from_the_background_and_comes_back_after_a_power_cut(machine: Machine):
    assert "started a daemon in the background" in machine.run("later", "add", "first", "--in", "1h", user="ann")
    refusal = machine.run("later", "service", "install", user="ann", check=69)
    assert "log in as this user directly" in refusal

    machine.run("loginctl", "enable-linger", "ann")
    machine.wait_for("SubState=running", "systemctl", "show", "--property=SubState", "user@1000")
    said = machine.run("later", "service", "install", user="ann")
    assert "Later runs as a service: /home/ann/.config/systemd/user/later.service\n" in said
    assert "without `loginctl enable-linger ann` it only runs while you are logged in\n" in said
    assert "the service takes over" in said
    assert "first" in machine.run("later", "list", user="ann")
    machine.run("later", "add", "second", "--in", "5s", "--action", "inbox", user="ann")

    machine.cut_power()
    machine.boot()
    machine.wait_for("second", "later", "history", user="ann")
    assert "active (running)" in machine.run("later", "service", "status", user="ann")
    machine.run("later", "service", "uninstall", user="ann")
    assert "started a daemon in the background" in machine.run("later", "add", "third", "--in", "1h", user="ann")
    assert "first" in machine.run("later", "list", user="ann")


@slow
def test_a_second_install_renews_the_service(machine: Machine):
    machine.run("later", "service", "install", "--system")
    before = machine.run("systemctl", "show", "--property=MainPID", "later")
    machine.run("later", "service", "install", "--system")
    assert machine.run("systemctl", "show", "--property=MainPID", "later") != before
