"""mlx-whisper end to end on a tiny model written so that greedy decoding says a fixed text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_mlx_whisper import MlxWhisper
from podtool.errors import ConfigError, EngineUnavailableError, ModelError

STATE, TEXT = 32, " Good morning everyone."


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def write_model(folder: Path, half: bool = True) -> None:
    """A Whisper of one block per side whose blocks add nothing: position p alone picks token p.

    Token embeddings: the token of position p is one-hot in dimension p; the position embedding is
    the same, ten times as strong, so that the previous token cannot outweigh it.
    """
    mx = pytest.importorskip("mlx.core")
    from mlx.utils import tree_flatten
    from mlx_whisper.tokenizer import get_tokenizer
    from mlx_whisper.whisper import ModelDimensions, Whisper

    config = {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": STATE, "n_audio_head": 2,
        "n_audio_layer": 1, "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": STATE,
        "n_text_head": 2, "n_text_layer": 1,
    }  # fmt: skip
    mx.random.seed(0)
    model = Whisper(ModelDimensions(**config), mx.float32)
    tokenizer = get_tokenizer(True, num_languages=99, language="en", task="transcribe")
    begin = tokenizer.timestamp_begin
    text: list[int] = list(tokenizer.encode(TEXT))
    script = [begin, *text, begin + 75, tokenizer.eot]
    tokens = np.zeros((config["n_vocab"], STATE), np.float32)
    positions = np.zeros((config["n_text_ctx"], STATE), np.float32)
    for step, token in enumerate(script):
        position = 2 + step  # the prompt is start, language, task: the last one predicts first
        tokens[token, position] = 1.0
        positions[position, position] = 10.0
    parameters: Any = tree_flatten(model.parameters())
    weights = {name: np.array(value) for name, value in parameters}
    for name in weights:
        if name.startswith("decoder") and (".out." in name or ".mlp2." in name):
            weights[name] = np.zeros_like(weights[name])
    weights["decoder.token_embedding.weight"] = tokens
    weights["decoder.positional_embedding"] = positions
    weights["decoder.ln.weight"] = np.full(STATE, 4.0, np.float32)
    weights = {k: v for k, v in weights.items() if k != "alignment_heads"}
    weights = {k: v for k, v in weights.items() if not k.split(".")[-1].startswith("_")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper", **config}))
    mx.save_safetensors(
        str(folder / "weights.safetensors"),
        {k: mx.array(v).astype(mx.float16 if half else mx.float32) for k, v in weights.items()},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mlx_whisper")
    path = tmp_path_factory.mktemp("mlx") / "tiny"
    write_model(path)
    return path


def speech(seconds: float) -> Audio:
    rng = np.random.default_rng(0)
    return Audio(rng.normal(0, 0.05, (1, int(seconds * 16000))).astype(np.float32), 16000)


@pytest.mark.slow
@pytest.mark.engine("mlx-whisper")
def test_reads_the_fixed_text_with_word_times(folder: Path) -> None:
    engine = MlxWhisper.load(EngineContext(NoStore(), options={"model": str(folder)}))
    audio = speech(2.0)
    found = engine.transcribe(audio, "en")
    assert [u.text for u in found] == [TEXT.strip()]
    words = found[0].words or ()
    assert [w.text for w in words] == TEXT.split()
    assert all(0 <= w.start <= w.end <= audio.duration for w in words)
    assert all(a.end <= b.start for a, b in zip(words, words[1:], strict=False))
    assert all(w.score is not None and w.score > 0.5 for w in words)
    assert engine.transcribe(audio, "en") == found


@pytest.mark.slow
@pytest.mark.engine("mlx-whisper")
def test_reads_a_model_in_single_precision(tmp_path: Path) -> None:
    pytest.importorskip("mlx_whisper")
    write_model(tmp_path / "tiny", half=False)
    context = EngineContext(NoStore(), options={"model": str(tmp_path / "tiny")})
    assert [u.text for u in MlxWhisper.load(context).transcribe(speech(1.0), "en")] == [
        TEXT.strip()
    ]


@pytest.mark.engine("mlx-whisper")
def test_languages_prompt_and_temperature(folder: Path) -> None:
    context = EngineContext(NoStore(), options={"model": str(folder)})
    engine = MlxWhisper.load(context)
    heard = engine.languages_heard(speech(2.0))
    assert len(heard) == 99 and sum(heard.values()) == pytest.approx(1, abs=1e-3)
    drawn = engine.transcribe_at(speech(1.0), "en", 0.4, 7)
    assert drawn == engine.transcribe_at(speech(1.0), "en", 0.4, 7)
    # The prompt moves the text to other positions, at which this model says other things.
    options = {"model": str(folder), "prompt": "Everyone", "tokens": "8"}
    prompted = MlxWhisper.load(EngineContext(NoStore(), options=options))
    assert [u.text for u in prompted.transcribe(speech(1.0), "en")] != [TEXT.strip()]


@pytest.mark.engine("mlx-whisper")
def test_silence_says_nothing_and_unknown_languages_are_refused(folder: Path) -> None:
    engine = MlxWhisper.load(EngineContext(NoStore(), options={"model": str(folder)}))
    assert engine.transcribe(Audio(np.zeros((1, 16000), np.float32), 16000), "en") == []
    with pytest.raises(EngineUnavailableError, match="tlh"):
        engine.transcribe(speech(1.0), "tlh")


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    def missing(name: str) -> ModelError:
        with pytest.raises(ModelError) as told:
            MlxWhisper.locate(EngineContext(NoStore(), options={"model": name}))
        return told.value

    hint = missing("mlx-community/no-such-model").hint
    assert hint == "hf download mlx-community/no-such-model"
    assert "config.json" in missing(str(tmp_path)).message
    assert "./nowhere" in missing("./nowhere").message
    assert missing("whisper-large-v3-turbo-mlx").message == "whisper-large-v3-turbo-mlx"


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="tokens"):
        MlxWhisper.load(EngineContext(NoStore(), options={"tokens": "many"}))
