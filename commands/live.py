"""`podtool live`: who says what, while they say it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared
from .shared import EngineName, Force, Preset, Settings

if TYPE_CHECKING:
    from podtool.artifacts import Provenance
    from podtool.live.intake import Intake
    from podtool.live.pipeline import LiveParams, Pipeline
    from podtool.live.session import Session, Sink
    from podtool.live.status import Source

Where = Annotated[
    str | None,
    typer.Argument(metavar="[-]", help="'-': WAV or raw PCM on stdin. Without: the microphone."),
]


def live(
    input: Where = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Microphone: a number, a name, or part of one.")
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="Show the microphones and stop.")
    ] = False,
    simulate: Annotated[
        Path | None, typer.Option("--simulate", help="A file, at the pace of real time.")
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", min=0.01, help="Of --simulate: 2 is twice the pace.")
    ] = 1.0,
    bench: Annotated[
        Path | None,
        typer.Option(
            "--bench", help="A file as fast as it goes, then at its pace: where time goes."
        ),
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, help="Sample rate: of raw PCM, or to record at.")
    ] = None,
    pcm: Annotated[
        str | None, typer.Option("--format", help="Of raw PCM on stdin: s16le or f32le.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--channels", min=1, help="Channels: of raw PCM, or to record.")
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", help="mix, a number from 1, or apart: a person on each.")
    ] = "mix",
    language: Annotated[
        str | None, typer.Option("--language", help="Language that is spoken, such as en.")
    ] = None,
    engine: EngineName = None,
    partials: Annotated[
        bool | None, typer.Option("--partials/--no-partials", help="Rows of what is being said.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Folder for the recording, a WAV per speaker, JSONL and SRT."),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Rows on stdout, also where that is a terminal.")
    ] = False,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
) -> None:
    """Transcribe who talks into a microphone, each person on a stream of their own.

    Rows go to stdout as they happen: partial, utterance, turn, speaker, correction and metric. On
    a terminal there is a display instead; q ends it, ? tells the keys. `podtool export` and
    `podtool evaluate` read what was saved, corrections applied.
    """
    import sys

    from podtool.live.pipeline import LiveParams

    if list_devices:
        _show_devices()
        return
    params = shared.resolve_params(
        LiveParams, {"language": language, "partials": partials}, preset, settings
    )
    _check_source(input, device, simulate, bench)
    if save is not None:
        _check_folder(save, force)
    if bench is not None:
        _bench(bench, channel, _Maker(params, engine or "auto", preset, settings))
        return
    # A pipe is waited for, so engines are loaded meanwhile; elsewhere mistakes are told at once.
    source = _source(input, device, simulate, speed, rate, count, pcm) if input is None else None
    intake = None if source is None else _intake(source, channel)
    make = _Maker(params, engine or "auto", preset, settings)
    source = source or _source(input, device, simulate, speed, rate, count, pcm)
    intake = intake or _intake(source, channel)
    shown = sys.stdout.isatty() and not jsonl
    _run(source, intake, make(intake), make.made_by(simulate), save, force, shown)


def _intake(source: Source, channel: str) -> Intake:
    from podtool.live.intake import Intake

    return Intake(source.sample_rate, source.channels, channel)


def _check_source(
    input: str | None, device: str | None, simulate: Path | None, bench: Path | None
) -> None:
    """What can be told before anything is opened."""
    from podtool.audio import open_audio
    from podtool.errors import UsageError

    if input not in (None, "-"):
        raise UsageError(
            f"live listens to a microphone or to '-', not to {input}",
            f"podtool live --simulate {input} plays a file to it, podtool transcribe reads one.",
        )
    if sum(x is not None for x in (input, device, simulate, bench)) > 1:
        raise UsageError("there is one source: stdin, --device, --simulate or --bench")
    if bench is not None:
        open_audio(bench).close()


def _source(
    input: str | None,
    device: str | None,
    simulate: Path | None,
    speed: float,
    rate: int | None,
    count: int | None,
    pcm: str | None,
) -> Source:
    from podtool.live.sources import Microphone, Pipe, Simulated

    if simulate is not None:
        return Simulated(simulate, speed)
    if input == "-":
        return Pipe(shared.binary_stdin(), rate, count, pcm)
    return Microphone(device, rate, count)


class _Maker:
    """Makes the pipelines of an intake; the engines are loaded once."""

    def __init__(
        self, params: LiveParams, engine: str, preset: str | None, settings: list[str] | None
    ) -> None:
        from podtool import speakers
        from podtool.live.loading import load
        from podtool.live.scene import SceneParams
        from podtool.live.tracker import TrackerParams
        from podtool.live.voice import VoiceParams

        kinds = {"scene": SceneParams, "tracker": TrackerParams, "voice": VoiceParams}
        self._others = {
            name: shared.resolve_params(kind, {}, preset, settings) for name, kind in kinds.items()
        }
        self._params, self._engine = params, engine
        self._engines, missing = load(shared.context(), params, engine)
        for line in missing:
            shared.warn(line)
        self._enrolled = speakers.embeddings()

    def __call__(self, intake: Intake) -> list[Pipeline]:
        from podtool.live.pipeline import Pipeline
        from podtool.live.solo import solo

        loaded, params = self._engines, self._params
        scene, tracker, voice = self._others.values()
        if intake.rows > 1:
            return [solo(loaded, params, voice, k) for k in range(intake.rows)]
        return [Pipeline(loaded, params, scene, tracker, voice, self._enrolled)]

    def made_by(self, file: Path | None) -> Provenance:
        """The row at the head; `file`: what is listened to, where it is one."""
        from podtool.audio import sha256_of
        from podtool.live.loading import made_by

        return made_by(
            shared.context(),
            self._engines,
            self._params,
            self._engine,
            self._others,
            self._enrolled,
            None if file is None else sha256_of(file),
        )


def _run(
    source: Source,
    intake: Intake,
    pipelines: list[Pipeline],
    made_by: Provenance,
    save: Path | None,
    force: bool,
    shown: bool,
) -> None:
    import contextlib

    from podtool.errors import OutputError
    from podtool.live.recorder import Recorder
    from podtool.live.session import Session

    recorder = None
    with contextlib.ExitStack() as stack:
        if save is not None:
            recorder = stack.enter_context(
                Recorder(save, source.sample_rate, source.channels, force)
            )
        sinks: list[Sink] = []
        saved = str(save) if save else None
        session = Session(source, pipelines, intake, sinks, recorder, saved, [made_by])
        interrupted = stack.enter_context(_signals(session))
        sinks.append(stack.enter_context(_display(session) if shown else _rows(session, save)))
        session.sinks = sinks
        outcome = session.run()
    if shown:
        for line in outcome.warnings:
            shared.warn(line)
    shared.note(f"{outcome.heard_s:.0f} s heard, {outcome.lost_s:.1f} s lost")
    if recorder is not None:
        if recorder.broken:
            raise OutputError(f"{save} is not complete: {recorder.broken}")
        shared.note(f"saved in {save}")
    if interrupted:
        raise typer.Exit(interrupted[0])


def _display(session: Session) -> AbstractContextManager[Sink]:
    from rich.console import Console

    from podtool.live.display import Display, Mark, Pause, Quit, Rename

    def obey(command: object) -> None:
        if isinstance(command, Pause):
            session.pause()
        elif isinstance(command, Rename):
            session.rename(command.speaker, command.name)
        elif isinstance(command, Mark):
            session.mark()
        elif isinstance(command, Quit):
            session.stop()

    return Display(Console(), obey)


def _rows(session: Session, save: Path | None) -> AbstractContextManager[Sink]:
    """Rows on stdout; once nobody reads them, only what is saved is worth listening on."""
    from podtool.live.emitter import Emitter

    def stop() -> None:
        session.stop(hurry=save is None)

    return Emitter(shared.text_stdout(), stop, lambda: session.hurried, shared.warn)


def _signals(session: Session) -> AbstractContextManager[list[int]]:
    """Ctrl-C and SIGTERM end the session: what came is still heard; a second time, at once."""
    import contextlib
    import signal
    from collections.abc import Iterator

    codes: list[int] = []

    def end(number: int, _: object) -> None:
        again = bool(codes)
        codes[:] = [130 if number == signal.SIGINT else 143]
        session.stop(hurry=again)

    @contextlib.contextmanager
    def handled() -> Iterator[list[int]]:
        before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield codes
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    return handled()


def _check_folder(save: Path, force: bool) -> None:
    from podtool.errors import OutputError

    if save.exists() and not save.is_dir():
        raise OutputError(f"{save} is not a folder")
    if save.is_dir() and any(save.iterdir()) and not force:
        raise OutputError(f"{save} is not empty", "Give another folder, or --force.")


def _show_devices() -> None:
    from podtool.live.sources import list_devices

    rows = [
        (
            str(d.index),
            d.name,
            str(d.channels),
            f"{d.sample_rate:.0f}",
            "default" if d.default else "",
        )
        for d in list_devices()
    ]
    if not rows:
        shared.warn("there is no microphone")
        return
    shared.table("Microphones", ["", "name", "channels", "rate", ""], rows, to_stdout=True)


def _bench(path: Path, channel: str, make: _Maker) -> None:
    from podtool.live.bench import bench
    from podtool.rowio import emit

    rows, parts = bench(path, channel, make)
    emit(rows, shared.text_stdout())
    shared.table("Where the time goes", ["", *parts[0]], parts[1:], to_stdout=False)
