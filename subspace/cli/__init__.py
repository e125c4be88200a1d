"""The command line: one command per file, imported when it is called.

Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from subspace import __version__
from subspace.errors import SubspaceError
from subspace.text import shown

__all__ = ["app", "main"]

_COMMANDS = {
    "reproduce": "Section 7 of the paper on a real model, as one page.",
    "inspect": "What is in an adapter: ranks, scale and its source, norms.",
    "compare": "How much two adapters' subspaces agree, beside chance.",
    "amplify": "What an update amplifies of its base: table 7 of the paper.",
    "convert": "Write an adapter in another format, with the same delta_W.",
    "truncate": "Cut an adapter to lower ranks, and state what is lost.",
    "train": "Train an adapter, with its start and its costs on record.",
    "demo": "Try it: small adapters made on the spot, compared and drawn.",
}


class _Lazy(click.Group):
    """A group whose commands are modules of this package, imported when needed; `chosen` is the one that runs."""

    chosen: click.Command | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{name}").command
        self.chosen = command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 inconclusive (untrained, nothing in common).",
)
@click.version_option(__version__, prog_name="subspace")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, param, value: _use_threads(value),
    help="Threads of the linear algebra. One is fastest but for the largest base weights.",
)
def app() -> None:
    """What did this adapter learn?

    Measures the subspaces that LoRA adapters span, beside chance. Adapters are PEFT directories or files, loralib
    .pt files, plain matrices; data goes to standard output, everything else to standard error.

    \b
    Examples:
      subspace reproduce
      subspace compare first-adapter/ second-adapter/
    """


def _use_threads(threads: int) -> None:
    """Set the number of BLAS threads, before NumPy is imported; what the environment says comes first."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


def main() -> None:
    """Run the command line; the one place where an error becomes one line and an exit code."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app.main(prog_name="subspace", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        _end("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SubspaceError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough is no error to speak of
            _end(f"output must be writable: {error.strerror or error}", 1)
        sys.exit(1)
    except MemoryError:
        _end("the input must fit in memory one module at a time: it does not", 1)


def _open_what_is_closed() -> None:
    """Standard streams that the caller has closed lead nowhere; a file opened later must not take their place."""
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def _drop_output() -> None:
    """Let what is still to be written go nowhere, or the interpreter would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(message: str, code: int) -> None:
    from subspace.cli.wording import in_options

    words = in_options(message, app.chosen)
    click.echo(f"error: {shown(words, longest=4000)}", err=True)
    sys.exit(code)
