"""Opening and writing audio: every hostile file of the specification, and what comes back."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from podtool import ffmpeg
from podtool.audio import (
    Audio,
    AudioWriter,
    blocks,
    open_audio,
    sha256_of,
    to_wav_bytes,
    write_audio,
)
from podtool.errors import InputError, OutputError

RATE = 16000


def noise(seconds: float = 1.0, channels: int = 1, rate: int = RATE, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-0.5, 0.5, (channels, round(seconds * rate)))
    return Audio(samples.astype(np.float32), rate)


def converted(source: Path, target: Path, *options: str) -> Path:
    """A file made by ffmpeg."""
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True)
    return target


# ---------------------------------------------------------------- what is refused


def test_missing_folder_empty_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("Dear diary, " * 1000 + "ü" * 2000)
    (tmp_path / "rows.wav").write_text('{"kind": "turn"}\n')
    for name, message in {
        "missing.wav": "does not exist", ".": "is a folder", "empty.wav": "is empty",
        "text.wav": "is a text file", "rows.wav": "is a text file",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=message) as caught:
            open_audio(tmp_path / name)
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("content", [os.urandom(5000), bytes(5000), b"RIFF", b"fLaC" + bytes(99)])
def test_bytes_that_are_no_audio(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(InputError):
        open_audio(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("frames", [0, 1])
def test_no_sample_and_one_sample(tmp_path: Path, frames: int) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros((frames, 1)), RATE)
    with pytest.raises(InputError, match="one sample" if frames else "no samples"):
        open_audio(path)


@pytest.mark.parametrize("keep", [20, 44, 45, 1000, 31000])
@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF"])
def test_a_file_cut_short(tmp_path: Path, form: str, keep: int) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, noise().samples.T, RATE, format=form, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated" if keep > 200 else None):
        open_audio(path)


def test_the_same_files_whole_are_taken(tmp_path: Path) -> None:
    for form, subtype in (("WAV", "PCM_16"), ("RF64", "FLOAT"), ("AIFF", "PCM_24")):
        for frames in (15999, 16000):  # an odd number of bytes has a byte of padding
            path = tmp_path / "x"
            samples = noise().samples.T[:frames]
            soundfile.write(path, samples, RATE, format=form, subtype=subtype)
            with open_audio(path) as audio:
                assert audio.frames == frames
                assert np.allclose(audio.read().samples, samples.T, atol=1e-4)


def test_nan_and_infinity_say_where(tmp_path: Path) -> None:
    for value in (np.nan, np.inf, -np.inf):
        samples = noise(2.0, 2).samples
        samples[1, 24000] = value
        write_audio(tmp_path / "x.wav", Audio(samples, RATE), "float")
        with open_audio(tmp_path / "x.wav") as audio:
            assert audio.read(0, 24000).frames == 24000
            with pytest.raises(InputError, match=r"1\.500 s"):
                audio.read()


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_audio(path, noise())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="cannot read"):
        open_audio(path)


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    subprocess.run(
        [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "color=s=16x16:d=0.2", str(path)],
        check=True,
    )
    with pytest.raises(InputError, match="cannot decode"):
        open_audio(path)


# ---------------------------------------------------------------- what is taken


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF + 0x80000000])
def test_sizes_that_a_stream_left_open(tmp_path: Path, size: int) -> None:
    original = noise()
    data = bytearray(to_wav_bytes(original, "pcm16"))
    at = data.index(b"data") + 4
    data[4:8] = struct.pack("<I", size)
    data[at : at + 4] = struct.pack("<I", size)
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with open_audio(path) as audio:
        assert audio.frames == original.frames
        assert np.allclose(audio.read().samples, original.samples, atol=1e-4)


def test_a_wav_through_a_pipe_of_ffmpeg(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", noise(), "pcm16")
    command = [ffmpeg.executable(), "-v", "error", "-i", str(tmp_path / "a.wav"), "-f", "wav", "-"]
    piped = subprocess.run(command, check=True, capture_output=True).stdout
    (tmp_path / "b.wav").write_bytes(piped)
    with open_audio(tmp_path / "a.wav") as a, open_audio(tmp_path / "b.wav") as b:
        assert np.array_equal(a.read().samples, b.read().samples)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_rates_and_channels_come_back_to_the_bit(
    tmp_path: Path, rate: int, channels: int, suffix: str
) -> None:
    audio = noise(0.1, channels, rate)
    grid = Audio((np.round(audio.samples * 2**23) / 2**23).astype(np.float32), rate)
    path = tmp_path / f"x.{suffix}"
    write_audio(path, grid)
    with open_audio(path) as back:
        assert (back.sample_rate, back.channels, back.frames) == (rate, channels, grid.frames)
        assert np.array_equal(back.read().samples, grid.samples)


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    loud = Audio(noise().samples * 7, RATE)
    write_audio(tmp_path / "x.wav", loud, "float")
    with open_audio(tmp_path / "x.wav") as back:
        assert np.array_equal(back.read().samples, loud.samples)


@pytest.mark.parametrize(
    "name", ["a b.wav", 'it\'s "quoted".wav', "100%20d.wav", "-dash.wav", "ünï.wav", "a:b.wav"]
)
def test_names_with_anything_in_them(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_audio(name, noise())
    with open_audio(name) as audio:
        assert audio.frames == RATE
    lossy = Path(name).with_suffix(".mp3")
    converted(tmp_path / name, tmp_path / "plain.mp3")
    (tmp_path / "plain.mp3").rename(lossy)
    with open_audio(lossy) as audio:
        assert abs(audio.frames - RATE) < 3000


def test_mp3_named_wav_and_others_by_content(tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    write_audio(source, noise(1.0, 2, 44100))
    for suffix in ("mp3", "m4a", "ogg", "opus"):
        made = converted(source, tmp_path / f"x.{suffix}")
        disguised = tmp_path / f"{suffix}.wav"
        made.rename(disguised)
        with open_audio(disguised) as audio:
            assert audio.channels == 2
            assert audio.frames / audio.sample_rate == pytest.approx(1.0, abs=0.1)
            assert float(np.abs(audio.read().samples).max()) > 0.1
            scratch = audio.decoded
            assert scratch != disguised and scratch.exists()
        assert not scratch.exists()


def test_video_gives_its_sound(tmp_path: Path) -> None:
    source = tmp_path / "s.wav"
    write_audio(source, noise(1.0, 1, 44100))
    film = tmp_path / "x.mkv"
    subprocess.run(
        [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "color=s=16x16:d=1", "-i",
         str(source), "-c:a", "flac", "-shortest", str(film)],
        check=True,
    )  # fmt: skip
    with open_audio(film) as audio, open_audio(source) as original:
        frames = min(audio.frames, original.frames)
        assert frames > 40000
        assert np.allclose(
            audio.read(0, frames).samples, original.read(0, frames).samples, atol=1e-4
        )


# ---------------------------------------------------------------- blocks


def test_reads_outside_of_the_file_are_cut_to_it(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", noise())
    with open_audio(tmp_path / "x.wav") as audio:
        assert audio.read(-5, 10).frames == 10
        assert audio.read(RATE - 5, RATE + 5).frames == 5
        assert audio.read(RATE + 5).frames == 0
        assert audio.read(10, 5).frames == 0


def test_blocks_in_order_make_the_whole(tmp_path: Path) -> None:
    original = noise(2.5, 2)
    write_audio(tmp_path / "x.wav", original, "float")
    with open_audio(tmp_path / "x.wav") as audio:
        parts = list(blocks(audio, 0.7))
    assert [start for start, _ in parts] == [0, 11200, 22400, 33600]
    assert np.array_equal(np.concatenate([p.samples for _, p in parts], 1), original.samples)


# ---------------------------------------------------------------- writing


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"the old one")
    with pytest.raises(RuntimeError), AudioWriter(path, RATE, 1) as writer:
        writer.write(noise())
        assert path.read_bytes() == b"the old one"
        raise RuntimeError
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.wav").mkdir()
    for target in (tmp_path / "file" / "x.wav", tmp_path / "folder.wav"):
        with pytest.raises(OutputError, match="cannot write"):
            write_audio(target, noise())
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(locked, os.W_OK):
            return  # this user may write anywhere
        with pytest.raises(OutputError, match="cannot write"):
            write_audio(locked / "x.wav", noise())
    finally:
        locked.chmod(stat.S_IRWXU)


def test_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing to write"):
        write_audio(tmp_path / "x.wav", iter(()))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / ".x.wav.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot write"):
        write_audio(tmp_path / "x.wav", noise(60.0))
    assert not (tmp_path / "x.wav").exists()


def test_small_files_are_plain_riff_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / name, noise())
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFF"
    assert sha256_of(tmp_path / "a.wav") == sha256_of(tmp_path / "b.wav")


def test_one_file_can_be_read_from_several_threads_of_its_own(tmp_path: Path) -> None:
    original = noise(5.0)
    write_audio(tmp_path / "x.wav", original, "float")
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with open_audio(tmp_path / "x.wav") as audio:
            for start in rng.integers(0, 70000, 50):
                block = audio.read(int(start), int(start) + 1000).samples
                if not np.array_equal(block, original.samples[:, start : start + 1000]):
                    wrong.append(int(start))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
