"""Training the voice converter: speech of one person, disguised, said again in its own voice.

An example is a few seconds of one person: the network hears some of it disguised, knows the rest,
and has to give the mel-cepstra as they were. At use the sounds are somebody else's, and the network
has never been able to tell by them whose they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from podtool.engines import converter_frames as frames
from podtool.engines.protocols import EngineContext
from podtool.engines.voice_podtool_model import Converter, load, save
from podtool.engines.world_frames import BANDS, CENTRES, RATE, mel
from podtool.engines.world_profile import LOG10, speech_frames
from podtool.errors import InputError
from podtool.training.corpus import Clip, Corpus, read_corpus
from podtool.training.course import Batch, Course
from podtool.training.recipe import ConverterRecipe, ExampleParams
from podtool.training.utterances import UNKNOWN, Listener, Spoken, some_minutes

VALIDATION_SEED = 20_000_003  # examples that no training step draws
DB = 10 / LOG10


class Person:
    """All utterances of one person behind each other, in frames of 10 ms."""

    def __init__(self, spoken: Sequence[Spoken]) -> None:
        self.envelope = np.concatenate([s.envelope for s in spoken])
        self.f0 = np.concatenate([s.f0 for s in spoken])
        self.phones = np.concatenate([s.phones for s in spoken])
        self.speech = np.concatenate([speech_frames(s.envelope.astype(np.float32)) for s in spoken])
        self.states = np.concatenate([s.states for s in spoken], axis=1)
        lefts, shares, at = [], [], 0
        for s in spoken:
            left, share = frames.states_at(s.frames, s.states.shape[1])
            lefts.append(left + at)
            shares.append(share)
            at += s.states.shape[1]
        self.left, self.share = np.concatenate(lefts), np.concatenate(shares)

    @property
    def frames(self) -> int:
        return len(self.f0)

    def heard(self, part: NDArray[np.int64], copy: int) -> NDArray[np.float32]:
        """(n, 288) of the frames `part`: copy 0 is as it was said."""
        states, left = self.states[copy], self.left[part]
        before = states[left].astype(np.float32)
        after = states[np.minimum(left + 1, len(states) - 1)].astype(np.float32)
        return np.asarray(before + self.share[part, None] * (after - before))


class Examples(Dataset[Batch]):
    """Example `index` as tensors, all of k = said + known stretches of n frames: states
    (k, n, 288), shape (k, n, 31), pitch (k, n, 4), cepstra (k, n, 40), phones (k, n),
    speech (k, n), and voice (161,) of the known ones."""

    def __init__(
        self, people: Sequence[Person], params: ExampleParams, seed: int, count: int
    ) -> None:
        self.people, self.params, self.seed, self.count = people, params, seed, count
        weights = np.sqrt([p.frames for p in people])
        self.chances = weights / weights.sum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        p = self.params
        rng = np.random.default_rng((self.seed, index))
        person = self.people[int(rng.choice(len(self.people), p=self.chances))]
        parts = stretches(person.frames, p.said + p.known, p.frames, rng)
        copy, warp = 0, 0.0
        if rng.random() < p.disguise_share:
            copy = 1 + int(rng.integers(person.states.shape[0] - 1))
            warp = float(rng.uniform(-p.warp, p.warp))
        whole = np.concatenate(parts)
        envelope = person.envelope[whole].astype(np.float32)
        f0, speech = person.f0[whole], person.speech[whole]
        if not speech.any():
            speech = np.ones_like(speech)
        habits = frames.Habits.of(envelope[speech], f0[speech])
        moved = warped(envelope, warp)
        disguise = frames.Habits.of(moved[speech], f0[speech])
        known = slice(p.said * p.frames, None)
        cepstra = frames.cepstra(envelope, habits.level)
        shape = frames.shape(envelope, habits)
        shape[: known.start] = frames.shape(moved[: known.start], disguise)
        heard = [person.heard(part, copy if k < p.said else 0) for k, part in enumerate(parts)]
        use = speech[known] if speech[known].any() else np.ones_like(speech[known])
        voice = frames.voice(cepstra[known][use], f0[known][use], habits)

        def apart(x: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(x)).reshape(
                len(parts), p.frames, *x.shape[1:]
            )

        return (
            torch.from_numpy(np.stack(heard)),
            apart(shape),
            apart(frames.pitch(f0, envelope, habits, habits)),
            apart(cepstra),
            apart(person.phones[whole].astype(np.int64)),
            apart(speech.astype(np.float32)),
            torch.from_numpy(voice),
        )


def stretches(
    length: int, count: int, size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """`count` stretches of `size` frames of `length`, in random order; they overlap only where
    there is not enough, and begin anew where there is less than one."""
    slack = length - count * size
    if slack >= 0:
        starts = np.arange(count) * size + np.sort(rng.integers(0, slack + 1, count))
    else:
        starts = np.round(np.linspace(0, max(0, length - size), count)).astype(np.int64)
    return [(s + np.arange(size)) % length for s in rng.permutation(starts)]


def warped(envelope: NDArray[np.float32], warp: float) -> NDArray[np.float32]:
    """(n, 80) with all formants moved by the factor exp(warp)."""
    if not warp:
        return envelope
    top = float(mel(RATE / 2))
    at = np.clip(mel(CENTRES / np.exp(warp)) / top * (BANDS - 1), 0, BANDS - 1)
    left = np.minimum(at.astype(int), BANDS - 2)
    share = (at - left).astype(np.float32)
    return np.asarray(envelope[:, left] * (1 - share) + envelope[:, left + 1] * share)


class ConverterCourse(Course):
    """One training of a converter; `run` goes on from where the last one stopped."""

    recipe: ConverterRecipe
    network: Converter
    average: Converter

    def __init__(
        self,
        recipe: ConverterRecipe,
        manifests: Sequence[Path],
        folder: Path,
        context: EngineContext,
        device: str = "cpu",
        start: Path | None = None,
        workers: int = 0,
        cache: Path | None = None,
        changed: bool = False,
        on_clip: Callable[[int, int], None] = lambda done, whole: None,
    ) -> None:
        """`context` gives the recogniser whose encoder listens, `cache` is the folder of what was
        heard, `on_clip(done, whole)` is told of each utterance; the rest, and what is raised, as
        `Trainer`, and ModelError without the recogniser.
        """
        super().__init__(recipe, folder, device, changed)
        self.workers = workers
        place = cache or folder
        self.data, self.held_out = (
            read_corpus(manifests, recipe.data, split, place / "audio.npy")
            for split in ("train", "validation")
        )
        listener = Listener(context, place / "heard", recipe.examples.copies)
        jobs = [self._chosen(self.data), self._chosen(self.held_out)]
        whole, done = sum(len(c) for job in jobs for c in job), 0
        found: list[list[Person]] = []
        for job in jobs:
            people = []
            for clips in job:
                spoken = []
                for clip in clips:
                    spoken.append(listener.hear(clip))
                    done += 1
                    on_clip(done, whole)
                people.append(Person(spoken))
            found.append(people)
        self.people, self.others = found
        torch.manual_seed(recipe.seed)
        network = Converter(recipe.network)
        network.middle, network.spread = self._range()
        if start is not None and self.before is None:
            network.load_state_dict(load(start).state_dict())
        self._begin(network, Converter(recipe.network))
        self._describe(manifests, start)

    def _chosen(self, corpus: Corpus) -> list[list[Clip]]:
        minutes, seed = self.recipe.examples.minutes, self.recipe.seed
        return [some_minutes(clips, minutes, seed) for _, clips in sorted(corpus.speakers.items())]

    def _range(self) -> tuple[Tensor, Tensor]:
        """Mean and spread of the cepstra of all people's speech."""
        everything = []
        for person in self.people:
            envelope = person.envelope[person.speech].astype(np.float32)
            habits = frames.Habits.of(envelope, person.f0[person.speech])
            everything.append(frames.cepstra(envelope, habits.level))
        cepstra = np.concatenate(everything)
        if not len(cepstra):
            raise InputError("there is no speech in the recordings to train on")
        return torch.from_numpy(cepstra.mean(axis=0)), torch.from_numpy(cepstra.std(axis=0) + 1e-3)

    def _items(self) -> Dataset[Batch]:
        params = self.recipe.training
        count = params.steps * params.batch * params.accumulate
        return Examples(self.people, self.recipe.examples, self.recipe.seed, count)

    def _run(self, network: Converter, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(cepstra found, cepstra meant, speech, log-odds of phones) of what is said."""
        states, shape, pitch, cepstra, phones, speech, voice = batch
        count, said = len(states), self.recipe.examples.said
        mixed = self.recipe.training.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
            sounds, odds = network.listen(states.flatten(0, 1), shape.flatten(0, 1))
            n = states.shape[2]
            sounds = sounds.reshape(count, -1, n, sounds.shape[2])

            def known(x: Tensor) -> Tensor:
                return x[:, said:].flatten(1, 2).repeat_interleave(said, dim=0)

            found, _ = network.speak(
                sounds[:, :said].flatten(0, 1),
                pitch[:, :said].flatten(0, 1),
                known(sounds),
                known(cepstra),
                voice.repeat_interleave(said, dim=0),
                known(speech),
            )
        return (
            found.float().reshape(count, said, n, -1),
            cepstra[:, :said],
            speech[:, :said],
            odds.float().reshape(count, -1, n, odds.shape[2]),
        )

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, Converter)
        batch = tuple(x.to(self.device) for x in batch)
        return self._error(*self._run(network, batch), batch[4])

    def _error(
        self, found: Tensor, meant: Tensor, speech: Tensor, odds: Tensor, phones: Tensor
    ) -> Tensor:
        params = self.recipe.loss
        bands = torch.as_tensor(frames.DCT, dtype=torch.float32, device=self.device)
        wrong = (found - meant) @ bands
        weight = 0.1 + 0.9 * speech
        level = (wrong.abs().mean(dim=3) * weight).sum() / weight.sum()
        both = weight[..., 1:] * weight[..., :-1]
        steps = (wrong.diff(dim=2).abs().mean(dim=3) * both).sum() / both.sum()
        confusion = functional.cross_entropy(
            odds.flatten(0, 2), phones.flatten(), ignore_index=UNKNOWN, reduction="sum"
        )
        confusion = confusion / (phones != UNKNOWN).sum().clamp(min=1)
        return level + params.change * steps + params.phones * confusion

    def _validation(self) -> tuple[list[float], dict[str, list[float]]]:
        """On people kept out, disguised: losses, mel-cepstral distortion, share of wrong phones,
        and the spread of the cepstra against the true one."""
        recipe = self.recipe
        count = recipe.training.validation_scenes
        examples = Examples(self.others, recipe.examples, VALIDATION_SEED, count)
        losses: list[float] = []
        figures: dict[str, list[float]] = {"mcd": [], "phone_error": [], "spread": []}
        for batch in DataLoader(examples, recipe.training.batch):
            batch = tuple(x.to(self.device) for x in batch)
            found, meant, speech, odds = self._run(self.average, batch)
            losses.append(float(self._error(found, meant, speech, odds, batch[4])))
            spoken = speech > 0.5
            wrong = (found - meant)[..., 1:25].square().sum(dim=3)
            # Orthonormal cepstra of the log power, which is twice the log amplitude.
            distortion = DB * (wrong / BANDS).sqrt()
            figures["mcd"].append(float(distortion[spoken].mean()))
            ratio = found[spoken].std(dim=0) / meant[spoken].std(dim=0)
            figures["spread"].append(float(ratio[1:25].mean()))
            known = batch[4] != UNKNOWN
            if known.any():
                error = odds.argmax(dim=3)[known] != batch[4][known]
                figures["phone_error"].append(float(error.float().mean()))
        return losses, {name: values for name, values in figures.items() if values}

    def _save(self, path: Path, facts: dict[str, str]) -> None:
        save(self.average, path, facts)

    def _facts(self) -> dict[str, Any]:
        return {
            "credits": self.data.credits,
            "speakers": len(self.people),
            "speech_hours": round(sum(p.frames for p in self.people) * frames.FRAME_S / 3600, 3),
            "validation_speakers": len(self.others),
            "unmatched": self.data.unmatched,
        }
