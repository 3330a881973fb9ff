"""Who a voice is: a person for every stretch that somebody says alone, as it is said.

Stretches are embedded and scored against everybody known by the model of offline diarization (log
likelihood ratio of one voice against two). The best path through the last minutes decides: staying
with a person is free, a change costs. A voice that is nobody's becomes a new person once enough of
it was heard. So what comes later may throw new light on what was said: people who turn out to be
one are merged, stretches that turn out to be another's are relabelled, and `changed` tells that
answers may be others now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from podtool.engines.diarization_cluster import SpeakerModel, unit
from podtool.engines.segmentation_pyannote import FRAME_STEP, RATE

Floats = NDArray[np.float32]
FRAME_S = FRAME_STEP / RATE
_NEW = -1  # in evidence: somebody who is not known yet
_STRANGE_S = 0.5  # as which another chain, and a pause, count in distance
_PAUSE_S = 2.0
_REACH_S = 3.0


@dataclass(frozen=True, slots=True)
class TrackerParams:
    """Settings; evidence in nats."""

    found_s: float = field(default=1.2, metadata={"help": "speech alone that makes a new person"})
    switch_cost: float = field(default=4.0, metadata={"help": "of a change of voice"})
    newcomer_cost: float = field(default=0.0, metadata={"help": "of somebody not heard before"})
    sure: float = field(default=6.0, metadata={"help": "evidence by which labels are changed"})
    learn: float = field(default=3.0, metadata={"help": "evidence by which a voice is learnt from"})
    look_back_s: float = field(default=120.0, metadata={"help": "within which labels may change"})
    memory_s: float = field(default=90.0, metadata={"help": "speech that a voice is the mean of"})
    rivalry: float = field(default=20.0, metadata={"help": "cost of being in two places at once"})
    enrolled_cosine: float = field(default=0.5, metadata={"help": "likeness that gives a name"})
    most: int = field(default=20, metadata={"help": "people at most; more join the nearest"})
    dims: float = field(default=60.0, metadata={"help": "independent dimensions of a voice"})
    noise_s: float = field(default=1.4, metadata={"help": "speech with as much noise as voice"})
    session: float = field(default=0.18, metadata={"help": "what changes within one voice"})


@dataclass(slots=True)
class Person:
    """Somebody heard: the weighted sum of their voice's embeddings, and where they began."""

    number: int
    born: int  # frame
    total: Floats
    seconds: float = 0.0
    name: str | None = None
    heir: int | None = None  # who they turned out to be


@dataclass(slots=True)
class Unit:
    """Frames [start, stop) that a chain says alone (or not: `clean`), embedded."""

    chain: int
    start: int
    stop: int
    vector: Floats
    clean: bool
    rivals: tuple[tuple[int, float], ...]  # chains that talk meanwhile, and for which share of it
    runs: tuple[tuple[int, int], ...] = ()  # the frames that are embedded; none: all
    person: int | None = None
    learnt: bool = False  # by the person that it has

    @property
    def seconds(self) -> float:
        return self.common(self.start, self.stop) * FRAME_S

    def common(self, start: int, stop: int) -> int:
        """How many of its frames lie in [start, stop)."""
        runs = self.runs or ((self.start, self.stop),)
        return sum(max(0, min(b, stop) - max(a, start)) for a, b in runs)


class Tracker:
    """Units in, people out. Numbers of people are never used again; merged ones have an heir."""

    def __init__(
        self,
        params: TrackerParams,
        enrolled: Mapping[str, Floats] | None = None,
        paused: Callable[[int, int], bool] = lambda start, stop: False,
    ) -> None:
        """`paused`: whether there is a pause between two frames."""
        self.params = params
        self._paused = paused
        self.people: list[Person] = []
        self.changed = 0  # counts up where an answer that was given before may be another now
        self._model = SpeakerModel(params.noise_s, params.session)
        self._enrolled = {n: unit(np.asarray(v, np.float32)) for n, v in (enrolled or {}).items()}
        self._units: list[Unit] = []  # of the last minutes, in order of time
        self.oldest = 0  # frame before which nothing is remembered that could tell who it was

    # ------------------------------------------------------------------ asking

    def person(self, number: int) -> Person:
        """Whoever that number turned out to be."""
        found = self.people[number]
        while found.heir is not None:
            found = self.people[found.heir]
        return found

    @property
    def living(self) -> list[Person]:
        """Everybody who was not merged into somebody else."""
        return [p for p in self.people if p.heir is None]

    def who(self, chain: int, start: int, stop: int, alone: bool = False) -> int | None:
        """Who a chain is in frames [start, stop); None where nothing tells.

        Whoever was heard there; else the nearest. `alone`: nobody else talks, so that what any
        chain said alone counts: windows may see two people as one and hold on to it for long.
        """
        pool = [u for u in self._units if u.person is not None]
        if alone:
            clean = self._nearest([u for u in pool if u.clean], chain, start, stop)
            if clean is not None:
                return clean
        return self._nearest([u for u in pool if u.chain == chain], chain, start, stop)

    def _nearest(self, units: Sequence[Unit], chain: int, start: int, stop: int) -> int | None:
        """The person with most of frames [start, stop), or the nearest of a few seconds."""
        shares: dict[int, int] = {}
        near: tuple[float, int] | None = None
        for u in units:
            assert u.person is not None
            number = self.person(u.person).number
            common = u.common(start, stop)
            if common:
                shares[number] = shares.get(number, 0) + common
                continue
            before = u.stop <= start
            away = (start - u.stop if before else max(0, u.start - stop)) * FRAME_S
            if u.chain != chain:
                between = (u.stop, start) if before else (stop, u.start)
                away += _STRANGE_S
                if away <= _REACH_S and self._paused(*between):
                    away += _PAUSE_S
                if away > _REACH_S:
                    continue
            if near is None or away <= near[0]:
                near = away, number
        if shares:
            return max(shares, key=lambda n: (shares[n], -n))
        return None if near is None else near[1]

    # ------------------------------------------------------------------ learning

    def hear(self, heard: Unit) -> None:
        """A unit that was embedded: it gets a person, or waits for one.

        One that others talk in stands for all that is known of its chain then: a voice apart from
        them, which has no `runs`, rather than the mixture.
        """
        if not heard.clean:
            same = [u for u in self._units if not u.clean and u.chain == heard.chain]
            same = [u for u in same if u.common(heard.start, heard.stop)]
            if heard.runs and any(not u.runs for u in same):
                return
            known = {id(u) for u in same}
            self._units = [u for u in self._units if id(u) not in known]
        self._units.append(heard)
        self._units.sort(key=lambda u: (u.start, u.chain))
        self.oldest = max(0, self._units[-1].stop - round(self.params.look_back_s / FRAME_S))
        self._units = [u for u in self._units if u.stop > self.oldest]
        self._label(heard)
        if heard.clean and heard.person is None:
            self._found(heard)
        if self._merge():
            self._label(heard)

    def _label(self, heard: Unit) -> None:
        clean = [u for u in self._units if u.clean]
        for u, number in zip(clean, self._path(clean), strict=True):
            self._give(u, number, u is heard)
        for u in self._units:
            if not u.clean:
                evidence = self._evidence(u)
                best = max(evidence, key=lambda n: (evidence[n], -n))
                self._give(u, None if best == _NEW else best, u is heard)
        if heard.person is not None and heard.clean and not heard.learnt:
            evidence = self._evidence(heard)
            rest = [v for n, v in evidence.items() if n != heard.person]
            if evidence[heard.person] - max(rest) >= self.params.learn:
                self._learn(heard, self.people[heard.person])

    def _path(self, units: Sequence[Unit]) -> list[int | None]:
        """The best path through units in order of time; None: nobody who is known."""
        if not units:
            return []
        table = [self._evidence(u) for u in units]
        names = sorted(table[0])
        costs = np.array([self.params.newcomer_cost if n == _NEW else 0.0 for n in names])
        values = np.array([[row[n] for n in names] for row in table]) - costs
        best, back = values[0], []
        for row in values[1:]:
            leader = int(np.argmax(best))
            stays = best >= best[leader] - self.params.switch_cost
            back.append(np.where(stays, np.arange(len(names)), leader))
            best = np.where(stays, best, best[leader] - self.params.switch_cost) + row
        state = int(np.argmax(best))
        path = [state]
        for step in reversed(back):
            state = int(step[state])
            path.append(state)
        return [None if names[k] == _NEW else names[k] for k in reversed(path)]

    def _evidence(self, u: Unit) -> dict[int, float]:
        """Nats for each person that the unit is theirs, against a stranger's (0)."""
        living = self.living
        found = {_NEW: 0.0 if u.clean else -self.params.newcomer_cost}
        if len(living) >= self.params.most:
            found[_NEW] = -1e6
        if living:
            trust = 1.0 if u.clean else 0.4
            totals = np.stack([p.total for p in living])
            seconds = np.array([p.seconds for p in living], np.float32)
            if u.learnt:  # without what it said for itself
                own = next(k for k, p in enumerate(living) if p is self.person(u.person or 0))
                if seconds[own] - u.seconds > 0.3:
                    totals[own] -= u.vector * u.seconds
                    seconds[own] -= u.seconds
            cosine = np.asarray(unit(totals) @ u.vector, np.float32)
            length = np.full(len(living), max(u.seconds, 0.1) * trust, np.float32)
            scores = self.params.dims * trust * self._model.score(cosine, length, seconds)
            found |= {p.number: float(s) for p, s in zip(living, scores, strict=True)}
        for chain, share in u.rivals:
            rival = self.who(chain, u.start, u.stop)
            if rival in found and rival != _NEW and not u.clean:
                found[rival] -= self.params.rivalry * share
        return found

    def _give(self, u: Unit, number: int | None, new: bool) -> None:
        before = None if u.person is None else self.person(u.person).number
        if number is None and before is not None:
            return  # somebody is better than nobody
        if number == before:
            return
        if before is not None and u.learnt:
            person = self.people[before]
            if person.seconds - u.seconds < 0.3:
                return  # there would be nothing left of them
            person.total = person.total - u.vector * u.seconds
            person.seconds -= u.seconds
        u.person, u.learnt = number, False
        self.changed += 1

    def _learn(self, u: Unit, person: Person) -> None:
        person.total = person.total + u.vector * u.seconds
        person.seconds += u.seconds
        u.learnt = True
        if person.seconds > self.params.memory_s:  # from here on a running mean
            person.total = person.total * (self.params.memory_s / person.seconds)
            person.seconds = self.params.memory_s
        if person.name is None:
            self._name(person)

    def _name(self, person: Person) -> None:
        taken = {p.name for p in self.living}
        likeness = {
            n: float(v @ unit(person.total)) for n, v in self._enrolled.items() if n not in taken
        }
        best = max(likeness, key=lambda n: (likeness[n], n), default=None)
        if best is not None and likeness[best] >= self.params.enrolled_cosine:
            person.name = best

    def _found(self, heard: Unit) -> None:
        """A new person, where enough was heard of a voice that is nobody's."""
        like = [heard]
        for u in reversed(self._units):
            if u is heard or u.person is not None or not u.clean:
                continue
            if self._alike(heard.vector, heard.seconds, u.vector, u.seconds) > 0:
                like.append(u)
        if sum(u.seconds for u in like) < self.params.found_s:
            return
        first = min(u.start for u in like)
        person = Person(len(self.people), first, np.zeros_like(heard.vector))
        self.people.append(person)
        for u in like:
            u.person = person.number
            self._learn(u, person)
        self._label(heard)

    def _alike(self, a: Floats, a_s: float, b: Floats, b_s: float) -> float:
        """Nats that two unit vectors of so many seconds are of one voice."""
        lengths = (np.array([x], np.float32) for x in (a_s, b_s))
        score = self._model.score(np.array([a @ b], np.float32), *lengths)
        return self.params.dims * float(score[0])

    def _merge(self) -> bool:
        """People who turn out to be one: the later becomes the earlier."""
        merged = False
        living = self.living
        for i, later in enumerate(living):
            for earlier in living[:i]:
                if later.heir is None and earlier.heir is None and self._same(earlier, later):
                    later.heir = earlier.number
                    earlier.total = earlier.total + later.total
                    earlier.seconds += later.seconds
                    earlier.name = earlier.name or later.name
                    self.changed += 1
                    merged = True
        return merged

    def _same(self, a: Person, b: Person) -> bool:
        if a.name and b.name:
            return False
        nats = self._alike(unit(a.total), a.seconds, unit(b.total), b.seconds)
        return nats >= self.params.sure and not self._together(a.number, b.number)

    def _together(self, a: int, b: int) -> bool:
        """Whether the two were heard at the same time."""
        for u in self._units:
            if u.person is None or self.person(u.person).number not in (a, b):
                continue
            other = b if self.person(u.person).number == a else a
            for chain, share in u.rivals:
                if share * u.seconds > 0.5 and self.who(chain, u.start, u.stop) == other:
                    return True
        return False


def plain(vectors: Sequence[float]) -> tuple[float, ...]:
    """A vector as it stands in a row."""
    return tuple(round(float(x), 6) for x in vectors)
