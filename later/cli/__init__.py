"""What a person types. A thin client of the HTTP API: only the standard library and click are imported here."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from later import __version__
from later.cli.output import Refused

COMMANDS = {
    "add": "add",
    "list": "tasks",
    "get": "tasks",
    "update": "tasks",
    "schedule": "tasks",
    "snooze": "tasks",
    "execute": "tasks",
    "delete": "tasks",
    "retry": "tasks",
    "inbox": "past",
    "history": "past",
    "export": "moving",
    "import": "moving",
    "stats": "daemon",
    "doctor": "daemon",
    "fsck": "fsck",
    "health": "daemon",
    "run": "daemon",
    "stop": "daemon",
    "demo": "daemon",
    "service": "service",
    "shell-init": "shell",
    "completion": "shell",
}
"""Each command and the module beside this one that has it; only the one that is asked for is loaded."""


class Later(click.Group):
    """Loads a command when it is asked for, so that `add` does not wait for the others."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, arguments)
        except click.exceptions.NoSuchCommand:
            # click looks for the nearest one only among those that are loaded.
            raise click.exceptions.NoSuchCommand(arguments[0], possibilities=COMMANDS, ctx=context) from None

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"later.cli.{COMMANDS[name]}")
        # A trailing _ keeps a command's function from hiding a builtin of the same name.
        python_name = name.replace("-", "_")
        command: click.Command = getattr(module, python_name, None) or getattr(module, f"{python_name}_")
        return command


@click.command(cls=Later, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="later", message="%(prog)s %(version)s")
def cli() -> None:
    """Keeps a thought and brings it back at its moment.

    \b
      later add "call mum" --within 3d       some time in the next three days
      later add "tea is ready" --in 4m       in four minutes
      later list                             what is still to come
      later inbox                            what has come
    """


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exit status: 0 ok · 1 failed · 2 usage · 3 not found · 4 conflict · 69 unavailable."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        result: Any = cli.main(args=given, prog_name="later", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _refused(error).show(as_json=_wants_json(given))
        sys.exit(error.exit_code)
    except Refused as refusal:
        refusal.show(as_json=_wants_json(given))
        sys.exit(refusal.status)
    except OSError as error:
        Refused(f"this went wrong: {error}").show(as_json=_wants_json(given))
        # What is left in the buffer of stdout cannot be written either, and Python would try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _refused(error: click.ClickException) -> Refused:
    sentence = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        sentence += f"{'' if sentence.endswith('?') else ';'} `{error.ctx.command_path} --help` says what it takes"
    return Refused(sentence, status=error.exit_code, problem={"title": "Usage"})


def _wants_json(given: list[str]) -> bool:
    return "--json" in (given[: given.index("--")] if "--" in given else given)
