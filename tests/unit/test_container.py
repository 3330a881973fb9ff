"""Tags, cover, chapters and picture go through every format; samples keep their bits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from podtool import ffmpeg
from podtool.audio import Audio, blocks, open_audio
from podtool.container import (
    Chapter,
    Extras,
    _append_chunks,
    extras_of,
    parse_ffmetadata,
    subtype_for,
    with_mark,
    write_media,
)
from podtool.errors import OutputError

DESCRIBED = """;FFMETADATA1
title=An \\= odd\\; title
artist=Ünï
comment=old comment
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1000
title=First
[CHAPTER]
TIMEBASE=1/1000
START=1000
END=2000
title=Second \\= last
"""


def make(*arguments: object) -> None:
    command = [ffmpeg.executable(), "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An mp3 and an m4a with tags, cover and chapters; an mp4 with a picture track."""
    folder = tmp_path_factory.mktemp("media")
    described = folder / "described.txt"
    described.write_text(DESCRIBED, encoding="utf-8")
    make("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", folder / "cover.png")
    sound = ("-f", "lavfi", "-i", "sine=440:d=2")
    pictures = ("-f", "lavfi", "-i", "testsrc=s=64x64:d=2:r=10")
    maps = ("-i", described, "-map", "0:a", "-map", "1:v", "-map_metadata", "2")
    cover = ("-c:v", "mjpeg", "-disposition:v:0", "attached_pic")
    found = {s: folder / f"source.{s}" for s in ("mp3", "m4a", "mp4")}
    for suffix in ("mp3", "m4a"):
        make(*sound, "-i", folder / "cover.png", *maps, *cover, found[suffix])
    make(*sound, *pictures, *maps, "-c:v", "mpeg4", found["mp4"])
    return found


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "m4a", "mp4"])
@pytest.mark.parametrize("kind", ["mp3", "m4a", "mp4"])
def test_what_a_file_carries_arrives(
    sources: dict[str, Path], tmp_path: Path, kind: str, suffix: str
) -> None:
    source = sources[kind]
    extras = extras_of(source)
    out = tmp_path / f"out.{suffix}"
    with open_audio(source) as audio:
        subtype = subtype_for(f".{suffix}", audio.subtype, lossy=True)
        pieces = (block for _, block in blocks(audio, 0.3))
        write_media(out, pieces, audio.sample_rate, audio.channels, extras, "Made up", subtype)
        with open_audio(out) as written:
            assert written.sample_rate == audio.sample_rate
            assert abs(written.frames - audio.frames) <= (0 if suffix in ("wav", "flac") else 2304)
            if suffix == "wav":
                assert (written.read().samples == audio.read().samples).all()
    found = extras_of(out)
    assert found.tags["title"] == "An = odd; title" and found.tags["artist"] == "Ünï"
    assert found.tags["comment"] == "Made up | old comment"
    assert [c.title for c in found.chapters] == ["First", "Second = last"]
    assert [c.start for c in found.chapters] == pytest.approx([0, 1], abs=0.002)
    assert (found.cover is not None) == (kind != "mp4")
    assert (found.picture is not None) == (kind == "mp4" and suffix == "mp4")


def test_the_picture_track_is_the_same_picture(sources: dict[str, Path], tmp_path: Path) -> None:
    def pictures(path: Path) -> str:
        command = [ffmpeg.executable(), "-v", "error", "-i", str(path), "-map", "0:v"]
        done = subprocess.run([*command, "-f", "md5", "-"], capture_output=True, check=True)
        return done.stdout.decode()

    out = tmp_path / "out.mp4"
    silence = Audio(np.zeros((1, 88200), np.float32), 44100)
    write_media(out, [silence], 44100, 1, extras_of(sources["mp4"]))
    assert pictures(out) == pictures(sources["mp4"])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_value_of_pcm_goes_through(tmp_path: Path, suffix: str, subtype: str) -> None:
    rng = np.random.default_rng(0)
    shift = 16 if subtype == "PCM_16" else 8
    values = rng.integers(-(2**31) >> shift, 2**31 >> shift, (50000, 2)).astype(np.int32) << shift
    values[:2] = [[-(2**31)] * 2, [(2**31 - 1) >> shift << shift] * 2]
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    sf.write(source, values, 48000, subtype=subtype)
    with open_audio(source) as audio:
        depth = subtype_for(f".{suffix}", audio.subtype, lossy=False)
        extras = Extras(source, {"title": "x"}, (Chapter(0, 1, "one"),))
        write_media(out, [audio.read()], 48000, 2, extras, "mark", depth)
    assert sf.info(out).subtype == subtype
    assert (sf.read(out, dtype="int32")[0] == values).all()


def test_depths() -> None:
    assert subtype_for(".wav", "PCM_16", lossy=False) == "PCM_16"
    assert subtype_for(".wav", "FLOAT", lossy=True) == "FLOAT"
    assert subtype_for(".flac", "FLOAT", lossy=True) == "PCM_24"
    assert subtype_for(".wav", "PCM_U8", lossy=False) == "PCM_16"


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> object:
        yield Audio(np.zeros((1, 1000), np.float32), 8000)
        raise RuntimeError("stop")

    for name in ("a.wav", "a.flac", "a.mp3"):
        with pytest.raises(RuntimeError):
            write_media(tmp_path / name, broken(), 8000, 1)  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="ogg"):
        write_media(tmp_path / "a.ogg", [], 8000, 1)
    assert list(tmp_path.iterdir()) == []


def test_metadata_text_and_marks() -> None:
    tags, chapters = parse_ffmetadata(DESCRIBED)
    assert tags == {"title": "An = odd; title", "artist": "Ünï", "comment": "old comment"}
    assert chapters[1] == Chapter(1.0, 2.0, "Second = last")
    assert with_mark({}, "m") == {"comment": "m"} == with_mark({"comment": "m"}, "m")
    assert with_mark({"comment": "c"}, None) == {"comment": "c"}


def test_tags_go_behind_the_samples_of_a_file_beyond_4_gb_too(tmp_path: Path) -> None:
    """RF64 keeps its sizes elsewhere: the header of such a file, on few samples."""
    path = tmp_path / "big.wav"
    samples = np.random.default_rng(0).uniform(-1, 1, (999, 1)).astype(np.float32)
    sf.write(path, samples, 8000, format="RF64", subtype="FLOAT")
    assert path.read_bytes()[:4] == b"RF64"
    _append_chunks(path, {"title": "long", "comment": "mark"}, Extras(path))
    assert extras_of(path).tags == {"title": "long", "comment": "mark"}
    assert (sf.read(path, dtype="float32", always_2d=True)[0] == samples).all()
    size = int.from_bytes(path.read_bytes()[20:28], "little")
    assert size == path.stat().st_size - 8


@pytest.mark.parametrize(("channels", "rate"), [(8, 192000), (1, 8000), (3, 44100)])
@pytest.mark.parametrize("suffix", ["flac", "mp3", "m4a"])
def test_odd_rates_and_channels_are_written(
    tmp_path: Path, channels: int, rate: int, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    write_media(out, [Audio(np.full((channels, rate // 4), 0.1, np.float32), rate)], rate, channels)
    with open_audio(out) as written:
        assert abs(written.frames / written.sample_rate - 0.25) < 0.05
