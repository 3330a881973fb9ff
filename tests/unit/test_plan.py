"""The plan of replace: requests, walking steps, explaining, choosing speakers, finding a bed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.artifacts import Embedding, Metric, Row, Segment, Speaker, Take, Turn
from podtool.audio import Audio, write_audio
from podtool.engines.protocols import EngineContext
from podtool.errors import InputError, OutputError
from podtool.keys import content_of
from podtool.pipeline import replaced_slots, take_id
from podtool.replace.bed import measure_bed
from podtool.replace.check_step import of_speaker, of_take
from podtool.replace.plan import Request, State, Step, check_ours, execute, explain, read_request
from podtool.replace.steps import check_turns, given_turns, steps_of
from podtool.rowio import read_rows, write_rows
from podtool.rundir.runs import clean_run, find_runs, remove_run
from podtool.rundir.takepool import TakePool
from podtool.segments import Span
from podtool.speaker_choice import find_speaker, speaker_labels, told, where_to_hear
from podtool.store import ModelStore

CONTEXT = EngineContext(store=ModelStore())
REQUEST = Request("/ep.wav", "/new.wav", (("S2", "/v.jsonl"),), params={"diarize": {"hop_s": 3.0}})


class Count:
    """A step that writes one row with a number made of the step before and a setting."""

    def __init__(self, name: str, before: str | None, amount: int, built: list[str]) -> None:
        self.name, self.before, self.amount, self.built = name, before, amount, built

    def key(self, state: State) -> dict[str, Any]:
        inputs = {self.before: content_of(state.rows[self.before])} if self.before else {}
        return {"stage": self.name, "params": {"amount": self.amount}, "inputs": inputs}

    def build(self, state: State, folder: Path) -> None:
        self.built.append(self.name)
        old = state.rows[self.before] if self.before else []
        value = sum(r.value for r in old if isinstance(r, Metric)) + self.amount
        write_rows([Metric("sum", float(value), "")], folder / "rows.jsonl")

    def load(self, state: State, folder: Path) -> None:
        state.rows[self.name] = read_rows(folder / "rows.jsonl")


def chain(amounts: tuple[int, int, int], built: list[str]) -> list[Step]:
    names = ("decode", "diarize", "synthesize")
    befores = (None, *names[:-1])
    return [Count(n, b, a, built) for n, b, a in zip(names, befores, amounts, strict=True)]


def run(folder: Path, amounts: tuple[int, int, int], **more: Any) -> tuple[list[str], float]:
    """(stages built, the last value)."""
    built: list[str] = []
    outcome = execute(REQUEST, folder, CONTEXT, {}, chain(amounts, built), **more)
    last = outcome.state.rows["synthesize"][0]
    assert isinstance(last, Metric)
    return built, last.value


def test_a_change_runs_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "ep.podtool"
    assert run(folder, (1, 2, 3)) == (["decode", "diarize", "synthesize"], 6.0)
    assert run(folder, (1, 2, 3)) == ([], 6.0)
    assert run(folder, (1, 5, 3)) == (["diarize", "synthesize"], 9.0)
    # Another way to the same content: the stage itself runs, what follows does not.
    assert run(folder, (2, 4, 3)) == (["decode", "diarize"], 9.0)
    assert run(folder, (2, 4, 3), restart_from="synthesize") == (["synthesize"], 9.0)


def test_explain_tells_what_a_run_would_do(tmp_path: Path) -> None:
    folder = tmp_path / "ep.podtool"

    def verdicts(amounts: tuple[int, int, int]) -> list[tuple[str, str, str | None]]:
        found = explain(REQUEST, folder, CONTEXT, {}, chain(amounts, []))
        return [(v.stage, v.action, v.differs) for v in found]

    assert [v[1] for v in verdicts((1, 2, 3))] == ["run", "run", "run"]
    assert not folder.exists()
    run(folder, (1, 2, 3))
    assert [v[1] for v in verdicts((1, 2, 3))] == ["reuse"] * 3
    assert verdicts((1, 7, 3))[1:] == [
        ("diarize", "run", "params.amount"),
        ("synthesize", "run", None),
    ]
    rows = folder / "diarize" / "rows.jsonl"
    rows.write_text(rows.read_text().replace("3.0", "30.0"))
    assert verdicts((1, 2, 3)) == [
        ("decode", "reuse", None),
        ("diarize", "pinned", None),
        ("synthesize", "run", "inputs.diarize"),
    ]
    assert run(folder, (1, 9, 3)) == (["synthesize"], 33.0)


def test_a_run_that_finished_nothing_leaves_no_folder(tmp_path: Path) -> None:
    class Fails(Count):
        def build(self, state: State, folder: Path) -> None:
            raise InputError("not audio")

    for before, left in (([], False), (chain((1, 2, 3), [])[:1], True)):
        folder = tmp_path / f"ep{left}.podtool"
        with pytest.raises(InputError):
            execute(REQUEST, folder, CONTEXT, {}, [*before, Fails("clone", None, 1, [])])
        assert folder.exists() == left


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="other things"):
        check_ours(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        check_ours(tmp_path / "precious.txt")
    with pytest.raises(InputError, match="not a run directory"):
        read_request(tmp_path)


def test_a_request_survives_run_json(tmp_path: Path) -> None:
    run(tmp_path / "ep.podtool", (1, 2, 3))
    found = read_request(tmp_path / "ep.podtool")
    assert found == dataclasses.replace(REQUEST, params=dict(found.params))
    assert found.stage_params("diarize").hop_s == 3.0


def test_runs_are_found_cleaned_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "ep.podtool"
    run(folder, (1, 2, 3))
    (found,) = find_runs(tmp_path)
    assert found.state == "unfinished" and found.done == ("decode", "diarize", "synthesize")
    TakePool(folder / "takes").put("ab", Audio(np.zeros((1, 50), np.float32), 8000), {})
    removed, freed = clean_run(folder)
    assert removed == 2 and freed > 200 and run(folder, (1, 2, 3))[0] == []
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        remove_run(folder)
    (folder / "notes.txt").unlink()
    remove_run(folder)
    assert not folder.exists() and find_runs(tmp_path) == []


def test_the_plan_of_a_request(tmp_path: Path) -> None:
    profile, clip = tmp_path / "v.jsonl", tmp_path / "v.wav"
    profile.write_text('{"kind": "x"}\n')
    write_audio(clip, Audio(np.zeros((1, 100), np.float32), 8000))

    def names(voice: Path, **changes: Any) -> list[str]:
        return [s.name for s in steps_of(Request("e", "o", (("S1", str(voice)),), **changes))]

    plain = ["decode", "diarize", "separate", "synthesize", "reconstruct", "check", "report"]
    assert names(profile) == plain
    assert names(clip) == ["decode", "clone", *plain[1:]]
    for asks in ({"method": "speak"}, {"transcript": True}, {"wer": True}):
        assert names(profile, **asks) == [*plain[:3], "transcribe", *plain[3:]]
    assert names(profile, overlap="separate") == [*plain[:3], "talkers", *plain[3:]]
    assert [s.name for s in steps_of(REQUEST_LISTING, until="diarize")] == ["decode", "diarize"]


REQUEST_LISTING = Request("e", "")


# ---------------------------------------------------------------- speakers


def rows() -> list[Row]:
    """S1 from 0 to 10 s, S2 from 8 to 20 s; S2 is called Bo."""
    return [
        Turn("t0001", "r", 0.0, 10.0, "S1"),
        Turn("t0002", "r", 8.0, 20.0, "S2"),
        Turn("t0003", "r", 30.0, 32.0, "S1"),
        Segment("r", 8.0, 10.0, "overlap"),
        Speaker("S1", "r", 12.0, embedding=Embedding("campplus", (1.0, 0.0))),
        Speaker("S2", "r", 12.0, name="Bo", embedding=Embedding("campplus", (0.0, 1.0))),
    ]


def test_speakers_by_label_name_and_the_message_for_strangers() -> None:
    assert speaker_labels(rows()) == ["S1", "S2"]
    assert find_speaker(rows(), "S2", CONTEXT) == find_speaker(rows(), "Bo", CONTEXT) == "S2"
    with pytest.raises(InputError) as caught:
        find_speaker(rows(), "S3", CONTEXT)
    assert caught.value.hint == "There are: S1 (12 s), S2 (Bo, 12 s)."
    assert told([]) == ""


def test_a_clip_names_the_speaker_that_it_sounds_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from podtool import speakers

    clip = tmp_path / "person.wav"
    clip.write_bytes(b"RIFF")

    def heard(vector: tuple[float, float]) -> None:
        monkeypatch.setattr(speakers, "listen", lambda path, context: (None, vector))

    heard((0.1, 0.9))
    assert find_speaker(rows(), str(clip), CONTEXT) == "S2"
    heard((0.1, 0.2))
    with pytest.raises(InputError, match="nobody in the recording sounds like"):
        find_speaker(rows(), str(clip), CONTEXT)
    heard((0.7, 0.71))
    with pytest.raises(InputError, match="could be S2 or S1"):
        find_speaker(rows(), str(clip), CONTEXT)


def test_where_a_speaker_is_heard_alone() -> None:
    assert where_to_hear(rows(), "S1") == Span(0.0, 8.0)
    assert where_to_hear(rows(), "S2") == Span(10.0, 20.0)
    assert where_to_hear(rows(), "S9") is None


def test_overlaps_are_kept_or_converted() -> None:
    turns = [r for r in rows() if isinstance(r, Turn)]
    kept = {t.id: keep for t, keep in replaced_slots(turns, "S2", "keep")}
    assert kept == {"t0002": [Span(8.0, 10.0)]}
    assert replaced_slots(turns, "S2", "convert")[0][1] == []
    assert replaced_slots(turns, "S2", "separate") == replaced_slots(turns, "S2", "convert")
    inside = [Turn("t1", "r", 0.0, 10.0, "S1"), Turn("t2", "r", 4.0, 5.0, "S2")]
    assert replaced_slots(inside, "S2", "keep") == []  # wholly under S1: nothing is left to replace
    sliver = [Turn("t1", "r", 0.0, 5.0, "S1"), Turn("t2", "r", 4.0, 5.05, "S2")]
    assert replaced_slots(sliver, "S2", "keep") == []
    assert [take_id(i) for i in ("t0007", "u12", "mine")] == ["k0007", "k12", "k-mine"]


# ---------------------------------------------------------------- turns given, numbers


def test_given_turns_come_from_rows_or_an_exchange_format(tmp_path: Path) -> None:
    from podtool.artifacts import Recording

    recording = Recording("ep", "/ep.wav", "0" * 64, 8000, 1, 40 * 8000)
    write_rows(rows(), tmp_path / "turns.jsonl")
    (tmp_path / "turns.rttm").write_text("SPEAKER r 1 1.0 2.5 <NA> <NA> anna <NA> <NA>\n")
    found = given_turns(str(tmp_path / "turns.jsonl"), recording)
    assert {r.recording for r in found if isinstance(r, Turn)} == {"ep"} and len(found) == 6
    (turn,) = [
        r for r in given_turns(str(tmp_path / "turns.rttm"), recording) if isinstance(r, Turn)
    ]
    assert (turn.start, turn.end, turn.speaker) == (1.0, 3.5, "anna")
    short = dataclasses.replace(recording, frames=8000)
    with pytest.raises(InputError, match="t0001 ends at 10.00 s"):
        given_turns(str(tmp_path / "turns.jsonl"), short)
    twice = [Turn("t1", "ep", 0.0, 1.0, "S1"), Turn("t1", "ep", 2.0, 3.0, "S1")]
    with pytest.raises(InputError, match="two turns have the id t1"):
        check_turns(twice, recording, "x.jsonl")


def test_the_numbers_of_a_speaker() -> None:
    turns = [Turn("t1", "r", 0.0, 4.0, "S1"), Turn("t2", "r", 3.0, 5.0, "S2")]
    turns.append(Turn("t3", "r", 6.0, 8.0, "S1"))
    common = ("r", "S1", "v", "convert", "/k.wav", "0" * 64, 8000, 1)
    takes = [
        Take("k1", *common, 32000, 0.0, 4.0, keep=((3.0, 4.0),),
             checks={"similarity": 0.4, "first_word_drift_ms": -5.0}),
        Take("k3", *common, 16000, 6.0, 8.0, checks={"similarity": 0.7}),
    ]  # fmt: skip
    found = {m.name: m.value for m in of_speaker("S1", takes, turns)}
    assert found["replaced_turns"] == 2 and found["replaced_s"] == pytest.approx(5.0)
    assert found["kept_s"] == pytest.approx(1.0) and found["drift_ms"] == 5.0
    assert found["similarity"] == pytest.approx((4 * 0.4 + 2 * 0.7) / 6)
    units = {m.name: m.unit for m in of_take(takes[0])}
    assert units == {"similarity": "", "first_word_drift_ms": "ms", "kept_s": "s"}


# ---------------------------------------------------------------- bed


@pytest.mark.parametrize(("bed_db", "present"), [(None, False), (-70, False), (-40, True)])
def test_a_bed_is_heard_between_the_turns(bed_db: float | None, present: bool) -> None:
    rng = np.random.default_rng(1)
    rate = 8000
    samples = np.zeros((2, 10 * rate), np.float32)
    for start in (0, 4):
        samples[:, start * rate : (start + 3) * rate] = rng.normal(0, 0.1, (2, 3 * rate))
    if bed_db is not None:
        samples += rng.normal(0, 10 ** (bed_db / 20), samples.shape).astype(np.float32)
    bed = measure_bed(Audio(samples, rate), [Span(0.0, 3.0), Span(4.0, 7.0)])
    assert bed.present == present and bed.speech_db == pytest.approx(-20, abs=0.5)
    if bed_db is not None:
        assert bed.background_db == pytest.approx(bed_db, abs=1.0)


def test_a_recording_without_pauses_is_judged_by_its_quietest_moments() -> None:
    samples = np.full((1, 80000), 0.1, np.float32)
    samples[:, ::2] *= -1
    bed = measure_bed(Audio(samples, 8000), [Span(0.0, 10.0)])
    assert bed.pauses_s == 0.0 and bed.background_db == pytest.approx(-20.0, abs=0.1)


def test_the_page_counts_from_the_turns_not_from_older_rows() -> None:
    from podtool.replace.report_step import overlaps_of, speakers_of

    turns = [r for r in rows() if isinstance(r, Turn)][:2]
    stale = [Speaker("S1", "r", 99.0, name="Al"), Speaker("S7", "r", 5.0)]
    found = [(s.id, s.name, s.speech_s) for s in speakers_of(turns, stale)]
    assert found == [("S1", "Al", 10.0), ("S2", None, 12.0)]
    assert [(s.start, s.end) for s in overlaps_of(turns)] == [(8.0, 10.0)]
