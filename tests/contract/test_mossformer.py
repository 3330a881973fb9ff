"""MossFormer2 through podtool: the real loading code on tiny weights, where clearvoice lies."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext
from podtool.engines.talkers_mossformer import MODEL, POINTER, MossFormer2, _network_module
from podtool.errors import ModelError

pytestmark = pytest.mark.slow
CLEARVOICE = importlib.util.find_spec("clearvoice") is not None


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


CONTEXT = EngineContext(NoStore(), threads=1)


def noise(frames: int) -> Audio:
    samples = np.random.default_rng(1).normal(0, 0.1, (1, frames))
    return Audio(samples.astype(np.float32), 16000)


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the model in a hub's cache, empty but for the pointer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / f"models--{MODEL.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0")
    found = place / "snapshots" / "0"
    found.mkdir(parents=True)
    (found / POINTER).write_text("last_best_checkpoint.pt\n")
    return found


@pytest.mark.skipif(not CLEARVOICE, reason="clearvoice is not installed")
def test_mossformer2(folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    network = (
        _network_module()
        .MossFormer(in_channels=16, out_channels=16, num_blocks=2, kernel_size=16, num_spks=2)
        .eval()
    )
    state = {f"module.{k}": v for k, v in network.state_dict().items() if "freqs" not in k}
    torch.save({"model": state}, folder / "last_best_checkpoint.pt")
    engine = MossFormer2.load(CONTEXT)
    assert engine.max_talkers == 2
    for frames in (1, 160, 8001):
        for count in (1, 2):
            found = engine.talkers(noise(frames), count)
            assert found.shape == (count, frames) and found.dtype == np.float32
            assert np.isfinite(found).all()
            assert np.array_equal(found, engine.talkers(noise(frames), count))
    silent = engine.talkers(Audio(np.zeros((1, 1600), np.float32), 16000), 2)
    assert silent.shape == (2, 1600) and not silent.any()
    with pytest.raises(ValueError, match="3 talkers"):
        engine.talkers(noise(1600), 3)
    audio = noise(8000)
    with torch.inference_mode():
        theirs = torch.cat(network(torch.from_numpy(audio.samples))).numpy()
    ours = engine.talkers(audio, 2)
    assert ours.any()
    for a, b in zip(ours, theirs, strict=True):  # the same waves, at levels of their own
        if a.any():
            assert abs(np.corrcoef(a, b)[0, 1]) == pytest.approx(1, abs=1e-4)


def test_what_is_missing_is_told(folder: Path) -> None:
    pytest.importorskip("torch")
    import torch

    with pytest.raises(ModelError, match="lacks last_best_checkpoint.pt"):
        MossFormer2.load(CONTEXT)
    torch.save({"model": {"weight": torch.zeros(3)}}, folder / "last_best_checkpoint.pt")
    with pytest.raises(ModelError, match="not a MossFormer2"):
        MossFormer2.load(CONTEXT)
    (folder / POINTER).write_text("")
    with pytest.raises(ModelError, match="names no checkpoint"):
        MossFormer2.load(CONTEXT)
    (folder / POINTER).unlink()
    with pytest.raises(ModelError, match="holds no last_best_checkpoint"):
        MossFormer2.load(CONTEXT)
    status = engines.availability("talkers", "mossformer2", CONTEXT)
    if not CLEARVOICE:
        assert status.hint == "podtool engines install mossformer2"
