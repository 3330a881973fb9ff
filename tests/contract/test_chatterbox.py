"""Chatterbox on weights that the test makes: all of its networks, with fewer layers, random."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability, voice_chatterbox
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import make_harmless
from podtool.engines.voice_chatterbox import SPEAKING_FILES, Chatterbox, ChatterboxVc
from podtool.engines.world_profile import SpeechProfile
from podtool.errors import InputError, ModelError

pytestmark = [pytest.mark.slow, pytest.mark.engine("chatterbox")]
HERE = importlib.util.find_spec("chatterbox") is not None
needs_package = pytest.mark.skipif(not HERE, reason="chatterbox-tts is not installed")


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def context(folder: Path) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder)})


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer where there are many: the sizes stand in the package's code, not in its files."""
    make_harmless()
    from chatterbox.models.s3gen import s3gen
    from chatterbox.models.t3 import llama_configs
    from s3tokenizer.model_v2 import S3TokenizerV2

    small = {"num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2,
             "num_key_value_heads": 2, "vocab_size": 8}  # fmt: skip
    llama = llama_configs.LLAMA_CONFIGS
    monkeypatch.setitem(llama, "Llama_520M", {**llama["Llama_520M"], **small})
    hears = S3TokenizerV2.__init__.__defaults__[0]
    monkeypatch.setattr(hears, "n_audio_layer", 1)
    monkeypatch.setattr(hears, "n_audio_state", 128)
    monkeypatch.setattr(hears, "n_audio_head", 2)
    encoder, decoder = s3gen.UpsampleConformerEncoder, s3gen.ConditionalDecoder

    def small_encoder(**sizes: Any) -> Any:
        return encoder(**{**sizes, "linear_units": 64, "num_blocks": 1})

    def small_decoder(**sizes: Any) -> Any:
        return decoder(**{**sizes, "n_blocks": 1, "num_mid_blocks": 1})

    monkeypatch.setattr(s3gen, "UpsampleConformerEncoder", small_encoder)
    monkeypatch.setattr(s3gen, "ConditionalDecoder", small_decoder)


def write_model(folder: Path) -> None:
    """The files that the package publishes, under their names."""
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3.modules.cond_enc import T3Cond
    from chatterbox.models.voice_encoder import VoiceEncoder
    from chatterbox.tts import Conditionals
    from safetensors.torch import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    torch.manual_seed(0)
    decoder = S3Gen().eval()
    for network, name in ((VoiceEncoder(), "ve"), (T3(), "t3_cfg"), (decoder, "s3gen")):
        state = {k: v.clone().contiguous() for k, v in network.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'"
    words = {w: n for n, w in enumerate(["[STOP]", "[UNK]", "[SPACE]", *letters])}
    raw = Tokenizer(WordLevel({**words, "[START]": 255}, unk_token="[UNK]"))
    raw.pre_tokenizer = Split("", "isolated")
    raw.save(str(folder / "tokenizer.json"))
    manner = T3Cond(
        speaker_emb=torch.randn(1, 256),
        cond_prompt_speech_tokens=torch.randint(0, 6561, (1, 150)),
        emotion_adv=0.5 * torch.ones(1, 1, 1),
    )
    with torch.inference_mode():
        sound = decoder.embed_ref(torch.from_numpy(voice(3, 1.0, 24000).samples[0]), 24000)
    Conditionals(manner, sound).save(folder / "conds.pt")


def voice(seed: int, seconds: float, rate: int = 16000, channels: int = 1) -> Audio:
    """A buzz of a gliding pitch with pauses: something that WORLD finds a pitch in."""
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(110 + 40 * seed + 20 * np.sin(2 * np.pi * at)) / rate
    buzz = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 12))
    sound = 0.1 * buzz * (np.sin(2 * np.pi * 1.3 * at) > -0.6) + rng.normal(0, 1e-4, len(at))
    return Audio(np.repeat(sound.astype(np.float32)[None], channels, axis=0), rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not HERE:
        pytest.skip("chatterbox-tts is not installed")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        path = tmp_path_factory.mktemp("chatterbox")
        write_model(path)
        yield path


@pytest.fixture(scope="module")
def speaker(folder: Path) -> Chatterbox:
    return Chatterbox.load(context(folder))


@pytest.fixture(scope="module")
def converter(folder: Path) -> ChatterboxVc:
    return ChatterboxVc.load(context(folder))


@pytest.fixture(autouse=True)
def little_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_chatterbox, "SPARE_S", 0.3)


def test_one_seed_is_one_take_and_what_never_ends_is_ended(speaker: Chatterbox) -> None:
    takes = [next(speaker.speak("Hi.", 1.0, seed)) for seed in (0, 1, 0)]
    for take in takes:
        assert take.sample_rate == 24000 and take.samples.shape[0] == 1 and take.samples.any()
        assert take.samples.dtype == np.float32 and np.isfinite(take.samples).all()
        assert take.duration <= 3 / 8 + 0.3 + 0.1
    assert np.array_equal(takes[0].samples, takes[2].samples)
    assert not np.array_equal(takes[0].samples[:, :4000], takes[1].samples[:, :4000])
    assert list(speaker.speak(" ", 1.0, 0)) == []


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(16000, 1, 1.0), (44100, 2, 2.3)])
def test_a_voice_is_taken_from_a_reference(
    speaker: Chatterbox, rate: int, channels: int, seconds: float
) -> None:
    model = speaker._model
    theirs: dict[str, Any] = {}
    plain = model.t3.inference

    def watched(**named: Any) -> Any:
        theirs.update(named)
        return plain(**named)

    heard = speaker.voice_of(voice(1, seconds, rate, channels))
    tokens, mels = heard.sound["prompt_token"], heard.sound["prompt_feat"]
    assert mels.shape == (1, 2 * tokens.shape[1], 80) and tokens.shape[1] == int(seconds * 25)
    model.t3.inference = watched
    try:
        [take] = speaker.speak_as("Hi.", heard, 0)
    finally:
        del model.t3.inference
    assert take.samples.any() and theirs["t3_cond"].speaker_emb.shape == (1, 256)
    assert theirs["t3_cond"].cond_prompt_speech_tokens.shape[1] <= 150


def test_it_says_what_the_package_says(
    speaker: Chatterbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`generate` of the package, with no more tokens than here."""
    import torch

    model = speaker._model
    plain = model.t3.inference

    def shorter(**named: Any) -> Any:
        return plain(**{**named, "max_new_tokens": round((3 / 8 + 0.3) * 25)})

    monkeypatch.setattr(model.t3, "inference", shorter)
    torch.manual_seed(5)
    theirs = model.generate("Hi.").numpy()
    assert np.array_equal(next(speaker.speak("Hi.", 1.0, 5)).samples, theirs)


@pytest.fixture(scope="module")
def profiles(converter: ChatterboxVc) -> tuple[SpeechProfile, SpeechProfile]:
    return converter.enrol([voice(1, 1.5)]), converter.enrol([voice(2, 1.2), voice(2, 0.4)])


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1)])
def test_length_and_level_are_those_of_the_source(
    converter: ChatterboxVc,
    profiles: tuple[SpeechProfile, SpeechProfile],
    rate: int,
    channels: int,
) -> None:
    spoken = voice(1, 1.037, rate, channels)
    mapped = converter.voice_map(*profiles)
    made = converter.convert(spoken, mapped)
    assert made.sample_rate == rate and made.samples.shape == (1, spoken.frames)
    assert np.isfinite(made.samples).all() and made.samples.dtype == np.float32
    source = np.abs(spoken.samples.mean(axis=0))
    loud, out = (
        np.array([p.mean() for p in np.array_split(x, 20)])
        for x in (source, np.abs(made.samples[0]))
    )
    assert np.corrcoef(loud, out)[0, 1] > 0.6
    assert np.array_equal(made.samples, converter.convert(spoken, mapped).samples)


@pytest.mark.parametrize("frames", [0, 1, 160, 1600])
def test_silence_stays_silent_and_scraps_keep_their_length(
    converter: ChatterboxVc, profiles: tuple[SpeechProfile, SpeechProfile], frames: int
) -> None:
    mapped = converter.voice_map(*profiles)
    silent = converter.convert(Audio(np.zeros((1, frames), np.float32), 16000), mapped)
    assert silent.frames == frames and not silent.samples.any()
    assert converter.convert(voice(1, frames / 16000), mapped).frames == frames


def test_what_is_long_is_converted_in_windows(
    converter: ChatterboxVc,
    profiles: tuple[SpeechProfile, SpeechProfile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(voice_chatterbox, "WINDOW_S", 1.0)
    monkeypatch.setattr(voice_chatterbox, "SHARED_S", 0.2)
    made = converter.convert(voice(1, 2.3), converter.voice_map(*profiles))
    assert made.frames == round(2.3 * 16000) and np.abs(made.samples[0, -8000:]).max() > 0


def test_the_sound_is_what_the_package_hears_and_outlives_a_file(
    converter: ChatterboxVc, profiles: tuple[SpeechProfile, SpeechProfile], tmp_path: Path
) -> None:
    import torch

    source, target = profiles
    target.save(tmp_path / "voice.safetensors")
    loaded = SpeechProfile.load(tmp_path / "voice.safetensors")
    one, two = converter.voice_map(source, target), converter.voice_map(source, loaded)
    for key in ("prompt_token", "prompt_feat", "embedding"):
        assert np.array_equal(one.sound[key], two.sound[key])
    joined = np.concatenate([voice(2, 1.2).samples, voice(2, 0.4).samples], axis=1)
    with torch.inference_mode():
        theirs = voice_chatterbox._sound_of(converter._decoder, Audio(joined, 16000), "cpu")
    assert np.array_equal(one.sound["prompt_token"], theirs["prompt_token"])
    assert np.array_equal(one.sound["prompt_token_len"], theirs["prompt_token_len"])
    assert np.allclose(one.sound["prompt_feat"], theirs["prompt_feat"], rtol=1e-3, atol=1e-3)
    assert np.allclose(one.sound["embedding"], theirs["embedding"], rtol=1e-3, atol=1e-3)


def test_other_voices_are_refused(
    converter: ChatterboxVc, profiles: tuple[SpeechProfile, SpeechProfile]
) -> None:
    source, target = profiles
    with pytest.raises(InputError, match="other"):
        converter.voice_map(source, dataclasses.replace(target, sounds=None, sounds_by=None))
    with pytest.raises(InputError, match="other"):
        converter.voice_map(source, dataclasses.replace(target, sounds_by="elsewhere"))
    with pytest.raises(InputError, match="less than half a second"):
        converter.voice_map(source, converter.enrol([voice(2, 0.3)]))


def test_both_carry_the_watermark(
    speaker: Chatterbox,
    converter: ChatterboxVc,
    profiles: tuple[SpeechProfile, SpeechProfile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked: list[int] = []
    for engine in (speaker._model.watermarker, converter._watermark):
        plain = engine.apply_watermark

        def watched(samples: Any, sample_rate: int, plain: Any = plain) -> Any:
            marked.append(len(samples))
            return plain(samples, sample_rate)

        monkeypatch.setattr(engine, "apply_watermark", watched)
    next(speaker.speak("Hi.", 1.0, 0))
    converter.convert(voice(1, 0.5), converter.voice_map(*profiles))
    assert len(marked) == 2 and min(marked) > 0


def test_a_part_that_is_missing_is_not_left_random(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "s3gen.safetensors")
    for name in SPEAKING_FILES:
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "s3gen.safetensors").unlink()
    gone = next(n for n in tensors if n.startswith("flow.decoder"))
    save_file({k: v for k, v in tensors.items() if k != gone}, tmp_path / "s3gen.safetensors")
    for kind in (Chatterbox, ChatterboxVc):
        with pytest.raises(ModelError, match="lacks 1 tensors"):
            kind.load(context(tmp_path))


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="holds no s3gen.safetensors"):
        ChatterboxVc.locate(context(tmp_path))
    with pytest.raises(ModelError, match="holds no ve.safetensors"):
        Chatterbox.locate(context(tmp_path))
    if not HERE:
        hint = "podtool engines install chatterbox"
        for stage in ("speaking", "conversion"):
            assert availability(stage, "chatterbox", EngineContext(NoStore())).hint == hint
        return
    for name in SPEAKING_FILES:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match="is not a Chatterbox"):
        ChatterboxVc.load(context(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for stage, last in (("speaking", "conds.pt"), ("conversion", "s3gen.safetensors")):
        status = availability(stage, "chatterbox", EngineContext(NoStore()))
        assert status.hint.startswith("hf download ResembleAI/chatterbox ")
        assert status.hint.endswith(last)
