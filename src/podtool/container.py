"""Writing results as wav, flac, mp3, m4a or mp4 with what the input carried besides sound.

Tags, cover, chapters and the picture track come from the input by ffmpeg; samples of WAV and FLAC
go through libsndfile at the input's own depth, so that untouched ones keep their bits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from podtool import ffmpeg
from podtool.audio import Audio, AudioWriter
from podtool.errors import OutputError

log = logging.getLogger(__name__)

SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".mp4")
EXACT = (".wav", ".flac")
_DEPTHS = {"PCM_U8": "PCM_16", "PCM_S8": "PCM_16", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}
_INFO = {
    "title": "INAM", "artist": "IART", "album": "IPRD", "comment": "ICMT", "date": "ICRD",
    "genre": "IGNR", "track": "ITRK", "copyright": "ICOP", "language": "ILNG",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter mark, in seconds."""

    start: float
    end: float
    title: str


@dataclass(frozen=True, slots=True)
class Extras:
    """What a media file carries besides sound; `cover` and `picture` are stream numbers."""

    path: Path
    tags: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Chapter, ...] = ()
    cover: int | None = None
    picture: int | None = None


def check_suffix(path: Path) -> None:
    """Raises OutputError for a format that is not written."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"cannot write {path}: unknown format {path.suffix or '(no suffix)'}",
            f"Formats: {', '.join(s[1:] for s in SUFFIXES)}.",
        )


def subtype_for(suffix: str, source_subtype: str, lossy: bool) -> str:
    """libsndfile's sample format of the result: the source's depth where the format has it.

    WAV of a lossy or float source is float, which alone holds its samples exactly.
    """
    depth = _DEPTHS.get(source_subtype)
    if suffix == ".flac":
        return depth or "PCM_24"
    if lossy or depth is None:
        return "PCM_32" if source_subtype == "PCM_32" else "FLOAT"
    return depth


def extras_of(path: Path) -> Extras:
    """Tags, chapters, cover and picture track of any media file; nothing where there are none."""
    command = [ffmpeg.executable(), "-nostdin", "-i", f"file:{path.absolute()}"]
    told = subprocess.run(
        [*command, "-f", "ffmetadata", "-"], capture_output=True, stdin=subprocess.DEVNULL
    )
    banner = told.stderr.decode(errors="replace").split("Output #0")[0]
    begins = re.search(r"Duration: .*?, start: (\d+\.\d+)", banner)  # an mp3 encoder's delay
    tags, chapters = parse_ffmetadata(
        told.stdout.decode(errors="replace"), float(begins[1]) if begins else 0.0
    )
    cover = picture = None
    for line in banner.splitlines():
        found = re.match(r"\s*Stream #0:(\d+).*?: Video:", line)
        if not found:
            continue
        if "(attached pic)" in line:
            cover = int(found[1]) if cover is None else cover
        elif picture is None:
            picture = int(found[1])
    return Extras(path, tags, chapters, cover, picture)


def parse_ffmetadata(
    text: str, begins_s: float = 0.0
) -> tuple[dict[str, str], tuple[Chapter, ...]]:
    """ffmpeg's metadata text -> global tags (names in lower case) and chapters.

    ffmpeg counts chapters from the first sample, which a file may date at `begins_s`.
    """
    sections: list[tuple[str, dict[str, str]]] = [("", {})]
    for line in re.split(r"(?<!\\)\n", text):
        if line.startswith("[") and line.endswith("]"):
            sections.append((line[1:-1], {}))
            continue
        key, equals, value = _split_unescaped(line)
        if equals and not line.startswith((";", "#")):
            sections[-1][1][key.lower() if sections[-1][0] == "" else key] = value
    tags = {k: v for k, v in sections[0][1].items() if k not in _TECHNICAL}
    return tags, tuple(_chapter(s, begins_s) for name, s in sections if name == "CHAPTER")


_TECHNICAL = {"encoder", "major_brand", "minor_version", "compatible_brands", "creation_time"}


def _split_unescaped(line: str) -> tuple[str, str, str]:
    parts = re.split(r"(?<!\\)=", line, maxsplit=1)
    if len(parts) < 2:
        return line, "", ""
    key, value = (re.sub(r"\\(.)", r"\1", p, flags=re.DOTALL) for p in parts)
    return key, "=", value


def _chapter(values: Mapping[str, str], begins_s: float) -> Chapter:
    above, _, below = values.get("TIMEBASE", "1/1000000000").partition("/")
    unit = float(above) / float(below or 1)
    start, end = (float(values.get(k, 0)) * unit for k in ("START", "END"))
    start = start + begins_s if start > 0 else 0.0
    return Chapter(start, end + begins_s, values.get("title", ""))


def with_mark(tags: Mapping[str, str], mark: str | None) -> dict[str, str]:
    """Tags with a mark put before the comment that is there."""
    result = dict(tags)
    if mark:
        comment = result.get("comment", "")
        result["comment"] = f"{mark} | {comment}" if comment and mark not in comment else mark
    return result


def write_media(
    path: Path,
    stream: Iterable[Audio],
    sample_rate: int,
    channels: int,
    extras: Extras | None = None,
    mark: str | None = None,
    subtype: str = "PCM_24",
) -> None:
    """Write blocks under `path`'s format, whole or not at all.

    `mark` goes into the comment tag. Raises OutputError for an unknown format, a place that
    cannot be written, or ffmpeg's refusal.
    """
    path = Path(path)
    check_suffix(path)
    extras = extras or Extras(path)
    tags = with_mark(extras.tags, mark)
    part = path.with_name(f".{path.stem}.part{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.suffix in EXACT:
            _write_exact(part, stream, sample_rate, channels, subtype)
            if part.suffix == ".wav":
                _append_chunks(part, tags, extras)
            else:
                _tag_flac(part, tags, extras)
        else:
            _encode(part, stream, sample_rate, channels, tags, extras)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def write_sidecar(path: Path, record: Mapping[str, Any]) -> Path:
    """`FILE.provenance.json` beside a result: what made it, for people and programs."""
    target = path.with_name(f"{path.name}.provenance.json")
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _write_exact(
    path: Path, stream: Iterable[Audio], rate: int, channels: int, subtype: str
) -> None:
    with AudioWriter(path, rate, channels, subtype) as writer:
        for block in stream:
            writer.write(block)


# ---------------------------------------------------------------- WAV


def _append_chunks(path: Path, tags: Mapping[str, str], extras: Extras) -> None:
    """LIST INFO with the tags, and an ID3 chunk where there is a cover or chapters."""
    chunks = b""
    if tags:
        body = b"INFO"
        for name, code in _INFO.items():
            if tags.get(name):
                body += _chunk(code.encode(), tags[name].encode() + b"\0")
        chunks += _chunk(b"LIST", body)
    if extras.cover is not None or extras.chapters:
        chunks += _chunk(b"id3 ", _id3(tags, extras))
    if not chunks:
        return
    with path.open("r+b") as file:
        kind = file.read(4)
        file.seek(0, os.SEEK_END)
        if file.tell() % 2:
            file.write(b"\0")
        file.write(chunks)
        size = file.tell() - 8
        if kind == b"RF64":
            file.seek(20)
            file.write(struct.pack("<Q", size))
        else:
            file.seek(4)
            file.write(struct.pack("<I", size))
        file.flush()
        os.fsync(file.fileno())


def _chunk(code: bytes, body: bytes) -> bytes:
    return code + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _id3(tags: Mapping[str, str], extras: Extras) -> bytes:
    """An ID3v2 tag with tags, cover and chapters, made by ffmpeg's mp3 writer."""
    with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
        target = Path(folder) / "tag.mp3"
        silence = (Audio(np.zeros((1, 44100), np.float32), 44100),)
        _encode(target, silence, 44100, 1, tags, extras)
        data = target.read_bytes()
    if data[:3] != b"ID3":
        raise OutputError("ffmpeg wrote no ID3 tag")
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return data[: size + 10]


# ---------------------------------------------------------------- FLAC


def _tag_flac(path: Path, tags: Mapping[str, str], extras: Extras) -> None:
    """Put tags, chapters (as CHAPTERxxx comments) and the cover into a FLAC file."""
    entries = dict(tags)
    for k, chapter in enumerate(extras.chapters):
        hours, seconds = divmod(chapter.start, 3600)
        minutes, seconds = divmod(seconds, 60)
        entries[f"CHAPTER{k:03d}"] = f"{int(hours):02d}:{int(minutes):02d}:{seconds:06.3f}"
        entries[f"CHAPTER{k:03d}NAME"] = chapter.title or f"Chapter {k + 1}"
    if not entries and extras.cover is None:
        return
    import ffmpeg as maker

    tagged = path.with_name(f"{path.stem}.tagged.flac")
    streams = [maker.input(f"file:{path.absolute()}")["a:0"]]
    options: dict[str, Any] = {"c": "copy"}
    if extras.cover is not None:
        streams.append(maker.input(f"file:{extras.path.absolute()}")[str(extras.cover)])
        options["disposition:v:0"] = "attached_pic"
    try:
        _ffmpeg(streams, tagged, options, entries, ())
        os.replace(tagged, path)
    finally:
        tagged.unlink(missing_ok=True)


# ---------------------------------------------------------------- mp3, m4a, mp4


def _encode(
    target: Path,
    stream: Iterable[Audio],
    rate: int,
    channels: int,
    tags: Mapping[str, str],
    extras: Extras,
) -> None:
    """Samples through ffmpeg's standard input into a compressed format, with the extras."""
    import ffmpeg as maker

    streams = [maker.input("pipe:0", format="f32le", ar=rate, ac=channels)["a:0"]]
    options: dict[str, Any] = {}
    picture = extras.picture if target.suffix == ".mp4" else None
    wanted = extras.cover if picture is None else picture
    if wanted is not None:
        streams.append(maker.input(f"file:{extras.path.absolute()}")[str(wanted)])
        options["c:v"] = "copy"
        if picture is None:
            options["disposition:v:0"] = "attached_pic"
    if target.suffix == ".mp3":
        options |= {"c:a": "libmp3lame", "q:a": 2, "id3v2_version": 3, "write_id3v1": 1}
    else:
        bits = "192k" if channels > 1 else "96k"
        options |= {"c:a": "aac", "b:a": bits, "movflags": "+faststart"}
    _ffmpeg(streams, target, options, tags, extras.chapters, stream)


def _metadata_text(tags: Mapping[str, str], chapters: Iterable[Chapter]) -> str:
    """Tags and chapters as ffmpeg's metadata text."""

    def plain(value: str) -> str:
        return re.sub(r"([=;#\\\n])", r"\\\1", value)

    lines = [";FFMETADATA1", *(f"{plain(k)}={plain(v)}" for k, v in tags.items())]
    for chapter in chapters:
        start, end = round(chapter.start * 1000), round(chapter.end * 1000)
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={start}", f"END={end}"]
        lines.append(f"title={plain(chapter.title)}")
    return "\n".join(lines) + "\n"


def _ffmpeg(
    streams: list[Any],
    target: Path,
    options: Mapping[str, Any],
    tags: Mapping[str, str],
    chapters: Iterable[Chapter],
    stream: Iterable[Audio] = (),
) -> None:
    """Mux or encode `streams` with tags and chapters; blocks go to ffmpeg's standard input."""
    import ffmpeg as maker

    inputs = len(streams)
    job = maker.output(
        *streams,
        f"file:{target.absolute()}",
        map_metadata=inputs,
        map_chapters=inputs,
        **options,
    )
    command = job.overwrite_output().compile(cmd=[ffmpeg.executable(), "-v", "error"])
    with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
        described = Path(folder) / "metadata.txt"
        described.write_text(_metadata_text(tags, chapters), encoding="utf-8")
        at = command.index("-map")  # one more input, of which no stream is mapped
        command[at:at] = ["-f", "ffmetadata", "-i", str(described)]
        _feed(command, target, stream)


def _feed(command: list[str], target: Path, stream: Iterable[Audio]) -> None:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # ffmpeg's own reason follows
                for block in stream:
                    process.stdin.write(np.ascontiguousarray(block.samples.T).tobytes())
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
        if status != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise OutputError(f"ffmpeg cannot write {target.name}: {said[-1] if said else '?'}")
