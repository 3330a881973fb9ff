"""Manifests into clips: what is kept out stays out, and the cache holds what was decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from podtool.errors import InputError, UsageError
from podtool.training import corpus
from podtool.training.corpus import RATE, DataParams, read_corpus

Write = Callable[..., Path]


@pytest.fixture()
def manifest(tmp_path: Path) -> Write:
    """Write a manifest whose rows are (path, fields), with half a second of noise for each."""

    def write(folder: str, *rows: tuple[str, dict[str, Any]]) -> Path:
        entries = []
        for path, fields in rows:
            file = tmp_path / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(len(path))
            soundfile.write(file, 0.1 * rng.standard_normal(RATE // 2), RATE)
            entries.append({"path": path, "kind": "read", "licence": "CC0", **fields})
        target = tmp_path / folder / "MANIFEST.jsonl"
        target.write_text("".join(json.dumps(e) + "\n" for e in entries))
        return target

    return write


def test_splits_share_no_speaker_and_no_file(manifest: Write) -> None:
    where = manifest(
        "a",
        ("s1/1.wav", {"speaker": "s1"}),
        ("s2/1.wav", {"speaker": "s2"}),
        ("m1.wav", {"kind": "music"}),
        ("m2.wav", {"kind": "music"}),
        ("n1.wav", {"kind": "noise", "talkers": ["s2", "s9"]}),
        ("n2.wav", {"kind": "noise", "talkers": 5}),
    )
    params = DataParams(validation_speakers=("s2",), validation_files=("m2.wav",))
    train = read_corpus([where], params, "train")
    held = read_corpus([where], params, "validation")
    assert set(train.speakers) == {"s1"} and set(held.speakers) == {"s2"}
    assert [c.path for c in train.music] == ["m1.wav"]
    assert [c.path for c in held.music] == ["m2.wav"]
    assert [c.path for c in train.noise] == ["n2.wav"]  # s2 is heard in the other
    assert [c.path for c in held.noise] == ["n1.wav"]


def test_what_is_excluded_is_in_neither_split_nor_in_the_credits(manifest: Write) -> None:
    where = manifest(
        "a",
        ("s1/1.wav", {"speaker": "s1", "corpus": "Mine"}),
        ("s2/1.wav", {"speaker": "s2"}),
        ("two.wav", {"speaker": "s1,s3"}),
        ("m1.wav", {"kind": "music", "licence": "GPL-3.0 (somebody)"}),
        ("n1.wav", {"kind": "noise"}),
        ("talk.wav", {"kind": "conversation", "speaker": "s1"}),
    )
    again = manifest("b", ("n1.flac", {"kind": "noise"}))
    params = DataParams(
        exclude_speakers=("s2", "nobody"), exclude_files=("n1.wav",), exclude_licences=("gpl",)
    )
    got = read_corpus([where, again], params, "train")
    assert {s: [c.path for c in clips] for s, clips in got.speakers.items()} == {"s1": ["s1/1.wav"]}
    assert not got.music and not got.noise
    ((*credit, seconds),) = got.credits
    assert credit == ["Mine", "CC0", 1] and seconds == pytest.approx(0.5, abs=0.05)
    assert got.unmatched == ("nobody",)
    with pytest.raises(InputError, match="no speech for the split 'validation'"):
        read_corpus([where], params, "validation")


def test_a_file_in_two_manifests_counts_once_but_other_files_of_its_name_do_not(
    manifest: Write,
) -> None:
    first = manifest("a", ("1.wav", {"speaker": "s1"}))
    copy = manifest("b", ("1.flac", {"speaker": "s1"}))
    other = manifest("c", ("1.wav", {"speaker": "s2"}))
    got = read_corpus([first, copy, other], DataParams(), "train")
    assert {name: len(clips) for name, clips in got.speakers.items()} == {"s1": 1, "s2": 1}


@pytest.mark.parametrize("path", ["../x.wav", "a/../../x.wav", "/x.wav"])
def test_a_path_may_not_lead_out_of_its_folder(tmp_path: Path, path: str) -> None:
    where = tmp_path / "m.jsonl"
    where.write_text(json.dumps({"path": path, "kind": "read"}) + "\n")
    with pytest.raises(InputError, match="leads out"):
        read_corpus([where], DataParams(), "train")


@pytest.mark.parametrize("line", ["{", "[]", '{"path": "x.wav"}', '"x"'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    where = tmp_path / "m.jsonl"
    where.write_text(f"\n{line}\n")
    with pytest.raises(InputError, match="m.jsonl:2 is not a row"):
        read_corpus([where], DataParams(), "train")


def test_missing_files_and_unknown_splits_are_errors(tmp_path: Path) -> None:
    where = tmp_path / "m.jsonl"
    with pytest.raises(InputError, match="cannot read the manifest"):
        read_corpus([where], DataParams(), "train")
    where.write_text(json.dumps({"path": "gone.wav", "kind": "read"}) + "\n")
    with pytest.raises(InputError, match="gone.wav"):
        read_corpus([where], DataParams(), "train")
    with pytest.raises(UsageError, match="'test'"):
        read_corpus([where], DataParams(), "test")


def test_speech_is_trimmed_and_music_keeps_its_channels_at_16_khz(tmp_path: Path) -> None:
    speech = np.zeros(3 * RATE)
    speech[RATE : 2 * RATE] = 0.05 * np.sin(np.arange(RATE) * 0.3)
    soundfile.write(tmp_path / "s.wav", speech, RATE)
    t = np.arange(44100) / 44100
    stereo = np.stack([np.sin(2 * np.pi * 440 * t), 0.5 * np.sin(2 * np.pi * 880 * t)], 1)
    soundfile.write(tmp_path / "m.wav", stereo * 0.4, 44100)
    rows = [{"path": "s.wav", "kind": "read"}, {"path": "m.wav", "kind": "music"}]
    where = tmp_path / "m.jsonl"
    where.write_text("\n".join(map(json.dumps, rows)))
    got = read_corpus([where], DataParams(), "train")
    (clip,) = got.speakers["s"]
    assert RATE <= clip.frames <= 1.12 * RATE
    assert np.abs(clip.samples).max() == pytest.approx(0.9 * 32767, abs=1)
    assert clip.rms == pytest.approx(0.9 * 32767 / np.sqrt(2), rel=0.03)
    (music,) = got.music
    assert music.samples.shape == (2, RATE)
    peaks = np.abs(np.fft.rfft(music.samples)).argmax(axis=1)
    assert list(peaks) == [440, 880]


def test_the_cache_is_used_for_both_splits_and_renewed_when_rows_change(
    manifest: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"s{k}/1.wav", {"speaker": f"s{k}"}) for k in (1, 2)]
    where, cache = manifest("a", *rows), tmp_path / "run" / "audio.npy"
    params = DataParams(validation_speakers=("s2",))
    first = read_corpus([where], params, "train", cache)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_load", lambda row: pytest.fail(f"{row.path} was decoded again"))
        again = read_corpus([where], params, "train", cache)
        held = read_corpus([where], params, "validation", cache)
    assert np.array_equal(first.speakers["s1"][0].samples, again.speakers["s1"][0].samples)
    assert set(held.speakers) == {"s2"}
    more = manifest("a", *rows, ("s3/1.wav", {"speaker": "s3"}))
    assert set(read_corpus([more], params, "train", cache).speakers) == {"s1", "s3"}
    assert sorted(p.name for p in cache.parent.iterdir()) == ["audio.json", "audio.npy"]
    cache.write_bytes(cache.read_bytes()[:1000])  # cut short
    assert set(read_corpus([more], params, "train", cache).speakers) == {"s1", "s3"}
