"""The embedded recogniser and the transcribe stage on real speech, with the real weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from podtool.artifacts import Turn
from podtool.audio import Audio, open_audio
from podtool.engines import load
from podtool.engines.alignment_pocketsphinx import PocketSphinxAligner
from podtool.engines.moonshine_decoder import read_tokenizer
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_moonshine import Moonshine
from podtool.errors import EngineUnavailableError, ModelError
from podtool.resample import resample
from podtool.stages.transcribe import TranscribeParams, transcribe, transcript_metrics
from podtool.store import ModelStore
from podtool.text import normalise


def test_a_damaged_tokenizer_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(b"\x05<unk>\x03<s>\x04</s>\x09cut")
    with pytest.raises(ModelError, match="tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.bin")
    (tmp_path / "tokenizer.bin").write_bytes(b"\x05<unk>\x03<s>\x04</s>\x02it\x00")
    assert read_tokenizer(tmp_path / "tokenizer.bin") == [b"<unk>", b"<s>", b"</s>", b"it", b""]


@pytest.fixture(scope="module")
def engine() -> Moonshine:
    context = EngineContext(ModelStore(), threads=1)
    try:
        loaded: Moonshine = load("transcription", "moonshine", context)
    except ModelError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return loaded


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner.load(EngineContext(ModelStore()))


def readings(data: Path, speakers: int) -> list[tuple[Audio, str]]:
    """One utterance of 4 to 9 s from each of some speakers of test-clean, and its words."""
    rows = [json.loads(line) for line in (data / "MANIFEST.jsonl").open()]
    chosen = {
        r["speaker"]: r
        for r in rows
        if r.get("corpus") == "LibriSpeech test-clean" and 4 < r["duration_s"] < 9
    }
    found = []
    for speaker in sorted(chosen)[:speakers]:
        with open_audio(data / chosen[speaker]["path"]) as file:
            found.append((resample(file.read(), 16000), chosen[speaker]["transcript"]))
    return found


@pytest.mark.models
def test_reads_real_speech(engine: Moonshine, data: Path) -> None:
    import jiwer

    pairs = [(t, engine.transcribe(a, "en")) for a, t in readings(data, 5)]
    heard = [normalise(" ".join(u.text for u in found)) for _, found in pairs]
    error = jiwer.wer([normalise(t) for t, _ in pairs], heard)
    print(f"WER {error:.3f} on five utterances")
    assert error < 0.12
    words = [w for _, found in pairs for u in found for w in u.words or ()]
    assert all(w.score is not None and 0 < w.score <= 1 for w in words)


@pytest.mark.models
@pytest.mark.parametrize("frames", [0, 1, 200, 1600, 16000])
def test_silence_and_scraps_say_little(engine: Moonshine, frames: int) -> None:
    assert engine.transcribe(Audio(np.zeros((1, frames), np.float32), 16000), "en") == []
    noise = np.random.default_rng(0).normal(0, 0.01, (1, frames)).astype(np.float32)
    found = engine.transcribe(Audio(noise, 16000), None)
    assert sum(len(u.words or ()) for u in found) <= 7


@pytest.mark.models
def test_other_languages_are_refused_with_the_engine_that_reads_them(engine: Moonshine) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        engine.transcribe(Audio(np.zeros((1, 16000), np.float32), 16000), "de")
    assert "mlx-whisper" in (caught.value.hint or "")


@pytest.mark.models
def test_stage_gives_each_speaker_a_stream(
    engine: Moonshine, aligner: PocketSphinxAligner, data: Path
) -> None:
    (a, first), (b, second) = readings(data, 2)
    rate = 16000
    late = round((a.duration - 0.4) * rate)  # B begins before A has ended
    samples = np.zeros((1, late + b.frames + rate), np.float32)
    samples[:, : a.frames] += a.samples
    samples[:, late : late + b.frames] += b.samples
    mixed = Audio(samples, rate)
    turns = [
        Turn("t1", "r", 0.0, a.duration, "S1"),
        Turn("t2", "r", late / rate, late / rate + b.duration, "S2"),
    ]
    found = transcribe(mixed, turns, engine, aligner)
    assert found == transcribe(mixed, turns, engine, aligner)
    assert [u.id for u in found] == [f"u{n:04d}" for n in range(1, len(found) + 1)]
    for speaker, text in (("S1", first), ("S2", second)):
        own = [u for u in found if u.speaker == speaker]
        said = set(normalise(" ".join(u.text for u in own)).split())
        wanted = set(normalise(text).split())
        assert len(said & wanted) / len(wanted) > 0.6
        assert all(x.end <= y.start for x, y in zip(own, own[1:], strict=False))
        span = next(t for t in turns if t.speaker == speaker)
        for utterance in own:
            assert utterance.turn == span.id
            assert span.start - 0.2 <= utterance.start < utterance.end <= span.end + 0.2
            assert utterance.text.split() == [w.text for w in utterance.words or ()]
            assert all(w.start <= w.end for w in utterance.words or ())
    figures = {m.name: m.value for m in transcript_metrics(found)}
    assert figures["words"] > 10 and figures["low_confidence_share"] < 0.5
    separated = transcribe(mixed, turns, engine, aligner, streams={"S1": a})
    assert {u.stem for u in separated if u.speaker == "S1"} == {"speaker:S1"}
    alone = transcribe(mixed, turns[:1], engine, aligner, streams={"S1": a}, speakers=["S1"])
    assert {u.stem for u in alone} == {None}  # nobody talks over S1: read as it is


@pytest.mark.models
def test_no_turns_no_utterances(engine: Moonshine, aligner: PocketSphinxAligner) -> None:
    silence = Audio(np.zeros((1, 16000), np.float32), 16000)
    assert transcribe(silence, [], engine, aligner) == []
    with pytest.raises(EngineUnavailableError, match="not fr"):
        transcribe(silence, [], engine, aligner, TranscribeParams(language="fr-CH"))
