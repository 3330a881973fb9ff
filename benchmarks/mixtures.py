"""Fixed mixtures of the separation benchmarks, of people, music and noise that no training heard.

The people are the twelve of the data folder whose manifest says `in_train: false`, the music is
the one that a licence or a name keeps out of training, and so is the noise: `check_unheard` holds
that against the recipes. Of the noises summer-night and waves, training hears other minutes.
Everything is drawn with fixed seeds: two runs hear the same samples.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile as sf
from harness import ROOT, data_folder
from numpy.typing import NDArray

RATE = 44100
TALK_RATE = 16000
LEVEL = 0.04  # RMS of the speech: no mixture clips
MUSIC = (
    "music/brahms-hungarian-dance-5-1.ogg",
    "music/colobot-music002-1.ogg",
    "music/colobot-music003-2.ogg",
    "music/colobot-music006-1.ogg",
    "music/colobot-music009-1.ogg",
    "music/colobot-music012-2.ogg",
)
NOISE = (
    "noise/babble-10talkers-6.flac",
    "noise/boat-2.flac",
    "noise/city-1.flac",
    "noise/summer-night-1.flac",
    "noise/voicebank-demand-p287_003.flac",
    "noise/waves-1.flac",
)
Samples = NDArray[np.float32]
Stretch = tuple[int, int]  # frames, end exclusive


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one person read, 16 kHz, without the silence around it, at an RMS of 1."""

    speaker: str
    gender: str
    text: str
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / TALK_RATE


@dataclass(frozen=True, slots=True)
class Scene:
    """Speech and a background of the same level, (2, frames) at 44.1 kHz each."""

    name: str
    kind: str  # music or noise
    speech: Samples
    background: Samples
    said: tuple[tuple[Stretch, str], ...]

    def mixture(self, level_db: float) -> Samples:
        """The background so many dB under the speech."""
        return np.asarray(self.speech + self.background * np.float32(10 ** (-level_db / 20)))


@dataclass(frozen=True, slots=True)
class Talk:
    """People who talk at the same time, (count, frames) at 16 kHz, and noise, (frames,)."""

    name: str
    genders: str
    talkers: Samples
    background: Samples
    texts: tuple[str, ...]

    @property
    def mixture(self) -> Samples:
        return np.asarray(self.talkers.sum(axis=0) + self.background)

    def alone(self, row: int) -> NDArray[np.bool_]:
        """Where only that talker makes a sound."""
        heard = np.abs(self.talkers) > 0
        return np.asarray(heard[row] & (heard.sum(axis=0) == 1))


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) + 1e-12)


@cache
def utterances() -> tuple[Utterance, ...]:
    """Everything that the kept-out speakers read, in the manifest's order."""
    rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
    found = []
    for row in rows:
        if row["kind"] == "read" and row.get("in_train") is False and row["transcript"]:
            samples, rate = sf.read(data_folder() / row["path"], dtype="float32")
            assert rate == TALK_RATE and samples.ndim == 1, row["path"]
            samples = _trimmed(samples)
            samples = (samples / rms(samples)).astype(np.float32)
            found.append(Utterance(row["speaker"], row["gender"], row["transcript"], samples))
    return tuple(found)


def check_unheard() -> None:
    """Exit where a recipe would train with anything of this file."""
    rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
    licences = {r["path"]: r["licence"] for r in rows}
    for path in sorted((ROOT / "src" / "podtool" / "training" / "recipes").glob("*.toml")):
        data = tomllib.loads(path.read_text())["data"]
        heard = {u.speaker for u in utterances()} - set(data["exclude_speakers"])
        music = MUSIC if data.get("music_kinds", True) else ()
        noises = NOISE if data.get("noise_kinds", True) else ()
        heard |= {
            name
            for name in (*music, *noises)
            if name not in data.get("exclude_files", ())
            and not any(word in licences[name] for word in data["exclude_licences"])
        }
        if heard:
            sys.exit(f"{path.name} does not keep out {', '.join(sorted(heard))}")


# ---------------------------------------------------------------- speech and background


def scenes() -> Iterator[Scene]:
    """Six with music and six with noise: two people in the middle, one after the other."""
    rng = np.random.default_rng(3)
    pool = [u for u in utterances() if 3.5 < u.seconds < 8]
    for kind, beds in (("music", MUSIC), ("noise", NOISE)):
        for path in beds:
            first = pool[int(rng.integers(len(pool)))]
            others = [u for u in pool if u.speaker != first.speaker]
            second = others[int(rng.integers(len(others)))]
            speech, said = _in_turn([first, second], rng)
            bed = _bed(path, speech.shape[1], stereo=kind == "music")
            name = path.split("/")[1].split(".")[0]
            yield Scene(name, kind, speech, bed * np.float32(LEVEL), said)


def wideband() -> Iterator[tuple[str, Samples]]:
    """(speaker, speech up to 16 kHz), (2, frames) at 44.1 kHz: what sibilants are like above 8 kHz.

    The data ends at 8 kHz, so the band of 4 to 8 kHz is shifted up by 4 kHz, and by 8 kHz 6 dB
    lower (spectral replication, as in SBR): the envelope in time is that of real sibilants.
    """
    import soxr
    from scipy.signal import butter, hilbert, sosfiltfilt

    rng = np.random.default_rng(5)
    pool = [u for u in utterances() if u.speaker == "ljspeech" or u.speaker.startswith("vctk")]
    above = butter(12, 4000, "highpass", fs=48000, output="sos")
    for speaker in sorted({u.speaker for u in pool}):
        said = [u for u in pool if u.speaker == speaker and u.seconds > 4]
        narrow = soxr.resample(said[int(rng.integers(len(said)))].samples, TALK_RATE, 48000)
        band = hilbert(sosfiltfilt(above, narrow))
        turn = np.exp(2j * np.pi * 4000 / 48000 * np.arange(len(narrow)))
        wide = narrow + (band * turn).real + 0.5 * (band * turn**2).real
        mono = soxr.resample(wide / rms(wide) * LEVEL, 48000, RATE)
        quiet = np.zeros(RATE // 2)
        mono = np.concatenate([quiet, mono, quiet]).astype(np.float32)
        yield speaker, np.stack([mono, mono])


def noise(frames: int) -> Samples:
    """(2, frames) of the first noises after each other at 44.1 kHz, at an RMS of 1."""
    return _bed(NOISE[2], frames, stereo=False)


def _in_turn(
    said: Sequence[Utterance], rng: np.random.Generator
) -> tuple[Samples, tuple[tuple[Stretch, str], ...]]:
    import soxr

    parts, places, at = [np.zeros(int(1.5 * RATE), np.float32)], [], int(1.5 * RATE)
    for utterance in said:
        voice = soxr.resample(utterance.samples, TALK_RATE, RATE, quality="VHQ") * LEVEL
        pause = np.zeros(int(rng.uniform(0.6, 1.5) * RATE), np.float32)
        places.append(((at, at + len(voice)), utterance.text))
        parts += [voice.astype(np.float32), pause]
        at += len(voice) + len(pause)
    mono = np.concatenate(parts)
    return np.stack([mono, mono]), tuple(places)


def _bed(path: str, frames: int, stereo: bool) -> Samples:
    """(2, frames) at 44.1 kHz, repeated where short, at an RMS of 1."""
    import soxr

    samples, rate = sf.read(data_folder() / path, dtype="float32", always_2d=True)
    samples = samples[:, :2] if stereo else np.repeat(samples.mean(1, keepdims=True), 2, 1)
    bed = np.asarray(soxr.resample(samples, rate, RATE).T, np.float32)
    bed = np.tile(bed, (1, frames // bed.shape[1] + 1))[:, :frames]
    return np.asarray(bed / rms(bed), np.float32)


# ---------------------------------------------------------------- talkers


def overlapped(count: int, noise_db: float | None = None, mixtures: int = 20) -> Iterator[Talk]:
    """Whole utterances of about the same length at the same time, 4 to 9 s, zeros after them.

    Levels differ by up to 5 dB; the same people with noise as without. Of two talkers, every second
    mixture is of a man and a woman, the others of two women and two men in turn; of three, all are
    mixed. `noise_db`: noise so far under the sum of the talkers.
    """
    rng, noises = np.random.default_rng(10 + count), np.random.default_rng(1)
    pool = [u for u in utterances() if 4 < u.seconds < 9]
    wanted = {2: ("FM", "FF", "MF", "MM"), 3: ("FFM", "FMM")}[count]
    for k in range(mixtures):
        genders = wanted[k % len(wanted)]
        said = _alike(pool, genders, rng)
        frames = max(len(u.samples) for u in said)
        talkers = np.zeros((count, frames), np.float32)
        for row, utterance in zip(talkers, said, strict=True):
            gain = LEVEL * 10 ** (rng.uniform(-2.5, 2.5) / 20)
            row[: len(utterance.samples)] = utterance.samples * np.float32(gain)
        name = "+".join(u.speaker for u in said)
        bed = np.zeros(frames, np.float32)
        if noise_db is not None:
            bed = _noise16(NOISE[k % len(NOISE)], frames, noises)
            bed *= np.float32(rms(talkers.sum(axis=0)) * 10 ** (-noise_db / 20))
        yield Talk(name, genders, talkers, bed, tuple(u.text for u in said))


def sparse(mixtures: int = 8) -> Iterator[Talk]:
    """Two people in conversation: one, both for a second or two, the other, a pause, the first."""
    rng = np.random.default_rng(20)
    pool = [u for u in utterances() if 3 < u.seconds < 7]
    for _ in range(mixtures):
        a, b = _pick(pool, 2, rng)
        again = [u for u in utterances() if u.speaker == a.speaker and u.text != a.text]
        c = again[int(rng.integers(len(again)))]
        second = len(a.samples) - int(rng.uniform(1.0, 2.0) * TALK_RATE)
        third = second + len(b.samples) + int(rng.uniform(0.3, 0.8) * TALK_RATE)
        talkers = np.zeros((2, third + len(c.samples)), np.float32)
        gains = LEVEL * 10 ** (rng.uniform(-2.5, 2.5, 2) / 20)
        talkers[0, : len(a.samples)] = a.samples * gains[0]
        talkers[1, second : second + len(b.samples)] = b.samples * gains[1]
        talkers[0, third:] = c.samples * gains[0]
        texts = (f"{a.text} {c.text}", b.text)
        bed = np.zeros(talkers.shape[1], np.float32)
        yield Talk(f"{a.speaker}+{b.speaker}", a.gender + b.gender, talkers, bed, texts)


def _alike(pool: Sequence[Utterance], genders: str, rng: np.random.Generator) -> list[Utterance]:
    """Utterances of different people and words, of these genders, within .5 s of length."""
    while True:
        chosen: list[Utterance] = []
        for gender in genders:
            fit = [
                u
                for u in pool
                if u.gender == gender
                and all(u.speaker != c.speaker and u.text != c.text for c in chosen)
                and all(abs(u.seconds - c.seconds) < 0.5 for c in chosen)
            ]
            if not fit:
                break
            chosen += _pick(fit, 1, rng)
        else:
            return chosen


def _pick(pool: Sequence[Utterance], count: int, rng: np.random.Generator) -> list[Utterance]:
    """Utterances of so many people, each person as likely as any other."""
    speakers = rng.choice(sorted({u.speaker for u in pool}), count, replace=False)
    found = [[u for u in pool if u.speaker == s] for s in speakers]
    return [said[int(rng.integers(len(said)))] for said in found]


def _noise16(path: str, frames: int, rng: np.random.Generator) -> Samples:
    samples, _ = sf.read(data_folder() / path, dtype="float32")
    start = int(rng.integers(len(samples)))
    bed = np.roll(np.tile(samples, frames // len(samples) + 1), -start)[:frames]
    return np.asarray(bed / rms(bed), np.float32)


def _trimmed(samples: Samples) -> Samples:
    """Without the silence at both ends: frames of 20 ms more than 38 dB under the loudest."""
    step = TALK_RATE // 50
    count = len(samples) // step
    power = np.mean(np.square(samples[: count * step].reshape(count, step)), axis=1)
    loud = np.flatnonzero(power > power.max() * 10**-3.8)
    return np.asarray(samples[loud[0] * step : (loud[-1] + 1) * step])
