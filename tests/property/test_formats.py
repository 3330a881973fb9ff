"""What is written in an exchange format comes back, as far as the format can hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from podtool.artifacts import Row, Segment, Turn, Utterance, Word
from podtool.formats import by_name, read_text, write_text
from podtool.formats.base import from_label, seconds, to_label

micro = st.integers(0, 20_000 * 10**6).map(lambda n: n / 10**6)
milli = st.integers(0, 20_000 * 10**3).map(lambda n: n / 10**3)
label = st.text(min_size=1, max_size=12).filter(lambda s: bool(s.strip()))
# Text as rows hold it when it went through a format of lines: single spaces, no line feeds.
line = st.text(max_size=30).map(lambda s: " ".join(s.split()))
token = st.text(min_size=1, max_size=8).filter(lambda s: len(s.split()) == 1 and s.split()[0] == s)


def spans(times: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(times, times).map(lambda t: (min(t), max(t)))


@st.composite
def turns(draw: st.DrawFn, one: bool = False) -> list[Row]:
    rows = [
        Turn(
            "",
            "ep" if one else draw(label),
            *draw(spans(micro)),
            draw(label),
            draw(st.none() | st.integers(0, 10**6).map(lambda n: n / 10**6)) if not one else None,
        )
        for _ in range(draw(st.integers(1, 5)))
    ]
    rows.sort(key=lambda t: (t.recording, t.start, t.end))
    return [replace(t, id=f"t{i:04d}") for i, t in enumerate(rows, 1)]


@st.composite
def utterances(
    draw: st.DrawFn,
    times: st.SearchStrategy[float] = micro,
    text: st.SearchStrategy[str] = line,
    speakers: bool = True,
) -> list[Row]:
    rows = [
        Utterance("", "ep", *draw(spans(times)), draw(text), draw(label) if speakers else None)
        for _ in range(draw(st.integers(1, 5)))
    ]
    rows.sort(key=lambda u: (u.start, u.end))
    return [replace(u, id=f"u{i:04d}") for i, u in enumerate(rows, 1)]


def there_and_back(rows: list[Row], name: str, what: str = "auto") -> list[Row]:
    format_ = by_name(name)
    return read_text(write_text(rows, format_, what), "file", format_, "ep", what)


@given(turns())
def test_rttm(rows: list[Row]) -> None:
    assert there_and_back(rows, "rttm") == rows


@given(turns(one=True))
def test_turns_in_audacity(rows: list[Row]) -> None:
    assert there_and_back(rows, "audacity") == rows


@given(turns(one=True))
def test_turns_in_seglst(rows: list[Row]) -> None:
    assert there_and_back(rows, "seglst") == rows


@given(utterances(milli))
def test_srt(rows: list[Row]) -> None:
    assert there_and_back(rows, "srt") == rows


@given(utterances(milli), utterances(milli, speakers=False))
def test_vtt(named: list[Row], unnamed: list[Row]) -> None:
    assert there_and_back(named, "vtt") == named
    assert there_and_back(unnamed, "vtt") == unnamed


@given(utterances(text=st.text(min_size=1).filter(lambda s: bool(s.strip()))))
def test_seglst(rows: list[Row]) -> None:
    assert there_and_back(rows, "seglst") == rows


@given(utterances())
def test_utterances_in_audacity(rows: list[Row]) -> None:
    assert there_and_back(rows, "audacity") == rows


@given(st.lists(st.tuples(spans(micro), line.filter(bool)), min_size=1))
def test_segments_in_audacity(items: list[tuple[tuple[float, float], str]]) -> None:
    rows: list[Row] = [Segment("ep", *span, text) for span, text in sorted(items)]
    assert there_and_back(rows, "audacity", "segments") == rows


@st.composite
def streams(draw: st.DrawFn, text: Callable[[list[str]], str]) -> list[Row]:
    """Utterances of several speakers with words; those of one speaker do not overlap."""
    rows: list[Utterance] = []
    for speaker in draw(st.lists(st.none() | label, min_size=1, max_size=3, unique=True)):
        at = draw(st.integers(0, 10**6))
        for _ in range(draw(st.integers(1, 3))):
            words = []
            for _ in range(draw(st.integers(1, 4))):
                length = draw(st.integers(1, 10**6))
                words.append(Word(draw(token), at / 10**6, (at + length) / 10**6))
                at += length + draw(st.integers(0, 10**6 - 10))  # a second is a new utterance
            end = words[-1].end
            at = round(end * 10**6) + 10**6 + draw(st.integers(1, 10**6))
            said = text([w.text for w in words])
            rows.append(Utterance("", "ep", words[0].start, end, said, speaker, words=tuple(words)))
    rows.sort(key=lambda u: (u.recording, u.start, u.end))
    return [replace(u, id=f"u{i:04d}") for i, u in enumerate(rows, 1)]


@given(streams(" ".join))
def test_ctm(rows: list[Row]) -> None:
    assert by_time(there_and_back(rows, "ctm")) == by_time(rows)


@given(streams(lambda words: "said: " + "\n".join(words)))
def test_textgrid(rows: list[Row]) -> None:
    assert by_time(there_and_back(rows, "textgrid")) == by_time(rows)


@given(streams(" ".join))
def test_turns_in_textgrid(rows: list[Row]) -> None:
    wanted: list[Row] = [
        Turn(u.id, u.recording, u.start, u.end, u.speaker)
        for u in rows
        if isinstance(u, Utterance) and u.speaker is not None
    ]
    if wanted:
        assert by_time(there_and_back(wanted, "textgrid")) == by_time(wanted)


def by_time(rows: list[Row]) -> list[Row]:
    """Rows in an order that does not depend on how ties in time were broken, ids left out."""
    timed = [replace(r, id="") for r in rows if isinstance(r, (Turn, Utterance))]
    return [*sorted(timed, key=lambda r: (r.start, r.end, r.speaker or ""))]


@given(label, st.sampled_from(["", "]", "[", "<>&"]), st.booleans())
def test_labels(text: str, also: str, spaces: bool) -> None:
    written = to_label(text, also, spaces)
    assert from_label(written) == text
    assert not set(also) & set(written)
    assert "\n" not in written
    if spaces:
        assert len(written.split()) == 1


@given(micro)
def test_seconds(value: float) -> None:
    assert float(seconds(value)) == value
