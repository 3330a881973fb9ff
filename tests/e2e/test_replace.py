"""replace from end to end with the real engines, on half a minute of the demo's real speech."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from podtool import demo
from podtool.artifacts import Metric, Take, Turn
from podtool.audio import Audio, open_audio, sha256_of, write_audio
from podtool.errors import ModelError
from podtool.rowio import of_kind, parse_rows, read_rows, write_rows
from podtool.store import ModelStore

pytestmark = [pytest.mark.models, pytest.mark.slow]
SECONDS = 26.0
CONSENT = ("--consent", "public domain reading, for tests")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """episode.wav (stereo, two readers over music), voice.wav, voice.jsonl."""
    store = ModelStore()
    try:
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
    except ModelError as error:
        pytest.skip(f"{error.message}: podtool models pull embedded")
    folder = tmp_path_factory.mktemp("material")
    stop = round(SECONDS * made.episode.sample_rate)
    episode = Audio(made.episode.samples[:, :stop], made.episode.sample_rate)
    write_audio(folder / "episode.wav", episode)
    write_audio(folder / "voice.wav", made.voice)
    return folder


@pytest.fixture(scope="module")
def first(material: Path, app: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run: new.wav, new.podtool."""
    from typer.testing import CliRunner

    folder = tmp_path_factory.mktemp("first")
    done = CliRunner().invoke(app, words(material, folder / "new.wav", "--json"))
    assert done.exit_code == 0, done.stderr
    (folder / "stdout.jsonl").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


def words(material: Path, output: Path, *more: object) -> list[str]:
    voice = ("--speaker", "S1", "--voice", material / "voice.wav", *CONSENT)
    parts = ("replace", material / "episode.wav", *voice, "-o", output, *more)
    return [str(p) for p in parts]


@pytest.fixture()
def copy(first: Path, tmp_path: Path) -> Path:
    """The finished run in a folder of its own, that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(first, folder)
    delivered = folder / "new.podtool" / "delivered.json"
    delivered.write_text(delivered.read_text().replace(str(first), str(folder)))
    return folder


def takes_of(folder: Path) -> list[Take]:
    return of_kind(read_rows(folder / "new.podtool" / "synthesize" / "takes.jsonl"), Take)


def events(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "new.podtool" / "journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def started(folder: Path, before: int) -> list[str]:
    return [e["stage"] for e in events(folder)[before:] if e["event"] == "started"]


def test_the_rest_of_the_episode_is_untouched_to_the_bit(material: Path, first: Path) -> None:
    old, rate = soundfile.read(material / "episode.wav", dtype="float64", always_2d=True)
    new, new_rate = soundfile.read(first / "new.wav", dtype="float64", always_2d=True)
    assert new.shape == old.shape and rate == new_rate
    changed = np.zeros(len(old), bool)
    takes = takes_of(first)
    assert takes
    for take in takes:
        changed[round(take.start * rate) : round(take.end * rate)] = True
    assert np.array_equal(new[~changed], old[~changed])
    assert float(np.abs(new[changed] - old[changed]).max()) > 0.01
    assert (~changed).sum() > 5 * rate


def test_each_take_fills_its_turn_to_the_sample(material: Path, first: Path) -> None:
    rows = read_rows(first / "new.podtool" / "diarize" / "turns.jsonl")
    turns = {t.id: t for t in of_kind(rows, Turn)}
    for take in takes_of(first):
        turn = turns[take.turn or ""]
        assert (take.start, take.end, take.speaker) == (turn.start, turn.end, "S1")
        with open_audio(take.path) as audio:
            assert audio.frames == take.frames
            assert audio.frames == round(turn.end * 44100) - round(turn.start * 44100)


def test_the_numbers_and_the_table(first: Path) -> None:
    lines = (first / "stdout.jsonl").read_text().splitlines()
    found = {(m.name, m.subject): m.value for m in of_kind(parse_rows(lines, "stdout"), Metric)}
    assert found["null_test_peak", None] == 0.0
    assert found["stems_sum_error", None] == 0.0
    assert found["drift_ms", "S1"] == 0.0
    assert found["similarity", "S1"] > found["similarity_before", "S1"]
    assert abs(found["lufs", None] - found["lufs_before", None]) < 1.5
    told = (first / "stderr.txt").read_text()
    for words_ in ("turns replaced", "null test", "time: synthesize", "report.html", "new.wav"):
        assert words_ in told


def test_the_same_turns_as_diarize(run: Run, material: Path, first: Path) -> None:
    done = run("diarize", material / "episode.wav")
    assert done.exit_code == 0, done.stderr
    alone = of_kind(parse_rows(done.stdout.splitlines(), "stdout"), Turn)
    inside = of_kind(read_rows(first / "new.podtool" / "diarize" / "turns.jsonl"), Turn)
    assert alone == inside and {t.speaker for t in alone} == {"S1", "S2"}


def test_mark_and_provenance(first: Path) -> None:
    record = json.loads((first / "new.wav.provenance.json").read_text())
    assert record["synthetic"] and record["sha256"] == sha256_of(first / "new.wav")
    assert record["voices"][0]["consent"]["statement"] == CONSENT[1]
    assert b"synthetic speech" in (first / "new.wav").read_bytes()[-4000:]


def test_the_report_is_there_with_every_take(first: Path) -> None:
    page = (first / "new.podtool" / "report" / "report.html").read_text()
    assert page.count("<article") == len(takes_of(first))
    assert page.count("<audio") == 3 * len(takes_of(first))


def test_a_second_run_does_no_work(run: Run, material: Path, copy: Path) -> None:
    before, stamp = len(events(copy)), (copy / "new.wav").stat().st_mtime_ns
    done = run(*words(material, copy / "new.wav"))
    assert done.exit_code == 0, done.stderr
    assert started(copy, before) == []
    assert (copy / "new.wav").stat().st_mtime_ns == stamp


def test_an_edit_of_the_turns_is_used_and_told(run: Run, material: Path, copy: Path) -> None:
    rows = copy / "new.podtool" / "diarize" / "turns.jsonl"
    takes = takes_of(copy)
    dropped = takes[-1].turn
    kept = [r for r in read_rows(rows) if not (isinstance(r, Turn) and r.id == dropped)]
    write_rows(kept, rows)
    edited = rows.read_bytes()
    before = len(events(copy))
    done = run(*words(material, copy / "new.wav"))
    assert done.exit_code == 0, done.stderr
    assert "edited by hand" in done.stderr and rows.read_bytes() == edited
    assert [t.id for t in takes_of(copy)] == [t.id for t in takes[:-1]]
    assert {"clone", "diarize", "decode"}.isdisjoint(started(copy, before))
    explained = run("runs", "explain", copy / "new.podtool", "--json")
    actions = {r["stage"]: r["action"] for r in map(json.loads, explained.stdout.splitlines())}
    assert actions["diarize"] == "pinned" and actions["report"] == "reuse"


def test_a_lost_take_alone_is_made_again(run: Run, material: Path, copy: Path) -> None:
    folder = copy / "new.podtool"
    original = {t.id: t.sha256 for t in takes_of(copy)}
    victim = takes_of(copy)[0]
    for path in [*folder.glob("takes/*.wav"), Path(victim.path)]:
        if path.exists() and sha256_of(path) == victim.sha256:
            path.unlink()
    before = len(events(copy))
    done = run(*words(material, copy / "new.wav"))
    assert done.exit_code == 0, done.stderr
    made = [e["take"] for e in events(copy)[before:] if e["event"] == "take"]
    assert made == [victim.id]
    assert started(copy, before) == ["synthesize"]  # its result is the same: nothing follows
    assert {t.id: t.sha256 for t in takes_of(copy)} == original


def test_master_changes_the_end_alone(run: Run, material: Path, copy: Path) -> None:
    before = len(events(copy))
    done = run(*words(material, copy / "new.wav", "--master", "apple", "--json"))
    assert done.exit_code == 0, done.stderr
    assert started(copy, before) == ["reconstruct", "check", "report"]
    rows = of_kind(parse_rows(done.stdout.splitlines(), "stdout"), Metric)
    found = {m.name: m.value for m in rows if m.subject is None}
    assert found["lufs"] == pytest.approx(-16, abs=0.3) and found["true_peak_dbtp"] <= -1.0
    assert found["null_test_peak"] == 0.0


def test_a_stranger_is_refused_with_the_speakers_there_are(
    run: Run, material: Path, copy: Path
) -> None:
    parts = words(material, copy / "new.wav")
    done = run(*[p if p != "S1" else "S7" for p in parts])
    assert done.exit_code == 3 and "S7" in done.stderr and "S1" in done.stderr
    assert done.stdout == ""


def test_without_a_speaker_they_are_listed(run: Run, material: Path, copy: Path) -> None:
    done = run("replace", material / "episode.wav", "-o", copy / "new.wav")
    assert done.exit_code == 2 and done.stdout == ""
    for said in ("S1", "S2", "hear them at"):
        assert said in done.stderr


def test_a_dry_run_writes_nothing(run: Run, material: Path, tmp_path: Path) -> None:
    done = run(*words(material, tmp_path / "new.wav", "--dry-run", "--json"))
    assert done.exit_code == 0, done.stderr
    stages = [json.loads(line)["stage"] for line in done.stdout.splitlines()]
    assert stages[0] == "decode" and stages[-1] == "report"
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_output_is_not_overwritten(run: Run, material: Path, tmp_path: Path) -> None:
    (tmp_path / "new.wav").write_bytes(b"mine")
    done = run(*words(material, tmp_path / "new.wav"))
    assert done.exit_code == 8 and (tmp_path / "new.wav").read_bytes() == b"mine"
    assert not (tmp_path / "new.podtool").exists()


def test_speakers_by_clip_and_given_turns(
    run: Run, material: Path, first: Path, tmp_path: Path
) -> None:
    """--turns with an edited diarization, --speaker with a recording of the person, mp3 out."""
    turns = of_kind(read_rows(first / "new.podtool" / "diarize" / "turns.jsonl"), Turn)
    longest = max((t for t in turns if t.speaker == "S1"), key=lambda t: t.end - t.start)
    with open_audio(material / "episode.wav") as audio:
        clip = audio.read(round(longest.start * 44100), round(longest.end * 44100))
    write_audio(tmp_path / "person.wav", clip)
    rows = [r for r in read_rows(first / "new.podtool" / "diarize" / "turns.jsonl")]
    keep = [r for r in rows if not isinstance(r, Turn) or r.id == longest.id or r.speaker == "S2"]
    write_rows(keep, tmp_path / "turns.jsonl")
    profile = first / "new.podtool" / "clone" / "voices.jsonl"
    who = ("--speaker", tmp_path / "person.wav", "--voice", profile)
    output = tmp_path / "new.mp3"
    done = run(
        "replace", material / "episode.wav", *who, "--turns", tmp_path / "turns.jsonl", "-o", output
    )
    assert done.exit_code == 0, done.stderr
    assert [t.turn for t in takes_of(tmp_path)] == [longest.id]
    with open_audio(output) as audio:
        assert audio.frames / audio.sample_rate == pytest.approx(SECONDS, abs=0.1)


def test_interrupted_killed_and_resumed(
    run: Run, material: Path, first: Path, tmp_path: Path
) -> None:
    """Ctrl-C, then SIGKILL in the middle of the takes, then again: the tree of one whole run."""
    command = [sys.executable, "-m", "podtool", *words(material, tmp_path / "new.wav")]
    with stopped(command, tmp_path, signal.SIGINT, lambda e: e.get("stage") == "diarize") as ended:
        assert ended.returncode == 130 and "Traceback" not in ended.stderr
    folder = tmp_path / "new.podtool"
    assert not list(folder.glob("*.part")) and not (tmp_path / "new.wav").exists()
    with stopped(command, tmp_path, signal.SIGKILL, lambda e: e["event"] == "take"):
        kept = {p.name for p in (folder / "takes").glob("*.wav")}
    done = run(*words(material, tmp_path / "new.wav"))
    assert done.exit_code == 0, done.stderr
    assert tree(tmp_path) == tree(first)
    finished: set[tuple[str, str]] = set()
    for event in events(tmp_path):
        what = (event.get("stage", event.get("take", "")), event.get("key", ""))
        assert not (event["event"] in ("started", "take") and what in finished), what
        if event["event"] in ("finished", "take"):
            finished.add(what)
    assert kept <= {p.name for p in (folder / "takes").glob("*.wav")}


@contextlib.contextmanager
def stopped(
    command: list[str], folder: Path, how: signal.Signals, when: Callable[[dict[str, Any]], bool]
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run a command and send it a signal as soon as its journal holds a certain event."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if any(when(e) for e in events(folder)):
                    break
            time.sleep(0.05)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    yield subprocess.CompletedProcess(command, process.returncode, "", said)


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all that a run leaves, times aside; the folder's own name taken out of rows."""
    volatile = {"journal.jsonl", "run.log", "lock", "run.json", "stdout.jsonl", "stderr.txt"}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in volatile:
            content = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def test_speaking_an_edited_text(run: Run, material: Path, copy: Path) -> None:
    """--method speak: one changed text makes one take again."""
    pytest.importorskip("espeakng_loader")
    speak = ("--method", "speak", "--allow-draft")
    done = run(*words(material, copy / "new.wav", *speak))
    assert done.exit_code in (0, 9), done.stderr
    takes = takes_of(copy)
    assert takes and all(t.method == "speak" and t.text for t in takes)
    text = copy / "new.podtool" / "transcribe" / "utterances.jsonl"
    longest = max(takes, key=lambda t: t.end - t.start)
    changed = text.read_text().replace(longest.text or "", "It was a very good day for all.", 1)
    text.write_text(changed)
    before = len(events(copy))
    done = run(*words(material, copy / "new.wav", *speak))
    assert done.exit_code in (0, 9), done.stderr
    made = [e["take"] for e in events(copy)[before:] if e["event"] == "take"]
    assert made == [longest.id]
    assert os.path.exists(copy / "new.wav")
