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

    Raises InputError with ffmpeg's own reason.
    """
    import ffmpeg

    stream = ffmpeg.input(_literal(source)).output(
        _literal(target), map="0:a:0", acodec="pcm_f32le", format="wav", rf64="auto", vn=None
    )
    command = stream.overwrite_output().compile(cmd=[executable(), "-nostdin", "-v", "error"])
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise InputError(
            f"cannot decode {source}: {_reason(done.stderr)}",
            "Check that the file plays; any format that ffmpeg reads is accepted.",
        )


def _literal(path: Path) -> str:
    """A path that ffmpeg takes as a file whatever characters are in it."""
    return "file:" + str(path.absolute())


def _reason(stderr: bytes) -> str:
    lines = [re.sub(r"^\[[^]]*\]\s*", "", s) for s in stderr.decode(errors="replace").splitlines()]
    useful = [s for s in lines if s.strip() and "file:" not in s] or lines
    return useful[-1].strip() if useful else "ffmpeg gave no reason"
