"""`podtool reconstruct` as people call it: null test, masters, containers, refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from typer.testing import Result

from podtool.audio import Audio, open_audio, write_audio
from podtool.container import extras_of
from podtool.loudness import measure

Run = Callable[..., Result]
RATE = 22050


def noise(seconds: float, channels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.05 * rng.standard_normal((channels, round(seconds * RATE)))).astype(np.float32)


@pytest.fixture()
def rows(tmp_path: Path) -> Path:
    """A four-second stereo recording (16 bit), and one take for 1.0 to 2.5 s."""
    write_audio(tmp_path / "ep.wav", Audio(noise(4, 2, 1), RATE), "pcm16")
    write_audio(tmp_path / "k1.wav", Audio(noise(1.5, 1, 2), RATE), "float")
    records: list[dict[str, Any]] = [
        {"kind": "recording", "id": "ep", "path": "ep.wav", "channels": 2, "frames": 4 * RATE},
        {
            "kind": "take", "id": "k1", "recording": "ep", "speaker": "S1", "voice": "v",
            "method": "convert", "path": "k1.wav", "channels": 1, "frames": round(1.5 * RATE),
            "start": 1.0, "end": 2.5,
        },
    ]  # fmt: skip
    for record in records:
        data = (tmp_path / record["path"]).read_bytes()
        record |= {"v": 1, "sample_rate": RATE, "sha256": hashlib.sha256(data).hexdigest()}
    path = tmp_path / "takes.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def metrics(done: Result) -> dict[str, float]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {r["name"]: r["value"] for r in found if r["kind"] == "metric"}


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_untouched_samples_are_the_files_own(run: Run, rows: Path, suffix: str) -> None:
    out = rows.with_name(f"out.{suffix}")
    done = run("reconstruct", rows, "-o", out)
    assert done.exit_code == 0, done.stderr
    before = sf.read(rows.with_name("ep.wav"), dtype="int16")[0]
    after = sf.read(out, dtype="int16")[0]
    assert sf.info(out).subtype == "PCM_16" and before.shape == after.shape
    same = (before == after).all(axis=1)
    assert same[:RATE].all() and same[round(2.5 * RATE) :].all()
    assert same[RATE : round(2.5 * RATE)].mean() < 0.01
    assert metrics(done)["null_test_outside_max"] == 0.0
    assert "synthetic" in extras_of(out).tags["comment"]
    record = json.loads(rows.with_name(f"out.{suffix}.provenance.json").read_text())
    assert record["synthetic"] and record["replaced"][0]["voice"] == "v"
    assert record["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


def test_no_mark_leaves_no_mark(run: Run, rows: Path) -> None:
    out = rows.with_name("out.wav")
    assert run("reconstruct", rows, "-o", out, "--no-mark").exit_code == 0
    assert not extras_of(out).tags and not list(rows.parent.glob("*.provenance.json"))


def test_master_apple_is_reached_in_the_file(run: Run, rows: Path) -> None:
    out = rows.with_name("out.wav")
    done = run("reconstruct", rows, "-o", out, "--master", "apple")
    assert done.exit_code == 0, done.stderr
    with open_audio(out) as audio:
        measured = measure(audio)
    assert measured.integrated_lufs == pytest.approx(-16, abs=0.3)
    assert measured.true_peak_dbtp <= -1.0
    assert metrics(done)["null_test_outside_max"] == 0.0


def test_stdout_carries_the_wav_alone(run: Run, rows: Path) -> None:
    out = rows.with_name("out.wav")
    run("reconstruct", rows, "-o", out)
    piped = run("reconstruct", rows, "-o", "-")
    assert piped.exit_code == 0 and piped.stdout_bytes == out.read_bytes()


def test_placements_go_to_the_edl(run: Run, rows: Path) -> None:
    edl = rows.with_name("edl.jsonl")
    out = rows.with_name("out.wav")
    assert run("reconstruct", rows, "-o", out, "--edl", edl).exit_code == 0
    found = [json.loads(line) for line in edl.read_text().splitlines()]
    assert [(r["start"], r["end"]) for r in found if r["kind"] == "placement"] == [(1.0, 2.5)]


def test_refusals(run: Run, rows: Path) -> None:
    out = rows.with_name("out.wav")
    assert run("reconstruct", rows).exit_code == 2
    assert run("reconstruct", rows, "-o", rows.with_name("out.xyz")).exit_code == 8
    assert run("reconstruct", rows, "-o", out, "--master", "vinyl").exit_code == 4
    assert not out.exists()
    out.write_text("mine")
    assert run("reconstruct", rows, "-o", out).exit_code == 8
    assert out.read_text() == "mine"
    empty = rows.with_name("empty.jsonl")
    empty.write_text(rows.read_text().splitlines()[0] + "\n")
    none = run("reconstruct", empty, "-o", out, "--force")
    assert none.exit_code == 3 and "no `take` rows" in none.stderr
    write_audio(rows.with_name("k1.wav"), Audio(noise(1, 1, 2), RATE), "float")
    changed = run("reconstruct", rows, "-o", out, "--force")
    assert changed.exit_code == 3 and "its row says" in changed.stderr
    assert out.read_text() == "mine"
