"""`podtool synthesize`: takes in another voice, converted or spoken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import shared
from .shared import (
    ConsentText,
    Device,
    FallbackNames,
    Force,
    FromStem,
    MaxMemory,
    Out,
    OutDir,
    Preset,
    Seed,
    Settings,
    TimingsFlag,
)

if TYPE_CHECKING:
    from podtool.artifacts import Row, Take, Voice
    from podtool.engines.protocols import EngineContext
    from podtool.stages.speak import SpeakParams

RowsIn = Annotated[
    str | None,
    typer.Argument(metavar="[ROWS]", help="JSONL with turns or utterances; '-' is stdin."),
]
SpeakerLabel = Annotated[
    str | None, typer.Option("--speaker", help="Whose turns: label, name, or a clip of them.")
]
VoiceFile = Annotated[
    str | None, typer.Option("--voice", help="Voice profile, or a reference clip with --consent.")
]
Method = Annotated[str, typer.Option("--method", help="convert the turns, or speak the text.")]
Text = Annotated[str | None, typer.Option("--text", help="Speak this text; no rows needed.")]
Overlap = Annotated[
    str, typer.Option("--overlap", help="Where others talk too: keep the original, or convert.")
]


def synthesize(
    rows: RowsIn = None,
    speaker: SpeakerLabel = None,
    voice: VoiceFile = None,
    method: Method = "convert",
    text: Text = None,
    consent: ConsentText = None,
    overlap: Overlap = "keep",
    allow_draft: Annotated[
        bool, typer.Option("--allow-draft", help="Speak utterances that were heard with doubt.")
    ] = False,
    source: FromStem = "speech",
    out_dir: OutDir = None,
    output: Out = None,
    seed: Seed = 0,
    force: Force = False,
    preset: Preset = None,
    settings: Settings = None,
    device: Device = None,
    fallback: FallbackNames = None,
    max_memory: MaxMemory = None,
    timings: TimingsFlag = False,
) -> None:
    """Make takes: every turn of a speaker converted, or every utterance spoken into its slot.

    Writes WAVs into --out-dir and `take` rows to stdout. --text speaks a text into -o FILE.
    """
    from podtool.errors import UsageError
    from podtool.stages.speak import SpeakParams

    if method not in ("convert", "speak"):
        raise UsageError(f"--method is convert or speak, not {method!r}")
    context = shared.context(device, preset, settings, fallback, max_memory)
    if text is not None:
        params = shared.resolve_params(SpeakParams, {}, preset, settings)
        _say(text, voice, consent, context, output, seed, force, params)
        return
    if rows is None or speaker is None or voice is None or out_dir is None:
        raise UsageError(
            "takes need rows, --speaker, --voice and --out-dir",
            "Or speak a text: --text '...' -o FILE.wav",
        )
    flags = {"allow_draft": True} if allow_draft else {}
    _takes(
        rows, speaker, voice, method, consent, overlap, flags, source, out_dir, output, seed,
        force, preset, settings, context, timings,
    )  # fmt: skip


def _takes(
    rows: str,
    speaker: str,
    voice: str,
    method: str,
    consent: str | None,
    overlap: str,
    flags: dict[str, bool],
    source: str,
    out_dir: Path,
    output: Path | None,
    seed: int,
    force: bool,
    preset: str | None,
    settings: list[str] | None,
    context: EngineContext,
    timings: bool,
) -> None:
    from podtool.artifacts import Recording, Stem, Take
    from podtool.errors import InputError, PartialFailure, UsageError
    from podtool.pipeline import convert_turns
    from podtool.progress import Timings
    from podtool.rowio import of_kind
    from podtool.rundir.takepool import TakePool
    from podtool.speaker_choice import find_speaker
    from podtool.spoken_takes import refused, speak_takes
    from podtool.stages.convert import ConvertParams
    from podtool.stages.speak import SpeakParams

    if overlap not in ("keep", "convert"):
        raise UsageError(f"--overlap is keep or convert, not {overlap!r}")
    if output is not None:
        shared.refuse_existing(output, force)
    given = shared.read_input(rows, None if source == "mixture" else source)
    label = find_speaker(given.rows, speaker, context)
    profile = _voice(voice, consent, context, out_dir)
    if not force and any(out_dir.glob("k*.wav")):
        raise UsageError(f"{out_dir} holds takes already", "Give --force, or another folder.")
    out_dir.mkdir(parents=True, exist_ok=True)
    parts, pool = Timings(), TakePool(out_dir / "pool")
    left_out: list[str] = []
    with shared.progress() as observe:
        if method == "convert":
            params = shared.resolve_params(ConvertParams, {}, preset, settings)
            heard = next((s.sha256 for s in of_kind(given.rows, Stem) if s.name == source), None)
            made = convert_turns(
                given.audio, given.recording, given.rows, {label: profile}, context, params,
                out_dir, pool, parts, observe, overlap, seed, heard,
            )  # fmt: skip
        else:
            params = shared.resolve_params(SpeakParams, flags, preset, settings)
            if not any(getattr(r, "speaker", None) == label for r in _utterances(given.rows)):
                raise InputError(
                    f"{rows} holds no utterances of {label}: there is nothing to speak",
                    "podtool transcribe writes them down.",
                )
            left_out = [u.id for u in refused(given.rows, [label], params)]
            made = speak_takes(
                given.audio, given.recording, given.rows, {label: profile}, context, params,
                out_dir, pool, parts, observe, seed,
            )  # fmt: skip
    pool.prune(())
    pool.folder.rmdir() if pool.folder.is_dir() else None
    kept = [r for r in given.rows if isinstance(r, (Recording, Stem))]
    takes = of_kind(made, Take)
    extra = shared.timing_rows(parts, "synthesize") if timings else []
    shared.write_out([*kept, profile, *made, *extra], output, force)
    _tell(takes, f"{label} as {profile.name}")
    misfits = [t.id for t in takes if t.fits is False]
    if left_out:
        raise PartialFailure(
            f"{len(left_out)} utterances were heard with doubt and are not spoken: "
            + ", ".join(left_out),
            "Correct their text, or give --allow-draft.",
        )
    if misfits:
        raise PartialFailure(
            f"{len(misfits)} takes are longer than their slots: {', '.join(misfits)}",
            "They are kept whole (fits: false). Shorten their text.",
        )


def _utterances(rows: list[Row]) -> list[Row]:
    from podtool.artifacts import Utterance

    return [r for r in rows if isinstance(r, Utterance)]


def _voice(voice: str, consent: str | None, context: EngineContext, folder: Path) -> Voice:
    """A profile as it is, or a reference clip made into one in the folder of the takes."""
    from podtool.artifacts import Voice
    from podtool.audio import open_audio
    from podtool.errors import UsageError
    from podtool.inputs import recording_of
    from podtool.pipeline import clone_voice
    from podtool.replace.steps import is_rows, voice_in
    from podtool.rowio import of_kind
    from podtool.stages.clone import CloneParams

    if is_rows(voice):
        return voice_in(voice)
    if not (consent or "").strip():
        raise UsageError(
            "a reference clip needs the consent of the person heard in it",
            '--consent "who agreed, to what, when"',
        )
    path = Path(voice)
    with open_audio(path) as audio:
        rows = clone_voice(
            audio, recording_of(path, audio), context, CloneParams(), path.stem, consent, folder
        )
    return of_kind(rows, Voice)[0]


def _say(
    text: str,
    voice: str | None,
    consent: str | None,
    context: EngineContext,
    output: Path | None,
    seed: int,
    force: bool,
    params: SpeakParams,
) -> None:
    import tempfile

    from podtool.errors import UsageError
    from podtool.spoken_takes import say

    if output is None:
        raise UsageError("where to?", "Give -o FILE.wav ('-' is stdout).")
    if not text.strip():
        raise UsageError("there is no text to speak")
    with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
        profile = _voice(voice, consent, context, Path(folder)) if voice else None
        shared.write_audio_out(say(text, profile, context, seed, params), output, force)


def _tell(takes: list[Take], title: str) -> None:
    """One line per take: where it goes, how alike, how far its words moved, its pace."""

    def number(take: Take, key: str, pattern: str) -> str:
        value = (take.checks or {}).get(key)
        return "" if value is None else pattern.format(value)

    shared.table(
        f"{title}: {len(takes)} takes",
        ["take", "slot", "similarity", "first word ms", "last word ms", "tempo", "fits"],
        (
            (
                t.id,
                f"{t.start:.2f} to {t.end:.2f}",
                number(t, "similarity", "{:.2f}"),
                number(t, "first_word_drift_ms", "{:+.0f}"),
                number(t, "last_word_drift_ms", "{:+.0f}"),
                "" if t.tempo is None else f"{t.tempo:.2f}",
                "no" if t.fits is False else "yes",
            )
            for t in takes
        ),
        to_stdout=False,
    )
