"""What the display of `podtool live` knows: who is who, what was said, what is being said.

History is in order of time, under the speakers as corrections have them by now.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from podtool.artifacts import Correction, Metric, Partial, Utterance
from podtool.corrections import UNKNOWN
from podtool.live.lines import clock, plain
from podtool.live.status import Shed, Status, Talker

KEPT = 20_000  # finals in memory: some twenty hours of talk
SEEN = 300  # of the newest finals, those that lanes and overlaps are looked for in
OVERLAP_S = 0.3
NAME_LENGTH = 40


@dataclass(slots=True)
class Entry:
    """A line of history: a final, a mark, or a note (then `text` is all there is)."""

    start: float
    end: float
    text: str
    speaker: str | None = None
    id: str = ""
    kind: str = "final"
    overlapped: bool = False


class Board:
    """Rows and status, put together: who is who, what was said, what is being said."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.partials: dict[str, Partial] = {}
        self.names: dict[str, str] = {}
        self.metrics: dict[tuple[str, str], Metric] = {}
        self.status = Status()
        self.speakers: dict[str, float] = {}  # in order of arrival, with when last heard
        self.unknown = False  # whether anybody unknown was ever heard
        self.forgotten = 0
        self.finals = 0
        self.talkers: dict[str, Talker] = {}
        self.levels: dict[str, float] = {}
        self.level_db = -120.0
        self._corrections: deque[Correction] = deque(maxlen=1000)
        self._told: dict[str, str] = {}
        self._labels: dict[str, str] | None = None
        self._recent: dict[str | None, list[Entry]] | None = None
        self._colours: dict[str, int] = {}

    def who(self, speaker: str | None, start: float) -> str | None:
        """The speaker after all corrections."""
        for c in self._corrections:
            within = c.since <= start and (c.until is None or start < c.until)
            if (speaker or UNKNOWN) == c.source and within:
                speaker = c.target
        return speaker

    def heard(self, speaker: str | None, at: float) -> None:
        if speaker is None:
            self.unknown = True
        else:
            self.speakers[speaker] = max(at, self.speakers.get(speaker, at))
            self._colours.setdefault(speaker, len(self._colours))

    def colour(self, speaker: str | None) -> int | None:
        return None if speaker is None else self._colours.get(speaker, 0)

    def label(self, speaker: str | None) -> str:
        """The name, or the label; both where two people share a name."""
        if speaker is None:
            return "?"
        if self._labels is None:
            names = list(self.names.values())
            self._labels = {
                s: f"{n} {plain(s)}" if names.count(n) > 1 else n for s, n in self.names.items()
            }
        return self._labels.get(speaker) or plain(speaker)

    def rename(self, speaker: str, name: str) -> bool:
        """Whether that is news."""
        name = plain(name)[:NAME_LENGTH].strip()
        if not name or self.names.get(speaker) == name:
            return False
        self.names[speaker] = name
        self._labels = None
        return True

    def partial(self, row: Partial) -> None:
        self.partials.pop(row.id, None)
        if row.text.strip():
            self.partials[row.id] = row
            self.heard(self.who(row.speaker, row.start), row.end)
        while len(self.partials) > 64:  # nobody ended them
            del self.partials[next(iter(self.partials))]

    def utterance(self, row: Utterance) -> Entry | None:
        self.partials.pop(row.id, None)
        text = plain(row.text)
        if not text:
            return None
        speaker = self.who(row.speaker, row.start)
        entry = Entry(row.start, row.end, text, speaker, row.id)
        for other in self.entries[-SEEN:]:
            if other.kind == "final" and other.speaker != speaker:
                if min(other.end, row.end) - max(other.start, row.start) > OVERLAP_S:
                    other.overlapped = entry.overlapped = True
        self.heard(speaker, row.end)
        self.finals += 1
        self.add(entry)
        return entry

    def add(self, entry: Entry) -> None:
        bisect.insort(self.entries, entry, key=lambda e: e.start)
        self._recent = None
        if len(self.entries) > KEPT:
            self.forgotten += 500
            del self.entries[:500]

    def correct(self, row: Correction) -> None:
        self._corrections.append(row)
        for entry in self.entries:
            if (entry.speaker or UNKNOWN) == row.source and row.since <= entry.start:
                if row.until is None or entry.start < row.until:
                    entry.speaker = row.target
        self.heard(row.target, self.speakers.get(row.source, row.since))
        if row.until is None:
            self.speakers.pop(row.source, None)
            self.talkers.pop(row.source, None)
        self._recent = None

    def take(self, status: Status) -> None:
        """A status: meters rise at once and fall slowly, names are taken over as they change."""
        elapsed = status.at_s - self.status.at_s
        fall = 24.0 * elapsed if 0 < elapsed < 1 else 3.0
        self.status = status
        self.level_db = max(status.level_db, self.level_db - fall)
        self.talkers = {}
        for t in status.talkers:
            who = self.who(t.speaker, status.at_s) or t.speaker
            if t.name and self._told.get(who) != t.name:
                self._told[who] = t.name
                self.rename(who, t.name)
            last = status.at_s if t.active else self.speakers.get(who, 0.0)
            self.heard(who, last)
            if who not in self.talkers or t.active:
                self.talkers[who] = t
        for who in self.speakers:
            talker = self.talkers.get(who)
            level = talker.level_db if talker and talker.active else -120.0
            self.levels[who] = max(level, self.levels.get(who, -120.0) - fall)

    def recent(self, speaker: str | None) -> list[Entry]:
        """The newest finals of a speaker, the last one last."""
        if self._recent is None:
            self._recent = {}
            for entry in reversed(self.entries[-SEEN:]):
                if entry.kind == "final":
                    mine = self._recent.setdefault(entry.speaker, [])
                    if len(mine) < 4:
                        mine.insert(0, entry)
        return self._recent.get(speaker, [])

    def running(self, speaker: str | None) -> list[Partial]:
        mine = [p for p in self.partials.values() if self.who(p.speaker, p.start) == speaker]
        return sorted(mine, key=lambda p: p.start)

    def last_speaker(self) -> str | None:
        return max(self.speakers, key=lambda s: self.speakers[s], default=None)


def told(correction: Correction, board: Board) -> str:
    """S3 is S1 since 00:58."""
    source, target = board.label(correction.source), board.label(correction.target)
    if correction.until is None:
        return f"{source} is {target} since {clock(correction.since)}"
    return f"{source} is {target} from {clock(correction.since)} to {clock(correction.until)}"


def troubles(status: Status) -> list[str]:
    """What a person should know of, in words."""
    words = [f"waiting for {plain(status.waiting)}"] if status.waiting else []
    if status.shed >= Shed.PARTIALS:
        words.append("partials off")
    if status.shed >= Shed.SEPARATION:
        words.append("separation off")
    return words


def index_of(entries: Sequence[Entry], entry: Entry) -> int:
    at = bisect.bisect_left(entries, entry.start, key=lambda e: e.start)
    while at < len(entries) - 1 and entries[at] is not entry:
        at += 1
    return min(at, len(entries) - 1)
