"""The report page: what it shows, that it needs nothing outside itself, its size, its safety."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from podtool.artifacts import Metric, Segment, Speaker, Take, Turn
from podtool.audio import Audio
from podtool.report import ReplacedTurn, Report, render_page
from podtool.report import page as page_module
from podtool.report.clips import CLIP_RATE, data_uri, outline
from podtool.report.drawing import timeline
from podtool.report.page import MARGIN_S
from podtool.report.text import clock, number

RATE = 16000
VOID = {"meta", "br", "link", "img", "input"}
SVG_LEAVES = {"rect", "line", "polygon"}


def report(turns: int = 3, seconds: float = 4.0, **changes: object) -> Report:
    """An episode of two people in turn; S2 is replaced by silence."""
    rng = np.random.default_rng(0)
    frames = round(turns * 2 * seconds * RATE)
    original = rng.normal(0, 0.05, (1, frames)).astype(np.float32)
    result = original.copy()
    rows, replaced = [], []
    for i in range(turns * 2):
        turn = Turn(f"t{i + 1:04d}", "ep", i * seconds, (i + 1) * seconds, f"S{i % 2 + 1}", 0.9)
        rows.append(turn)
        if turn.speaker == "S2":
            first, stop = round(turn.start * RATE), round(turn.end * RATE)
            result[:, first:stop] = 0
            take = Take(
                f"k{i + 1:04d}", "ep", "S2", "v1", "convert", "/k.wav", "0" * 64, RATE, 1,
                stop - first, turn.start, turn.end, turn=turn.id,
            )  # fmt: skip
            numbers = [Metric("similarity", 0.5 + i / 100, "", take.id)]
            replaced.append(ReplacedTurn(take, numbers, "alex"))
    values: dict[str, object] = {
        "title": "ep.wav",
        "original": Audio(original, RATE),
        "result": Audio(result, RATE),
        "turns": rows,
        "speakers": [Speaker("S1", "ep", turns * seconds), Speaker("S2", "ep", turns * seconds)],
        "overlaps": [Segment("ep", 1.0, 1.5, "overlap")],
        "replaced": replaced,
        "summary": [Metric("null_test_peak", 0.0, "samples"), Metric("lufs", -18.25, "LUFS")],
        "voices": {"S2": "alex"},
        "consent": {"alex": "Alex agreed"},
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]


class Page(HTMLParser):
    """Checks that tags nest, and collects what refers to something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag == "a":
            self.links.append(str(values.get("href")))
        if values.get("src"):
            self.sources.append(str(values["src"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_refers_to_nothing_outside() -> None:
    text = render_page(report())
    page = Page(text)
    assert page.counts["audio"] == 9 and page.counts["article"] == 3
    assert all(s.startswith("data:audio/") for s in page.sources)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert {link.removeprefix("#") for link in page.links} == {"k1", "k2", "k3"} <= page.ids
    for said in ("Alex agreed", "\N{MINUS SIGN}18.2 LUFS", "0.530", "S2 \N{RIGHTWARDS ARROW} alex"):
        assert said in text


def test_original_new_and_difference_are_what_they_say() -> None:
    whole = report()
    sounds = [_decoded(s) for s in Page(render_page(whole)).sources[:3]]
    inside = slice(round((MARGIN_S + 0.3) * CLIP_RATE), round((MARGIN_S + 3.5) * CLIP_RATE))
    original, new, difference = (float(np.std(s[inside])) for s in sounds)
    assert original > 0.02 and new < 0.002 and difference == pytest.approx(original, rel=0.1)
    before = slice(0, round((MARGIN_S - 0.15) * CLIP_RATE))
    assert float(np.std(sounds[2][before])) < 0.002 < float(np.std(sounds[0][before]))


def _decoded(uri: str) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert rate == CLIP_RATE
    return np.asarray(samples)


def test_equal_runs_give_equal_pages() -> None:
    assert render_page(report()) == render_page(report())


def test_sound_is_capped_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    text = render_page(report(turns=30, seconds=0.5), most_turns=10)
    page = Page(text)
    assert page.counts["article"] == 30 and page.counts["audio"] == 30
    assert "10 of the 30 turns have their sound" in text
    monkeypatch.setattr(page_module, "MOST_SOUND_S", 6.0)
    heard = Page(render_page(report(turns=12, seconds=0.5))).counts["audio"] // 3
    assert 2 <= heard <= 6.0 / (0.5 + 2 * MARGIN_S)


def test_names_and_texts_cannot_break_out() -> None:
    bad = '<script>alert("x")</script>'
    whole = report(title=bad, voices={"S2": bad}, consent={bad: bad}, notes=(bad,))
    assert "<script>alert" not in render_page(whole)


def test_a_page_without_replaced_turns_says_so() -> None:
    text = render_page(report(replaced=[], voices={}, consent={}))
    assert "Nothing was replaced" in text and Page(text).counts["svg"] == 1


def test_wav_where_there_is_no_mp3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    uri = data_uri(Audio(np.ones((2, 4410), np.float32) * 0.1, 44100))
    assert uri.startswith("data:audio/wav") and len(_decoded(uri)) == 2400


def test_long_episodes_get_rows_of_ten_minutes() -> None:
    turns = [Turn("t1", "ep", 590.0, 620.0, "S1")]
    drawn = timeline(turns, [], {}, {"S1": 0}, 3000.0)
    assert drawn.count("<svg") == 5
    assert drawn.count('class="turn') == 2  # the turn crosses from the first row to the second


def test_outlines_find_every_peak() -> None:
    samples = np.zeros((2, 1000), np.float32)
    samples[1, 503] = -0.7
    points = outline(Audio(samples, RATE), 10)
    assert points[5] == pytest.approx(0.7) and sum(points) == pytest.approx(0.7)


def test_numbers_read_well() -> None:
    assert clock(61.25) == "1:01" and clock(3661.25, tenths=True) == "1:01:01.2"
    assert clock(59.96, tenths=True) == "1:00.0"
    assert number(0.0, "samples") == "0" and number(1.5e-7, "samples") == "1.5e-07"
    assert number(-0.01, "LU") == "0.0 LU" and number(5.0, "turns") == "5 turns"
