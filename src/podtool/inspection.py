"""What is odd about a recording, told before anybody trusts a result: silence, clipping, layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from podtool.audio import AudioSource, blocks

SILENT_PEAK = 10 ** (-70 / 20)
CLIPPED_AT = 0.999
CLIPPED_SHARE = 1e-4  # of all samples; occasional full-scale peaks are mastering, not clipping


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """Measured over the whole recording."""

    duration_s: float
    sample_rate: int
    channels: int
    peak: float
    rms: float
    clipped_share: float

    @property
    def silent(self) -> bool:
        return self.peak < SILENT_PEAK


def inspect(source: AudioSource) -> AudioFacts:
    """Read a recording once. Raises InputError for NaN or a truncated file."""
    peak, energy, clipped = 0.0, 0.0, 0
    for _, block in blocks(source):
        size = np.abs(block.samples)
        peak = max(peak, float(size.max(initial=0.0)))
        energy += float(np.square(block.samples, dtype=np.float64).sum())
        clipped += int((size >= CLIPPED_AT).sum())
    count = source.frames * source.channels
    return AudioFacts(
        duration_s=source.frames / source.sample_rate,
        sample_rate=source.sample_rate,
        channels=source.channels,
        peak=peak,
        rms=(energy / count) ** 0.5,
        clipped_share=clipped / count,
    )


def oddities(facts: AudioFacts) -> list[str]:
    """One line for each thing that a person should know before trusting a result."""
    found = []
    if facts.silent:
        found.append("the recording is silent")
    if facts.clipped_share > CLIPPED_SHARE:
        found.append(f"{facts.clipped_share:.1%} of the samples are clipped")
    if facts.channels > 2:
        found.append(f"{facts.channels} channels are mixed down for analysis")
    if facts.sample_rate < 16000:
        found.append(f"at {facts.sample_rate / 1000:g} kHz the voices lack what engines expect")
    if facts.duration_s > 3.5 * 3600:
        found.append(
            f"the recording is {facts.duration_s / 3600:.1f} hours long: this takes a while"
        )
    return found
