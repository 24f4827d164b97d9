"""Commands in processes of their own without Python's start each time: one that has imported them forks for each.

A command takes 10 ms so, and not 80. What is about the process itself (imports, terminals, the engine) has the real
start of `Program.run`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.program import Program

SIZE = struct.Struct("I")


class Forked(Program):
    """A program that is running, and whose commands are forked."""

    def __init__(self, program: Program, connection: socket.socket) -> None:
        super().__init__(program.home)
        self.env, self.daemon = program.env, program.daemon
        self._connection = connection

    def run(
        self, *arguments: str, check: int | None = 0, timeout: float = 30, **env: str
    ) -> subprocess.CompletedProcess[str]:
        sent = json.dumps({"arguments": arguments, "env": {**self.env, **env}, "cwd": str(self.home)}).encode()
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            self._connection.settimeout(timeout)
            socket.send_fds(self._connection, [SIZE.pack(len(sent))], [stdout.fileno(), stderr.fileno()])
            self._connection.sendall(sent)
            status = SIZE.unpack(self._connection.recv(SIZE.size))[0]
            stdout.seek(0)
            stderr.seek(0)
            done = subprocess.CompletedProcess(arguments, status, stdout.read().decode(), stderr.read().decode())
        if check is not None:
            assert status == check, f"{arguments}: status {status}\n{done.stdout}\n{done.stderr}"
        return done


@contextmanager
def forking(program: Program) -> Iterator[Forked]:
    """The same program, with commands that are forked."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        forker = subprocess.Popen(
            [sys.executable, "-c", f"from tests.cli.forked import serve; serve({theirs.fileno()})"],
            cwd=Path(__file__).parents[2],
            env={"PATH": program.env["PATH"], "LANG": program.env["LANG"]},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        yield Forked(program, ours)
    forker.wait(10)


def serve(descriptor: int) -> None:
    """Fork for each order that comes, until nobody is left to give one."""
    from later.cli import COMMANDS, cli

    for name in COMMANDS:
        cli.get_command(None, name)  # type: ignore[arg-type]
    with socket.socket(fileno=descriptor) as connection:
        while True:
            head, descriptors, _, _ = socket.recv_fds(connection, SIZE.size, 2)
            if not head:
                return
            sent, size = b"", SIZE.unpack(head)[0]
            while len(sent) < size:
                sent += connection.recv(size - len(sent))
            if (child := os.fork()) == 0:
                os._exit(_carry_out(json.loads(sent), *descriptors))
            for one in descriptors:
                os.close(one)
            connection.sendall(SIZE.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


def _carry_out(order: dict[str, object], stdout: int, stderr: int) -> int:
    from later.cli import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(order["env"])  # type: ignore[call-overload]
    time.tzset()
    sys.argv = ["later", *order["arguments"]]  # type: ignore[misc]
    try:
        main()
    except SystemExit as end:
        return int(str(end.code or 0))
    except BaseException:  # so that no child goes on as a second forker
        traceback.print_exc()
    return 1
