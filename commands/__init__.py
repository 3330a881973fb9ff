"""The command line: `podtool COMMAND`. One module per command, loaded when its help is needed."""

from __future__ import annotations

import contextlib
import signal

with contextlib.suppress(ValueError):  # not in the main thread: nobody presses Ctrl-C there
    # While modules load, Ctrl-C ends the process at once instead of with a traceback.
    _on_interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)

from typing import Annotated

import typer

from . import shared
from .shared import ErrorMappingGroup

app = typer.Typer(
    cls=ErrorMappingGroup,
    name="podtool",
    help="Commands for the voices in podcasts. Each reads and writes WAV and JSONL.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from podtool import __version__

        typer.echo(f"podtool {__version__}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv for debugging.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    json_errors: Annotated[
        bool, typer.Option("--json-errors", help="Errors as JSON objects on stderr.")
    ] = False,
    progress: Annotated[
        str, typer.Option("--progress", help="auto, bar, lines, json or off.")
    ] = "auto",
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network (PODTOOL_OFFLINE=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Commands for the voices in podcasts."""
    import os

    if offline:
        os.environ["PODTOOL_OFFLINE"] = "1"
    shared.configure(verbose, quiet, debug, json_errors, progress)


def _register() -> None:
    """Add the commands, in the order that the help shows them."""
    from importlib import import_module
    from importlib.util import find_spec

    commands = (
        "separate diarize transcribe clone synthesize reconstruct replace live "
        "export import_ evaluate check doctor"
    )
    for name in commands.split():
        if find_spec(f".{name}", __name__):
            command = getattr(import_module(f".{name}", __name__), name)
            app.command(name.rstrip("_"))(command)
    for name in "speakers models engines presets runs train".split():
        if find_spec(f".{name}", __name__):
            app.add_typer(import_module(f".{name}", __name__).app, name=name)


_register()
with contextlib.suppress(ValueError, NameError):
    signal.signal(signal.SIGINT, _on_interrupt)


def main() -> None:
    """Entry point of the `podtool` script."""
    app()
