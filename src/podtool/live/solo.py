"""A channel with one person on it: nobody to tell apart, speech or not is all there is to know."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from podtool.engines.segmentation_pyannote import FRAME_SIZE, FRAME_STEP
from podtool.engines.vad_silero import CHUNK, hysteresis
from podtool.live.pipeline import LiveEngines, LiveParams, Pipeline
from podtool.live.scene import Region, Ring, Scene
from podtool.live.tracker import FRAME_S, Person, Tracker, TrackerParams
from podtool.live.voice import VoiceParams

Floats = NDArray[np.float32]
LAG_S = 0.2  # within which Silero may change its mind


class OnePerson(Tracker):
    """Everything is said by the person of a channel."""

    def __init__(self, number: int) -> None:
        super().__init__(TrackerParams())
        self.people = [Person(number, 0, np.zeros(0, np.float32))]
        self._number = number

    def person(self, number: int) -> Person:
        return self.people[0]

    def who(self, chain: int, start: int, stop: int, alone: bool = False) -> int | None:
        return self._number


class SoloScene:
    """One person, by Silero alone; there is nobody to tell apart."""

    waiting = 0

    def __init__(self, audio: Ring, number: int) -> None:
        self.tracker: Tracker = OnePerson(number)
        self.decided = 0
        self._audio, self._number = audio, number
        self._speech: list[float] = []
        self._base = 0  # chunk of the first of them
        self._settled: list[Region] = []

    def voiced(self, probabilities: Floats) -> None:
        self._speech += probabilities.tolist()

    def hop(self, last: bool = False) -> list[Region]:
        lag = 0 if last else round(LAG_S / FRAME_S)
        available = (self._audio.end - FRAME_SIZE) // FRAME_STEP + 1
        stop = max(self.decided, available - lag)
        speech = np.array(self._speech or [0.0], np.float32)
        active = hysteresis(speech, 0.5, 0.35)
        frames = np.arange(self.decided, stop)
        chunks = (frames * FRAME_STEP + FRAME_SIZE // 2) // CHUNK - self._base
        heard = active[np.clip(chunks, 0, len(active) - 1)]
        found: list[Region] = []
        for frame, on in zip(frames.tolist(), heard, strict=True):
            chains = (self._number,) if on else ()
            if found and found[-1].chains == chains:
                found[-1] = Region(found[-1].start, frame + 1, chains)
            else:
                found.append(Region(frame, frame + 1, chains))
        self.decided = stop
        if len(self._speech) > 1000:
            self._speech, self._base = self._speech[500:], self._base + 500
        self._settled += found
        return found

    def skip(self) -> list[Region]:
        return self.hop()

    def settle(self, last: bool = False) -> list[Region]:
        found, self._settled = self._settled, []
        return found

    def review(self, start: int, stop: int) -> list[Region]:
        return [Region(start, stop, (self._number,))]

    def forget(self) -> None:
        pass

    def embed(self) -> None:
        pass

    def hear_apart(self, chain: int, start: int, stop: int, samples: Floats) -> None:
        pass


def solo(engines: LiveEngines, params: LiveParams, voice: VoiceParams, number: int) -> Pipeline:
    """The pipeline of channel `number`, counted from 0, whose person is S1, S2, ..."""

    def make(audio: Ring) -> Scene:
        return SoloScene(audio, number)

    return Pipeline(engines, params, voice=voice, make_scene=make)
