"""The page: a summary, the timeline of speakers, and each replaced turn to listen to.

Everything is inside one file: style, script, drawings and sound. Nothing in it depends on when or
where it was made, so equal runs give equal pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from podtool.artifacts import Metric, Segment, Speaker, Take, Turn
from podtool.audio import Audio, AudioSource
from podtool.report.clips import data_uri, outline
from podtool.report.drawing import timeline, waveform
from podtool.report.script import SCRIPT
from podtool.report.style import STYLE
from podtool.report.text import clock, number, title_of

MARGIN_S = 0.4  # heard on both sides of a turn, so that the joins can be judged
MOST_TURNS = 60  # turns with sound; the numbers of all turns are always there
MOST_SOUND_S = 360.0  # seconds of sound per version: about 8 MB of page
POINTS = 160
SCALE = (
    "Similarity is the cosine of two voice embeddings (CAM++): recordings of one person mostly "
    "score above 0.5, different people near 0."
)


@dataclass(frozen=True, slots=True)
class ReplacedTurn:
    """One slot that was replaced, with its numbers."""

    take: Take
    numbers: Sequence[Metric]
    voice: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the page tells. `original` and `result` are of the same length and rate."""

    title: str
    original: AudioSource
    result: AudioSource
    turns: Sequence[Turn]
    speakers: Sequence[Speaker]
    overlaps: Sequence[Segment]
    replaced: Sequence[ReplacedTurn]
    summary: Sequence[Metric]
    voices: dict[str, str]  # speaker label -> name of the voice that replaces it
    consent: dict[str, str]  # name of the voice -> the statement
    notes: Sequence[str] = field(default_factory=tuple)
    settings: Sequence[tuple[str, str]] = field(default_factory=tuple)


def render_page(report: Report, most_turns: int = MOST_TURNS) -> str:
    """The whole page as text."""
    labels = list(
        dict.fromkeys([s.id for s in report.speakers] + [t.speaker for t in report.turns])
    )
    colours = {name: i % 8 for i, name in enumerate(labels)}
    anchors = {r.take.turn or "": f"k{i}" for i, r in enumerate(report.replaced, 1)}
    anchors |= _anchors_by_time(report, anchors)
    duration = report.original.frames / report.original.sample_rate
    audible = _audible(report.replaced, most_turns)
    cards = [
        _card(report, item, i, i in audible, colours) for i, item in enumerate(report.replaced, 1)
    ]
    body = [
        _header(report, duration),
        _summary(report),
        '<section aria-labelledby="who"><h2 id="who">Who speaks when</h2>',
        _legend(report, colours),
        '<div class="scroll">',
        timeline(report.turns, report.overlaps, anchors, colours, duration),
        "</div></section>",
        '<section aria-labelledby="what"><h2 id="what">What was replaced</h2>',
        _told(len(report.replaced), len(audible)),
        *(cards or ["<p>Nothing was replaced.</p>"]),
        "</section>",
        _settings(report),
    ]
    title = escape(report.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title} \N{MIDDLE DOT} podtool</title><style>{STYLE}</style></head>\n<body><main>"
        + "\n".join(body)
        + f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def _anchors_by_time(report: Report, known: dict[str, str]) -> dict[str, str]:
    """Turns that a take without a turn id lies in (speaking by utterance)."""
    found: dict[str, str] = {}
    for i, item in enumerate(report.replaced, 1):
        if item.take.turn:
            continue
        middle = (item.take.start + item.take.end) / 2
        for turn in report.turns:
            inside = turn.start <= middle < turn.end and turn.speaker == item.take.speaker
            if inside and turn.id not in known:
                found.setdefault(turn.id, f"k{i}")
    return found


def _audible(replaced: Sequence[ReplacedTurn], most: int) -> set[int]:
    """Numbers of the turns that get sound: all, or as many as fit, spread evenly in time."""
    lengths = [r.take.end - r.take.start + 2 * MARGIN_S for r in replaced]
    count = min(len(replaced), most)
    while count > 1:
        chosen = {int(x) for x in np.linspace(1, len(replaced), count).round()}
        if sum(lengths[i - 1] for i in chosen) <= MOST_SOUND_S:
            return chosen
        count = count * 9 // 10
    return set(range(1, count + 1))


def _told(replaced: int, audible: int) -> str:
    keys = "<kbd>J</kbd> <kbd>K</kbd> next, previous \N{MIDDLE DOT} <kbd>1</kbd> original "
    keys += "<kbd>2</kbd> new <kbd>3</kbd> difference \N{MIDDLE DOT} <kbd>Space</kbd> pause"
    text = f'<p class="keys">{keys}</p>'
    if replaced:
        text += f'<p class="scale">{SCALE}</p>'
    if audible < replaced:
        text += (
            f'<p class="note">{audible} of the {replaced} turns have their sound on this page, '
            "spread over the episode; the numbers are there for all of them.</p>"
        )
    return text


def _header(report: Report, duration: float) -> str:
    who = ", ".join(f"{label} by {voice}" for label, voice in report.voices.items())
    consent = "".join(
        f"<p>Consent for <b>{escape(voice)}</b>: {escape(statement)}</p>"
        for voice, statement in report.consent.items()
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes)
    return (
        f"<header><p class=brand>podtool</p><h1>{escape(report.title)}</h1>"
        f"<p>{clock(duration)} \N{MIDDLE DOT} {len(report.speakers)} "
        f"speaker{'' if len(report.speakers) == 1 else 's'} "
        f"\N{MIDDLE DOT} {escape(who) or 'nobody'} replaced. "
        f"The replaced voice is synthetic.</p>{consent}{notes}</header>"
    )


def _summary(report: Report) -> str:
    cells = "".join(
        f"<div><dt>{escape(title_of(m))}{_of(m)}</dt>"
        f"<dd>{escape(number(m.value, m.unit))}</dd></div>"
        for m in report.summary
    )
    return f'<section aria-label="Summary"><dl class="summary">{cells}</dl></section>'


def _of(metric: Metric) -> str:
    return f" ({escape(metric.subject)})" if metric.subject else ""


def _legend(report: Report, colours: dict[str, int]) -> str:
    known = {s.id: s for s in report.speakers}
    items = []
    for label, colour in colours.items():
        speaker = known.get(label)
        name = f" {escape(speaker.name)}" if speaker and speaker.name else ""
        seconds = speaker.speech_s if speaker else 0.0
        voice = report.voices.get(label)
        arrow = f" \N{RIGHTWARDS ARROW} {escape(voice)}" if voice else ""
        items.append(
            f'<li><span class="dot c{colour}"></span><b>{escape(label)}</b>{name}{arrow} '
            f"<small>{clock(seconds)}</small></li>"
        )
    if report.overlaps:
        items.append('<li><span class="dot both"></span>overlap</li>')
    if report.voices:
        items.append('<li><span class="dot outlined"></span>replaced</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _card(
    report: Report, item: ReplacedTurn, index: int, audible: bool, colours: dict[str, int]
) -> str:
    take = item.take
    span = f"{clock(take.start, tenths=True)} \N{EN DASH} {clock(take.end, tenths=True)}"
    numbers = "".join(
        f"<div><dt>{escape(title_of(m))}</dt><dd>{escape(number(m.value, m.unit))}</dd></div>"
        for m in item.numbers
    )
    text = f"<blockquote>{escape(item.text)}</blockquote>" if item.text else ""
    sound = _players(report, take) if audible else ""
    return (
        f'<article id="k{index}" class="card" tabindex="-1">'
        f'<h3><span class="dot c{colours.get(take.speaker, 0)}"></span>'
        f"{escape(take.speaker)} \N{RIGHTWARDS ARROW} {escape(item.voice)} "
        f"<small>{span}</small></h3>{text}{sound}"
        f'<dl class="numbers">{numbers}</dl></article>'
    )


def _players(report: Report, take: Take) -> str:
    rate = report.original.sample_rate
    start = max(0, round((take.start - MARGIN_S) * rate))
    stop = min(report.original.frames, round((take.end + MARGIN_S) * rate))
    original = report.original.read(start, stop)
    result = report.result.read(start, stop)
    difference = Audio(result.samples - original.samples, rate)
    versions = (("original", original), ("new", result), ("difference", difference))
    outlines = {name: outline(audio, POINTS) for name, audio in versions}
    top = max(max(points) for points in outlines.values())
    columns = "".join(
        f'<div class="version {name}"><button type="button" data-kind="{name}">'
        f"{name.capitalize()}</button>"
        f'<div class="wavebox">{waveform(outlines[name], top, name)}<i></i></div>'
        f'<audio controls preload="none" src="{data_uri(audio)}"></audio></div>'
        for name, audio in versions
    )
    return f'<div class="versions">{columns}</div>'


def _settings(report: Report) -> str:
    if not report.settings:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in report.settings
    )
    return f"<details><summary>How it was made</summary><table>{rows}</table></details>"
