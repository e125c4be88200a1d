"""The command line: one command per file in `commands`, imported when it is called.

Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from subspace import __version__
from subspace.cli.found_commands import command_names, summary
from subspace.cli.number_types import Whole
from subspace.errors import SubspaceError
from subspace.text import shown

__all__ = ["app", "main"]


class _Lazy(click.Group):
    """A group whose commands are imported when they are needed; `chosen` is the one that runs."""

    chosen: click.Command | None = None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where the reader of its output has seen enough, as `head` has, that is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # which click would answer with exit code 1
            if not _while_printing(error):
                raise
            _drop_output()
            ctx.exit(0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return command_names()

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in command_names():
            return None
        command: click.Command = import_module(f"{__name__}.commands.{name}").command
        self.chosen = command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is none gets the one that was probably meant."""
        name = args[0]
        if not name.startswith("-") and name not in command_names():
            from difflib import get_close_matches

            close = get_close_matches(name, command_names(), n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {shown(repr(name))}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in command_names()])


def _use_threads(ctx: click.Context, param: click.Parameter, threads: int) -> None:
    """Set the number of BLAS threads, before NumPy is imported; the default gives way to what the environment says."""
    given = ctx.get_parameter_source("threads") is click.core.ParameterSource.COMMANDLINE
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if given or name not in os.environ:
            os.environ[name] = str(threads)


def _go_offline(ctx: click.Context, param: click.Parameter, offline: bool) -> None:
    """Let nobody ask the hub: huggingface_hub and transformers heed the variable, as do processes that are started."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the input is wrong, 2 usage, 3 inconclusive (untrained, nothing in common).",
)
@click.version_option(__version__, prog_name="subspace")
@click.option(
    "--threads",
    type=Whole(1),
    default=1,
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_use_threads,
    help="Number of threads for linear algebra; one is fastest except for very large base weights. Overrides "
    "OMP_NUM_THREADS and the like.",
)
@click.option(
    "--offline",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_go_offline,
    help="Never ask the Hugging Face hub; what is in its cache is still read. The same as HF_HUB_OFFLINE=1.",
)
def app() -> None:
    """What did this adapter learn?

    Measures the subspaces that LoRA adapters span, next to isotropic random spans and controls. Adapters are PEFT
    directories or files, loralib .pt files, plain matrices and many other formats. Results go to standard output,
    notes and errors to standard error.

    \b
    Examples:
      subspace reproduce
      subspace compare first-adapter/ second-adapter/

    \b
    To complete commands and options in bash (or zsh, fish, by their names):
      eval "$(_SUBSPACE_COMPLETE=bash_source subspace)"
    """


def main() -> None:
    """Run the command line; the one place where an error becomes one line and an exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app.main(prog_name="subspace", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort as error:
        # what was being written says what became of it
        said = error.__cause__.args if isinstance(error.__cause__, KeyboardInterrupt) else ()
        _end(": ".join(["interrupted", *map(str, said)]), 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SubspaceError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end_of_output(error)
    except MemoryError:
        _end("Out of memory: one module of the input does not fit", 1)


def _end_of_output(error: OSError) -> None:
    """End after an operating system error that no function has put into words: mostly one of writing the output."""
    if isinstance(error, BrokenPipeError):  # a reader such as `head` has seen enough, which is no error
        _drop_output()
        sys.exit(0)
    if error.filename is not None:
        _end(f"{error.strerror or error}: {error.filename}", 1)
    if not _while_printing(error):
        _end(f"The operating system reports an error: {error.strerror or error}", 1)
    _drop_output()
    _end(f"Cannot write the output: {error.strerror or error}", 1)


def _while_printing(error: OSError) -> bool:
    """Whether an error arose from printing or from flushing what was printed."""
    trace, frames = error.__traceback__, []
    while trace is not None:
        frames.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    return frames[-1].co_name == "main" or any(code.co_name in {"echo", "flush", "print"} for code in frames)


def _open_closed_streams() -> None:
    """Let standard streams that the caller has closed lead nowhere; a file opened later must not take their place."""
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

    click.echo(f"error: {shown(in_options(message, app.chosen), longest=4000)}", err=True)
    sys.exit(code)
