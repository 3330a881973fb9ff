"""Recordings to train on: manifests of files in, decoded 16 kHz clips in memory out.

A manifest is JSON Lines, one object per file:

    path       relative to the manifest's folder, and inside it
    kind       "read", "music", "noise", ... (DataParams says which are used as what)
    speaker    who speaks; speech without one counts as a speaker of its own
    licence    as it shall stand in the model card
    corpus     optional: the collection, for the credits
    talkers    optional: the speakers of a mixture, as a list or separated by commas

    duration_s optional: in seconds
    transcript optional: what is said, for trainings that need it

Other keys are ignored. What appears in several manifests (the same path but for the suffix, the
same speaker and duration) is used once, and what is kept out in one is kept out in all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podtool.errors import InputError, UsageError

RATE = 16000
SPLITS = ("train", "validation")
_FRAME = 320  # 20 ms
_FORMAT = 1  # of the cache
_SILENT_DB = -35.0  # against the loud frames of an utterance


@dataclass(frozen=True, slots=True)
class DataParams:
    """The recipe's [data] table: what is kept out, what validates, what counts as what."""

    exclude_speakers: tuple[str, ...] = ()
    exclude_files: tuple[str, ...] = ()  # as in their manifest
    exclude_licences: tuple[str, ...] = ()  # parts of the licence in any case, e.g. "GPL"
    validation_speakers: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()  # music and noise
    speech_kinds: tuple[str, ...] = ("read",)
    music_kinds: tuple[str, ...] = ("music",)
    noise_kinds: tuple[str, ...] = ("noise",)


@dataclass(frozen=True, slots=True)
class Clip:
    """One decoded file: int16 (channels, n) at 16 kHz, scaled to a common peak.

    Speech is mono and begins and ends with speech; `rms` is the level (of int16) of its active
    parts, or of the whole for music and noise.
    """

    path: str
    speaker: str
    samples: NDArray[np.int16]
    rms: float
    text: str = ""

    @property
    def frames(self) -> int:
        return int(self.samples.shape[1])


@dataclass(frozen=True, slots=True)
class Corpus:
    """One split: clips by speaker, music, noise; credits are (corpus, licence, files, seconds)."""

    speakers: dict[str, list[Clip]]
    music: list[Clip]
    noise: list[Clip]
    credits: list[tuple[str, str, int, float]] = field(default_factory=list)
    unmatched: tuple[str, ...] = ()  # names in DataParams that no row bears: a typing mistake?

    @property
    def seconds(self) -> float:
        """Of speech."""
        return sum(c.frames for clips in self.speakers.values() for c in clips) / RATE


@dataclass(frozen=True, slots=True)
class _Row:
    folder: Path
    path: str
    role: str  # speech, music, noise
    voices: tuple[str, ...]
    licence: str
    corpus: str
    duration: float
    text: str = ""

    @property
    def stem(self) -> str:
        return _stem(self.path)


def read_corpus(
    manifests: Sequence[Path], params: DataParams, split: str, cache: Path | None = None
) -> Corpus:
    """The split "train" or "validation" of what the manifests list.

    `cache` names a .npy file that holds the decoded audio of all rows, so that the next start
    takes no time and processes share the memory; it is written anew when the rows change.
    Raises InputError: a bad manifest, a missing or unreadable file, a path that leads out of the
    manifest's folder, no speech in the split.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'", f"One of: {', '.join(SPLITS)}.")
    rows = _unique(row for manifest in manifests for row in _rows(manifest, params))
    clips = _decode(rows, cache)
    kept_out, validates = _kept_out(params), _validating(params)
    speakers: dict[str, list[Clip]] = {}
    beds: dict[str, list[Clip]] = {"music": [], "noise": []}
    credit: dict[tuple[str, str], tuple[int, float]] = {}
    for row, clip in zip(rows, clips, strict=True):
        if kept_out(row) or validates(row) != (split == "validation") or clip.frames < _FRAME:
            continue
        if row.role == "speech":
            speakers.setdefault(clip.speaker, []).append(clip)
        else:
            beds[row.role].append(clip)
        files, seconds = credit.get((row.corpus, row.licence), (0, 0.0))
        credit[row.corpus, row.licence] = (files + 1, seconds + clip.frames / RATE)
    if not speakers:
        raise InputError(
            f"no speech for the split '{split}' in {', '.join(map(str, manifests))}",
            "Check validation_speakers, exclude_speakers and speech_kinds of the recipe.",
        )
    credits = [(*key, *value) for key, value in sorted(credit.items())]
    return Corpus(speakers, beds["music"], beds["noise"], credits, _unmatched(rows, params))


def _rows(manifest: Path, params: DataParams) -> Iterator[_Row]:
    roles = {kind: "noise" for kind in params.noise_kinds}
    roles |= {kind: "music" for kind in params.music_kinds}
    roles |= {kind: "speech" for kind in params.speech_kinds}
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the manifest {manifest}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            path, kind = str(entry["path"]), str(entry["kind"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{manifest}:{number} is not a row of a training manifest",
                'Each line is a JSON object with at least "path" and "kind".',
            ) from None
        normal = os.path.normpath(path)
        if os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
            raise InputError(
                f"{manifest}:{number}: the path {path} leads out of the manifest's folder",
                "Put the manifest above all files that it lists.",
            )
        if kind in roles:
            yield _row(manifest.parent, path, roles[kind], entry)


def _row(folder: Path, path: str, role: str, entry: dict[str, Any]) -> _Row:
    voices = _names(entry.get("speaker")) + _names(entry.get("talkers"))
    if role == "speech" and not voices:
        voices = (_stem(path),)
    licence = str(entry.get("licence") or entry.get("license") or "unknown")
    corpus = str(entry.get("corpus") or entry.get("source_repo") or folder.name)
    duration, text = float(entry.get("duration_s") or 0), str(entry.get("transcript") or "")
    return _Row(folder, path, role, voices, licence, corpus, duration, text)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(v.strip() for v in value.split(",") if v.strip())
    return tuple(str(v) for v in value) if isinstance(value, list) else ()


def _unique(rows: Iterable[_Row]) -> list[_Row]:
    seen: dict[tuple[object, ...], _Row] = {}
    for row in rows:
        seen.setdefault((row.stem, row.voices, round(row.duration)), row)
    return list(seen.values())


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _stems(paths: Iterable[str]) -> set[str]:
    return {_stem(path) for path in paths}


def _kept_out(params: DataParams) -> Callable[[_Row], bool]:
    stems = _stems(params.exclude_files)
    licences = [part.lower() for part in params.exclude_licences]

    def test(row: _Row) -> bool:
        return (
            row.stem in stems
            or any(voice in params.exclude_speakers for voice in row.voices)
            or any(part in row.licence.lower() for part in licences)
            or (row.role == "speech" and len(row.voices) > 1)
        )

    return test


def _validating(params: DataParams) -> Callable[[_Row], bool]:
    stems = _stems(params.validation_files)
    return lambda row: (
        row.stem in stems or any(voice in params.validation_speakers for voice in row.voices)
    )


def _unmatched(rows: list[_Row], params: DataParams) -> tuple[str, ...]:
    voices = {voice for row in rows for voice in row.voices}
    files = {row.stem for row in rows}
    names = [n for n in params.exclude_speakers + params.validation_speakers if n not in voices]
    for path in params.exclude_files + params.validation_files:
        if not _stems([path]) & files:
            names.append(path)
    return tuple(names)


def _decode(rows: list[_Row], cache: Path | None) -> list[Clip]:
    key = _key(rows)
    index = cache.with_suffix(".json") if cache else None
    found = _cached(cache, index, key) if cache and index else None
    if found is None:
        decoded = [_load(row) for row in rows]
        table = [[samples.shape[0], samples.shape[1], rms] for samples, rms in decoded]
        flat = np.concatenate([s.ravel() for s, _ in decoded] or [np.zeros(0, np.int16)])
        if cache and index:
            _write(cache, index, key, flat, table)
    else:
        flat, table = found
    clips, at = [], 0
    for row, (channels, frames, rms) in zip(rows, table, strict=True):
        size = channels * frames
        samples = flat[at : at + size].reshape(channels, frames)
        clips.append(Clip(row.path, row.voices[0] if row.voices else "", samples, rms, row.text))
        at += size
    return clips


def _key(rows: list[_Row]) -> str:
    """Of names and sizes, so that a cache travels with the data to another machine."""
    digest = hashlib.sha256(f"{_FORMAT}".encode())
    for row in rows:
        try:
            size = (row.folder / row.path).stat().st_size
        except OSError as error:
            raise InputError(
                f"cannot read {row.folder / row.path}: {error.strerror}",
                "The manifest lists it: restore the file or remove its row.",
            ) from None
        digest.update(f"{row.path}\0{row.role}\0{size}\n".encode())
    return digest.hexdigest()


def _cached(cache: Path, index: Path, key: str) -> tuple[NDArray[np.int16], list[list[Any]]] | None:
    try:
        entry = json.loads(index.read_text())
        flat = np.asarray(np.load(cache, mmap_mode="r"))
    except (OSError, ValueError):
        return None
    table = entry.get("clips", [])
    whole = sum(channels * frames for channels, frames, _ in table)
    return (flat, table) if entry.get("key") == key and len(flat) == whole else None


def _write(
    cache: Path, index: Path, key: str, flat: NDArray[np.int16], table: list[list[Any]]
) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)  # never an index beside other audio
    partial = cache.with_name(f".{cache.name}.{os.getpid()}.npy")
    np.save(partial, flat)
    partial.replace(cache)
    note = index.with_name(f".{index.name}.{os.getpid()}")
    note.write_text(json.dumps({"key": key, "clips": table}))
    note.replace(index)


def _load(row: _Row) -> tuple[NDArray[np.int16], float]:
    """(channels, n) int16 with a peak of .9, and the level of what is active in it."""
    import soxr

    samples, rate = _read(row.folder / row.path)
    if row.role == "speech":
        samples = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    if row.role == "speech":
        samples, rms = _trim(samples)
    else:
        rms = float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0
    scale = 0.9 * 32767 / max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    return np.ascontiguousarray(np.round(samples.T * scale).astype(np.int16)), rms * scale


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    """(n, channels): by libsndfile, which opens small files quickly, otherwise by ffmpeg."""
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        from podtool.audio import open_audio

        with open_audio(path) as source:
            samples, rate = source.read().samples.T, source.sample_rate
    if not np.isfinite(samples).all():
        raise InputError(f"{path} holds NaN or infinite samples")
    return samples, int(rate)


def _trim(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Speech without the silence before and after it, 40 ms left; the level of its loud frames."""
    whole = len(samples) // _FRAME
    power = np.square(samples[: whole * _FRAME]).reshape(whole, -1).mean(axis=1)
    if not whole or power.max() <= 0:
        return samples[:0], 0.0
    active = power > np.percentile(power, 95) * 10 ** (_SILENT_DB / 10)
    first, last = np.flatnonzero(active)[[0, -1]]
    rms = float(np.sqrt(power[active].mean()))
    return samples[max(0, first - 2) * _FRAME : (last + 3) * _FRAME], rms
