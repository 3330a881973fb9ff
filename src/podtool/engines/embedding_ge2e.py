"""Speaker embedding by GE2E (Resemblyzer's encoder, 256 values): independent of CAM++.

Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018. Windows of 1.6 s
of a 40-band power mel spectrogram (not log) through three LSTM layers; their mean, unit norm.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from podtool.audio import Audio
from podtool.engines.onnx_session import only_file, open_session
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ModelError

RATE = 16000
FRAME = 400
HOP = 160
BANDS = 40
WINDOW_FRAMES = 160
STEP_FRAMES = 77  # 1.3 windows per second, as the published encoder
QUIET_DBFS = -30.0
_BATCH = 16


class Ge2e:
    """Voice -> point on the unit sphere of 256 dimensions, all values positive."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="ge2e",
        stage="embedding",
        version="1",
        licence="Apache-2.0",
        tier="embedded",
        sample_rate=RATE,
        models=("ge2e",),
        packages=("onnxruntime",),
        install="pip install onnxruntime",
    )
    dim: int = 256

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        return cls(open_session(only_file(context.model("ge2e"), "ge2e.onnx"), context.threads))

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """Mono 16 kHz audio of one speaker -> (256,) of unit norm. Digital silence gives zeros."""
        mel = power_mel(raised(audio.samples[0]))
        if len(mel) < WINDOW_FRAMES:
            mel = np.pad(mel, ((0, WINDOW_FRAMES - len(mel)), (0, 0)))
        starts = list(range(0, len(mel) - WINDOW_FRAMES + 1, STEP_FRAMES))
        rest = len(mel) - (starts[-1] + STEP_FRAMES)
        if rest >= 0.75 * WINDOW_FRAMES:  # a last window that is at least three quarters full
            starts.append(starts[-1] + STEP_FRAMES)
            mel = np.pad(mel, ((0, starts[-1] + WINDOW_FRAMES - len(mel)), (0, 0)))
        windows = np.stack([mel[s : s + WINDOW_FRAMES] for s in starts])
        found = [
            self._session.run(None, {"mels": windows[i : i + _BATCH]})[0]
            for i in range(0, len(windows), _BATCH)
        ]
        mean = np.concatenate(found).mean(0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32)


def raised(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Quiet samples brought up to -30 dBFS; loud ones as they are."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    if power <= 0.0:
        return samples
    gain_db = QUIET_DBFS - 10 * np.log10(power)
    return samples if gain_db <= 0 else np.asarray(samples * 10 ** (gain_db / 20), np.float32)


@lru_cache(maxsize=1)
def slaney_mel() -> NDArray[np.float32]:
    """(201, 40) triangles of unit area on Slaney's mel scale (Auditory Toolbox, 1998)."""

    def hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hz(np.linspace(0.0, top, BANDS + 2))
    at = np.fft.rfftfreq(FRAME, 1 / RATE)[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return weights.astype(np.float32)


def power_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) samples -> (frames, 40) mel power, frames centred every 10 ms, ends padded."""
    padded = np.pad(np.asarray(samples, np.float32), FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)
    out = np.empty((len(frames), BANDS), np.float32)
    for start in range(0, len(frames), 2000):
        spectrum = np.fft.rfft(frames[start : start + 2000] * window, axis=1)
        out[start : start + 2000] = (np.abs(spectrum) ** 2).astype(np.float32) @ slaney_mel()
    return out


def convert(source: Path, target: Path) -> None:
    """Resemblyzer's pretrained.pt -> ge2e.onnx: (batch, 160, 40) -> (batch, 256)."""
    import torch
    from torch import Tensor, nn

    from podtool.engines.checkpoint import export_onnx, fill, read_tensors

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
            self.linear = nn.Linear(256, 256)

        def forward(self, mels: Tensor) -> Any:
            last = self.lstm(mels)[0][:, -1]
            raw = torch.relu(self.linear(last))
            return raw / raw.norm(dim=1, keepdim=True).clamp(min=1e-9)

    network = Encoder()
    state = read_tensors(source).get("model_state", {})
    names = ("lstm.", "linear.")
    fill(network, {k: v for k, v in state.items() if k.startswith(names)}, source)
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(2, WINDOW_FRAMES, BANDS, generator=generator)

    def check(path: Path) -> None:
        other = torch.rand(3, WINDOW_FRAMES, BANDS, generator=generator)
        with torch.no_grad():
            expected = network(other).numpy()
        found = open_session(path, 1).run(None, {"mels": other.numpy()})[0]
        if not np.allclose(found, expected, atol=1e-3):
            raise ModelError("the converted GE2E encoder does not agree with the checkpoint")

    export_onnx(
        network, (example,), target, {"mels": {0: "batch"}}, {"embedding": {0: "batch"}}, check
    )
