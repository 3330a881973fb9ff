"""Separation: every engine that runs here on the same mixtures of people that no training heard.

usage: python benchmarks/separation.py [--weights FILE ...] [--only background|talkers]
                                       [--engine NAME ...]

`--weights` scores weights of a training folder (best.safetensors) in place of what is installed.

background   speech and a background at 44.1 kHz stereo, 6 scenes with music and 6 with noise, each
             engine as `podtool separate` runs it after the VAD, RNNoise beside it:
  si_sdr_improvement   at 0, 5, 10 and 20 dB of speech over background
  dnsmos               overall, of the first 9 s of the speech stem
  separation_wer       of the embedded recogniser, utterance by utterance
  pause_level          of the speech stem where nobody speaks, against the background; here the
                       engine is not told where somebody does
  off_centre_si_sdr_improvement   at 5 dB, of a talker who sits beside the middle
  clean_si_sdr         of speech without any background against itself
  loss_above_8_khz     of speech extended to 16 kHz (see mixtures.py), alone and with noise at 10 dB
  separation_cpu, peak_memory   on one core; of a process that separates a minute
talkers      two and three people at the same time, see talkers.py

Needs PODTOOL_DATA (default ../shared/data), weights (`podtool models pull embedded dnsmos`), jiwer,
and pyrnnoise for RNNoise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from conversion import Dnsmos
from harness import ROOT, say
from mixtures import RATE, TALK_RATE, Samples, Scene, check_unheard, noise, scenes, wideband
from recognition import word_errors
from systems import System, context, installed, of_weights, peak_memory
from talkers import score_talkers, score_untouched, si_sdr

from podtool import engines
from podtool.audio import Audio
from podtool.resample import resample, to_mono
from podtool.segments import Span
from podtool.stages.separate import find_speech

LEVELS_DB = (0, 5, 10, 20)
JUDGED_DB = (0, 5, 10)  # where DNSMOS listens
READ_DB = (0, 5)  # and the recogniser reads
PAUSE_DB = 5
BESIDE_DB = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A mixture and where the VAD hears speech in it."""

    scene: Scene
    level_db: int
    mixture: Audio
    spans: list[Span]

    @property
    def label(self) -> str:
        return f"{self.scene.kind} {self.level_db} dB"


class Judges:
    """The engines that hear results: VAD, recogniser, DNSMOS."""

    def __init__(self) -> None:
        given = context()
        self.vad = engines.load("vad", "silero", given)
        self.recogniser = engines.load("transcription", "moonshine", given)
        self.dnsmos = Dnsmos(given)

    def quality(self, speech: Samples) -> float:
        """DNSMOS of one window: it is by far the dearest of all figures."""
        return self.dnsmos.overall(middle16(speech[:, : round(9.02 * RATE)]))

    def spans(self, samples: Samples) -> list[Span]:
        return find_speech(Audio(samples, RATE), self.vad)

    def read(self, samples: Samples) -> str:
        """Text of (n,) at 16 kHz."""
        found = self.recogniser.transcribe(Audio(samples[None], TALK_RATE), "en")
        return " ".join(u.text for u in found)

    def heard(self, scene: Scene, speech: Samples) -> list[str]:
        """The text of each utterance of a scene, with .2 s around it."""
        margin = RATE // 5
        pieces = [speech[:, max(0, a - margin) : b + margin] for (a, b), _ in scene.said]
        return [self.read(middle16(p).samples[0]) for p in pieces]


def middle16(samples: Samples) -> Audio:
    return resample(to_mono(Audio(np.ascontiguousarray(samples), RATE)), TALK_RATE)


@cache
def cases() -> list[Case]:
    vad = engines.load("vad", "silero", context())
    found = []
    for scene in scenes():
        for level in LEVELS_DB:
            mixture = Audio(scene.mixture(level), RATE)
            found.append(Case(scene, level, mixture, find_speech(mixture, vad)))
    return found


def score_speech(system: System, judges: Judges) -> None:
    """All figures of a system that takes speech from its background, as metric rows."""
    gains: dict[str, list[float]] = {}
    quality: dict[str, list[float]] = {}
    pauses: dict[str, list[float]] = {}
    meant: dict[str, list[str]] = {}
    heard: dict[str, list[str]] = {}
    spent = seconds = 0.0
    for case in cases():
        scene, label = case.scene, case.label
        began = time.process_time()
        speech = system.speech(case.mixture, case.spans)
        spent += time.process_time() - began
        seconds += case.mixture.duration
        before = si_sdr(case.mixture.samples, scene.speech)
        gains.setdefault(label, []).append(si_sdr(speech, scene.speech) - before)
        if case.level_db in JUDGED_DB:
            quality.setdefault(label, []).append(judges.quality(speech))
        if case.level_db in READ_DB:
            meant.setdefault(label, []).extend(text for _, text in scene.said)
            heard.setdefault(label, []).extend(judges.heard(scene, speech))
        if case.level_db == PAUSE_DB:
            untold = system.speech(case.mixture, None)
            pauses.setdefault(label, []).append(pause_level(case, untold))
    for name, unit, figures in (
        ("si_sdr_improvement", "dB", gains),
        ("dnsmos", "MOS", quality),
        ("pause_level", "dB", pauses),
    ):
        for label, values in figures.items():
            say(name, float(np.mean(values)), unit, f"{system.name}, {label}", len(values))
    for label, texts in meant.items():
        wer = word_errors(texts, heard[label])
        say("separation_wer", wer, "share", f"{system.name}, {label}", len(texts))
    off_centre(system)
    clean(system, judges)
    above_8_khz(system, judges)
    say("separation_cpu", spent / seconds, "CPU s per s", system.name)


def pause_level(case: Case, speech: Samples) -> float:
    """dB of what is left against the background, a tenth of a second away from all speech."""
    quiet = np.ones(speech.shape[1], bool)
    for (start, stop), _ in case.scene.said:
        quiet[max(0, start - RATE // 10) : stop + RATE // 10] = False
    bed = (case.mixture.samples - case.scene.speech)[:, quiet]
    return 10 * float(np.log10(energy(speech[:, quiet]) / energy(bed) + 1e-10))


def off_centre(system: System) -> None:
    """Speech 6 dB louder on the left and half a millisecond later on the right."""
    gains: dict[str, list[float]] = {}
    for case in cases():
        if case.level_db == BESIDE_DB:
            left, right = case.scene.speech
            late = np.concatenate([np.zeros(22, np.float32), right[:-22]])
            truth = np.stack([left * np.float32(1.2), late * np.float32(0.6)])
            mixture = case.mixture.samples - case.scene.speech + truth
            found = system.speech(Audio(mixture, RATE), case.spans)
            gain = si_sdr(found, truth) - si_sdr(mixture, truth)
            gains.setdefault(case.label, []).append(gain)
    for label, values in gains.items():
        subject = f"{system.name}, {label}"
        say("off_centre_si_sdr_improvement", float(np.mean(values)), "dB", subject, len(values))


def clean(system: System, judges: Judges) -> None:
    """What a system does to speech that has no background."""
    values = []
    for scene in {c.scene.name: c.scene for c in cases() if c.scene.kind == "noise"}.values():
        found = system.speech(Audio(scene.speech, RATE), judges.spans(scene.speech))
        values.append(si_sdr(found, scene.speech))
    say("clean_si_sdr", min(99.0, float(np.mean(values))), "dB", system.name, len(values))


def above_8_khz(system: System, judges: Judges) -> None:
    """dB of speech lost above 8.3 kHz; the noise ends at 8 kHz, so what is there is speech."""
    from scipy.signal import butter, sosfiltfilt

    high = butter(12, 8300, "highpass", fs=RATE, output="sos")
    for label, level_db in (("alone", None), ("noise 10 dB", 10)):
        losses = []
        for _, speech in wideband():
            mixture = speech
            if level_db is not None:
                share = np.sqrt(energy(speech) / speech.size) * 10 ** (-level_db / 20)
                mixture = speech + noise(speech.shape[1]) * np.float32(share)
            found = system.speech(Audio(mixture, RATE), judges.spans(mixture))
            before, after = (energy(sosfiltfilt(high, x)) for x in (speech, found))
            losses.append(10 * float(np.log10(before / max(after, 1e-12))))
        subject = f"{system.name}, {label}"
        say("loss_above_8_khz", float(np.mean(losses)), "dB", subject, len(losses))


def energy(samples: Samples) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))


def score_clean_speech(judges: Judges) -> None:
    """What the judges say of the speech itself: the best that a system could get."""
    whole = {c.scene.name: c.scene for c in cases()}.values()
    values = [judges.quality(s.speech) for s in whole]
    say("dnsmos", float(np.mean(values)), "MOS", "clean speech", len(values))
    texts = [text for s in whole for _, text in s.said]
    heard = [text for s in whole for text in judges.heard(s, s.speech)]
    say("separation_wer", word_errors(texts, heard), "share", "clean speech", len(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description="the separation figures")
    parser.add_argument("--weights", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--only", choices=("background", "talkers"))
    parser.add_argument("--engine", nargs="+", metavar="NAME", help="only these")
    options = parser.parse_args()
    check_unheard()
    judges = Judges()
    with tempfile.TemporaryDirectory() as folder:
        if options.weights:
            systems, talkers = of_weights(options.weights, Path(folder))
        else:
            systems, talkers = installed()
        if options.engine:
            systems = [s for s in systems if s.name in options.engine]
            talkers = [t for t in talkers if t.name.split()[0] in options.engine]
        if options.only != "talkers":
            if not options.weights:
                score_clean_speech(judges)
            for system in systems:
                score_speech(system, judges)
        if options.only != "background":
            if not options.weights:
                score_untouched(judges.read)
            for talker in talkers:
                score_talkers(talker, judges.read)
    if not options.weights:
        weigh(options.only)


def weigh(only: str | None) -> None:
    """Memory of the engines, and megabytes of what the package carries."""
    for kind, stage in (("background", "separation"), ("talkers", "talkers")):
        here = engines.availability(stage, "podtool", context()).available
        if here and only in (None, kind):
            say("peak_memory", peak_memory(stage, "podtool"), "MB", f"{kind}, podtool")
    files = [p for p in (ROOT / "src").rglob("*") if p.suffix in (".safetensors", ".onnx")]
    say("shipped_weights", sum(p.stat().st_size for p in files) / 1e6, "MB", n=len(files))


if __name__ == "__main__":
    main()
