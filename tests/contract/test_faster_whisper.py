"""faster-whisper on a tiny CTranslate2 model written so that greedy decoding says a fixed text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_faster_whisper import FasterWhisper
from podtool.errors import ConfigError, EngineUnavailableError, ModelError

pytest.importorskip("faster_whisper")
pytestmark = pytest.mark.engine("faster-whisper")

STATE, WORDS = 32, (" Good", " morning", " everyone", ".")
TEXT = "Good morning everyone."
EOT, LANGUAGES = 50257, 99  # as OpenAI's multilingual vocabulary has them
TIMES = EOT + 1 + LANGUAGES + 7


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def vocabulary() -> list[str]:
    """51865 tokens in the order of Whisper's: bytes, words, filling, specials, times."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers.pre_tokenizers import ByteLevel

    text = sorted(ByteLevel.alphabet()) + [w.replace(" ", "\u0120") for w in WORDS[:3]]
    text += [f"filling{n}" for n in range(EOT - 1 - len(text))]
    text.append("")  # by which CTranslate2 knows the multilingual vocabulary
    codes = [c for c in _LANGUAGE_CODES if c != "yue"]
    codes = ["en", *[c for c in codes if c != "en"]]
    names = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    special = ["endoftext", "startoftranscript", *codes, *names]
    times = [f"{n * 0.02:.2f}" for n in range(1501)]
    return text + [f"<|{s}|>" for s in (*special, *times)]


def write_model(folder: Path) -> None:
    """A Whisper of one block per side whose blocks add nothing: position p alone picks token p.

    The heads of the first token pick the language (German).
    """
    from ctranslate2.specs.whisper_spec import WhisperSpec
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = vocabulary()
    ids = {token: n for n, token in enumerate(tokens)}
    rng = np.random.default_rng(0)

    def array(*shape: int, zero: bool = False) -> Any:
        return np.zeros(shape, np.float32) if zero else (
            rng.normal(0, 0.02, shape).astype(np.float32)
        )  # fmt: skip

    def linear(layer: Any, outputs: int, inputs: int, zero: bool = False) -> None:
        layer.weight, layer.bias = array(outputs, inputs, zero=zero), array(outputs, zero=True)

    def norm(layer: Any, gain: float = 1.0) -> None:
        layer.gamma, layer.beta = np.full(STATE, gain, np.float32), array(STATE, zero=True)

    spec = WhisperSpec(1, 2, 1, 2)
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = array(STATE, 80, 3), array(STATE)
    encoder.conv2.weight, encoder.conv2.bias = array(STATE, STATE, 3), array(STATE)
    encoder.position_encodings.encodings = array(1500, STATE)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm, 4.0)
    for layer in (encoder.layer[0], decoder.layer[0]):
        linear(layer.self_attention.linear[0], 3 * STATE, STATE)
        linear(layer.self_attention.linear[1], STATE, STATE, zero=True)
        linear(layer.ffn.linear_0, 4 * STATE, STATE)
        linear(layer.ffn.linear_1, STATE, 4 * STATE, zero=True)
        norm(layer.self_attention.layer_norm)
        norm(layer.ffn.layer_norm)
    cross = decoder.layer[0].attention
    linear(cross.linear[0], STATE, STATE)
    linear(cross.linear[1], 2 * STATE, STATE)
    linear(cross.linear[2], STATE, STATE, zero=True)
    norm(cross.layer_norm)
    embeddings, positions = array(len(tokens), STATE, zero=True), array(448, STATE, zero=True)
    said = [ids[w.replace(" ", "\u0120")] for w in WORDS]
    script = {0: ids["<|de|>"], 2: TIMES, 7: TIMES + 75, 8: EOT}
    script |= {3 + n: token for n, token in enumerate(said)}
    for position, token in script.items():
        embeddings[token, position], positions[position, position] = 1.0, 10.0
    decoder.embeddings.weight = embeddings
    decoder.position_encodings.encodings = positions
    decoder.projection.weight = embeddings
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [(0, 0)]
    spec.config.lang_ids = list(range(EOT + 2, EOT + 2 + LANGUAGES))
    spec.register_vocabulary(tokens)
    folder.mkdir()
    spec.validate()
    spec.optimize(quantization="float16")
    spec.save(str(folder))
    tokenizer = Tokenizer(BPE(vocab={t: n for t, n in ids.items() if n < EOT}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in tokens[EOT:]])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ct2") / "tiny"
    write_model(path)
    assert json.loads((path / "config.json").read_text())["alignment_heads"] == [[0, 0]]
    return path


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder), **options})


@pytest.fixture(scope="module")
def engine(folder: Path) -> FasterWhisper:
    return FasterWhisper.load(context(folder))


def noise(seconds: float, channels: int = 1) -> Audio:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (channels, int(seconds * 16000)))
    return Audio(samples.astype(np.float32), 16000)


@pytest.mark.parametrize("channels", [1, 2])
def test_reads_the_fixed_text_with_word_times(engine: FasterWhisper, channels: int) -> None:
    audio = noise(2.0, channels)
    found = engine.transcribe(audio, "en")
    assert [u.text for u in found] == [TEXT] and found[0].language == "en"
    words = found[0].words or ()
    assert [w.text for w in words] == TEXT.split()
    assert all(0 <= w.start <= w.end <= audio.duration for w in words)
    assert all(a.end <= b.start for a, b in zip(words, words[1:], strict=False))
    assert all(w.score is not None and w.score > 0.5 for w in words)
    assert engine.transcribe(audio, "en") == found


def test_the_language_is_told(engine: FasterWhisper) -> None:
    heard = engine.languages_heard(noise(2.0))
    assert max(heard, key=lambda code: heard[code]) == "de"
    assert len(heard) == LANGUAGES and sum(heard.values()) == pytest.approx(1, abs=1e-3)
    assert engine.transcribe(noise(2.0), None)[0].language == "de"


def test_a_temperature_and_a_seed_give_one_result(engine: FasterWhisper) -> None:
    found = engine.transcribe_at(noise(2.0), "en", 0.4, 7)
    assert found == engine.transcribe_at(noise(2.0), "en", 0.4, 7)


def test_a_batch_gives_what_single_windows_give(engine: FasterWhisper) -> None:
    silence = Audio(np.zeros((1, 16000), np.float32), 16000)
    windows = [noise(2.0), silence, noise(3.3), noise(1.6)]
    together = engine.transcribe_many(windows, "en")
    assert [[u.text for u in f] for f in together] == [[TEXT], [], [TEXT], [TEXT]]
    for window, found in zip(windows, together, strict=True):
        for word in (w for u in found for w in u.words or ()):
            assert 0 <= word.start <= word.end <= window.duration
    assert engine.transcribe_many([silence], "en") == [[]]
    assert engine.transcribe_many([], "en") == []


@pytest.mark.parametrize("frames", [0, 1, 160, 1600])
def test_silence_and_scraps_say_nothing(engine: FasterWhisper, frames: int) -> None:
    assert engine.transcribe(Audio(np.zeros((1, frames), np.float32), 16000), "en") == []
    for found in engine.transcribe(noise(frames / 16000), "en"):
        assert found.end <= frames / 16000 + 1e-9


def test_prompt_and_tokens_reach_the_model(folder: Path) -> None:
    short = FasterWhisper.load(context(folder, tokens="3")).transcribe(noise(2.0), "en")
    assert {u.text for u in short} == {"Good morning"}
    # The prompt moves the text to other positions, at which this model says other things.
    prompted = FasterWhisper.load(context(folder, prompt="Good")).transcribe(noise(2.0), "en")
    assert [u.text for u in prompted] != [TEXT]


def test_what_is_wrong_is_said(folder: Path, engine: FasterWhisper, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="tlh"):
        engine.transcribe(noise(1.0), "tlh")
    with pytest.raises(ConfigError, match="beam"):
        FasterWhisper.load(context(folder, beam="wide"))
    with pytest.raises(ModelError, match="model.bin"):
        FasterWhisper.load(context(tmp_path))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (broken / name).write_text("{}")
    with pytest.raises(ModelError, match="not a Whisper model"):
        FasterWhisper.load(context(broken))
    status = availability("transcription", "faster-whisper", EngineContext(NoStore()))
    assert status.hint == "hf download mobiuslabsgmbh/faster-whisper-large-v3-turbo"
