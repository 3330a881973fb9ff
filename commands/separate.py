"""`podtool separate`: speech apart from music and noise, and people apart from each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared
from .audio_out import copy_to_stdout
from .shared import (
    Device,
    EngineName,
    FallbackNames,
    Force,
    Input,
    MaxMemory,
    Out,
    OutDir,
    Preset,
    Settings,
    TimingsFlag,
)

if TYPE_CHECKING:
    from podtool.artifacts import Row, Turn
    from podtool.engines.protocols import EngineContext
    from podtool.progress import OnProgress, Timings
    from podtool.segments import Span

OneStem = Annotated[
    str | None, typer.Option("--stem", help="Only this one, to -o: speech or background.")
]

BySpeaker = Annotated[
    bool, typer.Option("--speakers", help="One stem per speaker, speaker-LABEL.wav.")
]
TurnsFile = Annotated[
    Path | None,
    typer.Option("--turns", help="Who speaks when, for --speakers (rows, RTTM, ...)."),
]


def separate(
    input: Input,
    out_dir: OutDir = None,
    stem: OneStem = None,
    speakers: BySpeaker = False,
    turns: TurnsFile = None,
    output: Out = None,
    engine: EngineName = None,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    fallback: FallbackNames = None,
    max_memory: MaxMemory = None,
    timings: TimingsFlag = False,
) -> None:
    """Split audio into the stems `speech` and `background`, which sum to it exactly.

    Both go to --out-dir as float WAV, with `stem` rows on stdout; or one of them with
    --stem NAME -o FILE ('-' for stdout). Rows that bring turns tell where somebody speaks;
    without them a voice detector does.

    --speakers splits the speech further, a stem for each person over the whole recording; where
    nobody talks over them it is the speech as it was. Without turns the recording is diarized.
    """
    import tempfile

    from podtool.artifacts import Metric, Stem
    from podtool.errors import UsageError
    from podtool.pipeline import separate_file
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.stages.separate import STEMS, SeparateParams

    if speakers or turns is not None:
        if out_dir is None or stem is not None or not speakers:
            raise UsageError("stems of speakers go to a folder", "--speakers --out-dir FOLDER")
        context = shared.context(device, preset, settings, fallback, max_memory)
        _by_speaker(input, out_dir, turns, engine, force, preset, settings, context, timings)
        return
    if (out_dir is None) == (stem is None):
        raise UsageError("where to?", "Give --out-dir FOLDER, or --stem NAME with -o FILE.")
    if stem is not None and (stem not in STEMS or output is None):
        raise UsageError(f"--stem is one of {', '.join(STEMS)}, and needs -o FILE (or -o -)")
    targets = [out_dir / f"{s}.wav" for s in STEMS] if out_dir else [output] if output else []
    for target in targets:
        if str(target) != "-":
            shared.refuse_existing(target, force)
    given = shared.read_input(input, None)
    params = shared.resolve_params(SeparateParams, {"engine": engine}, preset, settings)
    shared.warn_of_oddities(given.audio)
    context, parts = shared.context(device, preset, settings, fallback, max_memory), Timings()
    with tempfile.TemporaryDirectory(prefix="podtool-") as scratch, shared.progress() as observe:
        spans = _speech(given, context, parts, observe)
        rows = separate_file(
            given.audio,
            given.recording,
            context,
            params,
            out_dir or Path(scratch),
            parts,
            observe,
            spans,
        )
        if stem is not None and output is not None:
            made = next(s for s in of_kind(rows, Stem) if s.name == stem)
            _deliver(Path(made.path), output)
    if not spans:
        shared.warn("no speech was found: all of it is background")
    if out_dir is not None:
        kept: list[Row] = [r for r in given.rows if not isinstance(r, Stem)]
        told = shared.timing_rows(parts, "separate") if timings else []
        shared.write_out([*kept, *rows, *told], None)
    numbers = {m.name: m.value for m in of_kind(rows, Metric)}
    share = numbers["speech_energy_share"]
    shared.table(
        f"{given.recording.id}: stems",
        ["stem", "share of energy"],
        [("speech", f"{share:.1%}"), ("background", f"{1 - share:.1%}")],
        to_stdout=False,
    )
    shared.note(f"speech + background - mixture: {numbers['stems_sum_error']:g} at most")


def _by_speaker(
    input: str,
    out_dir: Path,
    turns_file: Path | None,
    engine: str | None,
    force: bool,
    preset: str | None,
    settings: list[str] | None,
    context: EngineContext,
    timings: bool,
) -> None:
    """Speech from background first, then speech into its speakers."""
    import tempfile

    from podtool.artifacts import Metric, Stem
    from podtool.audio import open_audio
    from podtool.errors import InputError
    from podtool.pipeline import separate_file, speaker_paths, talkers_file
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.segments import Span, union
    from podtool.stages.separate import SeparateParams
    from podtool.stages.talkers import TalkersParams

    shared.refuse_existing(out_dir / "background.wav", force)
    given = shared.read_input(input, None)
    params = shared.resolve_params(SeparateParams, {"engine": engine}, preset, settings)
    apart = shared.resolve_params(TalkersParams, {}, preset, settings)
    shared.warn_of_oddities(given.audio)
    parts = Timings()
    rows: list[Row] = [r for r in given.rows if not isinstance(r, Stem)]
    with shared.progress() as observe:
        turns, found = _turns(given, turns_file, context, preset, settings, parts, observe)
        rows += found
        if not turns:
            raise InputError("no speech was found: there are no speakers to separate")
        for path in speaker_paths(out_dir, [t.speaker for t in turns]).values():
            shared.refuse_existing(path, force)
        spans = union(Span(t.start, t.end) for t in turns)
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".podtool-", dir=out_dir) as scratch:
            made = separate_file(
                given.audio, given.recording, context, params, Path(scratch), parts, observe, spans
            )  # fmt: skip
            speech = next(s for s in of_kind(made, Stem) if s.name == "speech")
            with open_audio(speech.path) as voices:
                stems = talkers_file(
                    voices, given.recording, turns, context, apart, out_dir, parts, observe,
                    given.audio, speech.sha256,
                )  # fmt: skip
    told = shared.timing_rows(parts, "separate") if timings else []
    shared.write_out([*rows, made[0], *stems, *told], None)
    metrics = of_kind(stems, Metric)
    shared.table(
        f"{given.recording.id}: stems",
        ["stem", "share of energy"],
        [(m.subject or "", f"{m.value:.1%}") for m in metrics if m.name == "energy_share"],
        to_stdout=False,
    )
    error = next(m.value for m in metrics if m.name == "stems_sum_error")
    shared.note(f"all stems - mixture: {error:g} at most")


def _turns(
    given: shared.Source,
    turns_file: Path | None,
    context: EngineContext,
    preset: str | None,
    settings: list[str] | None,
    parts: Timings,
    observe: OnProgress,
) -> tuple[list[Turn], list[Row]]:
    """The turns of --turns, of the rows, or of a diarization; and the rows that are new."""
    from podtool.artifacts import Turn
    from podtool.pipeline import diarize_file
    from podtool.replace.steps import given_turns
    from podtool.rowio import of_kind
    from podtool.stages.diarize import DiarizeParams

    if turns_file is not None:
        found = given_turns(str(turns_file), given.recording)
        return of_kind(found, Turn), found
    turns = [t for t in of_kind(given.rows, Turn) if t.recording == given.recording.id]
    if turns:
        return turns, []
    params = shared.resolve_params(DiarizeParams, {}, preset, settings)
    found = diarize_file(given.audio, given.recording, context, params, parts, observe)
    return of_kind(found, Turn), found


def _speech(
    given: shared.Source, context: EngineContext, parts: Timings, observe: OnProgress
) -> list[Span]:
    """Where somebody speaks: by the turns among the rows, else by the voice detector."""
    from podtool.artifacts import Turn
    from podtool.engines import load
    from podtool.rowio import of_kind
    from podtool.segments import Span, union
    from podtool.stages.separate import find_speech

    turns = [t for t in of_kind(given.rows, Turn) if t.recording == given.recording.id]
    if turns:
        return union(Span(t.start, t.end) for t in turns)
    with parts.part("vad"):
        return find_speech(given.audio, load("vad", "silero", context), observe)


def _deliver(made: Path, output: Path) -> None:
    """Put one stem where it was asked for: a WAV (or FLAC, 24 bit), or stdout."""
    from podtool.audio import blocks, open_audio, write_audio

    if str(output) == "-":
        copy_to_stdout(made)
        return
    with open_audio(made) as audio:
        subtype = "pcm24" if output.suffix.lower() == ".flac" else "float"
        write_audio(output, (block for _, block in blocks(audio)), subtype)
