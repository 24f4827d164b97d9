"""A machine of its own: systemd boots in a fresh root, in namespaces of its own, and its power can be cut."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.packaging import debian

SOON_S = 60.0
LOOK_S = 0.05

BOOT = """
mount --make-rprivate / && mount --bind "$ROOT" "$ROOT" && cd "$ROOT" || exit 125
mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount -t cgroup2 cgroup2 sys/fs/cgroup || exit 125
mount -t tmpfs tmpfs run && mount -t tmpfs -o mode=755 tmpfs dev && mkdir dev/pts dev/shm || exit 125
for name in null zero full random urandom tty; do touch dev/$name && mount --bind /dev/$name dev/$name; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts && ln -s pts/ptmx dev/ptmx && ln -s /proc/self/fd dev/fd
exec chroot "$ROOT" /usr/bin/env -i container=later /lib/systemd/systemd --log-target=console --show-status=no
"""
"""The first process of the machine; systemd takes its place."""

START = 'echo $$ >"$CGROUP/cgroup.procs" && exec unshare --mount --pid --cgroup --uts --ipc --fork /bin/sh -c "$BOOT"'
"""Our own cgroup becomes the root of the machine's."""


class Machine:
    """One machine, on this one's network. Commands run in it as root, or as a user who has logged in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = root.with_name("console")
        self._process: subprocess.Popen[bytes] | None = None
        self._cgroup: Path | None = None

    def boot(self) -> None:
        """Power on; returns when all services are up."""
        self._cgroup = Path(tempfile.mkdtemp(prefix="later-", dir=_own_cgroup()))
        self._cgroup.chmod(0o755)  # each user's systemd has a place below it
        env = {"PATH": debian.PATH, "ROOT": str(self.root), "CGROUP": str(self._cgroup), "BOOT": BOOT}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", START], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait_for("running", "systemctl", "is-system-running")

    def cut_power(self) -> None:
        """Everything is gone at once; what was on disk stays."""
        if self._process is not None:
            for init in self._inside():
                os.kill(init, signal.SIGKILL)
            self._process.wait(SOON_S)
            self._process = None
        if self._cgroup is not None:
            for path, _, _ in os.walk(self._cgroup, topdown=False):
                Path(path).rmdir()
            self._cgroup = None

    def run(self, *words: str, user: str | None = None, check: int | None = 0) -> str:
        """What a command says; `check` is the exit status that it must have (None: any)."""
        (init,) = self._inside()
        env = ["PATH=/opt/later/bin:" + debian.PATH, "LANG=C.UTF-8", "HOME=/root"]
        if user is not None:
            uid = re.search(rf"^{user}:[^:]*:(\d+)", (self.root / "etc/passwd").read_text(), re.MULTILINE)[1]
            env += [f"HOME=/home/{user}", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
            words = ("runuser", "-u", user, "--", *words)
        enter = ["nsenter", f"--target={init}", "--mount", "--pid", "--cgroup", "--uts", "--ipc"]
        done = subprocess.run(
            [*enter, "/usr/sbin/chroot", str(self.root), "/usr/bin/env", "-i", *env, *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SOON_S,
        )
        said = done.stdout + done.stderr
        if check is not None:
            assert done.returncode == check, f"{words}: status {done.returncode}\n{said}\n{self.journal()}"
        return said

    def wait_for(self, part: str, *words: str, user: str | None = None) -> None:
        """Until a command says this."""
        deadline = time.monotonic() + SOON_S
        while not self._inside() or part not in (said := self.run(*words, user=user, check=None)):
            assert time.monotonic() < deadline, f"{words} did not say {part!r}\n{said}\n{self._log.read_text()[-4000:]}"
            time.sleep(LOOK_S)

    def journal(self) -> str:
        """The newest lines of everybody's log."""
        return self.run("journalctl", "--no-pager", "--lines=30", check=None)

    def _inside(self) -> list[int]:
        """The machine's first process, as this one sees it."""
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _own_cgroup() -> Path:
    """Where this process is in the second hierarchy."""
    mounted = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/self/mounts").read_text(), re.MULTILINE)
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    assert mounted is not None, "no cgroup2 is mounted; systemd cannot boot without one"
    assert own is not None
    return Path(mounted[1], own[1])


def made(root: Path, base: Path, later: Path) -> Machine:
    """A machine with Later in /opt/later and a user `ann`."""
    debian.copy(base, root)
    shutil.copytree(later, root / "opt/later", symlinks=True)
    subprocess.run(["chroot", str(root), "useradd", "--create-home", "ann"], check=True, env={"PATH": debian.PATH})
    return Machine(root)
