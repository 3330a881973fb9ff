"""Decoding what libsndfile is not asked to read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from podtool import ffmpeg
from podtool.audio import Audio, open_audio, write_audio


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "ogg", "opus", "mkv"])
def test_lossy_files_are_decoded_on_the_24_bit_grid(tmp_path: Path, suffix: str) -> None:
    t = np.arange(48000) / 48000
    wave = (0.9 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    source = tmp_path / "a 'b'.wav"
    write_audio(source, Audio(np.stack([wave, wave]), 48000))
    lossy = tmp_path / f"x.{suffix}"
    command = [ffmpeg.executable(), "-v", "error", "-i", str(source), str(lossy)]
    subprocess.run(command, check=True)
    with open_audio(lossy) as audio:
        samples = audio.read().samples
        decoded = audio.decoded
    scaled = samples.astype(np.float64) * 2**23
    assert np.array_equal(scaled, np.round(scaled))
    assert samples.shape[0] == 2 and 0.5 < np.abs(samples).max() < 1.2
    assert not decoded.exists()
