"""Finding and running ffmpeg: the one on PATH, else the one that imageio-ffmpeg carries."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from podtool.errors import EngineUnavailableError, InputError


@cache
def executable() -> str:
    """Path of an ffmpeg. Raises EngineUnavailableError where there is none."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise EngineUnavailableError(
            "ffmpeg is not installed", "pip install imageio-ffmpeg, or your system's ffmpeg"
        ) from None


def decode(source: Path, target: Path) -> None:
    """The first audio track of any file ffmpeg knows -> float WAV at its own rate and channels.

    Samples are rounded to the grid of 2^-23, on which stems sum exactly and 24 bit files are exact;
    peaks above full scale, usual in loud MP3s, are kept. Raises InputError with ffmpeg's reason.
    """
    import ffmpeg

    stream = ffmpeg.input(_literal(source)).output(
        _literal(target),
        map="0:a:0",
        acodec="pcm_f32le",
        format="wav",
        rf64="auto",
        vn=None,
        map_metadata="-1",  # libsndfile does not rewrite a file that carries text,
        fflags="+bitexact",  # the name of the encoder among it
    )
    command = stream.overwrite_output().compile(cmd=[executable(), "-nostdin", "-v", "error"])
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise InputError(
            f"cannot decode {source}: {_reason(done.stderr)}",
            "Check that the file plays; any format that ffmpeg reads is accepted.",
        )
    _round_to_grid(target)


def _round_to_grid(path: Path) -> None:
    """Rewrite a float WAV in place, block by block."""
    import numpy as np
    import soundfile

    grid = np.float32(2.0**23)
    with soundfile.SoundFile(str(path), "r+") as file:
        at = 0
        while at < file.frames:
            file.seek(at)
            block = file.read(1 << 20, dtype="float32", always_2d=True)
            if not len(block):
                break
            file.seek(at)
            file.write(np.round(block * grid) / grid)
            at += len(block)


def _literal(path: Path) -> str:
    """A path that ffmpeg takes as a file whatever characters are in it."""
    return "file:" + str(path.absolute())


def _reason(stderr: bytes) -> str:
    lines = [re.sub(r"^\[[^]]*\]\s*", "", s) for s in stderr.decode(errors="replace").splitlines()]
    useful = [s for s in lines if s.strip() and "file:" not in s] or lines
    return useful[-1].strip() if useful else "ffmpeg gave no reason"
