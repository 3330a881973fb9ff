"""podtool's separators as engines, on networks of a few weights: geometry, bands, streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from podtool.audio import Audio
from podtool.engines import separation_podtool as engine
from podtool.engines.separation_podtool_model import BandSplit, NetworkParams, save, separate
from podtool.errors import ModelError
from podtool.segments import Span

BACKGROUND = NetworkParams(
    window=320, hop=160, bands=(40, 40, 81), channels=8, hidden=8, layers=1, talkers=1
)
TALKERS = NetworkParams(bands=(64, 64, 129), channels=8, hidden=8, layers=2)
NOT_CAUSAL = NetworkParams(bands=(64, 64, 129), channels=8, hidden=8, layers=1, causal=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[BandSplit, engine.Network]]:
    """The networks in torch and in ONNX."""
    found = {}
    shapes = {"background": BACKGROUND, "talkers": TALKERS, "not-causal": NOT_CAUSAL}
    for name, params in shapes.items():
        torch.manual_seed(3)
        network = BandSplit(params).eval()
        folder = tmp_path_factory.mktemp(name)
        save(network, folder / "weights.safetensors")
        engine.convert(folder / "weights.safetensors", folder / "separator.onnx")
        found[name] = (network, engine.Network.open(folder, 1))
    return found


def noise(seconds: float, rate: int = 16000, channels: int = 1, seed: int = 0) -> Audio:
    shape = (channels, round(seconds * rate))
    samples = np.random.default_rng(seed).normal(0, 0.05, shape)
    return Audio(samples.astype(np.float32), rate)


def identity(monkeypatch: pytest.MonkeyPatch, network: engine.Network, gain: float = 1.0) -> None:
    """The network's masks become `gain` for the first talker."""

    def masks(
        spectrum: engine.Spectrum, count: int, memory: engine.Memory | None = None
    ) -> tuple[engine.Spectrum, engine.Memory]:
        found = np.zeros((network.shape.talkers, *spectrum.shape), np.complex64)
        found[0] = gain
        return found, (np.zeros(0, np.float32),) * 2

    monkeypatch.setattr(network, "masks", masks)


@pytest.mark.parametrize("name", ["talkers", "not-causal"])
@pytest.mark.parametrize("frames", [16000, 12345, 700, 1])
def test_onnx_gives_what_torch_gives(
    made: dict[str, tuple[BandSplit, engine.Network]], name: str, frames: int
) -> None:
    network, converted = made[name]
    audio = Audio(noise(1.0).samples[:, :frames], 16000)
    with torch.no_grad():
        expected = separate(network, torch.from_numpy(audio.samples), torch.tensor([2]))[0, :2]
    found = engine.PodtoolTalkers(converted).talkers(audio, 2)
    assert found.shape == (2, frames)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("block", [1600, 333, 7])
def test_blocks_give_what_the_whole_gives(
    made: dict[str, tuple[BandSplit, engine.Network]], block: int
) -> None:
    _, converted = made["talkers"]
    samples = noise(0.5).samples[0][:7777]
    whole = engine.PodtoolTalkers(converted).talkers(Audio(samples[None], 16000), 2)
    stream = engine.TalkerStream(converted, 2)
    pieces = [stream.push(samples[i : i + block]) for i in range(0, len(samples), block)]
    behind = len(samples) - sum(p.shape[1] for p in pieces)
    assert 0 <= behind <= round(stream.latency_s * 16000)
    found = np.concatenate([*pieces, stream.flush()], axis=1)
    assert found.shape == (3, len(samples))
    np.testing.assert_allclose(found[:2], whole, atol=1e-5)
    assert not found[2].any()


def test_the_count_may_change_while_it_streams(
    made: dict[str, tuple[BandSplit, engine.Network]],
) -> None:
    stream = engine.TalkerStream(made["talkers"][1], 1)
    first = stream.push(noise(0.2).samples[0])
    stream.count = 3
    second = stream.push(noise(0.2, seed=1).samples[0])
    assert not first[1:].any() and second[2].any()


def test_only_the_causal_form_streams(
    made: dict[str, tuple[BandSplit, engine.Network]],
) -> None:
    with pytest.raises(ModelError, match="cannot stream"):
        engine.TalkerStream(made["not-causal"][1])


def test_impossible_counts_are_refused(
    made: dict[str, tuple[BandSplit, engine.Network]],
) -> None:
    with pytest.raises(ValueError, match="4 talkers"):
        engine.PodtoolTalkers(made["talkers"][1]).talkers(noise(0.1), 4)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_a_mask_of_one_gives_the_recording_back(
    made: dict[str, tuple[BandSplit, engine.Network]], monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    _, network = made["background"]
    identity(monkeypatch, network)
    audio = noise(1.0, rate)
    found = engine.PodtoolSeparation(network).separate(audio)["speech"].samples
    assert found.shape == audio.samples.shape
    inside = slice(rate // 10, -rate // 10)
    error = found[:, inside] - audio.samples[:, inside]
    assert np.sqrt(np.mean(error**2)) < 1e-3 * np.sqrt(np.mean(audio.samples**2))


def test_above_8_khz_the_gain_follows_5_to_8_khz(
    made: dict[str, tuple[BandSplit, engine.Network]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = made["background"]
    identity(monkeypatch, network, 0.5)
    audio = noise(2.0, 44100)
    found = engine.PodtoolSeparation(network).separate(audio)["speech"].samples
    heard, kept = (np.abs(np.fft.rfft(x[0])) for x in (audio.samples, found))
    hertz = np.fft.rfftfreq(audio.frames, 1 / 44100)
    above = hertz > 9000
    ratio = np.sqrt(np.sum(kept[above] ** 2) / np.sum(heard[above] ** 2))
    assert ratio == pytest.approx(0.5, abs=0.02)


def test_voices_in_the_middle_come_from_the_middle_and_others_from_their_channel(
    made: dict[str, tuple[BandSplit, engine.Network]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = made["background"]
    identity(monkeypatch, network)
    voice, bed = noise(1.0).samples[0], 0.1 * noise(1.0, seed=5).samples[0]
    separator = engine.PodtoolSeparation(network)
    centred = np.stack([voice + bed, voice - bed])
    found = separator.separate(Audio(centred, 16000))["speech"].samples
    np.testing.assert_array_equal(found[0], found[1])
    error = found[0] - voice  # what the sides predict by chance is small
    assert np.mean(error**2) < 0.03 * np.mean(voice**2)
    left = np.stack([voice, 0 * voice])
    found = separator.separate(Audio(left, 16000))["speech"].samples
    np.testing.assert_allclose(found, left, atol=1e-4)


def test_nothing_is_speech_where_nobody_speaks(
    made: dict[str, tuple[BandSplit, engine.Network]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network = made["background"]
    identity(monkeypatch, network)
    audio = noise(2.0)
    found = engine.PodtoolSeparation(network).separate(audio, [Span(0.5, 1.0)])["speech"].samples
    assert not found[:, :8000].any() and not found[:, 16000:].any()
    inside = slice(8400, 15600)
    np.testing.assert_allclose(found[:, inside], audio.samples[:, inside], atol=1e-5)


def test_silence_and_nothing_are_fine(
    made: dict[str, tuple[BandSplit, engine.Network]],
) -> None:
    separator = engine.PodtoolSeparation(made["background"][1])
    for frames in (0, 1, 16000):
        silent = Audio(np.zeros((2, frames), np.float32), 44100)
        assert separator.separate(silent)["speech"].samples.shape == (2, frames)
        assert not separator.separate(silent)["speech"].samples.any()


def test_what_is_no_separator_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "weights.safetensors"
    bad.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="does not hold a separator"):
        engine.convert(bad, tmp_path / "separator.onnx")
