"""Messages of the library in the words of the command line.

Below the command line a message names a parameter as Python does, in backquotes: "choose one with `adapter_name`". Here
it becomes the option of the command that is running, --adapter-name; an alternative that the command does not have is
left out, and any other name that is not an option of it loses its quotes.
"""

from __future__ import annotations

import re

import click

__all__ = ["in_options"]

_PARAMETER = re.compile(r"`([a-z_]+)`")
# a way out that the running command does not offer
_ALTERNATIVE = re.compile(r",? or [^,;`]*`([a-z_]+)`[^,;]*")
_OFF = re.compile(r"turn `([a-z_]+)` off")


def in_options(message: str, command: click.Command | None) -> str:
    """A message with the parameters that it names as options of a command.

    Examples
    --------
    >>> demo = click.Command("demo", params=[click.Option(["--map", "rename"])])
    >>> in_options("choose with `rename` or `base`", demo)
    'choose with --map'
    """
    if "`" not in message:
        return message
    params = [each for each in command.params if not getattr(each, "hidden", False)] if command else []
    names = {
        each.name: each.opts[0] if isinstance(each, click.Option) else str(each.metavar).upper()
        for each in params
    }
    # settings under another name than that of their option
    names |= getattr(command, "setting_names", {})
    off = {each.name: each.secondary_opts for each in params}
    message = _OFF.sub(lambda match: f"give {off[match[1]][0]}" if off.get(match[1]) else match[0], message)
    message = _ALTERNATIVE.sub(lambda match: match[0] if match[1] in names else "", message)
    return _PARAMETER.sub(lambda match: names.get(match[1], match[1]), message)
