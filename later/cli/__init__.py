"""What a person types. A thin client of the HTTP API: only the standard library and click are imported here."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "add": "tasks",
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
    "stats": "daemon",
    "doctor": "daemon",
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

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"later.cli.{COMMANDS[name]}")
        # A trailing _ keeps a command's function from hiding a builtin of the same name.
        python_name = name.replace("-", "_")
        command: click.Command = getattr(module, python_name, None) or getattr(module, f"{python_name}_")
        return command


@click.command(cls=Later, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="later-daemon", prog_name="later", message="%(prog)s %(version)s")
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
    from later.cli.output import Refused

    try:
        result: Any = cli.main(args=arguments, prog_name="later", standalone_mode=False)
    except Refused as refusal:
        refusal.show()
        sys.exit(refusal.status)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"later: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"{error.ctx.command_path} --help says what it takes", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)
