"""The converter adapted to one voice: some hundred steps on the enrolment itself.

The half that speaks is taught on; the half that listens stays, so that what is said means the same
in every voice. The person's utterances are said again from the others', as heard and as heard in
disguise (`utterances.disguised`), as in training. Some utterances are held out: they end the
steps early and tell what was gained, beside what the ridge regression of the last layer, which
every voice has, gains without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from podtool.audio import Audio
from podtool.engines import converter_frames as seen
from podtool.engines.converter_frames import DCT, Habits
from podtool.engines.voice_podtool import KNOWN_FRAMES, Known, PodtoolVoice, Speaker, refitted
from podtool.engines.voice_podtool_model import (
    Converter,
    SpeakingHalf,
    adapted_of,
    speaking_tensors,
)
from podtool.engines.voice_world import frames_of
from podtool.engines.world_frames import BANDS, BINS, FRAME_S, RATE, Frames, world
from podtool.engines.world_profile import LOG10, Adapted, SpeechProfile, speech_frames
from podtool.errors import InputError
from podtool.training.utterances import disguised

LEAST_S = 30.0  # of speech to adapt to; less is said as well without
LEAST_GAIN_DB = 0.02  # less is no gain: the steps are chosen by the clips that tell it
HELD_OUT = 5  # every fifth utterance
STRETCH = 128  # frames of 10 ms that are said in one go
DB = 10 / LOG10


@dataclass(frozen=True, slots=True)
class AdaptParams:
    """How long and how fast."""

    steps: int = 300
    batch: int = 4
    lr: float = 2e-4
    ema: float = 0.97  # of the weights, which validate better averaged than at any one step
    copies: int = 2  # disguised ones of each utterance
    validate_every: int = 30
    patience: int = 3  # validations without gain that end it
    change: float = 0.5  # weight of the envelope's movement
    seed: int = 5


@dataclass(frozen=True, slots=True)
class Gain:
    """Mel-cepstral distortion (dB) of the utterances held out, said from the others in disguise,
    without and with what was learnt; steps that were kept (0: nothing helped) and that were made;
    utterances taught with and held out, and their seconds of speech."""

    before_db: float
    after_db: float
    steps: int
    made: int
    taught: int
    held_out: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance in frames of 10 ms: sounds (1 + copies, n, k), F0 (n,), envelope (n, 80),
    and where there is speech (n,)."""

    sounds: NDArray[np.float32]
    f0: NDArray[np.float32]
    envelope: NDArray[np.float32]
    speech: NDArray[np.bool_]


def adapt(
    engine: PodtoolVoice,
    profile: SpeechProfile,
    clips: Sequence[Audio],
    params: AdaptParams | None = None,
    on_progress: Callable[[int, int], None] = lambda done, whole: None,
) -> tuple[SpeechProfile, Gain]:
    """A voice (of `engine`) with the weights that its own speech teaches, and what they gained.

    `clips` are utterances of the person, any rate and channels; the profile comes back as it was
    where nothing was gained. The same input gives the same bits. Raises InputError for too little
    speech, ModelError where the weights that were taught are not to be had.
    """
    params = params or AdaptParams()
    seconds = sum(c.duration for c in clips)
    if seconds < LEAST_S or len(clips) < 4:
        raise InputError(
            f"there are {seconds:.0f} s of speech in {len(clips)} clips to adapt to; it takes "
            f"{LEAST_S:.0f} s in 4",
            "Give a longer recording, two minutes or more, or clone without --adapt.",
        )
    network = engine.taught()
    habits = Habits.of(profile.envelope, profile.f0)
    whole = len(clips) + params.steps
    rng = np.random.default_rng(params.seed)
    utterances: list[Utterance] = []
    for clip in clips:
        utterances.append(_heard(engine, clip, habits, params.copies, rng))
        on_progress(len(utterances), whole)
    held = [u for k, u in enumerate(utterances) if k % HELD_OUT == HELD_OUT - 1] or utterances[-1:]
    taught = [u for u in utterances if not any(u is h for h in held)]
    course = _Course(network, taught, held, habits, params)
    own, after, step, made = course.run(lambda n: on_progress(len(clips) + n, whole))
    on_progress(whole, whole)
    found = profile if own is None else replace(profile, adapted=own)
    return found, Gain(course.before, after, step, made, len(taught), len(held), seconds)


def _heard(
    engine: PodtoolVoice, clip: Audio, habits: Habits, copies: int, rng: np.random.Generator
) -> Utterance:
    samples, frames = frames_of(clip)
    sounds = [engine.listen(samples, frames, habits)[0]]
    for _ in range(copies):
        parts = disguised(frames.f0, frames.spectrum, frames.aperiodicity, rng)
        other = np.asarray(world().synthesize(*parts, RATE, 1000 * FRAME_S), np.float32)[
            : len(samples)
        ]
        other = np.pad(other, (0, len(samples) - len(other)))
        theirs = Frames(parts[0], parts[1], np.zeros((0, BINS)), len(other))
        speech = speech_frames(theirs.envelope)
        own = Habits.of(theirs.envelope[speech], theirs.f0[speech])
        sounds.append(engine.listen(other, theirs, own)[0])
    envelope = frames.envelope[::2].astype(np.float32)
    return Utterance(
        np.stack([s[: len(envelope)] for s in sounds]),
        frames.f0[::2].astype(np.float32),
        envelope,
        speech_frames(envelope),
    )


def _put_in(last: NDArray[np.float64], network: Converter) -> None:
    """The refitted last layer of the enrolment (`refitted`) into the network: where it begins."""
    if len(last) < 2:
        return
    with torch.no_grad():
        change = torch.from_numpy(last.astype(np.float32)) / network.spread
        network.said.weight.add_(change[:-1].T)
        network.said.bias.add_(change[-1])


class _Course:
    """The steps, and the utterances held out as their judge."""

    def __init__(
        self,
        network: Converter,
        taught: Sequence[Utterance],
        held: Sequence[Utterance],
        habits: Habits,
        params: AdaptParams,
    ) -> None:
        self.network, self.taught, self.held = network, list(taught), list(held)
        self.habits, self.params = habits, params
        self.known = self._known(self.taught)
        speaker = SpeakingHalf(adapted_of(network))
        last = refitted(speaker, self.known)
        self.before = self.distortion(speaker)
        _put_in(last, network)
        self.average = copy.deepcopy(network)
        self.bands = torch.as_tensor(DCT, dtype=torch.float32)

    def run(self, on_step: Callable[[int], None]) -> tuple[Adapted | None, float, int, int]:
        """(the weights that validated best, None where the first did; their dB and step; steps
        made)."""
        p = self.params
        rng = np.random.default_rng(p.seed + 1)
        learnt = list(speaking_tensors(self.network).values())
        means = list(speaking_tensors(self.average).values())
        for weights in self.network.parameters():
            weights.requires_grad_(False)
        for weights in learnt:
            weights.requires_grad_(True)
        optimiser = torch.optim.AdamW(learnt, lr=p.lr, weight_decay=1e-3)
        best, kept, at, waited = self.before - LEAST_GAIN_DB, None, 0, 0
        step = 0
        for step in range(1, p.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = p.lr * min(1.0, step / 20) * (1.0 - 0.9 * step / p.steps)
            loss = self._loss(rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            with torch.no_grad():
                for mean, now in zip(means, learnt, strict=True):
                    mean.lerp_(now, 1 - min(p.ema, step / (step + 10)))
            on_step(step)
            if step % p.validate_every == 0 or step == p.steps:
                own = adapted_of(self.average)
                found = self.distortion(SpeakingHalf(own))
                waited = 0 if found < best else waited + 1
                if found < best:
                    best, kept, at = found, own, step
                elif waited >= p.patience:
                    break
        return kept, self.before if kept is None else best, at, step

    def distortion(self, speaker: Speaker) -> float:
        """dB on what was held out, as the engine would say it: the last layer refitted."""
        known = self.known
        last = refitted(speaker, known)
        found, meant = [], []
        for u in self.held:
            for sounds in u.sounds[1:] if len(u.sounds) > 1 else u.sounds:
                said, hidden = speaker.speak(sounds, self._pitch(u), known)
                if len(last) > 1:
                    said = said + (hidden @ last[:-1] + last[-1]).astype(np.float32)
                found.append(said[u.speech])
                meant.append(seen.cepstra(u.envelope, self.habits.level)[u.speech])
        wrong = (np.concatenate(found) - np.concatenate(meant))[:, 1:25]
        # Orthonormal cepstra of the log power, which is twice the log amplitude.
        return float(DB * np.sqrt(np.square(wrong).sum(axis=1) / BANDS).mean())

    def _pitch(self, u: Utterance) -> NDArray[np.float32]:
        return seen.pitch(u.f0, u.envelope, self.habits, self.habits)

    def _known(self, utterances: Sequence[Utterance]) -> Known:
        parts = [u.speech for u in utterances]
        sounds = np.concatenate([u.sounds[0][k] for u, k in zip(utterances, parts, strict=True)])
        envelope = np.concatenate([u.envelope[k] for u, k in zip(utterances, parts, strict=True)])
        f0 = np.concatenate([u.f0[k] for u, k in zip(utterances, parts, strict=True)])
        step = -(-len(f0) // KNOWN_FRAMES)
        return Known.of_frames(sounds[::step], envelope[::step], f0[::step], self.habits)

    def _said(
        self,
        network: Converter,
        u: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
        known: Known,
    ) -> Tensor:
        def one(x: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(x)[None].expand(len(u), *x.shape)

        sounds = torch.from_numpy(np.stack([s for s, _ in u]))
        pitch = torch.from_numpy(np.stack([p for _, p in u]))
        found, _ = network.speak(
            sounds, pitch, one(known.sounds), one(known.cepstra), one(known.voice)
        )
        return found

    def _loss(self, rng: np.random.Generator) -> Tensor:
        """Of stretches of one or more utterances, said from those that are not among them."""
        p = self.params
        picks = rng.permutation(len(self.taught))[: max(1, len(self.taught) // 3)]
        known = self._known([u for k, u in enumerate(self.taught) if k not in picks])
        given, meant, weights = [], [], []
        for _ in range(p.batch):
            u = self.taught[int(rng.choice(picks))]
            heard = int(rng.integers(len(u.sounds)))
            at = (int(rng.integers(max(1, len(u.f0) - STRETCH))) + np.arange(STRETCH)) % len(u.f0)
            given.append((u.sounds[heard][at], self._pitch(u)[at]))
            meant.append(seen.cepstra(u.envelope[at], self.habits.level))
            weights.append(0.1 + 0.9 * u.speech[at])
        return self._error(
            self._said(self.network, given, known), np.stack(meant), np.stack(weights)
        )

    def _error(
        self, found: Tensor, meant: NDArray[np.float32], speech: NDArray[np.floating]
    ) -> Tensor:
        weight = torch.from_numpy(speech.astype(np.float32))
        wrong = (found - torch.from_numpy(meant)) @ self.bands
        level = (wrong.abs().mean(dim=2) * weight).sum() / weight.sum()
        both = weight[:, 1:] * weight[:, :-1]
        moved = (wrong.diff(dim=1).abs().mean(dim=2) * both).sum() / both.sum()
        return level + self.params.change * moved
