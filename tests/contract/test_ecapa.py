"""speechbrain's ECAPA-TDNN through podtool: the real loading code on a tiny checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines.embedding_ecapa import FILE, Ecapa, network_of
from podtool.engines.protocols import EngineContext
from podtool.engines.torchaudio_stub import import_speechbrain
from podtool.errors import ModelError

pytestmark = [pytest.mark.slow, pytest.mark.engine("ecapa")]


class Folder:
    """A store that has one folder for everything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, model_id: str) -> Path:
        return self.path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    import torch

    (module,) = import_speechbrain("lobes.models.ECAPA_TDNN")
    torch.manual_seed(0)
    network = module.ECAPA_TDNN(
        80,
        channels=[16, 16, 16, 16, 24],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=8,
        se_channels=4,
        lin_neurons=12,
    )
    folder = tmp_path_factory.mktemp("ecapa")
    torch.save(network.state_dict(), folder / FILE)
    return folder


def voice(seed: int, frames: int = 16000) -> Audio:
    noise = np.random.default_rng(seed).normal(0, 0.1, (1, frames))
    return Audio(noise.astype(np.float32), 16000)


def test_embeddings(checkpoint: Path) -> None:
    engine = Ecapa.load(EngineContext(Folder(checkpoint)))
    assert engine.dim == 12
    first, again, other = (engine.embed(voice(seed)) for seed in (1, 1, 2))
    assert first.shape == (12,) and first.dtype == np.float32
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    for short in (voice(1, 160), Audio(np.zeros((1, 16000), np.float32), 16000)):
        assert np.isfinite(engine.embed(short)).all()


def test_the_weights_are_those_of_the_file(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    tensors = torch.load(checkpoint / FILE, weights_only=True)
    tensors["fc.conv.weight"] = -tensors["fc.conv.weight"]
    tensors["fc.conv.bias"] = -tensors["fc.conv.bias"]
    torch.save(tensors, tmp_path / FILE)
    plain = Ecapa.load(EngineContext(Folder(checkpoint))).embed(voice(1))
    turned = Ecapa.load(EngineContext(Folder(tmp_path))).embed(voice(1))
    assert np.allclose(plain, -turned, atol=1e-5)


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / FILE)
    with pytest.raises(ModelError, match="not an ECAPA-TDNN"):
        Ecapa.load(EngineContext(Folder(tmp_path)))
    with pytest.raises(ModelError, match="no 'blocks"):
        network_of({})


def test_nothing_is_left_that_breaks_those_who_look_around(checkpoint: Path) -> None:
    Ecapa.load(EngineContext(Folder(checkpoint)))
    for module in list(sys.modules.values()):
        hasattr(module, "__file__")  # what inspect does; a lazy stand-in would import and fail


def test_speechbrain_imports_where_torchaudio_does_not_load() -> None:
    """In a fresh process, with the compiled part broken on purpose."""
    code = (
        "import sys, types\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torchaudio._extension': raise OSError('libcudart.so: not found')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from podtool.engines.torchaudio_stub import make_importable\n"
        "assert make_importable() is True\n"
        "assert make_importable() is True\n"
        "import speechbrain, torchaudio\n"
        "print(torchaudio.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
