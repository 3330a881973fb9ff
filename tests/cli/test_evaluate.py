"""`podtool evaluate` on rows, exchange formats, text and audio, and its gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from podtool.artifacts import Recording, Row, Turn, Utterance, Word
from podtool.audio import Audio, write_audio
from podtool.rowio import encode, write_rows

Run = Callable[..., Result]


def values(result: Result) -> dict[str, Any]:
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(r["kind"] == "metric" for r in rows)
    return {r["name"] + (f"@{r['subject']}" if "subject" in r else ""): r["value"] for r in rows}


@pytest.fixture()
def files(tmp_path: Path) -> dict[str, Path]:
    reference: list[Row] = [
        Recording("ep", "/nowhere", "0" * 64, 100, 1, 3000),
        Utterance("u1", "ep", 0, 10, "one two three", "A",
                  words=(Word("one", 0, 1), Word("two", 1, 2), Word("three", 2, 3))),
        Utterance("u2", "ep", 10, 20, "four", "B", words=(Word("four", 10, 11),)),
    ]  # fmt: skip
    found: list[Row] = [
        Turn("t1", "other", 2, 11, "S1"),
        Turn("t2", "other", 11, 23, "S2"),
        Utterance("u1", "other", 2, 11, "one too three", "S1",
                  words=(Word("one", 0.1, 1), Word("too", 1, 2), Word("three", 2.3, 3))),
        Utterance("u2", "other", 11, 23, "four", "S2", words=(Word("four", 10, 11.5),)),
    ]  # fmt: skip
    paths = {n: tmp_path / f"{n}.jsonl" for n in ("reference", "found")}
    write_rows(reference, paths["reference"])
    write_rows(found, paths["found"])
    return paths


def test_everything_that_rows_allow(run: Run, files: dict[str, Path]) -> None:
    result = run("evaluate", files["found"], "-r", files["reference"], "--collar", 0)
    assert result.exit_code == 0, result.stderr
    got = values(result)
    assert got["der"] == pytest.approx(6 / 20)
    assert got["der_missed"] == pytest.approx(2 / 20)
    assert got["jer"] == pytest.approx((3 / 11 + 4 / 13) / 2, abs=1e-6)
    assert got["wer"] == got["cpwer"] == got["tcpwer"] == 0.25
    assert (got["speakers_reference"], got["speakers_found"]) == (2, 2)
    assert got["word_start_error"] == pytest.approx(0.4 / 3, abs=1e-6)
    assert got["words_matched"] == 0.75
    assert "der" in result.stderr and "collar_s 0.0" in result.stderr


def test_json_keeps_the_table_away(run: Run, files: dict[str, Path]) -> None:
    result = run("evaluate", files["found"], "-r", files["reference"], "--json")
    assert result.stderr == ""
    assert values(result)["der"] < 6 / 20  # the default collar forgives


def test_stdin_and_chosen_metrics(run: Run, files: dict[str, Path]) -> None:
    text = files["found"].read_text()
    result = run("evaluate", "-", "-r", files["reference"], "--metric", "wer", input=text)
    assert values(result) == {"wer": 0.25}
    both = run("evaluate", "-", "-r", "-", input=text)
    assert both.exit_code == 2


def test_the_gate(run: Run, files: dict[str, Path]) -> None:
    args = ["evaluate", files["found"], "-r", files["reference"]]
    assert run(*args, "--fail-under", "wer=0.25").exit_code == 0
    result = run(*args, "--fail-under", "wer=0.2", "--fail-under", "words_matched=0.9")
    assert result.exit_code == 10
    assert "check-failed: wer is 0.25, worse than 0.2; words_matched is 0.75" in result.stderr
    assert values(result)["wer"] == 0.25  # the figures are there all the same
    unknown = run(*args, "--fail-under", "si_sdr=3")
    assert (unknown.exit_code, "si_sdr was not measured" in unknown.stderr) == (3, True)
    assert run(*args, "--fail-under", "wer").exit_code == 2
    assert run(*args, "--fail-under", "wer=nan").exit_code == 2


def test_several_recordings(run: Run, tmp_path: Path) -> None:
    line = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"
    reference = tmp_path / "reference.rttm"
    reference.write_text(line.format("a", 0, 10, "X") + line.format("b", 0, 30, "Y"))
    found = tmp_path / "found.rttm"
    found.write_text(line.format("a", 0, 5, "S1") + line.format("c", 0, 30, "S1"))
    result = run("evaluate", found, "-r", reference, "--collar", 0)
    got = values(result)
    assert (got["der@a"], got["der@b"], got["der"]) == (0.5, 1.0, 35 / 40)
    assert "c has no reference" in result.stderr
    assert "nothing was found of b" in result.stderr
    other = tmp_path / "other.rttm"
    other.write_text(line.format("x", 0, 1, "S1") + line.format("y", 0, 1, "S1"))
    assert run("evaluate", other, "-r", reference).exit_code == 3


def test_plain_text(run: Run, files: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "reference.txt"
    text.write_text("One, two: THREE.\nfour five")
    got = values(run("evaluate", files["found"], "-r", text))
    assert got["wer"] == pytest.approx(2 / 5)
    assert set(got) == {"wer", "cer"}


def test_an_empty_diarization_is_scored_not_refused(run: Run, files: dict[str, Path]) -> None:
    recording = encode(Recording("ep", "/nowhere", "0" * 64, 100, 1, 3000))
    result = run("evaluate", "-", "-r", files["reference"], input=recording + "\n")
    assert result.exit_code == 0, result.stderr
    got = values(result)
    assert (got["der"], got["wer"], got["cpwer"]) == (1.0, 1.0, 1.0)


def test_audio(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = 0.1 * rng.standard_normal((1, 48000))
    noise = 0.1 * rng.standard_normal((1, 48000))
    paths = {}
    for name, samples in {
        "clean": clean, "mixed": clean + noise, "better": clean + 0.1 * noise,
        "short": clean[:, :100], "stereo": np.repeat(clean + 0.1 * noise, 2, axis=0),
    }.items():  # fmt: skip
        paths[name] = tmp_path / f"{name}.wav"
        write_audio(paths[name], Audio(samples.astype(np.float32), 16000), subtype="float")
    got = values(
        run(
            "evaluate", paths["better"], "-r", paths["clean"], "--mixture", paths["mixed"],
            "--metric", "si_sdr", "--metric", "loudness",
        )
    )  # fmt: skip
    assert got["si_sdr"] == pytest.approx(20.0, abs=0.2)
    assert got["si_sdr_improvement"] == pytest.approx(20.0, abs=0.2)
    assert got["lufs_difference"] == pytest.approx(0.04, abs=0.03)
    mono = values(run("evaluate", paths["stereo"], "-r", paths["clean"], "--metric", "si_sdr"))
    assert mono["si_sdr"] == pytest.approx(got["si_sdr"], abs=1e-3)
    short = run("evaluate", paths["short"], "-r", paths["clean"], "--metric", "si_sdr")
    assert (short.exit_code, short.stdout) == (3, "")
    assert "same rate, channels and length" in short.stderr


def test_without_weights_the_rest_is_measured(run: Run, tone: Path, own_home: Path) -> None:
    result = run("evaluate", tone, "-r", tone)
    assert result.exit_code == 0, result.stderr
    assert values(result)["si_sdr"] == 150.0
    assert "no similarity: " in result.stderr
    asked = run("evaluate", tone, "-r", tone, "--metric", "similarity")
    assert (asked.exit_code, asked.stdout) == (6, "")
    assert "podtool models pull" in asked.stderr


@pytest.mark.models
def test_similarity_of_real_voices(run: Run, data: Path) -> None:
    folder = data / "read"
    speakers = sorted(p for p in (folder / "librispeech-test-clean").iterdir() if p.is_dir())[:2]
    own, again = sorted(speakers[0].glob("*.flac"))[:2]
    other = sorted(speakers[1].glob("*.flac"))[0]
    same = values(run("evaluate", own, "-r", again, "--metric", "similarity"))["similarity"]
    different = values(run("evaluate", own, "-r", other, "--metric", "similarity"))["similarity"]
    print(f"similarity: same {same:.3f}, different {different:.3f}")
    assert same > 0.5 > different


@pytest.mark.parametrize(
    ("found", "reference", "extra", "message"),
    [
        ("{found}", "{tone}", [], "its reference"),
        ("{tone}", "{found}", ["--metric", "wer"], "wer cannot be measured on audio"),
        ("{tone}", "{found}", ["--metric", "loudness"], "is not audio"),
        ("{found}", "{reference}", ["--metric", "si_sdr"], "si_sdr cannot be measured"),
        ("{missing}", "{reference}", [], "does not exist"),
        ("{found}", "{missing}", [], "does not exist"),
        ("{reference}", "{turns}", ["--metric", "wer"], "has no utterances"),
    ],
)
def test_what_does_not_fit_is_said(
    run: Run, files: dict[str, Path], tone: Path, tmp_path: Path,
    found: str, reference: str, extra: list[str], message: str,
) -> None:  # fmt: skip
    turns = tmp_path / "turns.rttm"
    turns.write_text("SPEAKER ep 1 0 1 <NA> <NA> A <NA> <NA>\n")
    names = {**files, "tone": tone, "turns": turns, "missing": tmp_path / "missing.wav"}
    result = run("evaluate", found.format(**names), "-r", reference.format(**names), *extra)
    assert (result.exit_code, result.stdout) == (3, "")
    assert message in result.stderr


def test_an_unknown_measure_is_usage(run: Run, files: dict[str, Path]) -> None:
    result = run("evaluate", files["found"], "-r", files["reference"], "--metric", "bleu")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Measures: der, jer" in result.stderr
