"""What is known of a person's speech: envelopes, pitch, level, bandwidth. Source and target alike.

A profile is the state of a cloned voice; it is kept as one safetensors file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podtool.engines.world_frames import BANDS, CENTRES, FRAME_S, Frames
from podtool.errors import InputError

FORMAT = "podtool-world-voice-1"
OWN = "adapted."  # before the names of tensors that are the voice's own weights
SPEECH_RANGE_DB = 35.0  # frames this far under the loud ones are not speech
LOG10 = float(np.log(10.0))


@dataclass(frozen=True, slots=True)
class Adapted:
    """The half of the converter's network that speaks, taught on with one voice: the network's
    shape as JSON, and its tensors by name."""

    network: str
    tensors: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class SpeechProfile:
    """Speech frames of one person, 5 ms apart where they are neighbours.

    envelope (n, 80) natural log power on the mel grid; f0 (n,) Hz, 0 where unvoiced;
    bandwidth_hz: above it the recording holds nothing; high_band_db: power above 8 kHz over that
    of 5 to 8 kHz in unvoiced speech, None where the recording has no such band; sounds (n, k): what
    is said in each frame, as the network `sounds_by` hears it, where one was asked; adapted:
    weights of that network that are this voice's own.
    """

    envelope: NDArray[np.float32]
    f0: NDArray[np.float32]
    sample_rate: int
    bandwidth_hz: float
    high_band_db: float | None = None
    sounds: NDArray[np.float32] | None = None
    sounds_by: str | None = None
    adapted: Adapted | None = None

    @property
    def seconds(self) -> float:
        return len(self.f0) * FRAME_S

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return np.asarray(self.f0 > 0)

    @property
    def level(self) -> float:
        """Natural log power of the loud frames (95th percentile)."""
        return float(np.percentile(frame_level(self.envelope), 95)) if len(self.f0) else -37.0

    def digest(self) -> str:
        """Hex sha256 of the content: part of the key of every take made with it."""
        parts = [self.envelope.tobytes(), self.f0.tobytes(), json.dumps(self._facts()).encode()]
        if self.sounds is not None:
            parts.append(self.sounds.tobytes())
        if self.adapted is not None:
            parts += [self.adapted.tensors[k].tobytes() for k in sorted(self.adapted.tensors)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def statistics(self) -> dict[str, float]:
        """F0 (median, Hz; spread, semitones), rate, and spectral figures, for the voice row."""
        voiced = self.f0[self.voiced]
        power = np.exp(self.envelope.astype(np.float64)).mean(axis=0) if len(self.f0) else None
        found = {"speech_s": self.seconds, "bandwidth_hz": self.bandwidth_hz}
        if len(voiced):
            low, middle, high = np.percentile(np.log2(voiced), [16, 50, 84])
            found["f0_median_hz"] = float(2.0**middle)
            found["f0_spread_semitones"] = float(6.0 * (high - low))
            found["voiced_share"] = len(voiced) / len(self.f0)
            found["syllables_per_s"] = syllable_rate(self.envelope, self.voiced)
        if power is not None and power.sum() > 0:
            found["spectral_centroid_hz"] = float((power * CENTRES).sum() / power.sum())
            low_band, high_band = power[CENTRES < 1000].mean(), power[CENTRES > 3000].mean()
            found["tilt_db"] = float(10 * np.log10(high_band / max(low_band, 1e-20) + 1e-12))
        return {k: round(v, 4) for k, v in found.items()}

    def _facts(self) -> dict[str, float | int | str | None]:
        return {
            "sample_rate": self.sample_rate,
            "bandwidth_hz": self.bandwidth_hz,
            "high_band_db": self.high_band_db,
            **({} if self.sounds_by is None else {"sounds_by": self.sounds_by}),
            **({} if self.adapted is None else {"adapted": self.adapted.network}),
        }

    def save(self, path: Path) -> None:
        """Write the state file, whole or not at all; the same profile gives the same bytes."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {
            "envelope": self.envelope.astype(np.float16),
            "f0": self.f0,
        }
        if self.sounds is not None:
            arrays["sounds"] = self.sounds.astype(np.float16)
        if self.adapted is not None:
            for name, tensor in self.adapted.tensors.items():
                arrays[OWN + name] = tensor.astype(np.float16)
        # One entry: safetensors writes several in an order that differs from run to run.
        facts = json.dumps({"format": FORMAT, **self._facts()}, sort_keys=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(save(arrays, metadata={"podtool": facts}))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> SpeechProfile:
        """Read a state file. Raises InputError for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                known = json.loads((file.metadata() or {}).get("podtool", "{}"))
                if known.get("format") != FORMAT:
                    raise InputError(f"{path} is not a voice of podtool's WORLD converter")
                envelope = file.get_tensor("envelope").astype(np.float32)
                f0 = file.get_tensor("f0").astype(np.float32)
                sounds = None
                if known.get("sounds_by") is not None:
                    sounds = file.get_tensor("sounds").astype(np.float32)
                adapted = None
                if known.get("adapted") is not None:
                    names = [k for k in file.keys() if k.startswith(OWN)]  # noqa: SIM118
                    tensors = {
                        k.removeprefix(OWN): file.get_tensor(k).astype(np.float32) for k in names
                    }
                    adapted = Adapted(str(known["adapted"]), tensors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"cannot read the voice {path}: {error}", "Clone the voice again."
            ) from None
        if envelope.shape != (len(f0), BANDS):
            raise InputError(f"{path}: {envelope.shape} envelopes for {len(f0)} frames")
        high = known["high_band_db"]
        return cls(
            envelope,
            f0,
            int(known["sample_rate"]),
            float(known["bandwidth_hz"]),
            None if high is None else float(high),
            sounds,
            known.get("sounds_by"),
            adapted,
        )


def build_profile(
    stretches: Iterable[Frames], sample_rate: int, high_band_db: float | None = None
) -> SpeechProfile:
    """Speech frames of all stretches (silence left out) as a profile.

    `sample_rate` is that of the recording, so that its Nyquist frequency bounds the bandwidth.
    """
    envelopes, pitches = [], []
    for frames in stretches:
        envelope = frames.envelope
        envelopes.append(envelope)
        pitches.append(frames.f0)
    if not envelopes:
        empty = np.zeros((0, BANDS), np.float32)
        return SpeechProfile(empty, np.zeros(0, np.float32), sample_rate, 0.0)
    envelope = np.concatenate(envelopes)
    f0 = np.concatenate(pitches)
    keep = speech_frames(envelope)
    envelope, f0 = envelope[keep], f0[keep]
    return SpeechProfile(
        envelope.astype(np.float16).astype(np.float32),  # as a state file would give it back
        f0.astype(np.float32),
        sample_rate,
        bandwidth(envelope, sample_rate),
        high_band_db,
    )


def frame_level(envelope: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,) natural log of the mean power of each frame."""
    return np.asarray(np.log(np.exp(envelope.astype(np.float64)).mean(axis=1) + 1e-16))


def speech_frames(envelope: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(n,) true where a frame is within 35 dB of the loud ones."""
    level = frame_level(envelope)
    if not len(level):
        return np.zeros(0, bool)
    loud = np.percentile(level, 95)
    return np.asarray((level > loud - SPEECH_RANGE_DB / 10 * LOG10) & (level > -27.6))


def bandwidth(envelope: NDArray[np.floating], sample_rate: int) -> float:
    """Hz up to which speech has content: peaks within 70 dB of the strongest band."""
    limit = min(sample_rate / 2, float(CENTRES[-1]))
    if not len(envelope):
        return 0.0
    peaks = np.percentile(envelope, 95, axis=0) * 10 / LOG10
    heard = np.flatnonzero((peaks > peaks.max() - 70.0) & (CENTRES <= limit))
    return float(CENTRES[heard[-1]]) if len(heard) else limit


def syllable_rate(envelope: NDArray[np.floating], voiced: NDArray[np.bool_]) -> float:
    """Peaks of the 300 to 3000 Hz level per second of speech: a count of syllable nuclei.

    Source: the intensity-peak method of N. de Jong and T. Wempe, Behav. Res. Methods 41, 2009.
    """
    band = (CENTRES > 300) & (CENTRES < 3000)
    level = np.log(np.exp(envelope[:, band].astype(np.float64)).mean(axis=1) + 1e-16) * 10 / LOG10
    if len(level) < 20:
        return 0.0
    window = np.hanning(17)[1:-1]
    level = np.convolve(level, window / window.sum(), mode="same")
    count, low, rising = 0, level[0], level[0]
    armed = True
    for value, spoken in zip(level, voiced, strict=True):
        if armed:
            rising = max(rising, value)
            if value < rising - 2.0:
                count += int(rising > low + 2.0)
                armed, low = False, value
        else:
            low = min(low, value)
            if value > low + 2.0 and spoken:
                armed, rising = True, value
    return count / (len(level) * FRAME_S)
