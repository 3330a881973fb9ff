"""replace and runs: what is refused before any work, with which exit code, and what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]
CONSENT = ("--consent", "mine")


def nothing_left(folder: Path, *known: Path) -> bool:
    return {p for p in folder.iterdir() if p.name != "home"} == set(known)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--speaker", "S1"), 2, "which voice is S1 to have?"),
        (("--speaker", "S1", "--voice", "VOICE"), 2, "consent"),
        (("--speaker", "S1", "--voice", "no.wav", *CONSENT), 3, "no.wav"),
        (("--map", "S1", *CONSENT), 2, "is not SPEAKER=VOICE"),
        (("--map", "S1=VOICE", "--map", "S1=VOICE", *CONSENT), 2, "mapped twice"),
        (("--map", "S1=VOICE", "--speaker", "S1", *CONSENT), 2, "--map takes the place"),
        (("--method", "sing"), 2, "--method is one of convert, speak"),
        (("--overlap", "drop"), 2, "--overlap is one of keep"),
        (("--bed", "soft"), 2, "--bed is one of auto"),
        (("--check", "mos"), 2, "no check 'mos'"),
        (("--set", "diarize.nonsense=1"), 4, "nonsense"),
        (("--preset", "nowhere"), 4, "nowhere"),
        (("--min-speakers", "5", "--max-speakers", "2"), 3, "at least 5"),
        (("--overlap", "separate"), 6, "podtool models pull"),
        (("--set", "reconstruct.master=loud", "--speaker", "S1", "--voice", "VOICE", *CONSENT),
         4, "no master"),
    ],
)  # fmt: skip
def test_refused_before_any_work(
    run: Run,
    tone: Path,
    tmp_path: Path,
    own_home: Path,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    parts = [str(tone) if w == "VOICE" else w.replace("VOICE", str(tone)) for w in words]
    done = run("replace", tone, "-o", tmp_path / "new.wav", *parts)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert nothing_left(tmp_path, tone)


def test_the_voice_without_an_output(run: Run, tone: Path, tmp_path: Path) -> None:
    done = run("replace", tone, "--speaker", "S1", "--voice", tone, *CONSENT)
    assert done.exit_code == 2 and "where to?" in done.stderr


def test_an_unknown_suffix_and_the_episode_itself_are_no_outputs(
    run: Run, tone: Path, tmp_path: Path
) -> None:
    who = ("--speaker", "S1", "--voice", tone, *CONSENT)
    done = run("replace", tone, *who, "-o", tmp_path / "new.xyz")
    assert done.exit_code == 8 and "xyz" in done.stderr
    before = tone.read_bytes()
    done = run("replace", tone, *who, "-o", tone, "--force")
    assert done.exit_code == 8 and "overwrite the episode" in done.stderr
    assert tone.read_bytes() == before and nothing_left(tmp_path, tone)


@pytest.mark.parametrize("content", [None, b"", b"not audio at all\n"])
def test_a_bad_episode_leaves_no_run_directory(
    run: Run, tone: Path, tmp_path: Path, content: bytes | None
) -> None:
    episode = tmp_path / "ep.wav"
    if content is not None:
        episode.write_bytes(content)
    who = ("--speaker", "S1", "--voice", tone, *CONSENT)
    done = run("replace", episode, *who, "-o", tmp_path / "new.wav")
    assert done.exit_code == 3 and "ep.wav" in done.stderr and done.stdout == ""
    assert not (tmp_path / "new.podtool").exists()


def test_a_run_directory_that_is_something_else(run: Run, tone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    done = run("replace", tone, "--run-dir", folder, "-o", tmp_path / "new.wav")
    assert done.exit_code == 8 and "other things" in done.stderr
    assert [p.name for p in folder.iterdir()] == ["cat.jpg"]


def test_runs_in_a_folder_without_any(run: Run, tmp_path: Path) -> None:
    done = run("runs", "list", tmp_path)
    assert done.exit_code == 0 and done.stdout == ""
    for command in ("explain", "clean"):
        done = run("runs", command, tmp_path)
        assert done.exit_code == 3 and "not a run directory" in done.stderr
