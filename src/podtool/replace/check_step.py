"""The numbers of a replacement: from takes, placements and stems, and words read again if asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from podtool import pipeline, provenance
from podtool.artifacts import Metric, Row, Take, Turn, Utterance
from podtool.audio import open_audio
from podtool.engines.protocols import EngineInfo
from podtool.keys import Components, content_of
from podtool.replace.plan import State
from podtool.replace.steps import episode_of
from podtool.rowio import of_kind, read_rows, write_rows
from podtool.segments import Span, intersect, subtract, total

DRIFT = ("first_word_drift_ms", "last_word_drift_ms")


class CheckStep:
    """Metric rows of the whole and of every take."""

    name = "check"

    def key(self, state: State) -> Components:
        context, params = state.context, None
        infos: dict[str, EngineInfo] = {}
        if state.request.wer:
            params = state.request.stage_params("transcribe")
            infos = {
                "transcription": pipeline.engine_info("transcription", "auto", context),
                "alignment": pipeline.engine_info("alignment", "pocketsphinx", context),
            }
            turns = of_kind(state.rows["diarize"], Turn)
            apart = state.request.stage_params("talkers")
            found = pipeline.separator_of_talkers(turns, context, params.overlap, apart)
            infos |= {"talkers": found} if found else {}
        told = ("diarize", "separate", "transcribe", "synthesize", "reconstruct")
        inputs: dict[str, str] = {
            stage: content_of(state.rows[stage])
            for stage in told
            if stage in state.rows and (stage != "transcribe" or state.request.wer)
        }
        return provenance.components(self.name, context, infos, params, inputs)

    def build(self, state: State, folder: Path) -> None:
        takes = of_kind(state.rows["synthesize"], Take)
        turns = of_kind(state.rows["diarize"], Turn)
        made = of_kind(state.rows["reconstruct"], Metric)
        separated = of_kind(state.rows["separate"], Metric)
        rows: list[Row] = [provenance.provenance(self.key(state)), state.recording]
        for label in dict.fromkeys(t.speaker for t in takes):
            rows += of_speaker(label, [t for t in takes if t.speaker == label], turns)
        rows += [m for m in [*made, *separated] if m.subject is None]
        if state.request.wer:
            rows += self._words(state, takes)
        rows += [m for m in made if m.subject is not None]
        rows += [m for take in takes for m in of_take(take)]
        write_rows(rows, folder / "metrics.jsonl")

    def _words(self, state: State, takes: Sequence[Take]) -> list[Metric]:
        """WER of the new speech, read again, against the recogniser's reading of the old."""
        from podtool.metrics import full_text, word_errors
        from podtool.text import normalise

        labels = {t.speaker for t in takes}
        with open_audio(episode_of(state).path) as audio:
            read = pipeline.transcribe_file(
                audio,
                state.recording,
                of_kind(state.rows["diarize"], Turn),
                state.context,
                state.request.stage_params("transcribe"),
                state.timings[self.name],
                state.on_progress,
                heard=episode_of(state).sha256,
                apart=state.request.stage_params("talkers"),
                speakers=labels,
            )
        before = [u for u in of_kind(state.rows["transcribe"], Utterance) if u.speaker in labels]
        found: list[Metric] = []
        for label in sorted(labels):
            old = full_text(u for u in before if u.speaker == label)
            new = full_text(u for u in of_kind(read, Utterance) if u.speaker == label)
            if normalise(old):
                score = word_errors(old, new)
                found.append(Metric("wer", score.rate, "share", label, score.length))
        return found

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "metrics.jsonl")


def of_take(take: Take) -> list[Metric]:
    """The numbers of one take."""
    units = {"_ms": "ms", "_db": "dB", "_s": "s", "_frames": "frames"}
    found = []
    for name, value in (take.checks or {}).items():
        unit = next((u for end, u in units.items() if name.endswith(end)), "")
        found.append(Metric(name, value, unit, take.id))
    if take.keep:
        kept = total(Span(a, b) for a, b in take.keep)
        found.append(Metric("kept_s", kept, "s", take.id))
    if take.tempo is not None and take.method == "speak":
        found.append(Metric("tempo", take.tempo, "", take.id))
    return found


def of_speaker(label: str, takes: Sequence[Take], turns: Sequence[Turn]) -> list[Metric]:
    """What was replaced of one speaker; similarities are means over seconds."""
    own = [Span(t.start, t.end) for t in turns if t.speaker == label]
    slots = [Span(t.start, t.end) for t in takes]
    keeps = [Span(a, b) for t in takes for a, b in (t.keep or ())]
    changed = total(subtract(slots, keeps))
    found = [
        Metric("replaced_turns", float(len(takes)), "turns", label),
        Metric("replaced_s", changed, "s", label),
        Metric("kept_s", total(own) - total(intersect(own, subtract(slots, keeps))), "s", label),
    ]
    for name in ("similarity", "similarity_before"):
        values = [(t.end - t.start, t.checks[name]) for t in takes if t.checks and name in t.checks]
        weight = sum(w for w, _ in values)
        if weight:
            mean = sum(w * v for w, v in values) / weight
            found.append(Metric(name, mean, "", label, len(values)))
    drifts = [abs(t.checks[name]) for t in takes if t.checks for name in DRIFT if name in t.checks]
    if drifts:
        found.append(Metric("drift_ms", max(drifts), "ms", label, len(takes)))
    return found
