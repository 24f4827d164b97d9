"""What a shell evaluates: new thoughts at its prompt, and completion of our commands."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence

import click

from later.cli import places
from later.cli.output import Refused

SHELLS = click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))

# At a prompt nothing is started unless a marker is there. One that stays (the daemon was killed) is left alone for the
# next prompts, so that a prompt is never slow twice in a row.
POSIX = """\
# New thoughts of Later at each prompt: this only looks for a file, and calls `later inbox` when it is there.
__later_rest=0
__later_prompt() {{
  local last=$?
  if (( __later_rest > 0 )); then
    __later_rest=$(( __later_rest - 1 ))
  elif {there}; then
    {inbox} 2>/dev/null
    if {there}; then __later_rest=10; fi
  fi
  return $last
}}
"""

BASH = (
    POSIX
    + """\
if [[ ${{PROMPT_COMMAND-}} != *__later_prompt* ]]; then
  PROMPT_COMMAND="${{PROMPT_COMMAND:+$PROMPT_COMMAND
}}__later_prompt"
fi
"""
)

ZSH = (
    POSIX
    + """\
typeset -ga precmd_functions
if (( ! ${{precmd_functions[(Ie)__later_prompt]}} )); then precmd_functions+=(__later_prompt); fi
"""
)

FISH = """\
# New thoughts of Later at each prompt: this only looks for a file, and calls `later inbox` when it is there.
set -g __later_rest 0
function __later_prompt --on-event fish_prompt
    set -l last $status
    if test $__later_rest -gt 0
        # fish's own `math` is a builtin; nothing is started here either.
        set -g __later_rest (math $__later_rest - 1)
    else if {there}
        {inbox} 2>/dev/null
        if {there}
            set -g __later_rest 10
        end
    end
    return $last
end
"""


@click.command()
@SHELLS
def shell_init(shell: str) -> None:
    """Print what shows new thoughts at each prompt.

    \b
      bash  eval "$(later shell-init bash)"    in ~/.bashrc
      zsh   eval "$(later shell-init zsh)"     in ~/.zshrc
      fish  later shell-init fish | source     in ~/.config/fish/config.fish
    """
    sockets = [door.socket for door in places.doors() if door.socket]
    if not sockets:
        raise Refused("LATER_URL names a daemon elsewhere, whose inbox no prompt can see; unset it here", status=2)
    if shell == "fish":
        snippet = FISH.format(there=_there(sockets, _fish_quoted, "test {}", "-a"), inbox=_inbox(_fish_quoted))
    else:
        there = _there(sockets, shlex.quote, "[[ {} ]]", "&&")
        snippet = {"bash": BASH, "zsh": ZSH}[shell].format(there=there, inbox=_inbox(shlex.quote))
    # As bytes: a path may be none that UTF-8 knows.
    click.echo(os.fsencode(snippet), nl=False)


@click.command()
@SHELLS
def completion(shell: str) -> None:
    """Print what completes these commands with the Tab key.

    \b
      bash  eval "$(later completion bash)"    in ~/.bashrc
      zsh   eval "$(later completion zsh)"     in ~/.zshrc
      fish  later completion fish | source     in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from later.cli import cli

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cli, {}, "later", "_LATER_COMPLETE").source())


def _there(sockets: Sequence[str], quoted: Callable[[str], str], test: str, conjunction: str) -> str:
    """Whether the daemon that would be asked, which is the first whose socket is there, has a marker for us."""
    tests, absent = [], ""
    for socket in sockets:
        marker = os.path.join(os.path.dirname(socket), "unread", _owner())
        tests.append(test.format(f"{absent}-S {quoted(socket)} {conjunction} -e {quoted(marker)}"))
        absent += f"! -S {quoted(socket)} {conjunction} "
    return " || ".join(tests)


def _inbox(quoted: Callable[[str], str]) -> str:
    """This very program, wherever the shell may be by then."""
    program = sys.argv[0]
    found = shutil.which(program) if os.path.basename(program) == "later" else None
    words = [os.path.abspath(found)] if found else [sys.executable, "-P", "-m", "later"]
    return " ".join(["command", *map(quoted, [*words, "inbox"])])


def _owner() -> str:
    """The caller's name as the daemon knows it from the socket."""
    uid = os.getuid()
    try:
        login = pwd.getpwuid(uid).pw_name
    except KeyError:
        login = ""
    return login if re.fullmatch(r"[A-Za-z0-9._@+-]{1,64}", login) else f"uid{uid}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
