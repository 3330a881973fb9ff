"""`podtool reconstruct`: takes back into the episode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared
from .audio_out import copy_to_stdout
from .shared import Force, Out, Preset, Settings, TimingsFlag

if TYPE_CHECKING:
    from podtool.artifacts import Recording, Row
    from podtool.rendering import Rendering

Rows = Annotated[
    str, typer.Argument(metavar="ROWS", help="JSONL with `recording` and `take` rows; '-': stdin.")
]
Master = Annotated[
    str | None,
    typer.Option("--master", help="Loudness: none, apple, mono, ebu, spotify or acx."),
]
Crossfade = Annotated[
    float | None, typer.Option("--crossfade", help="Milliseconds between original and take.")
]
Edl = Annotated[Path | None, typer.Option("--edl", help="Write `placement` rows to this file.")]


def reconstruct(
    rows: Rows,
    output: Out = None,
    master: Master = None,
    crossfade: Crossfade = None,
    stems: Annotated[
        bool, typer.Option("--stems/--no-stems", help="Use the speech stem among the rows.")
    ] = True,
    edl: Edl = None,
    mark: Annotated[
        bool, typer.Option("--mark/--no-mark", help="Say in the file that it is synthetic.")
    ] = True,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    timings: TimingsFlag = False,
) -> None:
    """Put takes into the recording that they belong to: wav, flac, mp3, m4a or mp4.

    Where the rows bring a speech stem, only the speech is exchanged and the background stays.
    Everything outside the replaced parts is untouched; the null test that shows it, loudness and
    true peak come as metric rows.
    """
    import tempfile

    from podtool.artifacts import Take
    from podtool.container import check_suffix
    from podtool.errors import UsageError
    from podtool.progress import Timings
    from podtool.rendering import write_provenance
    from podtool.rowio import of_kind, write_rows
    from podtool.stages.reconstruct import ReconstructParams

    if output is None:
        raise UsageError("where to?", "Give -o FILE ('-' writes a WAV to stdout).")
    to_stdout = str(output) == "-"
    if not to_stdout:
        check_suffix(output)
        shared.refuse_existing(output, force)
    given, recording = _read(rows)
    flags = {"master": master, "crossfade_ms": crossfade}
    params = shared.resolve_params(ReconstructParams, flags, preset, settings)
    parts, takes = Timings(), of_kind(given, Take)
    with tempfile.TemporaryDirectory(prefix="podtool-") as scratch, shared.progress() as observe:
        target = Path(scratch) / "episode.wav" if to_stdout else output
        made = _render(given, recording, target, params, stems, mark, parts, observe)
        if to_stdout:
            copy_to_stdout(target)
    if mark and not to_stdout:
        write_provenance(output, given, takes)
    if edl is not None:
        write_rows([recording, *made.placements], edl, force)
    if not to_stdout:
        told = shared.timing_rows(parts, "reconstruct") if timings else []
        shared.write_out([*made.placements, *made.metrics(), *told], None)
    _tell(recording, made, len(takes))


def _read(name: str) -> tuple[list[Row], Recording]:
    from podtool.artifacts import Recording, Take
    from podtool.errors import InputError
    from podtool.inputs import read_rows_input
    from podtool.rowio import of_kind

    rows = read_rows_input(name, shared.binary_stdin)
    recordings = of_kind(rows, Recording)
    takes = of_kind(rows, Take)
    where = "stdin" if name == "-" else name
    if not takes:
        raise InputError(f"{where} has no `take` rows", "`podtool synthesize` makes them.")
    wanted = {t.recording for t in takes}
    named = [r for r in recordings if r.id in wanted]
    if len(wanted) != 1 or len(named) != 1:
        raise InputError(
            f"the takes of {where} belong to {', '.join(sorted(wanted))}: "
            "there must be one `recording` row, of that name"
        )
    return rows, named[0]


def _render(
    rows: list[Row],
    recording: Recording,
    target: Path,
    params: object,
    stems: bool,
    mark: bool,
    parts: object,
    observe: object,
) -> Rendering:
    from contextlib import ExitStack

    from podtool.artifacts import Take
    from podtool.audio import open_audio
    from podtool.container import extras_of, subtype_for
    from podtool.rendering import MARK, render_file, speech_stem
    from podtool.rowio import of_kind

    with ExitStack() as stack:
        audio = stack.enter_context(open_audio(recording.path))
        stem = speech_stem(rows, recording) if stems else None
        speech = stack.enter_context(open_audio(stem.path)) if stem else None
        lossy = audio.decoded != audio.path
        return render_file(
            audio,
            [t for t in of_kind(rows, Take) if t.recording == recording.id],
            target,
            params,  # type: ignore[arg-type]
            speech,
            extras_of(Path(recording.path)),
            MARK if mark else None,
            subtype_for(target.suffix.lower(), audio.subtype, lossy),
            parts,  # type: ignore[arg-type]
            observe,  # type: ignore[arg-type]
        )


def _tell(recording: Recording, made: Rendering, takes: int) -> None:
    shared.table(
        f"{recording.id}: {takes} takes",
        ["", "value"],
        [
            ("integrated loudness", f"{made.loudness.integrated_lufs:.1f} LUFS"),
            ("true peak", f"{made.loudness.true_peak_dbtp:.1f} dBTP"),
            ("null test outside the slots", f"{made.null.outside_max:g}"),
        ],
        to_stdout=False,
    )
    if not made.null.same_length:
        shared.warn("the result is not as long as the recording")
    if made.null.outside_max > 0:
        shared.warn(
            f"samples outside the slots differ by up to {made.null.outside_max:g} "
            f"(first at {made.null.outside_at_s:.3f} s)"
        )
