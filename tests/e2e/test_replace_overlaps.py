"""replace --overlap separate from end to end: two readings laid over each other, real engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import Result

from podtool import demo, engines
from podtool.artifacts import Stem, Take
from podtool.audio import Audio, open_audio, write_audio
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ModelError
from podtool.resample import resample
from podtool.rowio import of_kind, read_rows
from podtool.store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.slow]
RATE = 16000
TURNS = [("S1", 0.3, 5.0), ("S2", 3.5, 8.2), ("S1", 8.8, 10.6)]
Run = Callable[..., Result]
Samples = NDArray[np.float32]


class Oracle:
    """Knows who said what: it finds the window in the sum of the dry tracks."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="oracle", stage="talkers", version="1", licence="MIT", tier="embedded",
        sample_rate=RATE,
    )  # fmt: skip
    max_talkers = 3
    tracks: ClassVar[Samples]

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls()

    def talkers(self, audio: Audio, count: int) -> Samples:
        whole = self.tracks.sum(axis=0)
        size = 1 << (len(whole) + audio.frames).bit_length()
        product = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(audio.samples[0], size))
        at = int(np.fft.irfft(product, size)[: len(whole)].argmax())
        found: Samples = self.tracks[::-1, at : at + audio.frames]
        return np.ascontiguousarray(found)


@pytest.fixture()
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "an_oracle", sys.modules[__name__])
    monkeypatch.setitem(engines.BUILTIN, "talkers", {"oracle": "an_oracle:Oracle"})


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ep.wav, turns.rttm, s2.wav (the dry track of S2), voice.wav."""
    store = ModelStore()
    try:
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    folder = tmp_path_factory.mktemp("show")
    labels = sorted({t.speaker for t in made.turns})
    speakers = {
        s: [t for t in made.turns if t.speaker == n]
        for s, n in zip(("S1", "S2"), labels, strict=True)
    }
    tracks = np.zeros((2, 11 * RATE), np.float32)
    speech = sum(resample(r, RATE).samples.mean(axis=0) for r in made.readers)
    used = {"S1": 0, "S2": 0}
    for who, start, end in TURNS:
        source = speakers[who][used[who]]
        used[who] += 1
        first = round(source.start * RATE)
        frames = min(round((end - start) * RATE), round((source.end - source.start) * RATE))
        at = round(start * RATE)
        tracks[int(who == "S2"), at : at + frames] = speech[first : first + frames]
    Oracle.tracks = tracks
    write_audio(folder / "ep.wav", Audio(tracks.sum(axis=0, keepdims=True), RATE), "pcm24")
    write_audio(folder / "s2.wav", Audio(tracks[1:], RATE), "float")
    write_audio(folder / "voice.wav", made.voice)
    (folder / "turns.rttm").write_text(
        "".join(
            f"SPEAKER ep 1 {start} {end - start} <NA> <NA> {who} <NA> <NA>\n"
            for who, start, end in TURNS
        )
    )
    return folder


def words(show: Path, output: Path, *more: object) -> list[str]:
    voice = ("--speaker", "S1", "--voice", show / "voice.wav", "--consent", "a test")
    turns = ("--turns", show / "turns.rttm", "--bed", "mixture")
    return [str(p) for p in ("replace", show / "ep.wav", *voice, *turns, "-o", output, *more)]


def started(folder: Path) -> list[str]:
    text = (folder / "new.podtool" / "journal.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [e.get("stage", e.get("take")) for e in found if e["event"] in ("started", "take")]


def si_sdr(estimate: Samples, truth: Samples) -> float:
    target = truth * (estimate @ truth) / (truth @ truth)
    return float(10 * np.log10(target @ target / np.square(estimate - target).sum()))


@pytest.mark.usefixtures("oracle")
def test_in_an_overlap_one_voice_is_replaced_and_the_other_stays(
    run: Run, show: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new.wav"
    kept = run(*words(show, output))
    assert kept.exit_code == 0, kept.stderr
    plain = started(tmp_path)
    done = run(*words(show, output, "--overlap", "separate"))
    assert done.exit_code == 0, done.stderr
    again = started(tmp_path)[len(plain) :]
    assert again[:2] == ["talkers", "synthesize"]
    assert [x for x in again if x.startswith("k")] == ["k0001"]  # k0003: nobody talks over it
    folder = tmp_path / "new.podtool"
    stems = of_kind(read_rows(folder / "talkers" / "talkers.jsonl"), Stem)
    assert [(s.speaker, Path(s.path).name) for s in stems] == [("S1", "speaker-S1.wav")]
    takes = of_kind(read_rows(folder / "synthesize" / "takes.jsonl"), Take)
    assert all(t.keep is None for t in takes) and len(takes) == 2
    with open_audio(output) as new, open_audio(show / "ep.wav") as old:
        result, original = new.read().samples[0], old.read().samples[0]
    outside = np.ones(len(result), bool)
    for take in takes:
        outside[round(take.start * RATE) : round(take.end * RATE)] = False
    assert np.array_equal(result[outside], original[outside])
    both = slice(round(3.6 * RATE), round(4.9 * RATE))
    with open_audio(takes[0].path) as audio:
        take = audio.read(both.start - round(0.3 * RATE), both.stop - round(0.3 * RATE)).samples[0]
    gain = (result - Oracle.tracks[1])[both] @ take / (take @ take)
    left = result[both] - gain * take
    assert (
        si_sdr(left, Oracle.tracks[1][both])
        > 30
        > 10
        > si_sdr(original[both], Oracle.tracks[1][both])
    )
    before = len(started(tmp_path))
    assert run(*words(show, output, "--overlap", "separate")).exit_code == 0
    assert len(started(tmp_path)) == before  # all of it is reused
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    stem = folder / "talkers" / "speaker-S1.wav"
    stem.unlink()
    assert run(*words(show, output, "--overlap", "separate")).exit_code == 0
    assert started(tmp_path)[before:] == ["talkers"]  # the same again: nothing follows
    assert stem.read_bytes() == (copy / "talkers" / stem.name).read_bytes()
