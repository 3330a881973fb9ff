"""The CTC aligner on tiny wav2vec2 models: real files, real loading, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from podtool.artifacts import Utterance
from podtool.audio import Audio
from podtool.engines import availability
from podtool.engines.alignment_ctc import CtcAligner
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import ModelError
from podtool.stages.align import align

pytest.importorskip("transformers")
pytestmark = pytest.mark.engine("ctc")

ENGLISH = {letter: n for n, letter in enumerate("_|ABCDEFGHIJKLMNOPQRSTUVWXYZ'")}
GERMAN = {
    letter: n for n, letter in enumerate("_|abcdefghijklmnopqrstuvwxyz\u00e4\u00f6\u00fc\u00df")
}


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def write_model(folder: Path, letters: dict[str, Any], size: int, **config: Any) -> Any:
    """A wav2vec2 of one block with 20 ms frames; the network, for comparison."""
    import torch

    make_harmless()
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(1)
    network = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, conv_dim=(8, 8, 8), conv_kernel=(10, 8, 8),
            conv_stride=(5, 8, 8), num_feat_extract_layers=3, num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2, pad_token_id=0, **config,
        )
    ).eval()  # fmt: skip
    network.save_pretrained(folder, safe_serialization=True)
    (folder / "vocab.json").write_text(json.dumps(letters))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return network


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), options={"model": str(folder), **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ctc") / "wav2vec2-base-960h"
    write_model(path, ENGLISH, len(ENGLISH))
    return path


def noise(seconds: float, channels: int = 1) -> Audio:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (channels, int(seconds * 16000)))
    return Audio(samples.astype(np.float32), 16000)


@pytest.mark.parametrize("channels", [1, 2])
def test_every_word_has_times_in_order_and_a_score(folder: Path, channels: int) -> None:
    engine = CtcAligner.load(context(folder))
    words = "Well, it\u2019s about $5 \u2014 isn't it?".split()
    audio = noise(3.0, channels)
    found = engine.align(audio, words)
    assert [w.text for w in found] == words
    assert all(0 <= w.start <= w.end <= audio.duration for w in found)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(found, found[1:], strict=False))
    dash = words.index("\u2014")
    assert [i for i, w in enumerate(found) if w.interpolated] == [dash]
    assert all(w.score is not None and 0 < w.score < 1 for w in found if not w.interpolated)
    assert engine.align(audio, words) == found


def test_the_weights_are_the_ones_in_the_folder(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2ForCTC

    audio = noise(1.0)
    samples = audio.samples[0]
    normalised = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    network = Wav2Vec2ForCTC.from_pretrained(folder, use_safetensors=True).eval()
    with torch.no_grad():
        direct = torch.log_softmax(network(torch.from_numpy(normalised)[None]).logits[0], -1)
    heard = CtcAligner.load(context(folder))._log_probs(samples)
    assert np.allclose(heard, direct.numpy(), atol=1e-5)


def spoken(text: str, letters: dict[str, int], frames_each: int = 2) -> NDArray[np.float32]:
    """What a good model would hear: each letter for some frames, a blank after each."""
    heard = [0] * 10
    for letter in text:
        heard += [letters[letter]] * frames_each + [0]
    heard += [0] * 10
    scores = np.full((len(heard), len(letters)), -9.0, np.float32)
    scores[np.arange(len(heard)), heard] = -0.01
    return scores


def test_words_lie_where_their_letters_are_heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CtcAligner.load(context(folder))
    heard = spoken("PAY|FIVEDOLLARS|NOW", ENGLISH)
    monkeypatch.setattr(engine, "_log_probs", lambda _: heard)
    audio = noise(len(heard) * 0.02)
    found = engine.align(audio, ["Pay", "$5", "\u2014", "now!"])
    frames = [(round(w.start / 0.02), round(w.end / 0.02)) for w in found]
    assert frames[0] == (10, 18) and frames[1] == (22, 54) and frames[3] == (58, 66)
    assert [w.interpolated for w in found] == [None, None, True, None]
    assert found[1].end <= found[2].start <= found[2].end <= found[3].start
    assert all((w.score or 0) > 0.98 for w in (found[0], found[1], found[3]))
    wrong = engine.align(audio, ["Pay", "$5", "never!"])
    assert (wrong[2].score or 0) < 0.5


def test_digits_of_another_language_are_placed_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "deutsch", GERMAN, len(GERMAN))
    engine = CtcAligner.load(context(tmp_path / "deutsch", language="de-AT"))
    assert engine.info.languages == ("de",)
    heard = spoken("\u00fcber|f\u00fcnf|gr\u00f6\u00dfe", GERMAN)
    monkeypatch.setattr(engine, "_log_probs", lambda _: heard)
    found = engine.align(noise(len(heard) * 0.02), ["\u00dcber", "5", "Gr\u00f6\u00dfe."])
    assert found[1].interpolated and found[1].score is None
    assert found[0].end <= found[1].start < found[1].end <= found[2].start
    assert not found[0].interpolated and (found[2].score or 0) > 0.9


def test_mms_takes_the_adapter_and_the_letters_of_the_language(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "mms"
    vocabulary = {"deu": GERMAN, "eng": {k.lower(): v for k, v in ENGLISH.items()}}
    network = write_model(folder, vocabulary, len(GERMAN), adapter_attn_dim=4)
    for language, letters in vocabulary.items():
        tensors = {k: v.clone().contiguous() for k, v in network._get_adapters().items()}
        tensors["lm_head.weight"] = torch.randn(len(letters), 16)
        tensors["lm_head.bias"] = torch.zeros(len(letters))
        save_file(tensors, str(folder / f"adapter.{language}.safetensors"))
    for language, letters in (("en", vocabulary["eng"]), ("de", GERMAN)):
        engine = CtcAligner.load(context(folder, language=language))
        assert engine._log_probs(noise(1.0).samples[0]).shape[1] == len(letters)
        assert all(not w.interpolated for w in engine.align(noise(1.0), ["so", "gut"]))
    for options in ({}, {"language": "fr"}):
        with pytest.raises(ModelError, match="no adapter"):
            CtcAligner.load(context(folder, **options))


@pytest.mark.parametrize("frames", [0, 1, 160, 800, 1600])
def test_silence_and_scraps_give_interpolated_times(folder: Path, frames: int) -> None:
    engine = CtcAligner.load(context(folder))
    for audio in (Audio(np.zeros((1, frames), np.float32), 16000), noise(frames / 16000)):
        found = engine.align(audio, "many more words than fit".split())
        assert len(found) == 5 and all(w.interpolated and w.score is None for w in found)
        assert found[-1].end == pytest.approx(frames / 16000)
    assert engine.align(noise(0.1), []) == []
    assert all(w.interpolated for w in engine.align(noise(1.0), ["\u2014", "..."]))


def test_the_align_stage_keeps_bounds_and_flags_odd_durations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CtcAligner.load(context(folder))
    heard = np.concatenate([spoken("SO", ENGLISH), spoken("IT", ENGLISH, frames_each=60)])
    monkeypatch.setattr(engine, "_log_probs", lambda _: heard)
    length = len(heard) * 0.02
    row = Utterance("u1", "r", 0.0, length, "so it", extra={"mine": 1})
    (found,) = align(noise(length), [row], engine)
    words = found.words or ()
    assert [w.text for w in words] == ["so", "it"]
    assert found.extra == {"mine": 1, "odd_durations": [1]}
    assert words[1].end - words[1].start > 2


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    import torch

    copy = tmp_path / "pickled"
    copy.mkdir()
    for name in ("config.json", "vocab.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        CtcAligner.load(context(copy))
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a wav2vec2"):
        CtcAligner.load(context(copy))
    status = availability("alignment", "ctc", EngineContext(NoStore()))
    assert status.hint == "hf download facebook/wav2vec2-base-960h"
