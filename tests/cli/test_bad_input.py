"""Hostile input: each kind has its exit code, one line on stderr, and nothing on stdout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from podtool.audio import Audio, write_audio

Run = Callable[..., Any]
RATE = 16000


def _noise(seconds: float, channels: int = 1, rate: int = RATE, level: float = 0.001) -> Audio:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, level, (channels, round(seconds * rate))).astype(np.float32)
    return Audio(samples, rate)


def _missing(folder: Path) -> Path:
    return folder / "no such file.wav"


def _empty(folder: Path) -> Path:
    path = folder / "empty.wav"
    path.write_bytes(b"")
    return path


def _truncated(folder: Path) -> Path:
    path = folder / "cut short.wav"
    write_audio(path, _noise(2))
    path.write_bytes(path.read_bytes()[:20000])
    return path


def _truncated_flac(folder: Path) -> Path:
    path = folder / "cut.flac"
    write_audio(path, _noise(4, level=0.1))
    path.write_bytes(path.read_bytes()[:60000])
    return path


def _nan(folder: Path) -> Path:
    path = folder / 'nan\'s "own".wav'
    samples = _noise(2).samples.copy()
    samples[0, 500] = np.nan
    write_audio(path, Audio(samples, RATE), "float")
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("this is not audio\n" * 50)
    return path


def _binary(folder: Path) -> Path:
    path = folder / "random.wav"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def _folder(folder: Path) -> Path:
    path = folder / "a folder"
    path.mkdir()
    return path


def _one_sample(folder: Path) -> Path:
    path = folder / "one.wav"
    soundfile.write(path, np.zeros(1), RATE)
    return path


def _no_samples(folder: Path) -> Path:
    path = folder / "none.wav"
    soundfile.write(path, np.zeros(0), RATE)
    return path


UNREADABLE = [
    _missing,
    _empty,
    _truncated,
    _truncated_flac,
    _nan,
    _text,
    _binary,
    _folder,
    _one_sample,
    _no_samples,
]


def _arguments(command: str, path: Path, folder: Path) -> list[str]:
    more = {
        "separate": ["--out-dir", str(folder / "out")],
        "clone": ["--name", "x", "--consent", "test", "-o", str(folder / "v.jsonl")],
        "replace": ["--speaker", "S1", "--voice", str(path), "--consent", "test"]
        + ["-o", str(folder / "o.wav")],
    }
    return [command, str(path), *more.get(command, [])]


@pytest.mark.models
@pytest.mark.parametrize("make", UNREADABLE, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("command", ["separate", "diarize", "transcribe", "clone", "replace"])
def test_unreadable_audio(run: Run, tmp_path: Path, command: str, make: Any) -> None:
    path = make(tmp_path)
    before = path.read_bytes() if path.is_file() else None
    result = run(*_arguments(command, path, tmp_path))
    assert result.exit_code == 3, result.stderr
    assert result.stdout == ""
    first, *hints = result.stderr.strip().splitlines()
    assert first.startswith("podtool: bad-input: ") and path.name in first
    assert all(line.startswith("  hint: ") for line in hints)
    assert not (tmp_path / "o.wav").exists() and not (tmp_path / "v.jsonl").exists()
    if before is not None:
        assert path.read_bytes() == before


ROW = {"kind": "turn", "v": 1, "id": "t1", "recording": "r", "start": 0.1, "end": 0.5}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"v": 99}, "version 99"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"start": 2.0, "end": 1.0}, "before it starts"),
        ({"start": -1.0}, "before the recording"),
        ({"start": "soon"}, "expected a number"),
        ({"score": None}, "instead of null"),
    ],
)
def test_bad_rows(run: Run, tmp_path: Path, tone: Path, change: Any, says: str) -> None:
    recording = {
        "kind": "recording", "v": 1, "id": "r", "path": str(tone), "sha256": "0" * 64,
        "sample_rate": 44100, "channels": 2, "frames": 88200,
    }  # fmt: skip
    rows = tmp_path / "rows.jsonl"
    turn = {**ROW, "speaker": "S1", **change}
    rows.write_text(json.dumps(recording) + "\n" + json.dumps(turn) + "\n")
    result = run("transcribe", rows)
    assert (result.exit_code, result.stdout) == (3, "")
    assert says in result.stderr and "line 2" in result.stderr


def test_a_path_outside_the_folder(run: Run, tmp_path: Path, tone: Path) -> None:
    recording = {
        "kind": "recording", "v": 1, "id": "r", "path": "../../etc/passwd", "sha256": "0" * 64,
        "sample_rate": 44100, "channels": 2, "frames": 88200,
    }  # fmt: skip
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(recording) + "\n")
    result = run("transcribe", rows)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "outside the folder" in result.stderr


@pytest.mark.models
@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (Audio(np.zeros((1, 3 * RATE), np.float32), RATE), "silen"),
        (_noise(3), "no speech"),
        (_noise(3, channels=8, rate=48000), "8 channels"),
        (_noise(3, rate=8000), "8 kHz"),
        (_noise(3, rate=192000), "no speech"),
        (_noise(3, level=3.0), "clip"),
    ],
    ids=["silence", "no-speech", "eight-channels", "8k", "192k", "clipped"],
)
def test_odd_audio_is_done_with_a_warning(
    run: Run, tmp_path: Path, audio: Audio, says: str
) -> None:
    path = tmp_path / "odd.wav"
    write_audio(path, audio)
    result = run("diarize", path)
    assert result.exit_code == 0, result.stderr
    assert "warning" in result.stderr and says in result.stderr
    kinds = [json.loads(line)["kind"] for line in result.stdout.splitlines()]
    assert "recording" in kinds and "turn" not in kinds


def test_the_input_digest_is_in_the_recording_row(run: Run, tone: Path, own_home: Path) -> None:
    """The spool names audio from stdin by its content, so that its row points at something real."""
    from podtool.inputs import open_input

    with tone.open("rb") as stream:
        rows, recording, audio = open_input("-", lambda: stream)
    assert recording.sha256 == hashlib.sha256(tone.read_bytes()).hexdigest()
    assert Path(recording.path).is_file() and str(own_home) in recording.path
    assert rows == [recording] and audio.frames == 88200


@pytest.mark.models
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder nobody can write to")
def test_a_place_that_cannot_be_written(run: Run, tone: Path) -> None:
    """/proc takes no files, not even root's: as a read-only disk."""
    for arguments in (
        ["diarize", tone, "-o", "/proc/rows.jsonl"],
        ["separate", tone, "--out-dir", "/proc/stems"],
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (8, ""), result.stderr
        assert result.stderr.splitlines()[-1].startswith("podtool: output: ")
        assert "Traceback" not in result.stderr


def test_four_hours_are_told() -> None:
    """Read block by block, never whole."""
    from podtool.inspection import inspect, oddities

    class Hours:
        sample_rate, channels, frames = 16000, 1, 4 * 3600 * 16000
        longest = 0

        def read(self, start: int = 0, stop: int | None = None) -> Audio:
            count = (self.frames if stop is None else stop) - start
            self.longest = max(self.longest, count)
            return Audio(np.full((1, count), 0.1, np.float32), self.sample_rate)

    source = Hours()
    told = oddities(inspect(source))
    assert len(told) == 1 and "4.0 hours" in told[0]
    assert source.longest <= 60 * source.sample_rate


@pytest.mark.models
def test_one_speaker_is_told(run: Run) -> None:
    from podtool.store import ModelStore

    clip = ModelStore().folder("demo-recordings") / "two_cities.wav"
    result = run("diarize", clip)
    assert result.exit_code == 0
    assert "warning: a single speaker was found" in result.stderr
    speakers = [r for r in map(json.loads, result.stdout.splitlines()) if r["kind"] == "speaker"]
    assert len(speakers) == 1
