"""What a command is given: a path or stdin, that carries audio or rows, told by the first bytes."""

from __future__ import annotations

import io
import logging
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from podtool.artifacts import Recording, Row, Stem
from podtool.audio import AudioFile, AudioSource, Blend, open_audio, sha256_of
from podtool.corrections import settled
from podtool.errors import InputError
from podtool.home import home
from podtool.rowio import of_kind, parse_rows, read_rows

log = logging.getLogger(__name__)

_ROWS_START = (b"{", b"\xef\xbb\xbf{")


def open_input(
    name: str, stdin: Callable[[], BinaryIO], stem: str | None = "speech"
) -> tuple[list[Row], Recording, AudioFile]:
    """INPUT of a command -> (its rows, its recording, the audio to read).

    Audio gives rows of one `recording`. Rows must hold one recording; where a stem row of the name
    `stem` is among them, its file is read in place of the mixture. Raises InputError.
    """
    rows, path = rows_or_path(name, stdin)
    if rows is None:
        audio = open_audio(path)
        recording = recording_of(path, audio)
        return [recording], recording, audio
    recordings = of_kind(rows, Recording)
    if len(recordings) != 1:
        where = "stdin" if name == "-" else name
        raise InputError(
            f"{where} has {len(recordings) or 'no'} `recording` rows; one names the audio",
            "Rows come from a command such as `podtool diarize FILE`.",
        )
    recording = recordings[0]
    wanted = next((s for s in of_kind(rows, Stem) if s.name == stem), None)
    audio = open_audio(wanted.path if wanted else recording.path)
    if wanted is None and audio.frames != recording.frames:
        raise InputError(
            f"{recording.path} has {audio.frames} samples, its row says {recording.frames}: "
            "the file has changed since"
        )
    return rows, recording, audio


def over_recording(audio: AudioSource, recording: Recording, share: float) -> AudioSource:
    """`audio` with a share of its recording beneath it, where it is a stem of that.

    Separators take parts of voices along with the noise; by a little of both, voices are told
    apart better than by either. Where the recording cannot be read, a warning is logged.
    """
    if share <= 0 or not isinstance(audio, AudioFile):
        return audio
    if audio.path.absolute() == Path(recording.path).absolute():
        return audio
    try:
        whole = open_audio(recording.path)
    except InputError as error:
        log.warning("the stem is heard without its recording: %s", error.message)
        return audio
    alike = (audio.sample_rate, audio.channels, audio.frames)
    if (whole.sample_rate, whole.channels, whole.frames) != alike:
        whole.close()
        return audio
    return Blend(audio, whole, share)


def read_rows_input(name: str, stdin: Callable[[], BinaryIO]) -> list[Row]:
    """Rows from a JSONL file or stdin; those of a live session settled. Raises InputError."""
    if name != "-":
        return settled(read_rows(name))
    try:
        text = stdin().read().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("stdin is not text: JSONL rows were expected") from None
    return settled(parse_rows(io.StringIO(text), "stdin"))


def _holds_rows(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(64).lstrip().startswith(_ROWS_START)
    except OSError:
        return False  # open_audio says what is wrong


def _from_stdin(stream: BinaryIO) -> tuple[Path, list[Row] | None]:
    head = stream.read(64)
    if not head:
        raise InputError("stdin is empty: audio or JSONL rows were expected")
    if head.lstrip().startswith(_ROWS_START):
        try:
            text = (head + stream.read()).decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("stdin is not text: JSONL rows were expected") from None
        return Path("-"), list(parse_rows(io.StringIO(text), "stdin"))
    return _spool(head, stream), None


def _spool(head: bytes, stream: BinaryIO) -> Path:
    """Keep audio from stdin where its `recording` row can point to, named by its content."""
    folder = home() / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(head)
            while chunk := stream.read(1 << 20):
                target.write(chunk)
        final = folder / f"{sha256_of(part)}.audio"
        os.replace(part, final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return final


def recording_of(path: Path, audio: AudioFile) -> Recording:
    """The `recording` row of a file; its id is the file's name without suffix."""
    stem = "stdin" if path.suffix == ".audio" else path.stem
    return Recording(
        id=re.sub(r"[^\w.-]+", "-", stem).strip("-") or "recording",
        path=str(path.absolute()),
        sha256=sha256_of(path),
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        frames=audio.frames,
    )


def rows_or_path(
    name: str, stdin: Callable[[], BinaryIO], as_written: bool = False
) -> tuple[list[Row] | None, Path]:
    """What an input holds, its audio not opened: (rows, path), rows None where it is audio.

    Rows of a live session are settled, unless they are wanted `as_written`.
    """
    if name == "-":
        path, rows = _from_stdin(stdin())
    else:
        path, rows = Path(name), None
        if _holds_rows(path):
            rows = read_rows(path)
    if rows is not None and not as_written:
        rows = settled(rows)
    return rows, path
