"""Pocket TTS on a tiny model: real files of every kind that a real one has, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability
from podtool.engines.protocols import EngineContext
from podtool.engines.voice_pocket import PocketTts
from podtool.engines.worker import Worker
from podtool.errors import ConfigError, EngineUnavailableError, ModelError
from podtool.spoken_takes import speaking_engine
from podtool.stages.retakes import Careful
from podtool.stages.speak import SpeakParams

pytest.importorskip("pocket_tts", reason="pip install 'podtool[pocket-tts]'")
pytestmark = pytest.mark.engine("pocket-tts")

SEANET = {
    "dimension": 16, "channels": 1, "n_filters": 2, "n_residual_layers": 1, "ratios": [6, 5, 4],
    "kernel_size": 7, "residual_kernel_size": 3, "last_kernel_size": 3, "dilation_base": 2,
    "pad_mode": "constant", "compress": 2,
}  # fmt: skip
TRANSFORMER = {
    "d_model": 16, "num_heads": 2, "num_layers": 1, "layer_scale": 0.01, "context": 50,
    "dim_feedforward": 32, "input_dimension": 16, "output_dimensions": [16],
}  # fmt: skip


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def config(pieces: int) -> dict[str, Any]:
    return {
        "weights_path": "model.safetensors",
        "flow_lm": {
            "insert_bos_before_voice": True,
            "dtype": "float32",
            "flow": {"depth": 1, "dim": 16},
            "transformer": {
                "d_model": 32, "hidden_scale": 2, "max_period": 10000, "num_heads": 2,
                "num_layers": 1,
            },
            "lookup_table": {
                "dim": 32, "n_bins": pieces, "tokenizer": "sentencepiece",
                "tokenizer_path": "tokenizer.model",
            },
        },
        "mimi": {
            "dtype": "float32", "sample_rate": 24000, "inner_dim": 8, "outer_dim": 16,
            "channels": 1, "frame_rate": 12.5, "seanet": SEANET, "transformer": TRANSFORMER,
            "quantizer": {"dimension": 8, "output_dimension": 16},
        },
    }  # fmt: skip


def write_model(folder: Path) -> None:
    """A configuration, a tokenizer, weights, and the state of a voice called alba."""
    import sentencepiece
    import torch
    import yaml
    from pocket_tts import TTSModel, export_model_state
    from safetensors.torch import save_file

    lines = ["the quick brown fox jumps over the lazy dog", "Hello there, how are you today?"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), vocab_size=60,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).vocab_size()
    whole = config(pieces)
    untrained = {**whole, "weights_path": None}
    untrained["flow_lm"] = {**whole["flow_lm"]}
    untrained["flow_lm"]["lookup_table"] = {
        **whole["flow_lm"]["lookup_table"], "tokenizer_path": str(folder / "tokenizer.model"),
    }  # fmt: skip
    scratch = folder / "untrained.yaml"
    scratch.write_text(yaml.safe_dump(untrained))
    torch.manual_seed(0)
    model = TTSModel.load_model(config=scratch)
    scratch.unlink()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.nan_to_num(tensor) + 0.02 * torch.randn_like(tensor))
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / whole["weights_path"])
    (folder / "model.yaml").write_text(yaml.safe_dump(whole))
    state = model.get_state_for_audio_prompt(0.1 * torch.randn(1, 24000))
    export_model_state(state, folder / "alba.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pocket")
    write_model(path)
    return path


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), options={"model": str(folder), **options})


@pytest.fixture(scope="module")
def engine(folder: Path) -> PocketTts:
    return PocketTts.load(context(folder))


def said(engine: PocketTts, text: str, seed: int = 0, rate: float = 1.0) -> Audio:
    found = list(engine.speak(text, rate, seed))
    assert all(b.sample_rate == 24000 and b.samples.shape[0] == 1 for b in found)
    return Audio(np.concatenate([b.samples for b in found], axis=1), 24000)


def test_one_seed_is_one_take(engine: PocketTts) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = said(engine, "Hi."), said(engine, "Hi.")
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.frames > 2400 and np.isfinite(first.samples).all()
    assert first.samples.dtype == np.float32 and first.samples.any()
    assert np.array_equal(first.samples, again.samples)
    other = said(engine, "Hi.", seed=1)
    assert not np.array_equal(first.samples[:, :2400], other.samples[:, :2400])


def test_the_rate_is_not_heeded_and_it_says_so(engine: PocketTts) -> None:
    assert not engine.info.paced and engine.info.seeded
    slow, fast = said(engine, "Hi.", rate=0.5), said(engine, "Hi.", rate=2.0)
    assert np.array_equal(slow.samples, fast.samples)


def test_without_text_there_is_nothing_to_say(engine: PocketTts) -> None:
    assert list(engine.speak("  ", 1.0, 0)) == []


@pytest.mark.parametrize(("rate", "channels"), [(24000, 1), (44100, 2), (8000, 1)])
def test_a_voice_is_taken_from_a_reference(engine: PocketTts, rate: int, channels: int) -> None:
    rng = np.random.default_rng(1)
    reference = Audio(rng.normal(0, 0.1, (channels, rate)).astype(np.float32), rate)
    voice = engine.voice_of(reference)
    first, again = ([*engine.speak_as("Hi.", voice, 0)] for _ in range(2))
    a, b = (np.concatenate([x.samples for x in y], axis=1) for y in (first, again))
    assert np.array_equal(a, b)
    own = said(engine, "Hi.").samples
    n = min(own.shape[1], a.shape[1])
    assert not np.array_equal(own[:, :n], a[:, :n])


def test_weights_without_cloning_say_where_the_others_are(folder: Path) -> None:
    plain = PocketTts.load(context(folder))
    plain.clones = False
    with pytest.raises(ModelError, match="cannot clone") as raised:
        plain.voice_of(Audio(np.zeros((1, 24000), np.float32), 24000))
    assert "kyutai/pocket-tts" in (raised.value.hint or "")


def test_a_clip_is_no_voice_without_consent(folder: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        PocketTts.load(context(folder, voice="somebody.wav"))
    assert "consent" in (raised.value.hint or "")
    with pytest.raises(ConfigError, match="speak"):
        PocketTts.load(context(folder, language="xx"))


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="0 .yaml"):
        PocketTts.load(context(tmp_path))
    with pytest.raises(ModelError, match="marius"):
        PocketTts.load(context(folder, voice="marius"))
    (tmp_path / "model.yaml").write_text((folder / "model.yaml").read_text())
    with pytest.raises(ModelError, match="holds no"):
        PocketTts.load(context(tmp_path))
    for name in ("tokenizer.model", "alba.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot load"):
        PocketTts.load(context(tmp_path))


def test_the_released_weights_are_asked_for_by_their_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    status = availability("speaking", "pocket-tts", EngineContext(NoStore()))
    assert not status.available and status.installed
    assert status.hint.count("hf download kyutai/pocket-tts-without-voice-cloning ") == 2
    assert "--revision" in status.hint
    with pytest.raises((ModelError, EngineUnavailableError)):
        PocketTts.load(EngineContext(NoStore()))


def test_it_speaks_through_a_worker_and_a_voice_stays_there(
    engine: PocketTts, folder: Path
) -> None:
    params = SpeakParams(engine="pocket-tts", model=str(folder), listener="none")
    careful = speaking_engine(EngineContext(NoStore()), params)
    assert isinstance(careful, Careful) and isinstance(careful._engine, Worker)
    alone = Careful(engine, None).say("Hi.", 1.0, 3).audio
    assert np.array_equal(careful.say("Hi.", 1.0, 3).audio.samples, alone.samples)
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 24000)).astype(np.float32)
    worker = careful._engine
    kept = worker.voice_of(Audio(noise, 24000))
    (first, *_) = worker.speak_as("Hi.", kept, 0)
    (own, *_) = engine.speak_as("Hi.", engine.voice_of(Audio(noise, 24000)), 0)
    assert np.array_equal(first.samples, own.samples)
    worker.close()


def test_settings_that_it_does_not_know_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="takes no model"):
        speaking_engine(EngineContext(NoStore()), SpeakParams(engine="espeak", model=str(folder)))
