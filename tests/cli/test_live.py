"""`podtool live` as a process: pipes, signals, full disks, what it saves; and its mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from podtool import demo
from podtool.artifacts import Partial, Recording, Utterance
from podtool.audio import Audio, open_audio, write_audio
from podtool.corrections import settled
from podtool.errors import ModelError
from podtool.ffmpeg import executable
from podtool.resample import resample
from podtool.rowio import decode, of_kind, read_rows
from podtool.store import ModelStore

PODTOOL = [sys.executable, "-m", "podtool"]
RATE = 16000


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first seconds of the demo's episode: two people, 16 kHz mono."""
    store = ModelStore()
    try:
        for model in ("pyannote-segmentation-3.0", "moonshine-tiny-en", "campplus", "silero-vad"):
            store.folder(model)
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    folder = tmp_path_factory.mktemp("talk")
    with open_audio(demo.write(made, folder)["episode"]) as audio:
        whole = resample(audio.read(0, 20 * audio.sample_rate), RATE).samples.mean(0)
    write_audio(folder / "talk.wav", Audio(whole[None, 4 * RATE : 16 * RATE], RATE))
    return folder / "talk.wav"


def live(*args: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*PODTOOL, "live", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **options)


def rows_of(data: bytes) -> list[Any]:
    return [decode(line) for line in data.decode().splitlines()]


def words_of(data: bytes) -> list[str]:
    return " ".join(u.text for u in of_kind(rows_of(data), Utterance)).split()


# ---------------------------------------------------------------- mistakes, each one line


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["x.wav"], 2, "live --simulate x.wav"),
        (["-", "--device", "1"], 2, "one source"),
        (["--simulate", "/nowhere.wav"], 3, "/nowhere.wav does not exist"),
        (["--bench", "/nowhere.wav"], 3, "/nowhere.wav does not exist"),
        (["--simulate", "TONE", "--channel", "3"], 3, "there is no channel 3"),
        (["--simulate", "TONE", "--channel", "left"], 2, "'left' is no choice"),
        (["--simulate", "TONE", "--save", "FULL"], 8, "is not empty"),
        (["--simulate", "TONE", "--save", "TONE"], 8, "is not a folder"),
        (["--simulate", "TONE", "--engine", "nobody"], 5, "nobody"),
    ],
)
def test_mistakes(
    run: Callable[..., Result], tone: Path, tmp_path: Path, args: list[str], code: int, words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    names = {"TONE": str(tone), "FULL": str(tmp_path / "full")}
    done = run("live", *(names.get(a, a) for a in args))
    assert (done.exit_code, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.models
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "stdin is empty"),
        (b'{"kind": "turn"}\n', "rows, not audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "within its WAV header"),
        (b"ID3\x04\x00" + bytes(99), "stdin is MP3"),
    ],
)
def test_what_is_no_audio_on_stdin(run: Callable[..., Result], data: bytes, words: str) -> None:
    done = run("live", "-", input=data)
    assert (done.exit_code, done.stdout) == (3, ""), done.stderr
    assert words in done.stderr


def test_devices_without_portaudio(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for args in (["--list-devices"], []):
        done = run("live", *args)
        assert (done.exit_code, done.stdout) == (5, "") and "sounddevice" in done.stderr


# ---------------------------------------------------------------- pipes, and what is saved


@pytest.mark.models
@pytest.mark.slow
def test_what_is_saved_goes_on_into_other_commands(
    run: Callable[..., Result], talk: Path, tmp_path: Path
) -> None:
    with talk.open("rb") as stdin:
        done = live("-", "--save", tmp_path / "s", stdin=stdin)
    assert done.returncode == 0, done.stderr
    told = rows_of(done.stdout)
    assert told[0].kind == "provenance" and told[0].stage == "live" and of_kind(told, Partial)
    saved = tmp_path / "s" / "transcript.jsonl"
    kept = read_rows(saved)
    (recording,) = of_kind(kept, Recording)
    assert recording.frames == 12 * RATE and Path(recording.path).name == "recording.wav"
    assert of_kind(kept, Utterance) == of_kind(told, Utterance) and not of_kind(kept, Partial)
    np.testing.assert_allclose(
        soundfile.read(tmp_path / "s" / "recording.wav")[0], soundfile.read(talk)[0], atol=2e-5
    )
    checked = run("check", saved)
    assert checked.exit_code == 0, checked.stdout
    subtitles = run("export", saved, "-f", "srt")
    assert subtitles.exit_code == 0
    assert subtitles.stdout == (tmp_path / "s" / "transcript.srt").read_text()
    same = run("evaluate", saved, "-r", saved, "--metric", "wer", "--metric", "der")
    assert same.exit_code == 0, same.stderr
    assert [json.loads(x)["value"] for x in same.stdout.splitlines()][0] == 0
    voices = [p for p in (tmp_path / "s").glob("speaker-*.wav")]
    assert {p.stem for p in voices} >= {"speaker-S1"}
    assert all(soundfile.info(p).frames == 12 * RATE for p in voices)
    names = {u.speaker for u in of_kind(settled(kept), Utterance)}
    assert {f"speaker-{n}" for n in names if n != "S?"} <= {p.stem for p in voices}


@pytest.mark.models
@pytest.mark.slow
def test_raw_samples_and_a_wav_from_ffmpeg_say_the_same(talk: Path) -> None:
    ffmpeg = [executable(), "-v", "error", "-i", str(talk)]
    found = []
    for form, args in (
        (["-f", "wav"], []),
        (["-f", "s16le", "-ac", "1", "-ar", "16000"], ["--format", "s16le", "--rate", "16000"]),
    ):
        command = [*ffmpeg, *form, "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
            raw = ["--channels", "1"] if args else []
            done = live("-", "--no-partials", *args, *raw, stdin=source.stdout)
        assert done.returncode == 0, done.stderr
        found.append(words_of(done.stdout))
    assert found[0] == found[1] and len(found[0]) > 10


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_everything_that_was_said(
    talk: Path, tmp_path: Path, number: int, code: int
) -> None:
    command = [*PODTOOL, "live", "--simulate", str(talk), "--save", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = b""
        while b'"partial"' not in first:
            first = process.stdout.readline()
            assert first
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code and b"Traceback" not in err, err
    finals = of_kind(rows_of(out), Utterance)
    assert finals and finals == of_kind(read_rows(tmp_path / "s" / "transcript.jsonl"), Utterance)
    assert soundfile.info(tmp_path / "s" / "recording.wav").frames < 12 * RATE


@pytest.mark.models
@pytest.mark.slow
def test_a_stalled_reader_and_a_second_signal(talk: Path) -> None:
    """Nobody reads; the first Ctrl-C waits for a reader of the last words, the second does not."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    while True:
        try:
            os.write(write, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(write, True)
    command = [*PODTOOL, "live", "--simulate", str(talk), "--speed", "4"]
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)  # the file is over; the rows wait
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    os.close(read)
    os.close(write)
    assert process.returncode == 130 and b"Traceback" not in err and b"Fatal" not in err, err


@pytest.mark.models
@pytest.mark.slow
def test_a_reader_that_leaves_and_a_disk_that_is_full(talk: Path, tmp_path: Path) -> None:
    command = [*PODTOOL, "live", "--simulate", str(talk), "--speed", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(30) == 141 and b"Traceback" not in err and b"Broken" not in err
    limited = (
        f"trap '' XFSZ; ulimit -f 100; exec {sys.executable} -m podtool live"
        f" --simulate {talk} --speed 4 --save {tmp_path}/s"
    )
    done = subprocess.run(["bash", "-c", limited], capture_output=True, timeout=60)
    assert done.returncode == 8 and b"nothing more is saved" in done.stderr, done.stderr
    assert b"is not complete" in done.stderr and len(words_of(done.stdout)) > 10
    assert 0 < soundfile.info(tmp_path / "s" / "recording.wav").frames < 12 * RATE
