"""What every command shares: streams, options, error mapping, progress, input and output."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, TextIO

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from podtool.artifacts import Recording, Row
    from podtool.audio import Audio, AudioFile
    from podtool.engines.protocols import EngineContext, Incident
    from podtool.progress import OnProgress, Progress, Timings

# ---------------------------------------------------------------- options, each with one meaning

Input = Annotated[
    str, typer.Argument(metavar="INPUT", help="Audio, video, or JSONL rows; '-' is stdin.")
]
Out = Annotated[Path | None, typer.Option("-o", "--output", help="File to write; '-' is stdout.")]
OutDir = Annotated[Path | None, typer.Option("--out-dir", help="Folder for the files written.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine name, or 'auto' (see `podtool engines`).")
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Preset name or TOML file.", envvar="PODTOOL_PRESET")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="Set any parameter; repeatable."),
]
FromStem = Annotated[
    str, typer.Option("--from", help="Stem to listen to where rows bring one, or 'mixture'.")
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="mlx, cuda, mps or cpu.", envvar="PODTOOL_DEVICE"),
]
TimingsFlag = Annotated[
    bool, typer.Option("--timings", help="Add the time of each part as metric rows.")
]
Json = Annotated[bool, typer.Option("--json", help="Rows of JSON instead of a table.")]
FallbackNames = Annotated[
    list[str] | None,
    typer.Option(
        "--fallback",
        metavar="ENGINE",
        help="Engine that steps in where one fails, 'auto' for any that runs here; repeatable.",
    ),
]
MaxMemory = Annotated[
    float | None,
    typer.Option("--max-memory", metavar="GB", help="Memory that one engine may take, in GB."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
ConsentText = Annotated[
    str | None,
    typer.Option("--consent", help="Who agreed to the use of this voice, in your own words."),
]


# ---------------------------------------------------------------- state set by the global options


class State:
    """Global options of this invocation."""

    debug = False
    quiet = False
    json_errors = False
    progress = "auto"

    def __init__(self) -> None:
        self.incidents: list[list[Incident]] = []  # those of each context, as they come


state = State()


def configure(verbose: int, quiet: bool, debug: bool, json_errors: bool, progress: str) -> None:
    """Set logging and the state from the global options."""
    from podtool.progress import NOTICE

    state.debug, state.quiet, state.json_errors = debug, quiet, json_errors
    state.progress = "off" if quiet else progress
    level = logging.ERROR if quiet else NOTICE
    if verbose:
        level = logging.INFO if verbose == 1 else logging.DEBUG
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ShortFormatter())
    root = logging.getLogger("podtool")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


class _ShortFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return f"podtool: {prefix}{record.getMessage()}"


# ---------------------------------------------------------------- errors


class ErrorMappingGroup(TyperGroup):
    """Turns PodtoolError and the usual accidents into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from podtool.errors import OutputError, PodtoolError

        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except PodtoolError as error:
            report(error.code, error.message, error.hint)
            if state.debug:
                raise
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(141) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except OSError as error:
            if state.debug:
                raise
            name = f" {error.filename}" if error.filename else ""
            report(OutputError.code, f"{error.strerror or error}{name}", None)
            raise typer.Exit(OutputError.exit_code) from None
        except Exception as error:
            if state.debug or type(error).__module__.split(".")[0] in ("click", "typer"):
                raise
            report("internal", f"{type(error).__name__}: {error}", "Run again with --debug.")
            raise typer.Exit(1) from None
        finally:
            if state.incidents:
                tell_incidents()


def report(code: str, message: str, hint: str | None) -> None:
    """One error on stderr: a line and an indented hint, or one JSON object."""
    if state.json_errors:
        import json

        record = {"error": code, "message": message, "hint": hint}
        sys.stderr.write(json.dumps({k: v for k, v in record.items() if v}) + "\n")
        return
    sys.stderr.write(f"podtool: {code}: {message}\n")
    if hint:
        sys.stderr.write(f"  hint: {hint}\n")


def _forget_stdout() -> None:
    """Keep the interpreter from writing to a closed pipe once more while it exits."""
    with contextlib.suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())


def warn(message: str) -> None:
    """A line for the person at stderr, unless --quiet."""
    if not state.quiet:
        sys.stderr.write(f"podtool: warning: {message}\n")


def note(message: str) -> None:
    """Something the person wants to know, on stderr, unless --quiet."""
    if not state.quiet:
        sys.stderr.write(f"podtool: {message}\n")


# ---------------------------------------------------------------- progress


@contextlib.contextmanager
def progress() -> Iterator[OnProgress]:
    """A Rich bar with time left on a terminal, a line every ten seconds elsewhere."""
    mode = state.progress
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() else "lines"
    if mode == "off":
        yield lambda _: None
    elif mode == "bar":
        with _bar() as observer:
            yield observer
    else:
        yield _lines(as_json=mode == "json")


@contextlib.contextmanager
def _bar() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as RichProgress,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:

        def observe(event: Progress) -> None:
            if event.stage not in tasks:
                tasks[event.stage] = bars.add_task(event.stage, total=event.total)
            bars.update(tasks[event.stage], completed=event.done, total=event.total)

        yield observe


def _lines(as_json: bool) -> OnProgress:
    last: dict[str, float] = {}
    began: dict[str, float] = {}

    def observe(event: Progress) -> None:
        now = time.monotonic()
        began.setdefault(event.stage, now)
        last.setdefault(event.stage, now)
        if now - last[event.stage] < (1.0 if as_json else 10.0):
            return
        last[event.stage] = now
        if as_json:
            sys.stderr.write(
                f'{{"kind": "progress", "stage": "{event.stage}", "done": {event.done:.3f}, '
                f'"total": {event.total:.3f}, "unit": "{event.unit}"}}\n'
            )
            return
        share = event.done / event.total if event.total else 1.0
        left = (now - began[event.stage]) * (1 - share) / share if share else 0.0
        sys.stderr.write(f"podtool: {event.stage} {share:.0%}, {left:.0f} s left\n")

    return observe


# ---------------------------------------------------------------- input


class Source:
    """What a command was given: rows, and the audio that they or the path speak of."""

    def __init__(self, rows: list[Row], recording: Recording, audio: AudioFile) -> None:
        self.rows = rows
        self.recording = recording
        self.audio = audio


def binary_stdin() -> BinaryIO:
    return sys.stdin.buffer


def read_input(name: str, stem: str | None = "speech") -> Source:
    """Open INPUT: audio, rows, or '-' for either on stdin.

    Rows bring their audio by reference; where a stem called `stem` is among them it is read in
    place of the mixture (None: always the mixture). Raises InputError.
    """
    from podtool.inputs import open_input

    rows, recording, audio = open_input(name, binary_stdin, stem)
    return Source(rows, recording, audio)


def warn_of_oddities(audio: AudioFile) -> None:
    """Read the audio once and tell what is odd about it. Raises InputError for NaN, truncation."""
    from podtool.inspection import inspect, oddities

    for line in oddities(inspect(audio)):
        warn(line)


def context(
    device: str | None = None,
    preset: str | None = None,
    settings: list[str] | None = None,
    fallback: list[str] | None = None,
    max_memory: float | None = None,
) -> EngineContext:
    """What engines are loaded with: the model store, the device, and how they are guarded.

    Programs that the preset declares become engines. Raises ConfigError.
    """
    from podtool import engines
    from podtool.config import load_preset
    from podtool.engines.protocols import EngineContext, WorkerParams
    from podtool.store import ModelStore

    if preset:
        chosen = load_preset(preset)
        engines.declare(chosen.engines)
        device = device or chosen.device
    flags = {"fallback": fallback or None, "max_memory_gb": max_memory}
    worker = resolve_params(WorkerParams, flags, preset, settings)
    made = EngineContext(store=ModelStore(), device=device or "cpu", worker=worker)
    state.incidents.append(made.incidents)
    return made


def tell_incidents() -> None:
    """What went wrong with engines in this run and did not end it, as a table on stderr."""
    from itertools import groupby

    told = [i for incidents in state.incidents for i in incidents]
    state.incidents.clear()
    if not told:
        return
    told.sort(key=lambda i: (i.stage, i.engine, i.instead))
    rows = []
    for (stage, engine, instead), group in groupby(
        told, key=lambda i: (i.stage, i.engine, i.instead)
    ):
        found = list(group)
        what = "started again" if instead == engine else f"{instead} stepped in"
        rows.append([stage, engine, what, str(len(found)), found[0].reason])
    columns = ["stage", "engine", "what was done", "times", "why, the first time"]
    table("Engines that failed", columns, rows, to_stdout=False, justify="left")


def resolve_params(
    params_type: type[Any],
    flags: dict[str, Any],
    preset: str | None,
    settings: list[str] | None = None,
) -> Any:
    """The parameters of a stage: flags over --set over environment over preset over defaults."""
    from podtool.config import resolve

    return resolve(params_type, flags=flags, preset=preset, settings=settings or []).params


# ---------------------------------------------------------------- output


def text_stdout() -> TextIO:
    return sys.stdout


def write_out(rows: Iterable[Row], output: Path | None, force: bool = False) -> None:
    """Rows to stdout, flushed one by one, or to a file, whole or not at all."""
    from podtool.rowio import emit, write_rows

    if output is None or str(output) == "-":
        emit(rows, text_stdout())
    else:
        write_rows(rows, output, force)


def write_audio_out(audio: Audio | Iterable[Audio], output: Path, force: bool = False) -> None:
    """Audio to a WAV or FLAC file, or as a WAV to stdout where that is not a terminal."""
    from podtool.audio import Audio as AudioType
    from podtool.audio import to_wav_bytes, write_audio
    from podtool.errors import UsageError

    if str(output) != "-":
        refuse_existing(output, force)
        write_audio(output, audio)
        return
    if sys.stdout.isatty():
        raise UsageError("audio is not written to a terminal", "Redirect it: > out.wav")
    import numpy as np

    if not isinstance(audio, AudioType):
        parts = list(audio)
        audio = AudioType(np.concatenate([p.samples for p in parts], 1), parts[0].sample_rate)
    sys.stdout.buffer.write(to_wav_bytes(audio))
    sys.stdout.buffer.flush()


def refuse_existing(output: Path, force: bool) -> None:
    """Raises OutputError where the output is there already and --force was not given."""
    from podtool.errors import OutputError

    if output.exists() and not force:
        raise OutputError(f"{output} exists", "Give --force to overwrite it.")


def timing_rows(timings: Timings, stage: str) -> list[Row]:
    """The parts of a command as metric rows."""
    from podtool.artifacts import Metric

    return [Metric(f"time_{k}", round(v, 4), "s", stage) for k, v in timings.seconds.items()]


def table(
    title: str,
    columns: list[str],
    rows: Iterable[Iterable[str]],
    to_stdout: bool,
    justify: Literal["left", "right"] = "right",
) -> None:
    """A Rich table on stdout (report commands) or stderr (beside data)."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if state.quiet and not to_stdout:
        return
    view = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        view.add_column(column, overflow="fold", justify="left" if i == 0 else justify)
    for row in rows:
        view.add_row(*(escape(cell) for cell in row))
    stream = sys.stdout if to_stdout else sys.stderr
    width = None if stream.isatty() else 120
    Console(file=stream, width=width).print(view)


def json_rows(records: Iterable[dict[str, Any]]) -> None:
    """Report rows as JSON lines on stdout."""
    import json

    for record in records:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


Command = Callable[..., None]
