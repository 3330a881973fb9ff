"""Conversations with exact truth out of the training speech, for tuning: never the shows.

usage: python benchmarks/dev_mixtures.py OUT [SEED]     (data: PODTOOL_DATA and its sibling `train`)

Each recipe gives OUT/<name>/{speech.flac, mix.flac, truth.rttm}, 16 kHz mono. The speakers come
from `train` and the music and noise from `data`; the same seed gives the same bytes. Recipes vary
what the shows fix: one to six speakers, short turns, uneven levels, a room, one gender, a few
words of a passer-by, twenty minutes.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

RATE = 16000
DATA = Path(os.environ.get("PODTOOL_DATA", Path(__file__).parents[2] / "shared" / "data"))
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """`overlap` is the share of turns that begin early, by `early_s`; levels: dB under speech."""

    name: str
    speakers: int
    turns: int
    overlap: float = 0.0
    early_s: tuple[float, float] = (0.6, 2.5)
    music_db: float | None = None
    noise_db: float | None = None
    longest_s: float = 16.0
    gender: str | None = None
    room: bool = False
    levels_db: float = 2.0
    gaps_s: tuple[float, float] = (0.15, 0.7)
    favour: float = 0.0  # chance that the first speaker takes the turn


RECIPES = (
    Recipe("monologue", 1, 8),
    Recipe("monologue-music", 1, 8, music_db=10),
    Recipe("two-clean", 2, 14),
    Recipe("two-men", 2, 14, 0.1, gender="M"),
    Recipe("two-women-music", 2, 14, 0.2, gender="F", music_db=12),
    Recipe("two-short-turns", 2, 30, 0.2, (0.2, 0.8), longest_s=2.5),
    Recipe("host-and-guest", 2, 16, 0.2, favour=0.6, noise_db=15),
    Recipe("three-noisy", 3, 18, 0.4, noise_db=8),
    Recipe("three-panel", 3, 20, 0.3, noise_db=20),
    Recipe("three-crosstalk", 3, 18, 0.8, (2.0, 6.0), noise_db=15),
    Recipe("three-women-room", 3, 18, 0.2, gender="F", room=True, noise_db=25),
    Recipe("three-uneven", 3, 18, 0.2, levels_db=8, noise_db=22),
    Recipe("four-show", 4, 24, 0.2, music_db=10, noise_db=25),
    Recipe("four-men", 4, 24, 0.2, gender="M", noise_db=20),
    Recipe("four-crosstalk", 4, 24, 0.7, (1.0, 5.0), noise_db=12),
    Recipe("five-short-turns", 5, 45, 0.3, (0.2, 1.0), longest_s=4.0, noise_db=18),
    Recipe("six-panel", 6, 36, 0.2, noise_db=20),
    Recipe("six-music", 6, 36, 0.1, music_db=8),
    Recipe("pauses", 2, 10, gaps_s=(2.0, 20.0), noise_db=15),
    Recipe("twenty-minutes", 4, 150, 0.2, music_db=14, noise_db=25),
)


def read(path: Path) -> Samples:
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(1)
    if rate != RATE:
        from scipy.signal import resample_poly

        mono = resample_poly(mono, RATE, rate)
    return np.asarray(mono, np.float32)


def level(x: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)) + 1e-12))


def trim(x: Samples) -> Samples:
    """Drop the silence at both ends: 20 ms frames more than 38 dB under the loudest."""
    frames = len(x) // 320
    energy = 10 * np.log10(np.mean(x[: frames * 320].reshape(frames, 320) ** 2, 1) + 1e-10)
    loud = np.flatnonzero(energy > energy.max() - 38)
    return x[loud[0] * 320 : (loud[-1] + 1) * 320]


def bed(paths: Sequence[Path], length: int, rng: random.Random) -> Samples:
    """Randomly chosen tracks one after another, each with the same level and faded ends."""
    out = np.zeros(length, np.float32)
    at = 0
    while at < length:
        y = read(rng.choice(paths))
        y = y / level(y)
        fade = min(len(y) // 4, RATE)
        y[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
        y[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        n = min(len(y), length - at)
        out[at : at + n] += y[:n]
        at += len(y) - fade
    return out


def room_response(rng: np.random.Generator, seconds: float = 0.35) -> Samples:
    """Exponentially decaying noise after a direct path: a room of about `seconds` RT60."""
    n = int(seconds * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n) * 0.03
    tail[:80] = 0
    tail[0] = 1.0
    return tail.astype(np.float32)


def make(recipe: Recipe, seed: int) -> tuple[Samples, Samples, list[tuple[float, float, str]]]:
    """(speech, mixture, truth as (start, end, speaker)); truth counts pauses as speech."""
    rng = random.Random(f"{seed} {recipe.name}")
    noise_rng = np.random.default_rng(rng.randrange(2**32))
    train = DATA.parent / "train"
    rows = [json.loads(line) for line in (train / "MANIFEST.jsonl").open()]
    extra = [json.loads(line) for line in (DATA / "MANIFEST.jsonl").open()]
    speech_of: dict[str, list[Path]] = {}
    for row in rows:
        if recipe.gender in (None, row["gender"]) and 2.0 < row["duration_s"] < 16:
            speech_of.setdefault(row["speaker"], []).append(train / row["path"])
    people = sorted(s for s, paths in speech_of.items() if len(paths) >= 10)
    who = rng.sample(people, recipe.speakers)
    utterances = {s: rng.sample(speech_of[s], len(speech_of[s])) for s in who}
    responses = {s: room_response(noise_rng) for s in who}
    offset = {s: rng.uniform(-recipe.levels_db, recipe.levels_db) for s in who}

    placed: list[tuple[float, Samples, str]] = []
    ends: dict[str, float] = {}
    at = 0.8 if recipe.music_db is None else 4.0
    last = ""
    for k in range(recipe.turns):
        others = [w for w in who if w != last] or who
        speaker = who[k] if k < len(who) else rng.choice(others)
        if k >= len(who) and last != who[0] and rng.random() < recipe.favour:
            speaker = who[0]
        if not utterances[speaker]:
            continue
        x = trim(read(utterances[speaker].pop()))[
            : int(recipe.longest_s * rng.uniform(0.4, 1) * RATE)
        ]
        if recipe.room:
            x = np.convolve(x, responses[speaker])[: len(x)].astype(np.float32)
        x = x / level(x) * 0.06 * 10 ** ((offset[speaker] + rng.uniform(-1, 1)) / 20)
        early = placed and rng.random() < recipe.overlap
        start = at - rng.uniform(*recipe.early_s) if early else at + rng.uniform(*recipe.gaps_s)
        start = max(0.3, start, ends.get(speaker, 0.0) + 0.1)
        together = [p for p in placed if p[0] < start + 0.5 and p[0] + len(p[1]) / RATE > start]
        if len(together) >= 3:
            start = max(p[0] + len(p[1]) / RATE for p in together) + 0.2
        placed.append((start, x.astype(np.float32), speaker))
        ends[speaker] = start + len(x) / RATE
        at = max(at, ends[speaker])
        last = speaker

    length = int((at + (4.0 if recipe.music_db is not None else 1.0)) * RATE)
    speech = np.zeros(length, np.float32)
    truth = []
    for start, x, speaker in sorted(placed, key=lambda p: p[0]):
        i = int(start * RATE)
        speech[i : i + len(x)] += x[: length - i]
        truth.append((start, start + len(x) / RATE, speaker))
    mix = speech.copy()
    if recipe.music_db is not None:
        tracks = [
            DATA / r["path"]
            for r in extra
            if r["kind"] == "music" and r["duration_s"] > 15 and not r.get("vocals")
        ]
        mix += bed(tracks, length, rng) * np.float32(0.06 * 10 ** (-recipe.music_db / 20))
    if recipe.noise_db is not None:
        noises = [DATA / r["path"] for r in extra if r["kind"] == "noise" and r["duration_s"] > 8]
        y = read(rng.choice(noises))
        y = np.tile(y, -(-length // len(y)))[:length]
        mix += y / level(y) * np.float32(0.06 * 10 ** (-recipe.noise_db / 20))
    gain = np.float32(min(1.0, 0.95 / max(float(np.abs(mix).max()), 1e-9)))
    return speech * gain, mix * gain, truth


def main(out: Path, seed: int) -> None:
    for recipe in RECIPES:
        speech, mix, truth = make(recipe, seed)
        folder = out / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        sf.write(folder / "speech.flac", speech, RATE, subtype="PCM_16")
        sf.write(folder / "mix.flac", mix, RATE, subtype="PCM_16")
        (folder / "truth.rttm").write_text(
            "".join(
                f"SPEAKER {recipe.name} 1 {a:.3f} {b - a:.3f} <NA> <NA> {s} <NA> <NA>\n"
                for a, b, s in truth
            )
        )
        print(recipe.name, len({s for _, _, s in truth}), f"{len(mix) / RATE:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
