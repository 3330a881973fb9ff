"""The page of a run: its rows put together for `podtool.report`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from podtool import provenance
from podtool.artifacts import Metric, Provenance, Segment, Speaker, Take, Turn, Utterance
from podtool.audio import open_audio
from podtool.keys import Components, canonical, content_of
from podtool.replace.plan import State
from podtool.replace.steps import episode_of, stems_of, voices_of
from podtool.report import ReplacedTurn, Report, render_page
from podtool.rowio import of_kind
from podtool.segments import Span, intersect, union

PAGE = "report.html"
_ORDER = (
    "replaced_turns replaced_s kept_s similarity similarity_before drift_ms wer lufs_before lufs "
    "true_peak_dbtp null_test_peak stems_sum_error background_level"
).split()
_CARD = (
    "similarity similarity_before first_word_drift_ms last_word_drift_ms loudness_change_lu "
    "tempo kept_s"
).split()


class ReportStep:
    """report.html."""

    name = "report"

    def key(self, state: State) -> Components:
        inputs = {s: content_of(state.rows[s]) for s in ("diarize", "synthesize", "check")}
        inputs |= {"recording": state.recording.sha256, "episode": episode_of(state).sha256}
        if "transcribe" in state.rows:
            inputs["transcribe"] = content_of(state.rows["transcribe"])
        settings = {"voices": {k: v.name for k, v in voices_of(state).items()}}
        consent = {v.name: v.consent.statement for v in voices_of(state).values()}
        made_by = canonical(_settings(state))
        return provenance.components(
            self.name,
            state.context,
            params={**settings, "consent": consent, "made_by": made_by},
            inputs=inputs,
        )

    def build(self, state: State, folder: Path) -> None:
        turns = of_kind(state.rows["diarize"], Turn)
        with state.timings[self.name].part("page"), open_audio(episode_of(state).path) as result:
            page = render_page(
                Report(
                    title=title_of_run(state.request.source),
                    original=state.audio,
                    result=result,
                    turns=turns,
                    speakers=speakers_of(turns, of_kind(state.rows["diarize"], Speaker)),
                    overlaps=overlaps_of(turns),
                    replaced=_replaced(state),
                    summary=summary_of(of_kind(state.rows["check"], Metric)),
                    voices={k: v.name for k, v in voices_of(state).items()},
                    consent={v.name: v.consent.statement for v in voices_of(state).values()},
                    notes=notes_of(state),
                    settings=_settings(state),
                )
            )
        (folder / PAGE).write_text(page, encoding="utf-8", newline="\n")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = []


def speakers_of(turns: Sequence[Turn], speakers: Sequence[Speaker]) -> list[Speaker]:
    """One row per label of the turns, its seconds counted from them: turns may be edited."""
    known = {s.id: s for s in speakers}
    found = []
    for label in dict.fromkeys(t.speaker for t in turns):
        seconds = sum(t.end - t.start for t in turns if t.speaker == label)
        row = known.get(label) or Speaker(label, turns[0].recording, 0.0)
        found.append(dataclasses.replace(row, speech_s=seconds))
    return found


def overlaps_of(turns: Sequence[Turn]) -> list[Segment]:
    """Where turns of two speakers coincide."""
    spans = {
        label: [Span(t.start, t.end) for t in turns if t.speaker == label]
        for label in dict.fromkeys(t.speaker for t in turns)
    }
    pairs = combinations(spans.values(), 2)
    both = union(s for a, b in pairs for s in intersect(a, b))
    return [Segment(turns[0].recording, s.start, s.end, "overlap") for s in both]


def title_of_run(source: str) -> str:
    """The episode's file name; what came through stdin has none."""
    path = Path(source)
    return "stdin" if path.suffix == ".audio" else path.name


def summary_of(metrics: list[Metric]) -> list[Metric]:
    """The numbers of the whole, in the order that people read them."""
    known = {name: i for i, name in enumerate(_ORDER)}
    takes = {m.subject for m in metrics if m.subject and m.subject.startswith("k")}
    kept = [m for m in metrics if m.name in known and m.subject not in takes]
    return sorted(kept, key=lambda m: (known[m.name], m.subject or ""))


def _replaced(state: State) -> list[ReplacedTurn]:
    metrics: dict[str, list[Metric]] = {}
    order = {name: i for i, name in enumerate(_CARD)}
    for metric in of_kind(state.rows["check"], Metric):
        if metric.subject and metric.name in order:
            metrics.setdefault(metric.subject, []).append(metric)
    texts = {u.id: u.text for u in of_kind(state.rows.get("transcribe", []), Utterance)}
    by_turn: dict[str, list[str]] = {}
    for u in of_kind(state.rows.get("transcribe", []), Utterance):
        by_turn.setdefault(u.turn or "", []).append(u.text)
    names = {v.id: v.name for v in voices_of(state).values()}
    found = []
    for take in of_kind(state.rows["synthesize"], Take):
        own = sorted(metrics.get(take.id, []), key=lambda m: order[m.name])
        text = (
            take.text
            or texts.get(take.utterance or "")
            or " ".join(by_turn.get(take.turn or "", []))
        )
        found.append(ReplacedTurn(take, own, names.get(take.voice, take.voice), text or None))
    return found


def notes_of(state: State) -> list[str]:
    """What a listener should know first."""
    notes = []
    if stems_of(state):
        notes.append(
            "Something plays under the voices: speech and background were separated, and the "
            "background was kept."
        )
    kept = sum(
        m.value
        for m in of_kind(state.rows["check"], Metric)
        if m.name == "kept_s" and not (m.subject or "").startswith("k")
    )
    if kept >= 0.05:
        notes.append(
            f"{kept:.1f} s of the replaced speakers stay original: where somebody else talks too, "
            "or where there is no take."
        )
    misfits = [t.id for t in of_kind(state.rows["synthesize"], Take) if t.fits is False]
    if misfits:
        notes.append(f"Takes longer than their slots were kept whole: {', '.join(misfits)}.")
    return notes


def _settings(state: State) -> list[tuple[str, str]]:
    """What made each stage, from the provenance rows."""
    found = []
    for stage, rows in state.rows.items():
        for row in of_kind(rows, Provenance)[:1]:
            text = ", ".join(f"{k} {v}" for k, v in row.params.items() if not isinstance(v, dict))
            found.append((stage, "; ".join(part for part in (row.engine, text) if part) or "-"))
    return found
