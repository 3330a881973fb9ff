"""`podtool replace`: an episode in, the same episode with another voice out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared
from .shared import (
    ConsentText,
    Device,
    FallbackNames,
    Force,
    Json,
    MaxMemory,
    Out,
    Preset,
    Seed,
    Settings,
    TimingsFlag,
)

if TYPE_CHECKING:
    from podtool.engines.protocols import EngineContext
    from podtool.progress import OnProgress
    from podtool.replace.plan import Outcome, Request

Episode = Annotated[
    str, typer.Argument(metavar="EPISODE", help="Audio or video file; '-' is stdin.")
]
SpeakerName = Annotated[
    str | None,
    typer.Option("--speaker", help="Who is replaced: a label, an enrolled name, or a clip."),
]
VoiceFile = Annotated[
    str | None, typer.Option("--voice", help="The new voice: a profile, or audio of one person.")
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="SPEAKER=VOICE", help="Replace several; repeatable."),
]


def replace(
    episode: Episode,
    speaker: SpeakerName = None,
    voice: VoiceFile = None,
    map_: Map = None,
    output: Out = None,
    consent: ConsentText = None,
    turns: Annotated[
        Path | None, typer.Option("--turns", help="A diarization to use instead (rows, RTTM, ...).")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="convert (keeps the timing) or speak (from text).")
    ] = "convert",
    overlap: Annotated[
        str, typer.Option("--overlap", help="Where others talk too: keep, separate or convert.")
    ] = "keep",
    bed: Annotated[
        str, typer.Option("--bed", help="Music and noise: auto, separate or mixture.")
    ] = "auto",
    master: Annotated[
        str | None,
        typer.Option("--master", help="Loudness: none, apple, mono, ebu, spotify or acx."),
    ] = None,
    speakers: Annotated[
        int | None, typer.Option("--speakers", help="Exactly this many people.")
    ] = None,
    min_speakers: Annotated[
        int | None, typer.Option("--min-speakers", help="At least this many.")
    ] = None,
    max_speakers: Annotated[
        int | None, typer.Option("--max-speakers", help="At most this many.")
    ] = None,
    names: Annotated[
        bool, typer.Option("--names/--no-names", help="Name people known by `podtool speakers`.")
    ] = True,
    transcript: Annotated[
        bool, typer.Option("--transcript", help="Write down what is said, too.")
    ] = False,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="wer: read the new speech again.")
    ] = None,
    allow_draft: Annotated[
        bool, typer.Option("--allow-draft", help="Speak text that the recogniser is unsure of.")
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Folder of the run (default: OUTPUT.podtool).")
    ] = None,
    restart_from: Annotated[
        str | None, typer.Option("--restart-from", help="Do this stage and what follows again.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    mark: Annotated[
        bool, typer.Option("--mark/--no-mark", help="Say in the file that it is synthetic.")
    ] = True,
    seed: Seed = 0,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    fallback: FallbackNames = None,
    max_memory: MaxMemory = None,
    json: Json = False,
    timings: TimingsFlag = False,
) -> None:
    """Replace the voice of a speaker; everything else stays as it is.

    Works in a run directory beside the output: what is finished is not done again, and rows edited
    by hand there are used. Without --speaker, lists the speakers and where to hear them (exit 2).
    """
    from . import replacing

    context = shared.context(device, preset, settings, fallback, max_memory)
    flags: dict[str, dict[str, Any]] = {
        "diarize": {
            "speakers": speakers,
            "min_speakers": min_speakers,
            "max_speakers": max_speakers,
        },
        "speak": {"allow_draft": allow_draft or None},
        "reconstruct": {"master": master},
    }
    request = replacing.request_of(
        episode,
        replacing.mapping_of(speaker, voice, map_ or []),
        output,
        flags,
        preset,
        settings or [],
        consent=consent,
        turns=None if turns is None else str(turns.absolute()),
        method=method,
        bed=bed,
        overlap=overlap,
        transcript=transcript,
        wer=replacing.wants_wer(check or []),
        mark=mark,
        names=names,
        seed=seed,
    )
    with replacing.folder_of(request, output, run_dir) as folder:
        if dry_run:
            replacing.show_plan(request, folder, device, json)
            return
        replacing.check_output(request, output, folder, force)
        with shared.progress() as observe:
            outcome = _run(request, folder, context, restart_from, observe)
        replacing.finish(outcome, request, output, json, timings)


def _run(
    request: Request,
    folder: Path,
    context: EngineContext,
    restart: str | None,
    observe: OnProgress,
) -> Outcome:
    from podtool.replace.plan import execute
    from podtool.replace.steps import steps_of

    from . import replacing

    return execute(
        request,
        folder,
        context,
        replacing.enrolled(request),
        steps_of(request, until=None if request.mapping else "diarize"),
        restart,
        observe,
        replacing.handing_over(request),
    )
