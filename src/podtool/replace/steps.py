"""The steps of `replace`, in order: from any audio to the episode, its numbers and its page."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

from podtool import pipeline, provenance
from podtool.artifacts import (
    Metric,
    Recording,
    Row,
    Segment,
    Speaker,
    Stem,
    Take,
    Turn,
    Utterance,
    Voice,
)
from podtool.audio import open_audio, sha256_of
from podtool.errors import InputError
from podtool.inputs import recording_of
from podtool.inspection import inspect, oddities
from podtool.keys import Components, content_of
from podtool.replace.plan import Request, State, Step
from podtool.rowio import of_kind, read_rows, write_rows
from podtool.rundir.takepool import TakePool
from podtool.segments import Span, union
from podtool.speaker_choice import find_speaker

log = logging.getLogger(__name__)


def steps_of(request: Request, until: str | None = None) -> list[Step]:
    """The plan of a request, up to and with the step `until`."""
    from podtool.replace.check_step import CheckStep
    from podtool.replace.report_step import ReportStep

    plan: list[Step] = [DecodeStep()]
    if any(not is_rows(voice) for _, voice in request.mapping):
        plan.append(CloneStep())
    plan += [DiarizeStep(), SeparateStep()]
    if request.overlap == "separate":
        plan.append(TalkersStep())
    if request.reads_text:
        plan.append(TranscribeStep())
    plan += [SynthesizeStep(), ReconstructStep(), CheckStep(), ReportStep()]
    names = [step.name for step in plan]
    return plan[: names.index(until) + 1] if until else plan


def is_rows(name: str) -> bool:
    """Whether a file holds JSONL rows (a voice profile) rather than audio."""
    try:
        with open(name, "rb") as stream:
            return stream.read(64).lstrip().startswith((b"{", b"\xef\xbb\xbf{"))
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None


class DecodeStep:
    """Sample-exact formats are read where they are; anything else is decoded once."""

    name = "decode"

    def key(self, state: State) -> Components:
        inputs = {"file": sha256_of_input(state.request.source)}
        return provenance.components(self.name, state.context, inputs=inputs)

    def build(self, state: State, folder: Path) -> None:
        source = Path(state.request.source)
        with state.timings[self.name].part("decode"), open_audio(source, folder) as audio:
            recording = recording_of(source, audio)
            for line in oddities(inspect(audio)):
                log.warning("%s: %s", source.name, line)
            if audio.decoded != source:
                os.replace(audio.decoded, folder / "audio.wav")
        made_by = provenance.provenance(self.key(state))
        write_rows([made_by, recording], folder / "recording.jsonl")

    def load(self, state: State, folder: Path) -> None:
        rows = read_rows(folder / "recording.jsonl")
        found = of_kind(rows, Recording)
        if len(found) != 1:
            raise InputError(f"{folder / 'recording.jsonl'} has to hold one recording")
        state.recording = dataclasses.replace(found[0], path=state.request.source)
        decoded = folder / "audio.wav"
        state.audio = open_audio(decoded if decoded.exists() else state.request.source)
        state.rows[self.name] = [state.recording]


def sha256_of_input(path: str) -> str:
    """Hash of the input's bytes. Raises InputError where it cannot be read."""
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder, not an audio file", "Name one file in it.")
    try:
        return sha256_of(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


class DiarizeStep:
    """Who speaks when: what `podtool diarize FILE` says, or the rows given with --turns."""

    name = "diarize"

    def key(self, state: State) -> Components:
        if state.request.turns is not None:
            inputs = {"turns": content_of(given_turns(state.request.turns, state.recording))}
            return provenance.components(self.name, state.context, inputs=inputs)
        params = state.request.stage_params("diarize")
        return pipeline.diarize_key(state.recording, state.context, params, state.enrolled)

    def build(self, state: State, folder: Path) -> None:
        if state.request.turns is not None:
            made_by = provenance.provenance(self.key(state))
            rows: list[Row] = [made_by, *given_turns(state.request.turns, state.recording)]
        else:
            rows = pipeline.diarize_file(
                state.audio,
                state.recording,
                state.context,
                state.request.stage_params("diarize"),
                state.timings[self.name],
                state.on_progress,
                state.enrolled,
            )
        write_rows([rows[0], state.recording, *rows[1:]], folder / "turns.jsonl")

    def load(self, state: State, folder: Path) -> None:
        rows = read_rows(folder / "turns.jsonl")
        state.rows[self.name] = rows
        check_turns(of_kind(rows, Turn), state.recording, str(folder / "turns.jsonl"))
        state.targets = {
            find_speaker(rows, wanted, state.context): voice
            for wanted, voice in state.request.mapping
        }
        if len(state.targets) < len(state.request.mapping):
            raise InputError(
                "two of the speakers named are the same person in this recording",
                f"{', '.join(w for w, _ in state.request.mapping)} are {', '.join(state.targets)}.",
            )


def given_turns(name: str, recording: Recording) -> list[Row]:
    """Turns from rows or any exchange format, as rows of this recording. Raises InputError."""
    from podtool import formats

    rows = read_rows(name) if is_rows(name) else formats.read_file(name)
    kept: list[Row] = [
        dataclasses.replace(r, recording=recording.id)
        for r in rows
        if isinstance(r, (Turn, Segment, Speaker))
    ]
    if not of_kind(kept, Turn):
        raise InputError(f"{name} holds no turns", "`podtool diarize` makes them.")
    check_turns(of_kind(kept, Turn), recording, name)
    return kept


def check_turns(turns: list[Turn], recording: Recording, where: str) -> None:
    """Raise InputError for ids that are not unique, or turns outside the recording."""
    seen: set[str] = set()
    for turn in turns:
        if turn.id in seen:
            raise InputError(f"{where}: two turns have the id {turn.id}")
        seen.add(turn.id)
        if turn.end > recording.duration + 0.05:
            raise InputError(
                f"{where}: turn {turn.id} ends at {turn.end:.2f} s, the recording at "
                f"{recording.duration:.2f} s"
            )


def speech_spans(rows: list[Row]) -> list[Span]:
    return union(Span(t.start, t.end) for t in of_kind(rows, Turn))


class SeparateStep:
    """Speech and background apart, where there is a background worth keeping."""

    name = "separate"

    def key(self, state: State) -> Components:
        params = state.request.stage_params("separate")
        spans = speech_spans(state.rows["diarize"])
        parts = pipeline.separate_key(state.recording, state.context, params, spans)
        return {**parts, "params": {**parts["params"], "bed": state.request.bed}}

    def build(self, state: State, folder: Path) -> None:
        from podtool.replace.bed import measure_bed

        spans = speech_spans(state.rows["diarize"])
        timings = state.timings[self.name]
        with timings.part("bed"):
            bed = measure_bed(state.audio, spans)
        told: list[Row] = [
            Metric("speech_level", bed.speech_db, "dBFS"),
            Metric("background_level", bed.background_db, "dBFS"),
        ]
        wanted = state.request.bed == "separate" or (state.request.bed == "auto" and bed.present)
        made_by: list[Row] = [provenance.provenance(self.key(state))]
        if wanted and spans:
            params = state.request.stage_params("separate")
            found = pipeline.separate_file(
                state.audio,
                state.recording,
                state.context,
                params,
                folder,
                timings,
                state.on_progress,
                spans,
            )
            told = [*found[1:], *told]
        write_rows([*made_by, state.recording, *told], folder / "stems.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "stems.jsonl")


def stems_of(state: State) -> list[Stem]:
    return of_kind(state.rows["separate"], Stem)


def heard(state: State) -> tuple[str, str]:
    """(path, sha256) of what is listened to: the speech stem, or the recording as it is."""
    for stem in stems_of(state):
        if stem.name == "speech":
            return stem.path, stem.sha256
    return str(state.audio.decoded), state.recording.sha256


class TalkersStep:
    """Stems of the speakers to be replaced: out of overlaps, their voice alone is taken."""

    name = "talkers"

    def key(self, state: State) -> Components:
        return pipeline.talkers_key(
            state.recording,
            of_kind(state.rows["diarize"], Turn),
            state.context,
            state.request.stage_params("talkers"),
            heard(state)[1],
            list(state.targets),
        )

    def build(self, state: State, folder: Path) -> None:
        path, digest = heard(state)
        with open_audio(path) as audio:
            rows = pipeline.talkers_file(
                audio,
                state.recording,
                state.rows["diarize"],
                state.context,
                state.request.stage_params("talkers"),
                folder,
                state.timings[self.name],
                state.on_progress,
                heard=digest,
                labels=list(state.targets),
            )
        write_rows([rows[0], state.recording, *rows[1:]], folder / "talkers.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "talkers.jsonl")


def stems_of_speakers(state: State) -> dict[str, Stem]:
    """Label -> stem of each speaker to be replaced; none where overlaps are not separated."""
    found = of_kind(state.rows.get("talkers", []), Stem)
    return {s.speaker: s for s in found if s.speaker is not None}


class CloneStep:
    """Voice profiles of the references that are audio."""

    name = "clone"

    def key(self, state: State) -> Components:
        return pipeline.clone_key(
            {v: sha256_of_input(v) for v in references(state.request)},
            state.context,
            state.request.stage_params("clone"),
            state.request.consent,
        )

    def build(self, state: State, folder: Path) -> None:
        rows: list[Row] = []
        consent = state.request.consent
        for i, reference in enumerate(references(state.request), 1):
            with open_audio(reference) as audio:
                rows += pipeline.clone_voice(
                    audio,
                    recording_of(Path(reference), audio),
                    state.context,
                    state.request.stage_params("clone"),
                    name=Path(reference).stem,
                    voice_id=f"v{i:04d}",
                    consent=consent,
                    out_dir=folder,
                    timings=state.timings[self.name],
                    on_progress=state.on_progress,
                )
        write_rows(rows, folder / "voices.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "voices.jsonl")


def references(request: Request) -> list[str]:
    """The voices that are given as audio, each once, in order."""
    return list(dict.fromkeys(v for _, v in request.mapping if not is_rows(v)))


def voices_of(state: State) -> dict[str, Voice]:
    """Speaker label -> voice. Raises InputError for a profile that holds none or several."""
    cloned = dict(
        zip(references(state.request), of_kind(state.rows.get("clone", []), Voice), strict=True)
    )
    return {
        label: cloned[given] if given in cloned else voice_in(given)
        for label, given in state.targets.items()
    }


def voice_in(profile: str) -> Voice:
    """The one voice of a profile, its state file checked. Raises InputError."""
    found = of_kind(read_rows(profile), Voice)
    if len(found) != 1:
        raise InputError(
            f"{profile} holds {len(found)} voices; one is needed",
            "`podtool clone` makes a profile.",
        )
    if not Path(found[0].path).is_file():
        raise InputError(f"{profile}: the state file {found[0].path} is missing")
    if sha256_of(found[0].path) != found[0].sha256:
        raise InputError(f"{profile}: the state file {found[0].path} has changed since")
    return found[0]


class TranscribeStep:
    """What is said, where text is needed."""

    name = "transcribe"

    def key(self, state: State) -> Components:
        turns = of_kind(state.rows["diarize"], Turn)
        params = state.request.stage_params("transcribe")
        return pipeline.transcribe_key(
            state.recording,
            turns,
            state.context,
            params,
            params.engine,
            heard=heard(state)[1],
            apart=state.request.stage_params("talkers"),
        )

    def build(self, state: State, folder: Path) -> None:
        path, digest = heard(state)
        params = state.request.stage_params("transcribe")
        with open_audio(path) as audio:
            rows = pipeline.transcribe_file(
                audio,
                state.recording,
                state.rows["diarize"],
                state.context,
                params,
                state.timings[self.name],
                state.on_progress,
                params.engine,
                heard=digest,
                apart=state.request.stage_params("talkers"),
            )
        write_rows([rows[0], state.recording, *rows[1:]], folder / "utterances.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "utterances.jsonl")


class SynthesizeStep:
    """The takes: every turn, or every utterance, of the speakers in their new voices."""

    name = "synthesize"

    def key(self, state: State) -> Components:
        request, voices = state.request, voices_of(state)
        if request.method == "speak":
            from podtool.spoken_takes import speak_key

            params = request.stage_params("speak")
            rows = spoken_rows(state)
            return speak_key(state.recording, rows, voices, state.context, params, request.seed)
        return pipeline.convert_key(
            state.recording,
            state.rows["diarize"],
            voices,
            state.context,
            request.stage_params("convert"),
            request.overlap,
            request.seed,
            heard(state)[1],
            stems_of_speakers(state),
        )

    def build(self, state: State, folder: Path) -> None:
        make = self._spoken if state.request.method == "speak" else self._converted
        rows = make(state, folder)
        if not of_kind(rows, Take) and state.request.method == "convert":
            raise InputError(
                f"nothing of {' or '.join(state.targets)} can be replaced: "
                "somebody else talks all the while",
                "--overlap convert replaces overlapped speech, too.",
            )
        write_rows([rows[0], state.recording, *rows[1:]], folder / "takes.jsonl")

    def _converted(self, state: State, folder: Path) -> list[Row]:
        path, digest = heard(state)
        with open_audio(path) as audio:
            return pipeline.convert_turns(
                audio,
                state.recording,
                state.rows["diarize"],
                voices_of(state),
                state.context,
                state.request.stage_params("convert"),
                folder,
                TakePool(state.run.pool),
                state.timings[self.name],
                state.on_progress,
                state.request.overlap,
                state.request.seed,
                digest,
                lambda take, key: state.run.journal.write("take", take=take, key=key),
                stems_of_speakers(state),
            )

    def _spoken(self, state: State, folder: Path) -> list[Row]:
        from podtool.spoken_takes import speak_takes

        return speak_takes(
            state.audio,
            state.recording,
            spoken_rows(state),
            voices_of(state),
            state.context,
            state.request.stage_params("speak"),
            folder,
            TakePool(state.run.pool),
            state.timings[self.name],
            state.on_progress,
            state.request.seed,
            lambda take, key: state.run.journal.write("take", take=take, key=key),
        )

    def load(self, state: State, folder: Path) -> None:
        rows = read_rows(folder / "takes.jsonl")
        for take in of_kind(rows, Take):
            if not Path(take.path).is_file():
                raise InputError(f"{folder / 'takes.jsonl'}: {take.path} is missing")
        state.rows[self.name] = rows


def spoken_rows(state: State) -> list[Row]:
    """Turns and utterances: what is spoken, and where somebody else talks."""
    return [*of_kind(state.rows["diarize"], Turn), *of_kind(state.rows["transcribe"], Utterance)]


def drafts_of(state: State) -> list[Utterance]:
    """The utterances that were not spoken because their text is doubtful."""
    if state.request.method != "speak":
        return []
    from podtool.spoken_takes import refused

    return refused(spoken_rows(state), list(state.targets), state.request.stage_params("speak"))


class ReconstructStep:
    """The episode with its takes."""

    name = "reconstruct"

    def key(self, state: State) -> Components:
        takes = of_kind(state.rows["synthesize"], Take)
        params = state.request.stage_params("reconstruct")
        stems = [*stems_of(state), *stems_of_speakers(state).values()]
        return pipeline.reconstruct_key(state.recording, takes, stems, state.context, params)

    def build(self, state: State, folder: Path) -> None:
        rows = pipeline.reconstruct_episode(
            state.audio,
            state.recording,
            of_kind(state.rows["synthesize"], Take),
            [*stems_of(state), *stems_of_speakers(state).values()],
            state.context,
            state.request.stage_params("reconstruct"),
            folder / "mix.wav",
            state.timings[self.name],
            state.on_progress,
        )
        write_rows([rows[0], state.recording, *rows[1:]], folder / "placements.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "placements.jsonl")


def episode_of(state: State) -> Stem:
    return next(s for s in of_kind(state.rows["reconstruct"], Stem) if s.name == "episode")
