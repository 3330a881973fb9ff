"""The part of separation.py about people who talk at the same time: figures of one system."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import permutations

import numpy as np
from harness import say
from mixtures import TALK_RATE, Samples, overlapped, sparse
from recognition import word_errors
from systems import Stream, TalkerSystem

Read = Callable[[Samples], str]  # 16 kHz mono -> text


def si_sdr(estimate: Samples, truth: Samples) -> float:
    """Scale-invariant signal-to-distortion ratio in dB over all channels (Le Roux et al., 2019)."""
    e, t = estimate.astype(np.float64).ravel(), truth.astype(np.float64).ravel()
    target = t * (e @ t) / (t @ t)
    return float(10 * np.log10((target @ target + 1e-20) / ((e - target) @ (e - target) + 1e-20)))


def best_order(found: Samples, truth: Samples) -> tuple[int, ...]:
    """Which output is which talker: the permutation of the highest mean SI-SDR."""
    values = np.array([[si_sdr(f, t) for f in found] for t in truth])
    rows = np.arange(len(truth))
    return max(permutations(range(len(truth))), key=lambda o: float(values[rows, o].sum()))


def score_talkers(system: TalkerSystem, read: Read) -> None:
    """All figures of a system as metric rows."""
    seconds = spent = 0.0
    for label, talks in (
        ("two talkers", list(overlapped(2))),
        ("two talkers, noise 10 dB", list(overlapped(2, 10.0))),
        ("three talkers", list(overlapped(3))),
    ):
        gains: list[float] = []
        alike: list[float] = []
        for talk in talks:
            began = time.process_time()
            found = system.apart(talk.mixture, len(talk.talkers))
            spent += time.process_time() - began
            seconds += len(talk.mixture) / TALK_RATE
            found = found[list(best_order(found, talk.talkers))]
            gain = np.mean(
                [
                    si_sdr(f, t) - si_sdr(talk.mixture, t)
                    for f, t in zip(found, talk.talkers, strict=True)
                ]
            )
            gains.append(float(gain))
            if len(set(talk.genders)) == 1:
                alike.append(float(gain))
        subject = f"{system.name}, {label}"
        say("talkers_si_sdr_improvement", float(np.mean(gains)), "dB", subject, len(gains))
        say("talkers_si_sdr_worst_fifth", float(np.mean(sorted(gains)[:4])), "dB", subject, 4)
        if alike:
            say(
                "talkers_si_sdr_improvement",
                float(np.mean(alike)),
                "dB",
                f"{subject}, same gender",
                len(alike),
            )
    say("talkers_rtf", spent / seconds, "CPU s per s", system.name)
    single_talker(system)
    words(system, read)
    if system.stream is not None:
        streaming(system.name, system.stream)


def single_talker(system: TalkerSystem) -> None:
    """Conversation: what is done to a stretch in which one of two talks alone."""
    kept: list[float] = []
    leaked: list[float] = []
    for talk in sparse():
        mixture = talk.mixture
        found = system.apart(mixture, 2)
        found = found[list(best_order(found, talk.talkers))]
        for row in range(2):
            alone = talk.alone(row)
            kept.append(si_sdr(found[row][alone], mixture[alone]))
            level = np.sum(np.square(found[1 - row][alone], dtype=np.float64))
            whole = np.sum(np.square(mixture[alone], dtype=np.float64))
            leaked.append(float(10 * np.log10(level / whole + 1e-12)))
    say("single_talker_si_sdr", float(np.mean(kept)), "dB", system.name, len(kept))
    say("silent_output_level", float(np.mean(leaked)), "dB", system.name, len(leaked))


def words(system: TalkerSystem, read: Read, mixtures: int = 10) -> None:
    """WER of the recogniser on the outputs of two talkers, clean."""
    meant: list[str] = []
    heard: list[str] = []
    for talk in overlapped(2, mixtures=mixtures):
        found = system.apart(talk.mixture, 2)
        found = found[list(best_order(found, talk.talkers))]
        meant += talk.texts
        heard += [read(f) for f in found]
    say("talkers_wer", word_errors(meant, heard), "share", system.name, len(meant))


def score_untouched(read: Read, mixtures: int = 10) -> None:
    """The same on the mixture, and on the talkers by themselves."""
    talks = list(overlapped(2, mixtures=mixtures))
    meant = [text for t in talks for text in t.texts]
    mixed = [text for t in talks for text in [read(t.mixture)] * 2]
    say("talkers_wer", word_errors(meant, mixed), "share", "mixture", len(meant))
    alone = [read(row) for t in talks for row in t.talkers]
    say("talkers_wer", word_errors(meant, alone), "share", "each talker alone", len(meant))


def streaming(name: str, stream: Callable[[int], Stream]) -> None:
    """The streaming form: what it holds back, what 100 ms of it cost, whether blocks matter."""
    talk = next(iter(overlapped(2)))
    block = TALK_RATE // 10
    for count in (2, 3):
        machine = stream(count)
        spent, parts = [], []
        for at in range(0, len(talk.mixture) - block + 1, block):
            began = time.process_time()
            parts.append(machine.push(talk.mixture[at : at + block]))
            spent.append(time.process_time() - began)
        say(
            "stream_compute_per_100_ms",
            1000 * float(np.mean(spent[2:])),
            "ms",
            f"{name}, {count} talkers",
            len(spent) - 2,
        )
    machine, step = stream(2), TALK_RATE // 1000
    held, given, pieces = 0, 0, []
    for at in range(0, 2 * TALK_RATE, step):
        pieces.append(machine.push(talk.mixture[at : at + step]))
        held = max(held, at + step - given)
        given += pieces[-1].shape[1]
    pieces.append(machine.flush())
    say("stream_latency", 1000 * held / TALK_RATE, "ms", name)
    fine = np.concatenate(pieces, axis=1)
    whole = stream(2)
    at_once = np.concatenate([whole.push(talk.mixture[: 2 * TALK_RATE]), whole.flush()], axis=1)
    n = min(fine.shape[1], at_once.shape[1])
    say(
        "stream_block_difference",
        float(np.abs(fine[:, :n] - at_once[:, :n]).max()),
        "full scale",
        name,
    )
