"""The result of a run under the name that was asked for, with tags, mark and provenance."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from podtool.artifacts import Row, Stem, Take
from podtool.audio import blocks, open_audio, sha256_of
from podtool.container import check_suffix, extras_of, subtype_for, write_media
from podtool.errors import OutputError
from podtool.keys import content_of, key_of
from podtool.rendering import MARK, write_provenance
from podtool.replace.plan import Request, State
from podtool.replace.steps import episode_of, voices_of
from podtool.rowio import encode, of_kind
from podtool.rundir import write_json

RECORD = "delivered.json"


def check_output(run_dir: Path, output: Path, force: bool) -> None:
    """Before any work: may the output be written? A file that this run wrote itself may.

    Raises OutputError for an unknown format, a missing folder, or a file that is somebody's.
    """
    check_suffix(output)
    if not output.parent.is_dir():
        raise OutputError(f"the folder {output.parent} does not exist")
    if output.is_dir():
        raise OutputError(f"{output} is a folder")
    if output.exists() and not force and not _ours(run_dir, output):
        raise OutputError(f"{output} exists", "Give --force to overwrite it.")


def deliver(state: State, output: Path) -> bool:
    """Write `output` from the episode of the run; False where it is there already.

    Samples of WAV and FLAC keep the input's depth. What is about to get the name is recorded
    first, so that a run killed in between knows its own file. Raises OutputError.
    """
    request, run_dir = state.request, state.run.path
    sidecar = output.with_name(f"{output.name}.provenance.json")
    key = key_of(_parts(state, request, output))
    record = _record(run_dir)
    there = sha256_of(output) if output.is_file() else ""
    whole = record.get("key") == key and record.get("sha256") == there
    if whole and record.get("output") == str(output) and sidecar.exists() == request.mark:
        return False
    state.run.journal.write("writing", output=str(output))
    making = output.with_name(f".{output.stem}.new{output.suffix}")
    try:
        write_result(state, making)
        made = {"key": key, "output": str(output), "sha256": sha256_of(making), "before": there}
        write_json(run_dir / RECORD, made)
        os.replace(making, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from None
    finally:
        making.unlink(missing_ok=True)
    if request.mark:
        write_provenance(output, _all_rows(state), of_kind(state.rows["synthesize"], Take))
    else:
        sidecar.unlink(missing_ok=True)
    write_json(run_dir / RECORD, {**made, "before": ""})
    state.run.journal.write("written", output=str(output))
    return True


def write_result(state: State, path: Path) -> None:
    """The episode of a run in the format of `path`, with the input's tags and the mark."""
    source = Path(state.request.source)
    lossy = state.audio.decoded != source
    with open_audio(episode_of(state).path) as episode:
        write_media(
            path,
            (block for _, block in blocks(episode)),
            episode.sample_rate,
            episode.channels,
            extras_of(source),
            MARK if state.request.mark else None,
            subtype_for(path.suffix.lower(), state.audio.subtype, lossy),
        )


def _parts(state: State, request: Request, output: Path) -> dict[str, object]:
    return {
        "episode": episode_of(state).sha256,
        "input": state.recording.sha256,
        "suffix": output.suffix.lower(),
        "mark": request.mark,
        "rows": content_of(_all_rows(state)) if request.mark else "",
    }


def _all_rows(state: State) -> list[Row]:
    """Every row of the run once; stems by content, so that the record names no folder."""
    rows: list[Row] = [state.recording, *voices_of(state).values()]
    rows += [r for stage in state.rows.values() for r in stage if not isinstance(r, Stem)]
    return list({encode(row): row for row in rows}.values())


def _record(run_dir: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run_dir / RECORD).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(k): str(v) for k, v in found.items()}
    return {}


def _ours(run_dir: Path, output: Path) -> bool:
    record = _record(run_dir)
    known = {record.get("sha256"), record.get("before")} - {"", None}
    return record.get("output") == str(output) and output.is_file() and sha256_of(output) in known
