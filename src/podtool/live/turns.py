"""Labels of people, the turns that they take, and what has to be said where a label was wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from podtool.artifacts import Correction, Row, Speaker, Turn
from podtool.corrections import UNKNOWN
from podtool.live.scene import HALF_FRAME, Region
from podtool.live.tracker import FRAME_S, Tracker
from podtool.segments import Span, subtract

FILL_GAP_S = 1.0  # pauses up to this long inside a turn count as speech, as in diarization
PAD_S = 0.1  # turns reach this far into silence
SHORTEST_S = 0.2
_PIECE = 30  # frames of a region that are given to one person together
_PATIENCE_S = 60.0  # for a voice to become somebody's
_REMEMBERED = 50  # turns of a person that later ones are kept apart from
_FORGOTTEN = round(10 / FRAME_S)  # frames near the oldest that is remembered
_KEPT = 400  # rows that may be corrected
_OFFSET_S = HALF_FRAME / 16000
Piece = tuple[int, int, int, bool]  # chain, first frame, end, whether alone


@dataclass(slots=True)
class _Written:
    start: float
    label: str
    pieces: tuple[Piece, ...]


class Labels:
    """S1, S2, ... in order of arrival, and the rows that bear them."""

    def __init__(self, tracker: Tracker, recording: str) -> None:
        self.recording = recording
        self.tracker = tracker
        self._rows: deque[_Written] = deque(maxlen=_KEPT)
        self._known: dict[int, tuple[str | None, bool]] = {}  # name, whether merged, as told
        self._changed = 0

    def of(self, number: int) -> str:
        """The label of a person."""
        return f"S{self.tracker.person(number).number + 1}"

    def wrote(self, start: float, label: str, pieces: tuple[Piece, ...]) -> None:
        """A row that begins at `start` seconds was given a label for what chains said."""
        self._rows.append(_Written(start, label, pieces))

    def label(self, who: int | None) -> str:
        """As `of`; `UNKNOWN` for somebody whose voice is not known yet."""
        return UNKNOWN if who is None else self.of(who)

    def told(self) -> list[Row]:
        """Speaker and correction rows for what is known since the last call."""
        rows: list[Row] = []
        for p in self.tracker.people:
            told = self._known.get(p.number)
            if told is None or told[0] != p.name:
                rows.append(
                    Speaker(f"S{p.number + 1}", self.recording, round(p.seconds, 6), name=p.name)
                )
            if p.heir is not None and (told is None or not told[1]):
                since = max(0.0, p.born * FRAME_S - 1.0)
                rows += self._merged(f"S{p.number + 1}", self.of(p.number), since)
            self._known[p.number] = p.name, p.heir is not None
        if self.tracker.changed != self._changed:
            self._changed = self.tracker.changed
            rows += self._corrections()
        return rows

    def _merged(self, source: str, target: str, since: float) -> list[Row]:
        for row in self._rows:
            if row.label == source:
                since = min(since, row.start)
                row.label = target
        return [Correction(self.recording, source, target, round(since, 6))]

    def _corrections(self) -> list[Row]:
        """Stretches of rows of one label that are another's now."""
        rows: list[Row] = []
        ordered = sorted(self._rows, key=lambda r: r.start)
        for source in sorted({r.label for r in ordered}):
            run: list[_Written] = []
            target = source
            for row in [r for r in ordered if r.label == source]:
                now = self._now(row)
                if run and now != target:
                    rows.append(self._correct(run, target))
                    run = []
                target = now
                if now != source:
                    run.append(row)
            if run:
                rows.append(self._correct(run, target))
        return rows

    def _correct(self, run: Sequence[_Written], target: str) -> Correction:
        source, since, until = run[0].label, run[0].start, run[-1].start
        for row in run:
            row.label = target
        return Correction(self.recording, source, target, round(since, 6), round(until + 1e-3, 6))

    def _now(self, row: _Written) -> str:
        if self.tracker.oldest and row.pieces[0][1] < self.tracker.oldest + _FORGOTTEN:
            return row.label  # what would tell is forgotten, in part at least
        shares: dict[str, int] = {}
        for chain, start, stop, alone in row.pieces:
            who = self.tracker.who(chain, start, stop, alone)
            if who is not None:
                label = self.of(who)
                shares[label] = shares.get(label, 0) + stop - start
        if not shares:
            return row.label
        best = max(shares, key=lambda name: (shares[name], name))
        return row.label if shares.get(row.label, 0) >= shares[best] else best


@dataclass(slots=True)
class _Open:
    start: float
    end: float
    pieces: list[Piece]


class Turns:
    """Settled regions in, turn rows out."""

    def __init__(self, labels: Labels) -> None:
        self.seconds: dict[int, float] = {}  # by person, of turns so far
        self._labels = labels
        self._open: dict[int, _Open] = {}
        self._last: list[tuple[float, float, int]] = []  # spans of everybody lately
        self._nobodys: list[Piece] = []  # what chains said whose person is not known yet
        self._written: dict[int, deque[Span]] = {}  # spans of rows by person
        self._count = 0
        self._now = 0.0  # end of the last region

    def take(self, regions: Sequence[Region], last: bool) -> list[Row]:
        """More regions, in order; `last`: whoever talks is done."""
        rows: list[Row] = []
        tracker = self._labels.tracker
        now = 0.0
        for region in regions:
            now = self._now = region.stop * FRAME_S + _OFFSET_S
            for first in range(region.start, region.stop, _PIECE):
                stop = min(first + _PIECE, region.stop)
                for chain in region.chains:
                    alone = len(region.chains) == 1
                    piece = (chain, first, stop, alone)
                    who = tracker.who(*piece)
                    if who is None:
                        self._nobodys.append(piece)
                    else:
                        rows += self._add(who, piece)
        for who in list(self._open):
            if last or (now and now - self._open[who].end > FILL_GAP_S):
                rows += self._close(who)
        return rows + self._found(now, last)

    def _found(self, now: float, last: bool) -> list[Row]:
        """Turns of voices that were not known when their time came, and are by now."""
        rows: list[Row] = []
        waiting, self._nobodys = self._nobodys, []
        late: dict[tuple[int, int], _Open] = {}
        for piece in waiting:
            who = self._labels.tracker.who(*piece)
            start, end = _seconds(piece)
            if who is None:
                if not last and now - end < _PATIENCE_S:
                    self._nobodys.append(piece)
                continue
            turn = late.get((who, piece[0]))
            if turn is not None and start - turn.end > FILL_GAP_S:
                rows += self._write(who, turn)
                turn = None
            if turn is None:
                turn = late[who, piece[0]] = _Open(start, end, [])
            turn.end = end
            turn.pieces.append(piece)
        for (who, _), turn in late.items():
            rows += self._write(who, turn)
        return rows

    def _add(self, who: int, piece: Piece) -> list[Row]:
        start, end = _seconds(piece)
        rows: list[Row] = []
        if who in self._open and start - self._open[who].end > FILL_GAP_S:
            rows = self._close(who)
        if who not in self._open:
            self._open[who] = _Open(start, end, [])
        turn = self._open[who]
        turn.end = max(turn.end, end)
        turn.pieces.append(piece)
        self._last = [s for s in self._last if s[1] > start - 60]
        self._last.append((start, end, who))
        return rows

    def _close(self, who: int) -> list[Row]:
        """A turn is over: what is somebody else's by now is left to them."""
        turn = self._open.pop(who)
        own: list[Piece] = []
        others: list[Piece] = []
        for piece in turn.pieces:
            now = self._labels.tracker.who(*piece)
            same = now is None or now == self._labels.tracker.person(who).number
            (own if same else others).append(piece)
        self._nobodys += others
        rows: list[Row] = []
        part: _Open | None = None
        for piece in own:
            start, end = _seconds(piece)
            if part is not None and start - part.end > FILL_GAP_S:
                rows += self._write(who, part)
                part = None
            if part is None:
                part = _Open(start, end, [])
            part.end = max(part.end, end)
            part.pieces.append(piece)
        return rows + (self._write(who, part) if part is not None else [])

    def _write(self, who: int, turn: _Open) -> list[Row]:
        if turn.end - turn.start < SHORTEST_S:
            return []
        others = [(a, b) for a, b, w in self._last if w != who]
        before = max((b for a, b in others if a < turn.start), default=-1.0)
        after = min((a for a, b in others if b > turn.end), default=turn.end + 1)
        start = max(0.0, turn.start - min(PAD_S, max(0.0, turn.start - before) / 2))
        end = turn.end + min(PAD_S, max(0.0, after - turn.end) / 2)
        end = min(end, max(turn.end, self._now))  # not beyond the recording
        number = self._labels.tracker.person(who).number
        written = self._written.setdefault(number, deque(maxlen=_REMEMBERED))
        label = self._labels.of(who)
        rows: list[Row] = []
        for a, b in subtract([Span(start, end)], written):  # nobody overlaps themselves
            if b - a < SHORTEST_S:
                continue
            self._count += 1
            self.seconds[number] = self.seconds.get(number, 0.0) + b - a
            a, b = round(a, 6), round(b, 6)
            self._labels.wrote(a, label, tuple(turn.pieces))
            rows.append(Turn(f"t{self._count:04d}", self._labels.recording, a, b, label))
        written.append(Span(start, end))
        return rows


def _seconds(piece: Piece) -> tuple[float, float]:
    return piece[1] * FRAME_S + _OFFSET_S, piece[2] * FRAME_S + _OFFSET_S
