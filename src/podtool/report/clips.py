"""Short clips as data: URIs, and their outlines: the sound inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np

from podtool.audio import Audio, to_wav_bytes
from podtool.resample import resample, to_mono

CLIP_RATE = 24000
_COMPRESSION = 0.75  # of libsndfile's MP3 encoder: about 48 kbit/s for one channel


def data_uri(audio: Audio) -> str:
    """A mono clip at 24 kHz as MP3 (as 16-bit WAV where there is no encoder), base64 in a URI."""
    import soundfile

    small = _playable(audio)
    if "MP3" not in soundfile.available_formats():
        return _uri("audio/wav", to_wav_bytes(small, "pcm16"))
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=CLIP_RATE,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=_COMPRESSION,
        bitrate_mode="CONSTANT",
    ) as file:
        file.write(small.samples.T)
    return _uri("audio/mpeg", buffer.getvalue())


def _playable(audio: Audio) -> Audio:
    small = resample(to_mono(audio), CLIP_RATE)
    return Audio(np.clip(small.samples, -1.0, 1.0), CLIP_RATE)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def outline(audio: Audio, points: int) -> list[float]:
    """The largest absolute sample in each of `points` equal parts of a clip."""
    mono = np.abs(audio.samples).max(axis=0) if audio.frames else np.zeros(1, np.float32)
    edges = np.linspace(0, len(mono), points + 1).astype(int)
    return [
        float(mono[a : max(b, a + 1)].max(initial=0.0))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
