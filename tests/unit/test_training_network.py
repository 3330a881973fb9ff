"""The separators' network: causal where it says so, streamed as whole, and masks that sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from podtool.engines.separation_podtool_model import (
    BandSplit,
    NetworkParams,
    apply_masks,
    load,
    save,
    separate,
    to_samples,
    to_spectrum,
)
from podtool.errors import ConfigError, ModelError
from podtool.training import widen

TINY = NetworkParams(window=64, hop=32, bands=(5, 8, 20), channels=8, hidden=8, layers=2)


def network(params: NetworkParams = TINY, seed: int = 0) -> BandSplit:
    torch.manual_seed(seed)
    return BandSplit(params).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", [1, 7])
def test_the_spectrum_gives_the_samples_back(frames: int) -> None:
    samples = noise(2, frames * TINY.hop)
    spectrum = to_spectrum(samples, TINY)
    assert spectrum.shape == (2, frames + 1, 33, 2)
    assert torch.allclose(to_samples(spectrum, TINY), samples, atol=1e-6)


@pytest.mark.parametrize("n", [1, 640, 1001])
def test_shapes_and_silence_of_absent_talkers(n: int) -> None:
    with torch.inference_mode():
        found = separate(network(), noise(4, n), torch.tensor([0, 1, 2, 3]))
    assert found.shape == (4, 3, n) and torch.isfinite(found).all()
    for b in range(4):
        assert not found[b, b:].any() and found[b, :b].any(-1).all()


def test_training_begins_near_equal_shares() -> None:
    model = network()
    with torch.no_grad():
        model.decode.weight.zero_()
        found = separate(model, noise(1, 640), torch.tensor([3]))
    assert torch.allclose(found, noise(1, 640)[:, None].expand(1, 3, 640) / 3, atol=1e-5)


def test_masks_of_one_everywhere_leave_the_mixture() -> None:
    spectrum = to_spectrum(noise(1, 640), TINY)
    ones = torch.zeros(1, spectrum.shape[1], 2, 33, 2)
    ones[..., 0] = 1
    both = to_samples(apply_masks(ones, spectrum), TINY)
    assert torch.allclose(both, noise(1, 640)[:, None].expand(1, 2, 640), atol=1e-6)


def test_the_causal_form_hears_at_most_a_window_ahead() -> None:
    at, mixture = 960, noise(1, 1600)
    other = mixture.clone()
    other[:, at:] = noise(1, 640, seed=1)
    with torch.inference_mode():
        a, b = (separate(network(), x, torch.tensor([2])) for x in (mixture, other))
    safe = at - TINY.window
    assert torch.equal(a[..., :safe], b[..., :safe]) and not torch.equal(a[..., at:], b[..., at:])


def test_the_offline_form_hears_what_follows() -> None:
    mixture = noise(1, 1600)
    other = mixture.clone()
    other[:, 1200:] = noise(1, 400, seed=1)
    offline = network(replace(TINY, causal=False))
    with torch.inference_mode():
        a, b = (separate(offline, x, torch.tensor([2])) for x in (mixture, other))
    assert not torch.equal(a[..., :320], b[..., :320])


def test_a_stream_with_its_state_is_the_whole() -> None:
    model, spectrum = network(), to_spectrum(noise(1, 1600), TINY)
    counts = torch.tensor([2])
    with torch.inference_mode():
        whole, _ = model(spectrum, counts)
        pieces, state = [], None
        for start, stop in ((0, 1), (1, 6), (6, 36), (36, 51)):
            masks, state = model(spectrum[:, start:stop], counts, state)
            pieces.append(masks)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)


def test_the_count_is_heard() -> None:
    model, spectrum = network(), to_spectrum(noise(1, 640), TINY)
    torch.nn.init.normal_(model.counted.weight)  # zero before training
    with torch.inference_mode():
        two, three = (model(spectrum, torch.tensor([k]))[0] for k in (2, 3))
    assert not torch.allclose(two, three, atol=1e-4)


def test_bfloat16_is_near_float() -> None:
    mixture, counts = noise(1, 1600), torch.tensor([2])
    with torch.inference_mode():
        exact = separate(network(), mixture, counts)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = separate(network(), mixture, counts)
    assert coarse.dtype == torch.float32
    assert float((coarse - exact).square().sum() / exact.square().sum()) < 1e-3


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="bands hold 32 bins of the 33"):
        replace(TINY, bands=(12, 20))
    with pytest.raises(ValueError, match="half of the window"):
        replace(TINY, hop=16)


def test_weights_come_back_with_their_shape(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = network(replace(TINY, causal=False, layers=1))
    save(model, path, {"step": "7"})
    back = load(path)
    assert back.params == model.params and not back.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name])


def test_bad_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="w.safetensors"):
        load(path)
    save(network(), path)
    whole = path.read_bytes()
    for content in (b"", b"junk" * 100, whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="does not hold a separator"):
            load(path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(ModelError):
        load(path)
    for shape in ("[]", "{}", '{"bands": 3}', "nonsense"):
        save_file({"x": torch.zeros(3)}, path, {"network": shape})
        with pytest.raises(ModelError):
            load(path)


def test_the_offline_form_begins_as_the_causal_one() -> None:
    causal = network(seed=1)
    offline = network(replace(TINY, causal=False), seed=2)
    widen.fill(offline, causal)
    mixture, counts = noise(1, 1600), torch.tensor([3])
    with torch.inference_mode():
        a, b = separate(causal, mixture, counts), separate(offline, mixture, counts)
    assert torch.allclose(a, b, atol=1e-6)


def test_a_deep_network_begins_as_the_shallow_one_and_all_of_it_learns() -> None:
    shallow = network(replace(TINY, layers=1), seed=1)
    deep = network(replace(TINY, layers=3, causal=False), seed=2)
    widen.fill(deep, shallow)
    mixture, counts = noise(1, 1600), torch.tensor([3])
    with torch.inference_mode():
        a, b = separate(shallow, mixture, counts), separate(deep, mixture, counts)
    assert torch.allclose(a, b, atol=1e-6)
    separate(deep, mixture, counts)[0, 0].square().sum().backward()  # type: ignore[no-untyped-call]
    for name, value in deep.named_parameters():
        if "back.weight" in name:
            assert value.grad is not None and value.grad.abs().max() > 0, name


def test_weights_of_another_shape_do_not_begin_a_training() -> None:
    for other in (replace(TINY, hidden=12), replace(TINY, layers=3), replace(TINY, talkers=2)):
        with pytest.raises(ConfigError, match="do not fit"):
            widen.fill(network(), network(other))
    with pytest.raises(ConfigError, match="do not fit"):  # an offline form cannot become causal
        widen.fill(network(), network(replace(TINY, causal=False)))
    with pytest.raises(ConfigError, match="do not fit"):  # layers would be left behind
        widen.fill(network(replace(TINY, layers=1)), network())
