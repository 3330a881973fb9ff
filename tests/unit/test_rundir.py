"""Run directories: reuse, pins, damage, the lock, what is told."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.artifacts import Provenance, Recording, Turn
from podtool.audio import Audio, write_audio
from podtool.errors import InputError, OutputError
from podtool.keys import canonical, content_of, first_difference, key_of, row_seed
from podtool.rowio import write_rows
from podtool.rundir import RunDir, read_done
from podtool.rundir.journal import Journal
from podtool.rundir.takepool import TakePool

STAGES = ("diarize", "synthesize")
TURNS = [Turn("t0001", "r", 0.0, 1.0, "S1"), Turn("t0002", "r", 1.0, 2.0, "S2")]


def build(part: Path) -> None:
    write_rows(TURNS, part / "turns.jsonl")
    write_audio(part / "speech.wav", Audio(np.zeros((1, 100), np.float32), 8000), "float")


def never(_: Path) -> None:
    raise AssertionError("this stage was to be reused")


def parts(**params: Any) -> dict[str, Any]:
    return {"stage": "diarize", "params": params, "inputs": {"recording": "ab"}}


@pytest.fixture()
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "ep.podtool"
    with RunDir(folder, STAGES) as run:
        run.run("diarize", parts(hop_s=2.5), build)
    return folder


def test_a_finished_stage_is_reused_and_done_json_tells_its_hashes(finished: Path) -> None:
    done = read_done(finished / "diarize")
    assert done is not None and set(done.outputs) == {"turns.jsonl", "speech.wav"}
    assert done.key == key_of(parts(hop_s=2.5))
    with RunDir(finished, STAGES) as run:
        _, verdict = run.run("diarize", parts(hop_s=2.5), never)
    assert verdict.action == "reuse"


def test_a_changed_setting_runs_the_stage_and_is_named(finished: Path) -> None:
    with RunDir(finished, STAGES) as run:
        verdict = run.verdict("diarize", parts(hop_s=3.0))
        assert (verdict.action, verdict.differs) == ("run", "params.hop_s")
        run.run("diarize", parts(hop_s=3.0), build)
        assert run.verdict("diarize", parts(hop_s=3.0)).action == "reuse"


def test_an_edit_pins_the_stage_whatever_the_key_says(
    finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = finished / "diarize" / "turns.jsonl"
    rows.write_text(rows.read_text().replace('"S2"', '"S1"'))
    with caplog.at_level(logging.WARNING, "podtool"), RunDir(finished, STAGES) as run:
        logging.getLogger("podtool").propagate = True
        _, verdict = run.run("diarize", parts(hop_s=9.0), never)
    assert verdict.action == "pinned" and verdict.differs == "params.hop_s"
    assert "edited by hand" in caplog.text and "params.hop_s" in caplog.text
    assert '"S2"' not in rows.read_text()


def test_a_broken_edit_is_refused_with_file_and_line(finished: Path) -> None:
    rows = finished / "diarize" / "turns.jsonl"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([lines[0], lines[1].replace('"end": 2.0', '"end": 0.5')]) + "\n")
    with RunDir(finished, STAGES) as run, pytest.raises(InputError, match=r"turns.jsonl, line 2"):
        run.run("diarize", parts(hop_s=2.5), build)


def test_restart_from_drops_the_pin(finished: Path) -> None:
    rows = finished / "diarize" / "turns.jsonl"
    original = rows.read_bytes()
    rows.write_text(rows.read_text().replace('"S2"', '"S1"'))
    with RunDir(finished, STAGES) as run:
        run.forget_from("diarize")
        run.run("diarize", parts(hop_s=2.5), build)
    assert rows.read_bytes() == original
    with RunDir(finished, STAGES) as run, pytest.raises(InputError, match="no stage 'bake'"):
        run.forget_from("bake")


def test_changed_or_missing_audio_is_damage_and_made_again(finished: Path) -> None:
    wav = finished / "diarize" / "speech.wav"
    good = wav.read_bytes()
    for damage in (good[:-4], None):
        wav.unlink()
        if damage is not None:
            wav.write_bytes(damage)
        with RunDir(finished, STAGES) as run:
            _, verdict = run.run("diarize", parts(hop_s=2.5), build)
        assert verdict.action == "run" and "damaged" in verdict.reason
        assert wav.read_bytes() == good


def test_an_edit_beside_damaged_audio_is_never_overwritten(finished: Path) -> None:
    rows = finished / "diarize" / "turns.jsonl"
    rows.write_text(rows.read_text().replace('"S2"', '"S1"'))
    (finished / "diarize" / "speech.wav").unlink()
    with RunDir(finished, STAGES) as run, pytest.raises(InputError, match="speech.wav"):
        run.run("diarize", parts(hop_s=2.5), build)
    assert '"S2"' not in rows.read_text()


def test_a_failed_stage_leaves_the_older_one(finished: Path) -> None:
    before = (finished / "diarize" / "turns.jsonl").read_bytes()

    def fails(part: Path) -> None:
        build(part)
        raise ValueError("no")

    with RunDir(finished, STAGES) as run, pytest.raises(ValueError):
        run.run("diarize", parts(hop_s=3.0), fails)
    assert (finished / "diarize" / "turns.jsonl").read_bytes() == before
    assert not list(finished.glob("*.part"))
    assert RunDir(finished, STAGES).journal.events()[-1]["event"] == "failed"


def test_artifacts_hold_no_times(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "later"
    with RunDir(other, STAGES) as run:
        run.run("diarize", parts(hop_s=2.5), build)
    for path in sorted((finished / "diarize").iterdir()):
        assert path.read_bytes() == (other / "diarize" / path.name).read_bytes()


def test_two_runs_in_one_folder_name_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    code = (
        "import sys; from podtool.rundir import RunDir\n"
        f"with RunDir({str(folder)!r}, ('a',)): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError) as caught, RunDir(folder, ("a",)):
            pass
        assert str(other.pid) in caught.value.message
        assert socket.gethostname() in caught.value.message
        other.kill()
        other.wait()
    with RunDir(folder, ("a",)):  # the system dropped the lock of the killed process
        with pytest.raises(OutputError, match=str(os.getpid())), RunDir(folder, ("a",)):
            pass
        assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
    assert (folder / "lock").read_text() == ""


def test_a_run_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError), RunDir(tmp_path / "file", STAGES):
        pass


def test_the_journal_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("started", stage="a")
    with path.open("a") as stream:
        stream.write('{"event": "fin')
    journal.write("finished", stage="a", seconds=1.0)
    assert [e["event"] for e in journal.events()] == ["started", "finished"]


def test_everything_is_logged_to_run_log_and_the_console_keeps_its_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("podtool")
    console = logging.StreamHandler(sys.stderr)
    old_level, old_handlers = logger.level, logger.handlers[:]
    logger.handlers[:] = [console]
    logger.setLevel(logging.WARNING)
    try:
        with RunDir(tmp_path / "run", STAGES):
            logging.getLogger("podtool.x").debug("a detail")
        assert logger.level == logging.WARNING and console.level == logging.NOTSET
    finally:
        logger.handlers[:] = old_handlers
        logger.setLevel(old_level)
    assert "a detail" in (tmp_path / "run" / "run.log").read_text()
    assert "a detail" not in capsys.readouterr().err


# ---------------------------------------------------------------- keys


def test_content_ignores_path_and_provenance_but_nothing_else() -> None:
    here = Recording("r", "/a/r.wav", "1" * 64, 8000, 1, 100)
    there = Recording("r", "/b/r.wav", "1" * 64, 8000, 1, 100)
    other = Recording("r", "/a/r.wav", "2" * 64, 8000, 1, 100)
    assert content_of([here]) == content_of([Provenance("diarize", "0.1"), there])
    assert content_of([here]) != content_of([other])
    assert content_of(TURNS) != content_of(TURNS[::-1])


def test_keys_do_not_depend_on_the_order_of_names() -> None:
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert canonical({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'


def test_the_first_difference_is_named() -> None:
    old = {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert first_difference(old, {"a": {"x": 1, "y": 2}, "b": [1, 2]}) is None
    assert first_difference(old, {"a": {"x": 1, "y": 3}, "b": [1]}) == "a.y"
    assert first_difference(old, {"a": {"x": 1}, "b": [1, 2]}) == "a.y"
    assert first_difference(old, {"a": {"x": 1, "y": 2}, "b": [2, 1]}) == "b"


def test_row_seeds_differ_by_row_and_run() -> None:
    seeds = {row_seed(run, row) for run in (0, 1) for row in ("k0001", "k0002")}
    assert len(seeds) == 4 and row_seed(0, "k0001") == row_seed(0, "k0001")


# ---------------------------------------------------------------- pool


def test_the_pool_notices_a_damaged_take_and_prunes(tmp_path: Path) -> None:
    pool = TakePool(tmp_path / "takes")
    audio = Audio(np.ones((1, 10), np.float32), 8000)
    assert pool.get("aa") is None
    pool.put("aa", audio, {"similarity": 0.5})
    pool.put("bb", audio, {})
    taken = pool.get("aa")
    assert taken is not None and taken.facts == {"similarity": 0.5}
    pool.copy_to(taken, tmp_path / "k0001.wav")
    assert (tmp_path / "k0001.wav").read_bytes() == taken.path.read_bytes()
    with taken.path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x01")
    assert pool.get("aa") is None
    removed, freed = pool.prune(["aa"])
    assert removed == 2 and freed > 40 and pool.get("bb") is None


FULL = """
import resource, signal, sys
import numpy as np
from podtool.audio import Audio, write_audio
from podtool.rundir import RunDir
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
def build(size):
    audio = Audio(np.zeros((1, size), np.float32), 8000)
    return lambda part: write_audio(part / "speech.wav", audio, "float")
with RunDir(sys.argv[1], ("diarize", "synthesize")) as run:
    run.run("diarize", {"stage": "diarize"}, build(100))
    run.run("synthesize", {"stage": "synthesize"}, build(100_000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", FULL, folder], capture_output=True, text=True)
    assert done.returncode == 1 and "OutputError" in done.stderr
    assert "Logging error" not in done.stderr
    assert not (folder / "synthesize").exists() and not list(folder.glob("*.part"))
    with RunDir(folder, STAGES) as run:
        _, verdict = run.run("diarize", {"stage": "diarize"}, never)
    assert verdict.action == "reuse"
