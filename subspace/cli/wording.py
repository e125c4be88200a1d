"""Messages of the library in the words of the command line.

Below the command line a message names a parameter as Python does, in backquotes: "choose one with `adapter_name`". Here
it becomes the option of the command that is running, --adapter-name; a name that is no option of it loses its quotes.
"""

from __future__ import annotations

import re

import click

__all__ = ["in_options"]

_PARAMETER = re.compile(r"`([a-z_]+)`")
_OFF = re.compile(r"turn `([a-z_]+)` off")


def in_options(message: str, command: click.Command | None) -> str:
    """A message with the parameters that it names as options of a command.

    Examples
    --------
    >>> demo = click.Command("demo", params=[click.Option(["--map", "rename"])])
    >>> in_options("choose with `rename` or `base`", demo)
    'choose with --map or base'
    """
    if "`" not in message:
        return message
    names: dict[str | None, str] = {
        parameter.name: parameter.opts[0]
        if isinstance(parameter, click.Option)
        else str(parameter.metavar).upper()
        for parameter in (command.params if command is not None else ())
    }
    off = (
        {parameter.name: parameter.secondary_opts for parameter in command.params}
        if command is not None
        else {}
    )
    message = _OFF.sub(lambda match: f"give {off[match[1]][0]}" if off.get(match[1]) else match[0], message)
    return _PARAMETER.sub(lambda match: names.get(match[1], match[1]), message)
