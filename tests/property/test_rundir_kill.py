"""A kill before every single file operation, then a re-run: the same tree, nothing done twice.

The run happens in a forked child that leaves by os._exit when its n-th file operation is due, as
SIGKILL would: no handler runs, buffers are lost. With `torn`, the file being opened is left cut.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.artifacts import Metric, Recording, Turn
from podtool.audio import Audio, sha256_of, write_audio
from podtool.keys import content_of
from podtool.rowio import read_rows, write_rows
from podtool.rundir import RunDir
from podtool.rundir.takepool import TakePool

STAGES = ("first", "second")
VOLATILE = {"journal.jsonl", "run.log", "lock"}
RECORDING = Recording("r", "/nowhere.wav", "0" * 64, 8000, 1, 8000)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses no page of the system's cache: fsync is for power cuts, and slow."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def small_run(folder: Path, setting: int) -> None:
    """Two stages with audio and rows, and takes in the pool, as `replace` has them."""
    with RunDir(folder, STAGES) as run:

        def first(part: Path) -> None:
            wave = np.full((1, 80), setting / 100, np.float32)
            write_audio(part / "speech.wav", Audio(wave, 8000), "float")
            turns = [Turn(f"t{i}", "r", i, i + 0.5, "S1") for i in range(3)]
            write_rows([RECORDING, *turns], part / "turns.jsonl")

        one, _ = run.run("first", {"stage": "first", "params": {"setting": setting}}, first)
        rows = read_rows(one / "turns.jsonl")

        def second(part: Path) -> None:
            pool = TakePool(run.pool)
            (part / "clips").mkdir()
            found = []
            for i in range(3):
                key = f"{setting:02d}{i:062d}"
                take = pool.get(key)
                if take is None:
                    run.journal.write("take", key=key)
                    audio = Audio(np.full((1, 40), i / 10, np.float32), 8000)
                    take = pool.put(key, audio, {"similarity": i / 3})
                pool.copy_to(take, part / "clips" / f"k{i}.wav")
                found.append(Metric("similarity", take.facts["similarity"], "", f"k{i}"))
            write_rows(found, part / "takes.jsonl")

        inputs = {"turns": content_of(rows), "setting": setting}
        run.run("second", {"stage": "second", "inputs": inputs}, second)


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): sha256_of(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in VOLATILE
    }


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"}


def in_child(work: Callable[[], None], folder: Path, kill_at: int, torn: bool) -> int:
    """Run `work` in a child that dies before file operation `kill_at`; its exit status.

    Status 9: killed. 0: it came to its end. 1: it raised.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = args
            if not isinstance(path, str) or not flags & WRITES:
                return
        elif event in OPERATIONS:
            path = args[0]
        else:
            return
        if not str(path).startswith(str(folder)):
            return
        count += 1
        if count == kill_at:
            if torn and event == "open" and not os.path.exists(path):
                count += 1  # the open below comes here again
                os.write(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), b'{"kind": "tu')
            os._exit(9)

    sys.addaudithook(hook)
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("older", [None, 1])
def test_a_kill_before_any_file_operation_leaves_nothing_to_repair(
    tmp_path: Path, older: int | None, torn: bool
) -> None:
    plain = tmp_path / "plain"
    if older is not None:
        small_run(plain, older)
    small_run(plain, 2)
    wanted = tree(plain)
    kills = 0
    for kill_at in range(1, 500):
        folder = tmp_path / f"kill{kill_at}"
        if older is not None:
            small_run(folder, older)
        status = in_child(lambda folder=folder: small_run(folder, 2), folder, kill_at, torn)  # type: ignore[misc]
        assert status in (0, 9)
        kills += status == 9
        with RunDir(folder, STAGES):
            pass  # a run that does nothing but sweep must not lose anything either
        small_run(folder, 2)
        assert tree(folder) == wanted, f"killed before operation {kill_at}"
        once(RunDir(folder, STAGES).journal.events(), kill_at)
        if status == 0:
            break
    assert status == 0 and kills >= 20


def once(events: list[dict[str, Any]], kill_at: int) -> None:
    """No stage starts again after it finished with the same key."""
    finished: set[tuple[str, str]] = set()
    for event in events:
        what = (event.get("stage", ""), event.get("key", ""))
        if event["event"] == "started":
            assert what not in finished, f"{what} was done twice after kill {kill_at}"
        elif event["event"] == "finished":
            finished.add(what)


def test_takes_finished_before_a_kill_are_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made: list[int] = []
    for kill_at in range(1, 200):
        for path in folder.rglob("*") if folder.exists() else []:
            assert not path.name.endswith(".gone")
        before = {p.name for p in (folder / "takes").glob("*.wav") if ".part" not in p.name}
        status = in_child(lambda: small_run(folder, 2), folder, kill_at, False)
        events = RunDir(folder, STAGES).journal.events()
        made.append(sum(e["event"] == "take" for e in events))
        assert before <= {p.name for p in (folder / "takes").glob("*.wav")}
        if status == 0:
            break
    keys = [e["key"] for e in events if e["event"] == "take"]
    finished = {p.stem for p in (folder / "takes").glob("*.wav")}
    assert finished == set(keys) and len(finished) == 3
