"""Reconstruction on files: render, master, write in any container, measure what was written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podtool import __version__
from podtool.artifacts import (
    Metric,
    Opaque,
    Placement,
    Provenance,
    Recording,
    Row,
    Stem,
    Take,
    Voice,
)
from podtool.audio import Audio, AudioSource, open_audio, sha256_of
from podtool.container import EXACT, Extras, write_media, write_sidecar
from podtool.errors import InputError
from podtool.loudness import Loudness, Mastering, master, master_target, measure
from podtool.progress import OnProgress, Timings, ignore
from podtool.rowio import encode, of_kind
from podtool.stages.reconstruct import (
    NullMeter,
    NullTest,
    ReconstructParams,
    changed_spans,
    null_test,
    place,
    placements,
    render,
)

MARK = "Contains synthetic speech, made with podtool"


@dataclass(frozen=True, slots=True)
class Rendering:
    """What was written: where takes went, how loud it is, and how untouched the rest."""

    placements: list[Placement]
    null: NullTest
    loudness: Loudness
    mastering: Mastering | None

    def metrics(self) -> list[Metric]:
        """The numbers as rows."""
        gains = [Metric("master_gain", self.mastering.gain_db, "dB")] if self.mastering else []
        return [
            Metric("null_test_outside_max", self.null.outside_max, "full scale"),
            Metric("integrated_loudness", self.loudness.integrated_lufs, "LUFS"),
            Metric("true_peak", self.loudness.true_peak_dbtp, "dBTP"),
            *gains,
        ]


def speech_stem(rows: Iterable[Row], recording: Recording) -> Stem | None:
    """The `speech` stem of a recording among rows, whole recordings only."""
    for stem in of_kind(rows, Stem):
        if stem.name == "speech" and stem.recording == recording.id and stem.start == 0:
            return stem
    return None


def open_take(take: Take) -> AudioSource:
    """The audio of a take. Raises InputError where the file has changed since."""
    audio = open_audio(take.path)
    if audio.frames != take.frames or audio.sample_rate != take.sample_rate:
        found = f"{audio.frames} frames at {audio.sample_rate} Hz"
        audio.close()
        raise InputError(
            f"{take.path} has {found}, its row says {take.frames} at {take.sample_rate} Hz",
            "Synthesize the take again.",
        )
    return audio


def render_file(
    original: AudioSource,
    takes: Sequence[Take],
    output: Path,
    params: ReconstructParams | None = None,
    speech: AudioSource | None = None,
    extras: Extras | None = None,
    mark: str | None = MARK,
    subtype: str = "FLOAT",
    timings: Timings | None = None,
    on_progress: OnProgress = ignore,
) -> Rendering:
    """Write the episode with its takes to `output` and measure it there.

    The null test is that of the written samples where the format is exact and there is no master,
    else of the samples before master and encoding. Raises InputError, ConfigError, OutputError.
    """
    params = params or ReconstructParams()
    timings = timings if timings is not None else Timings()
    master_target(params.master)
    rate, channels = original.sample_rate, original.channels
    with timings.part("levels"):
        slots = place(takes, original, open_take, speech, params)
    spans = changed_spans(slots, rate)

    def stream(observe: OnProgress = ignore) -> Iterable[Audio]:
        return render(slots, original, open_take, speech, params, observe)

    with timings.part("master"):
        blocks, plan = master(stream, rate, channels, params.master)
    if plan is None:
        blocks = stream(on_progress)
    with timings.part("write"):
        write_media(output, blocks, rate, channels, extras, mark, subtype)
    with timings.part("measure"), open_audio(output) as written:
        if plan is None and output.suffix.lower() in EXACT:
            null = null_test(original, written, spans)
        else:
            meter, at = NullMeter(rate, channels, spans), 0
            for block in stream():
                meter.push(at, original.read(at, at + block.frames).samples, block.samples)
                at += block.frames
            null = meter.finish(at == original.frames)
        loudness = measure(written)
    return Rendering(placements(slots, rate, params), null, loudness, plan)


def write_provenance(output: Path, rows: Sequence[Row], takes: Sequence[Take]) -> Path:
    """`OUTPUT.provenance.json`: what is synthetic in the file, whose voice, with whose consent."""
    voices = of_kind(rows, Voice)
    record: dict[str, Any] = {
        "synthetic": True,
        "note": MARK,
        "podtool": __version__,
        "file": output.name,
        "sha256": sha256_of(output),
        "recordings": [{"id": r.id, "sha256": r.sha256} for r in of_kind(rows, Recording)],
        "voices": [{"id": v.id, "name": v.name, "consent": _fields(v)["consent"]} for v in voices],
        "replaced": [
            {
                "start": round(t.start, 6),
                "end": round(t.end, 6),
                "speaker": t.speaker,
                "voice": t.voice,
                "method": t.method,
            }
            for t in takes
        ],
        "stages": [_fields(p) for p in of_kind(rows, Provenance)],
    }
    return write_sidecar(output, record)


def _fields(row: Row) -> dict[str, Any]:
    if isinstance(row, Opaque):
        return row.fields
    fields: dict[str, Any] = json.loads(encode(row))
    return fields
