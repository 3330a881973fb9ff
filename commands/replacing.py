"""What `replace` and `runs explain` share: the request, the plan as a table, the closing table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import shared

if TYPE_CHECKING:
    from podtool.artifacts import Metric
    from podtool.replace.plan import Outcome, Request


def mapping_of(
    speaker: str | None, voice: str | None, pairs: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """(speaker, voice file) pairs of --speaker and --voice, or of --map. Raises UsageError."""
    from podtool.errors import UsageError

    if pairs and (speaker or voice):
        raise UsageError("--map takes the place of --speaker and --voice", "Use one or the other.")
    if voice and not speaker:
        return ()  # the speakers are listed
    if speaker and not voice:
        raise UsageError(
            f"which voice is {speaker} to have?", "Give --voice with a profile or a reference clip."
        )
    found = [(speaker, voice)] if speaker and voice else []
    for pair in pairs:
        label, equals, file = pair.partition("=")
        if not equals or not label.strip() or not file.strip():
            raise UsageError(f"--map {pair!r} is not SPEAKER=VOICE")
        found.append((label.strip(), file.strip()))
    if len({label for label, _ in found}) < len(found):
        raise UsageError("a speaker is mapped twice")
    return tuple((label, str(Path(file).absolute())) for label, file in found)


def wants_wer(checks: Sequence[str]) -> bool:
    """Whether --check wer was given. Raises UsageError for another check."""
    from podtool.errors import UsageError

    unknown = [c for c in checks if c != "wer"]
    if unknown:
        raise UsageError(f"there is no check {unknown[0]!r}", "Checks: wer.")
    return bool(checks)


def request_of(
    episode: str,
    mapping: tuple[tuple[str, str], ...],
    output: Path | None,
    flags: Mapping[str, Mapping[str, Any]],
    preset: str | None,
    settings: Sequence[str],
    **rest: Any,
) -> Request:
    """The request, every setting resolved. Raises UsageError, InputError, ConfigError."""
    import dataclasses

    from podtool.config import check_settings, params_type, resolve
    from podtool.errors import UsageError
    from podtool.loudness import master_target
    from podtool.pipeline import talker_engine
    from podtool.replace.plan import BEDS, METHODS, OVERLAPS, TUNABLE, Request
    from podtool.replace.steps import is_rows

    for name, known in (("method", METHODS), ("bed", BEDS), ("overlap", OVERLAPS)):
        if rest[name] not in known:
            raise UsageError(f"--{name} is one of {', '.join(known)}, not {rest[name]!r}")
    if mapping and output is None:
        raise UsageError("where to?", "Give -o FILE (wav, flac, mp3, m4a, mp4; '-' is stdout).")
    check_settings(settings)
    params, origins = {}, {}
    for stage in TUNABLE:
        found = resolve(params_type(stage), flags.get(stage, {}), preset, settings)
        params[stage] = dataclasses.asdict(found.params)
        origins[stage] = dict(found.origins)
    params_type("diarize")(**params["diarize"]).count()
    master_target(params["reconstruct"]["master"])
    if rest["overlap"] == "separate":
        talker_engine(params["talkers"]["engine"], shared.context())
    if any(not is_rows(voice) for _, voice in mapping) and not rest.get("consent"):
        raise UsageError(
            "a reference clip needs the consent of the person heard in it",
            '--consent "who agreed, to what, when"',
        )
    source = _spooled() if episode == "-" else str(Path(episode).absolute())
    target = "" if output is None else str(output) if str(output) == "-" else _absolute(output)
    return Request(source, target, mapping, params=params, origins=origins, **rest)


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _spooled() -> str:
    """Audio from stdin, kept by its content so that the run can be resumed."""
    _, recording, audio = _open_stdin()
    audio.close()
    return str(recording.path)


def _open_stdin() -> Any:
    from podtool.inputs import open_input

    return open_input("-", shared.binary_stdin)


@contextlib.contextmanager
def folder_of(request: Request, output: Path | None, chosen: Path | None) -> Iterator[Path]:
    """The run directory: --run-dir, else beside the output, else beside the episode.

    Where the result goes to stdout and no folder is named, a temporary one.
    """
    import tempfile

    if chosen is not None:
        yield chosen.absolute()
    elif output is not None and str(output) == "-":
        with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
            yield Path(folder) / "run"
    else:
        beside = Path(request.output or Path.cwd() / Path(request.source).name)
        yield beside.with_name(f"{beside.stem}.podtool")


def check_output(request: Request, output: Path | None, folder: Path, force: bool) -> None:
    """Before any work: may the output be written? Raises OutputError, UsageError."""
    import sys

    from podtool.errors import OutputError, UsageError
    from podtool.replace.delivery import check_output

    if output is None:
        return
    if str(output) == "-":
        if sys.stdout.isatty():
            raise UsageError("audio is not written to a terminal", "Redirect it: > out.wav")
        return
    if Path(request.output).resolve() == Path(request.source).resolve():
        raise OutputError("the output would overwrite the episode", "Choose another name.")
    check_output(folder, Path(request.output), force)


def enrolled(request: Request) -> dict[str, Any]:
    """Embeddings of the people known by `podtool speakers`."""
    from podtool import speakers

    return dict(speakers.embeddings()) if request.names else {}


# ---------------------------------------------------------------- what would be done


def show_plan(request: Request, folder: Path, device: str | None, json: bool) -> None:
    """One line per stage on stdout: reuse, run or pinned, and why."""
    from podtool.replace.plan import explain
    from podtool.replace.steps import steps_of

    steps = steps_of(request, until=None if request.mapping else "diarize")
    verdicts = list(explain(request, folder, shared.context(device), enrolled(request), steps))
    if json:
        shared.json_rows(
            {"stage": v.stage, "action": v.action, "reason": v.reason, "differs": v.differs}
            for v in verdicts
        )
        return
    shared.table(
        f"plan for {folder}",
        ["stage", "action", "why"],
        ((v.stage, v.action, _why(v.reason, v.differs)) for v in verdicts),
        to_stdout=True,
    )


def _why(reason: str, differs: str | None) -> str:
    return reason if not differs or differs in reason else f"{reason}; {differs} differs"


# ---------------------------------------------------------------- what was done


def handing_over(request: Request) -> Callable[[Outcome], None] | None:
    """What happens at the end of a run while its folder is still locked."""
    if not request.mapping:
        return None
    return _to_stdout if request.output == "-" else lambda outcome: _deliver(outcome, request)


def finish(
    outcome: Outcome, request: Request, output: Path | None, json: bool, timings: bool
) -> None:
    """Tell what was done: rows on stdout, a table on stderr; exit 9 where takes do not fit."""
    from podtool.artifacts import Metric, Take
    from podtool.errors import PartialFailure
    from podtool.replace.plan import close
    from podtool.replace.steps import drafts_of
    from podtool.rowio import of_kind

    state = outcome.state
    close(state)
    if not request.mapping:
        list_speakers(outcome, output)
    metrics = of_kind(state.rows["check"], Metric)
    extra: list[Metric] = []
    for name, parts in state.timings.items():
        extra += [Metric(f"time_{k}", round(v, 4), "s", name) for k, v in parts.seconds.items()]
    extra += [Metric("time", round(s, 3), "s", name) for name, s in outcome.seconds.items()]
    if str(output) != "-":
        shared.write_out([*(metrics if json else []), *(extra if timings else [])], None)
    elif timings:
        shared.note("time: " + ", ".join(f"{m.subject} {m.name} {m.value:.2f}" for m in extra))
    _closing_table(outcome, request, metrics)
    misfits = [t.id for t in of_kind(state.rows["synthesize"], Take) if t.fits is False]
    drafts = drafts_of(state)
    for utterance in drafts:
        shared.warn(f"not spoken, the text is doubtful: {utterance.id} {utterance.text!r}")
    edit = state.run.folder("transcribe") / "utterances.jsonl"
    if misfits:
        raise PartialFailure(
            f"{len(misfits)} takes are longer than their slots: {', '.join(misfits)}",
            f"Shorten their text in {edit} and run again.",
        )
    if drafts:
        raise PartialFailure(
            f"{len(drafts)} utterances stay as they were, their text is doubtful",
            f"Correct them in {edit} and run again, or give --allow-draft.",
        )


def _deliver(outcome: Outcome, request: Request) -> None:
    from podtool.replace.delivery import deliver

    deliver(outcome.state, Path(request.output))


def _to_stdout(outcome: Outcome) -> None:
    import tempfile

    from podtool.replace.delivery import write_result

    from .audio_out import copy_to_stdout

    with tempfile.TemporaryDirectory(prefix="podtool-") as folder:
        target = Path(folder) / "episode.wav"
        write_result(outcome.state, target)
        copy_to_stdout(target)


def list_speakers(outcome: Outcome, output: Path | None) -> None:
    """Who there is and where to hear them, then exit code 2."""
    import shlex

    from podtool.artifacts import Speaker, Turn
    from podtool.errors import InputError, UsageError
    from podtool.report.text import clock
    from podtool.rowio import of_kind
    from podtool.speaker_choice import speaker_labels, where_to_hear

    rows = outcome.state.rows["diarize"]
    labels = speaker_labels(rows)
    if not labels:
        raise InputError("no speech was found: there is nobody to replace")
    people = {s.id: s for s in of_kind(rows, Speaker)}
    lines = []
    for label in labels:
        turns = [t for t in of_kind(rows, Turn) if t.speaker == label]
        best = where_to_hear(rows, label)
        seconds = sum(t.end - t.start for t in turns)
        name = (people[label].name or "") if label in people else ""
        span = "" if best is None else f"{clock(best.start, True)} to {clock(best.end, True)}"
        lines.append((label, name, f"{seconds:.1f}", str(len(turns)), span))
    columns = ["speaker", "name", "seconds", "turns", "hear them at"]
    shared.table("who is to be replaced?", columns, lines, to_stdout=False)
    again = f"--speaker {labels[-1]} --voice VOICE"
    if output is None:  # the run has no name yet but that of the episode
        again += f" -o OUT --run-dir {shlex.quote(str(outcome.state.run.path))}"
    raise UsageError(
        "name the speaker to replace and the new voice", f"{again}; what is done so far is kept."
    )


def _closing_table(outcome: Outcome, request: Request, metrics: Sequence[Metric]) -> None:
    from podtool.replace.report_step import PAGE, summary_of, title_of_run
    from podtool.report.text import number, title_of

    state = outcome.state
    rows = [
        (f"{title_of(m)}{f' ({m.subject})' if m.subject else ''}", number(m.value, m.unit))
        for m in summary_of(list(metrics))
    ]
    before = _earlier(outcome)
    for stage, seconds in outcome.seconds.items():
        verdict = outcome.verdicts[stage]
        told = f"{seconds:.1f} s" if verdict.action == "run" else verdict.action
        if verdict.action != "run" and stage in before:
            told += f" ({before[stage]:.1f} s then)"
        rows.append((f"time: {stage}", told))
    voices = ", ".join(f"{label} as {Path(v).stem}" for label, v in state.targets.items())
    shared.table(f"{title_of_run(request.source)}: {voices}", ["", "value"], rows, to_stdout=False)
    if request.output and request.output != "-":
        shared.note(f"result: {request.output}")
        shared.note(f"report: {state.folders['report'] / PAGE}")
        if "transcribe" in state.folders:
            shared.note(f"transcript: {state.folders['transcribe'] / 'utterances.jsonl'}")


def _earlier(outcome: Outcome) -> dict[str, float]:
    """Seconds that each stage took when it ran last, from the journal."""
    return {
        e["stage"]: float(e["seconds"])
        for e in outcome.state.run.journal.events()
        if e["event"] == "finished" and "seconds" in e
    }
