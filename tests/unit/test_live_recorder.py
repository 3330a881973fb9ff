"""What a live session keeps: valid at any moment, after a kill, on a full disk; and the spool."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from podtool.artifacts import (
    Correction,
    Metric,
    Partial,
    Recording,
    Row,
    Segment,
    Speaker,
    Turn,
    Utterance,
    Word,
)
from podtool.audio import open_audio
from podtool.corrections import corrected, settled
from podtool.errors import OutputError
from podtool.formats import read_file
from podtool.live.recorder import Recorder, Spool, _create, _GrowingWav, safe_name
from podtool.live.status import Block, Samples
from podtool.rowio import of_kind, read_rows

RATE = 8000


def tone(frames: int, value: float = 0.5, count: int = 1) -> Samples:
    return np.full((count, frames), value, np.float32)


def said(at: int, speaker: str | None = "S1", text: str = "Well, yes.") -> Utterance:
    return Utterance(f"u{at:04d}", "live", at * 1.0, at + 0.9, text, speaker)


def srt(folder: Path) -> list[tuple[float, str | None, str]]:
    rows = of_kind(read_file(folder / "transcript.srt"), Utterance)
    return [(u.start, u.speaker, u.text) for u in rows]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------- files at any moment


def test_everything_is_readable_while_it_grows(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new" / "folder", RATE, 2)
    folder = recorder.folder
    for at in range(1, 8):
        recorder.audio(Block(tone(400, at / 10, 2)))
        recorder.voice("S1", at * 800, tone(160)[0], 16000)
        recorder.rows([said(at)])
        with open_audio(folder / "recording.wav") as audio:
            assert (audio.frames, audio.channels, audio.subtype) == (at * 400, 2, "PCM_16")
            assert audio.read().samples[1, -1] == pytest.approx(at / 10, abs=1e-4)
        assert soundfile.info(folder / "speaker-S1.wav").frames == at * 800 + 160
        assert read_rows(folder / "transcript.jsonl") == [said(k) for k in range(1, at + 1)]
        assert [u[0] for u in srt(folder)] == [float(k) for k in range(1, at + 1)]
    recorder.close()
    recorder.audio(Block(tone(400, 0, 2)))  # nothing more is taken
    recorder.close()
    assert soundfile.info(folder / "recording.wav").frames == 7 * 400


def test_voices_lie_on_the_clock_of_the_recording(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.voice("S1", 16000, tone(1600))
        recorder.voice("S1", 32000, tone(1600, 0.25))
        recorder.audio(Block(tone(3 * RATE)))
    samples, rate = soundfile.read(tmp_path / "speaker-S1.wav", dtype="float32")
    assert rate == 16000 and samples.size == 3 * 16000
    expected = np.zeros(3 * 16000, np.float32)
    expected[16000:17600], expected[32000:33600] = 0.5, 0.25
    np.testing.assert_array_equal(samples, expected)


def test_samples_out_of_range_are_clipped(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.audio(Block(np.array([[2.0, -2.0, 1.0, -1.0]], np.float32)))
    samples, _ = soundfile.read(tmp_path / "recording.wav", dtype="int16")
    assert samples.tolist() == [32767, -32768, 32767, -32768]


def test_only_what_is_final_is_kept(tmp_path: Path) -> None:
    kept: list[Row] = [
        Recording("live", str(tmp_path / "recording.wav"), "0" * 64, RATE, 1, 0),
        Turn("t1", "live", 0.0, 1.0, "S1"),
        Speaker("S1", "live", 1.0),
        said(1),
        Metric("latency", 0.5, "s"),
    ]
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.rows([*kept, Partial("u", "live", 0, 1, "Well"), Segment("live", 0, 1, "speech")])
    assert read_rows(tmp_path / "transcript.jsonl") == kept
    assert '"path": "recording.wav"' in (tmp_path / "transcript.jsonl").read_text()


def test_beyond_four_gigabytes(tmp_path: Path) -> None:
    wav = _GrowingWav(tmp_path / "x.wav", 48000, 2)
    wav.extend(2**30 - 100)
    wav.tell()
    assert soundfile.info(tmp_path / "x.wav").format == "WAV"
    wav.write(tone(48000, 0.5, 2))
    info = soundfile.info(tmp_path / "x.wav")
    assert (info.format, info.frames) == ("RF64", 2**30 - 100 + 48000)
    with open_audio(tmp_path / "x.wav") as audio:
        assert audio.read(audio.frames - 10).samples.tolist() == [[0.5] * 10] * 2
    wav.close()


# ---------------------------------------------------------------- subtitles


def test_long_utterances_are_cut_into_cues(tmp_path: Path) -> None:
    words = tuple(Word(f"word{k},", k * 0.5, k * 0.5 + 0.4) for k in range(60))
    long = Utterance("u1", "live", 0, 30, " ".join(w.text for w in words), "S1", words=words)
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.rows([long, said(31, None, " "), said(32)])
        growing = srt(tmp_path)
    assert len(growing) > 4 and growing == srt(tmp_path)
    assert " ".join(t for _, _, t in growing[:-1]) == long.text


def test_cues_are_in_order_at_the_end(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.rows([said(3), said(1)])
        recorder.rows([said(2)])
    numbers = (tmp_path / "transcript.srt").read_text().splitlines()[::4]
    assert numbers == ["1", "2", "3"]
    assert [u[0] for u in srt(tmp_path)] == [1, 2, 3]


def test_corrections_change_labels_at_once_and_rows_never(tmp_path: Path) -> None:
    correction = Correction("live", "S3", "S1", 5.0, 7.0)
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.rows([said(at, "S3") for at in (4, 5, 6, 7)])
        recorder.rows([correction])
        assert [u[1] for u in srt(tmp_path)] == ["S3", "S1", "S1", "S3"]
        recorder.rows([said(6, "S3", "Late."), said(8, "S3")])
        assert [u[1] for u in srt(tmp_path)].count("S1") == 3
        recorder.rows([Speaker("S1", "live", 3.0, name="Ann Lee")])
        assert [u[1] for u in srt(tmp_path)].count("Ann Lee") == 3
    rows = read_rows(tmp_path / "transcript.jsonl")
    assert {u.speaker for u in of_kind(rows, Utterance)} == {"S3"}
    assert [u[1] for u in srt(tmp_path)] == ["S3", "Ann Lee", "Ann Lee", "Ann Lee", "S3", "S3"]


def test_later_corrections_apply_to_what_earlier_ones_left() -> None:
    chain = [Correction("r", "S3", "S2", 0.0), Correction("r", "S2", "S1", 5.0)]
    assert [corrected("S3", at, chain) for at in (4.0, 5.0)] == ["S2", "S1"]
    assert corrected("S4", 5.0, chain) == "S4"


def test_seconds_of_speakers_are_those_of_their_turns_after_all_corrections() -> None:
    def turn(start: float, end: float, speaker: str, recording: str = "r") -> Turn:
        return Turn(f"t{start}{speaker}", recording, start, end, speaker)

    rows: list[Row] = [
        *(Speaker(name, "r", 1.0) for name in ("S1", "S2", "S3", "S4")),
        *(turn(0, 4, "S1"), turn(5, 7, "S2"), turn(6.5, 9, "S3"), turn(10, 11.5, "S2")),
        turn(14, 15, "S4"),
        Correction("r", "S2", "S1", 10.0, 11.0),  # one turn
        Correction("r", "S4", "S1", 14.0, 14.5),
        Correction("r", "S3", "S2", 0.0),  # a person, whose turn overlaps one of S2
        *(turn(12, 13, "S1", "other"), Speaker("S1", "other", 8.0), Speaker("S1", "none", 9.0)),
        *(Speaker("S1", "r", 4.0, name="Ann"), Speaker("S2", "r", 3.5)),
    ]
    after = {(s.recording, s.id): (s.speech_s, s.name) for s in of_kind(settled(rows), Speaker)}
    assert after == {
        ("r", "S1"): (6.5, "Ann"),
        ("r", "S2"): (4.0, None),
        ("r", "S4"): (0.0, None),  # nothing is left to them
        ("other", "S1"): (1.0, None),
        ("none", "S1"): (9.0, None),  # no turns to count
    }


def test_voices_follow_corrections_and_names(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.voice("S1", 0, tone(16000, 0.1))
        recorder.voice("S2", 16000, tone(16000, 0.2))
        recorder.voice("S3", 32000, tone(16000, 0.3))
        recorder.voice("S2", 48000, tone(16000, 0.4))
        recorder.rows([Correction("live", "S3", "S1", 2.0), Correction("live", "S2", "S4", 3.0)])
        recorder.rows([Speaker("S1", "live", 3.0, name="../Ann/Lee"), Speaker("S2", "live", 1.0)])
        assert "speaker-S3.wav" in names(tmp_path)
    assert names(tmp_path) == [
        "recording.wav", "speaker-S2.wav", "speaker-S4.wav", "speaker-_Ann_Lee.wav",
        "transcript.jsonl", "transcript.srt",
    ]  # fmt: skip

    def levels(name: str) -> list[float]:
        samples, _ = soundfile.read(tmp_path / name, dtype="float32")
        return [round(float(s), 2) for s in samples[8000::16000]]

    assert levels("speaker-_Ann_Lee.wav") == [0.1, 0, 0.3]
    assert levels("speaker-S2.wav") == [0, 0.2, 0, 0]
    assert levels("speaker-S4.wav") == [0, 0, 0, 0.4]


@pytest.mark.parametrize(
    "label", ["../../etc/passwd", "a/b\\c:d", "..", ".", "", "\0\n", "x" * 999, "é" * 200, "CON"]
)
def test_labels_are_safe_in_names(tmp_path: Path, label: str) -> None:
    name = safe_name(label)
    assert name and not set(name) & set('/\\:\0\n*?"<>|') and len(name.encode()) <= 100
    with Recorder(tmp_path / "in", RATE, 1) as recorder:
        recorder.voice(label, 0, tone(160))
    assert names(tmp_path) == ["in"] and len(names(tmp_path / "in")) == 4


def test_labels_that_become_one_name_stay_apart(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        for label in ("a/b", "a:b", "A_B"):
            recorder.voice(label, 0, tone(160))
    assert len([n for n in names(tmp_path) if n.startswith("speaker-")]) == 3


# ---------------------------------------------------------------- the folder


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    elsewhere = tmp_path.parent / f"{tmp_path.name}.wav"
    elsewhere.write_text("not to be touched")
    with pytest.raises(OutputError, match="is not empty"):
        Recorder(tmp_path, RATE, 1)
    assert names(tmp_path) == ["notes.txt"]
    (tmp_path / "recording.wav").symlink_to(elsewhere)
    with Recorder(tmp_path, RATE, 1, force=True) as recorder:
        recorder.audio(Block(tone(800)))
    assert other.read_text() == "mine" and elsewhere.read_text() == "not to be touched"
    assert soundfile.info(tmp_path / "recording.wav").frames == 800
    with pytest.raises(OutputError, match="is a file"):
        Recorder(other, RATE, 1)


def test_a_file_put_beside_is_not_overwritten(tmp_path: Path) -> None:
    with Recorder(tmp_path, RATE, 1) as recorder:
        recorder.voice("S1", 0, tone(160))
        (tmp_path / "speaker-Ann.wav").write_text("mine")
        recorder.rows([Speaker("S1", "live", 1.0, name="Ann")])
    assert (tmp_path / "speaker-Ann.wav").read_text() == "mine"
    assert soundfile.info(tmp_path / "speaker-Ann-2.wav").frames == 160


# ---------------------------------------------------------------- killed

WRITER = """
import sys
import numpy as np
from podtool.artifacts import Correction, Utterance
from podtool.live.recorder import Recorder
from podtool.live.status import Block
recorder = Recorder(sys.argv[1], 8000, 2)
ramp = np.linspace(-0.9, 0.9, 400, dtype=np.float32)
text = "One more thing that was said, " * 3
for at in range(100_000):
    recorder.audio(Block(np.stack([ramp, -ramp])))
    recorder.voice(f"S{at % 3}", at * 800, ramp)
    recorder.rows([Utterance(f"u{at}", "live", at / 20, at / 20 + 1, text, f"S{at % 3}")])
    if at % 40 == 7:
        recorder.rows([Correction("live", "S2", "S0", at / 20)])
    if at == 0:
        sys.stdout.write("ready")
        sys.stdout.flush()
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.111, 0.237, 0.4])
def test_a_kill_leaves_valid_files(tmp_path: Path, wait: float) -> None:
    folder = tmp_path / "saved"
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.read(5) == b"ready"
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
    utterances = of_kind(read_rows(folder / "transcript.jsonl"), Utterance)
    assert [u.id for u in utterances] == [f"u{at}" for at in range(len(utterances))]
    with open_audio(folder / "recording.wav") as audio:
        assert 0 <= audio.frames - 400 * len(utterances) <= 400
        ramp = np.linspace(-0.9, 0.9, 400)
        last = audio.read(audio.frames - 400).samples
        np.testing.assert_allclose(last, [ramp, -ramp], atol=1e-4)
    for path in folder.glob("speaker-*.wav"):
        with open_audio(path) as voice:
            assert voice.frames and voice.read().samples.any()
    assert 0 <= len(utterances) - len(srt(folder)) <= 1


# ---------------------------------------------------------------- a full disk


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Files can grow to `size` bytes only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture()
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, where mounting is allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(recorder: Recorder) -> int:
    """How many rounds were written before the one error; what comes after it is ignored."""
    rounds = 0
    with pytest.raises(OutputError) as caught:
        for rounds in range(1000):
            recorder.audio(Block(tone(400)))
            recorder.voice("S1", rounds * 800, tone(800))
            recorder.rows([said(rounds, text="Well, " * 40)])
    assert caught.value.hint == "What was saved so far is kept."
    assert recorder.broken
    recorder.audio(Block(tone(400)))
    recorder.voice("S9", 0, tone(400))
    recorder.rows([said(2000)])
    recorder.close()
    return rounds


def check_saved(folder: Path, rounds: int) -> None:
    with open_audio(folder / "recording.wav") as audio:
        assert 0 <= audio.frames - rounds * 400 <= 400
        assert audio.read().samples.min() == 0.5
    assert len(read_rows(folder / "transcript.jsonl")) in (rounds, rounds + 1)
    assert len(srt(folder)) == rounds
    assert soundfile.info(folder / "speaker-S1.wav").frames >= rounds * 800


def test_a_full_disk_ends_the_saving_and_keeps_what_is_there(tiny_disk: Path) -> None:
    recorder = Recorder(tiny_disk / "saved", RATE, 1)
    rounds = fill(recorder)
    assert rounds > 10 and recorder.broken == "the disk is full"
    check_saved(tiny_disk / "saved", rounds)


@pytest.mark.parametrize("size", [20_000, 20_481, 33_333])
def test_files_that_cannot_grow(tmp_path: Path, size: int) -> None:
    recorder = Recorder(tmp_path, RATE, 1)
    with at_most(size):
        rounds = fill(recorder)
    assert rounds > 5
    check_saved(tmp_path, rounds)


def test_subtitles_that_cannot_be_rewritten_stay(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RATE, 1)
    recorder.rows([said(at, "S2") for at in range(50)])
    before = (tmp_path / "transcript.srt").read_bytes()
    with at_most(len(before) - 10), pytest.raises(OutputError):
        recorder._rows._size = 0  # the rows fit
        recorder.rows([Correction("live", "S2", "Somebody", 0.0)])
    recorder.close()
    assert (tmp_path / "transcript.srt").read_bytes() == before
    assert names(tmp_path) == ["recording.wav", "transcript.jsonl", "transcript.srt"]


def test_a_new_file_replaces_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.close(_create(tmp_path / "b"))
    assert (tmp_path / "a").read_text() == "kept" and not (tmp_path / "b").is_symlink()


# ---------------------------------------------------------------- the spool


def blocks(count: int, frames: int = 400) -> list[Block]:
    return [Block(tone(frames, at / 1000, 2), at % 5 / 10) for at in range(count)]


def same(a: Block, b: Block) -> bool:
    return a.gap_s == b.gap_s and np.array_equal(a.samples, b.samples)


def test_a_spool_gives_back_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podtool.live.recorder._SEGMENT_BYTES", 20_000)
    spool = Spool(RATE, memory_s=0.2)
    given, got = blocks(300), []
    for at, block in enumerate(given):
        spool.put(block)
        if at % 3 == 0:
            got.append(spool.get(0))
    assert spool.behind_s == pytest.approx(200 * 0.05)
    assert spool._recent_frames <= 0.2 * RATE and len(spool._segments) > 3
    spool.close()
    spool.put(given[0])
    while (block_ := spool.get(0)) is not None:
        got.append(block_)
    assert len(got) == 300 and all(b and same(a, b) for a, b in zip(given, got, strict=True))
    assert spool.ended and spool.behind_s == 0 and spool.lost_s == 0


def test_a_spool_between_threads() -> None:
    spool = Spool(RATE, memory_s=0.1)
    given = blocks(500)

    def record() -> None:
        for block in given:
            spool.put(block)
        spool.close()

    threading.Thread(target=record).start()
    got = []
    while (block := spool.get()) is not None:
        got.append(block)
    assert len(got) == 500 and all(same(a, b) for a, b in zip(given, got, strict=True))


def test_waiting_at_a_spool_ends() -> None:
    spool = Spool(RATE)
    began = time.monotonic()
    assert spool.get(0.05) is None and not spool.ended
    threading.Timer(0.05, spool.close).start()
    assert spool.get() is None and spool.ended
    assert time.monotonic() - began < 1


def test_a_spool_on_a_full_disk_keeps_the_last_seconds(tmp_path: Path) -> None:
    spool = Spool(RATE, memory_s=0.5, folder=tmp_path)
    given = blocks(100)
    with at_most(40_000):
        for block in given:
            spool.put(block)
    got = []
    while (found := spool.get(0)) is not None:
        got.append(found)
    assert all(same(a, b) for a, b in zip(given[:12], got[:12], strict=True))  # on the disk
    assert [b.samples[0, 0] for b in got[-10:]] == [b.samples[0, 0] for b in given[-10:]]
    lost = given[12:-10]
    assert spool.lost_s == pytest.approx(len(lost) * 0.05)
    assert len(got) == 22
    whole = sum(b.gap_s for b in given) + len(lost) * 0.05
    assert sum(b.gap_s for b in got) == pytest.approx(whole)
    assert got[12].gap_s == pytest.approx(sum(b.gap_s + 0.05 for b in lost) + given[-10].gap_s)
