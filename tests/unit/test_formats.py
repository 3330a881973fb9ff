"""Each exchange format against a file written by hand, and what its reader refuses."""

from __future__ import annotations

import logging
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from podtool.artifacts import Recording, Row, Segment, Speaker, Turn, Utterance, Word
from podtool.errors import InputError, UsageError
from podtool.formats import FORMATS, by_name, format_of, read_file, read_text, with_names
from podtool.formats import write_text as write
from podtool.formats.subtitles import CUE_CHARS, CUE_S, LINE_CHARS, cues

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "formats"

TURNS: list[Row] = [
    Turn("t0001", "ep", 0.5, 3.25, "S1", 0.93),
    Turn("t0002", "ep", 2.0, 4.000001, "S2"),  # overlaps the one above
    Turn("t0003", "ep", 4.5, 6.0, "Ann Lee", 1.0),
]
UTTERANCES: list[Row] = [
    Recording("ep", "/a/ep.wav", "0" * 64, 16000, 1, 128000),
    Utterance(
        "u0001", "ep", 0.5, 3.25, 'She said "yes" & left.', "S1",
        words=(
            Word("She", 0.5, 0.75, 0.9), Word("said", 0.75, 1.0), Word('"yes"', 1.25, 1.5),
            Word("&", 1.5, 1.75), Word("left.", 2.5, 3.25, 0.5),
        ),
    ),
    Utterance("u0002", "ep", 2.0, 4.0, "No <way>!", "S2",
              words=(Word("No", 2.0, 2.5), Word("<way>!", 3.0, 4.0))),
    Utterance("u0003", "ep", 5.0, 6.5, "[laughter] Well", "Ann Lee",
              words=(Word("[laughter]", 5.0, 5.5), Word("Well", 5.75, 6.5))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("format_name", "rows", "file"),
    [
        ("rttm", TURNS, "turns.rttm"),
        ("audacity", TURNS, "turns.labels.txt"),
        ("textgrid", TURNS, "turns.TextGrid"),
        ("seglst", TURNS, "turns.seglst.json"),
        ("srt", UTTERANCES, "utterances.srt"),
        ("vtt", UTTERANCES, "utterances.vtt"),
        ("ctm", UTTERANCES, "utterances.ctm"),
        ("textgrid", UTTERANCES, "utterances.TextGrid"),
        ("seglst", UTTERANCES, "utterances.seglst.json"),
        ("audacity", UTTERANCES, "utterances.labels.txt"),
        ("txt", UTTERANCES, "utterances.txt"),
    ],
)
def test_golden(format_name: str, rows: list[Row], file: str) -> None:
    written = write(rows, by_name(format_name))
    assert written == (GOLDEN / file).read_text(encoding="utf-8")
    found = format_of(file)
    assert found is not None
    assert found.name == format_name
    if found.read is not None:
        back = read_file(GOLDEN / file, recording="ep")
        timed = [r for r in rows if isinstance(r, (Turn, Utterance))]
        assert [type(r) for r in back] == [type(r) for r in timed]
        for got, want in zip(back, timed, strict=True):
            assert isinstance(got, (Turn, Utterance))
            assert (got.recording, got.speaker) == ("ep", want.speaker)
            assert got.start == pytest.approx(want.start, abs=5e-4)
            assert got.end == pytest.approx(want.end, abs=5e-4)
            if isinstance(got, Utterance):
                assert isinstance(want, Utterance)
                assert got.text == want.text


def test_words_survive_ctm_and_textgrid() -> None:
    for file in ("utterances.ctm", "utterances.TextGrid"):
        back = [r for r in read_file(GOLDEN / file) if isinstance(r, Utterance)]
        wanted = [r for r in UTTERANCES if isinstance(r, Utterance)]
        for got, want in zip(back, wanted, strict=True):
            assert [(w.text, w.start, w.end) for w in got.words or ()] == [
                (w.text, w.start, w.end) for w in want.words or ()
            ]


def test_segments_only_where_asked() -> None:
    rows: list[Row] = [
        Segment("ep", 0.0, 2.0, "music"),
        Segment("ep", 1.5, 3.0, "overlap"),
        *TURNS,
    ]
    text = write(rows, by_name("audacity"), "segments")
    assert text == "0.000000\t2.000000\tmusic\n1.500000\t3.000000\toverlap\n"
    back = read_text(text, "x", by_name("audacity"), "ep", "segments")
    assert back == [r for r in rows if isinstance(r, Segment)]
    with pytest.raises(InputError, match="RTTM holds turns"):
        write(rows, by_name("rttm"), "segments")


@pytest.mark.parametrize(
    ("format_name", "text", "message"),
    [
        ("rttm", "SPEAKER ep 1 0 1 <NA> <NA> S1\n", "line 1: a SPEAKER line has 10 fields"),
        ("rttm", ";; ok\nSPEAKER ep 1 0 1 <NA> <NA> Ann Lee <NA> <NA>\n", "line 2: .*11"),
        ("rttm", "SPEAKER ep 1 0 -1 <NA> <NA> S1 <NA> <NA>\n", "line 1: the duration is below"),
        ("rttm", "\nSPEAKER ep 1 x 1 <NA> <NA> S1 <NA> <NA>\n", "line 2: the start is not"),
        ("rttm", "SPEAKER ep 1 nan 1 <NA> <NA> S1 <NA> <NA>\n", "line 1: the start is not"),
        ("rttm", "SPEAKER ep 1 1e999 1 <NA> <NA> S1 <NA> <NA>\n", "line 1: the start is not"),
        ("rttm", "SPEECH ep 1 0 1\n", "line 1: 'SPEECH' is not a type"),
        ("rttm", '{"kind": "turn"}\n', "line 1"),
        ("rttm", "\n", "holds nothing"),
        ("ctm", "ep 1 0.5\n", "line 1: a CTM line has 5 to 8 fields"),
        ("ctm", "ep 1 2 .5 b\nep 1 1 .5 a\n", "line 2: the word starts before"),
        ("srt", "1\n00:00:01,000 -> 00:00:02,000\nhi\n", "line 2: expected HH:MM:SS"),
        ("srt", "1\n00:00:02,000 --> 00:00:01,000\nhi\n", "line 2: ends"),
        ("srt", "1\n00:61:02,000 --> 01:00:01,000\nhi\n", "line 2: minutes and seconds"),
        ("srt", "hello\n", "line 1: expected the number of a cue"),
        ("srt", "1\n", "line 1: the times of cue 1 are missing"),
        ("vtt", "1\n00:01.000 --> 00:02.000\nhi\n", "line 1: a VTT file starts with WEBVTT"),
        ("vtt", "WEBVTT\n\nname\n", "line 3: a cue has a name and no times"),
        ("vtt", "WEBVTT\n\n00:01 --> 00:02.000\nhi\n", "line 3: expected"),
        ("textgrid", "hello\n", "the file ends"),
        ("textgrid", '"ooTextFile"\n"Pitch"\n', "line 2: this Praat file holds no TextGrid"),
        ("textgrid", '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1 "IntervalTier" "a" 0 1 2\n'
                     '0 0.5 "x"\n0.25 1 "y"\n', "line 5: the interval overlaps"),
        ("textgrid", '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1 "IntervalTier" "a" 0 1 2\n'
                     '0 0.5 "x"\n', "the file ends where the start"),
        ("textgrid", '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1 "Interval', "line 3: a quote"),
        ("seglst", "{}\n", "line 1: SegLST is a JSON list"),
        ("seglst", '[\n{"start_time": 0,\n "end_time": }]', "line 3: not JSON"),
        ("seglst", '[\n{"start_time": 0, "end_time": 1}\n{}]', "line 3: expected ','"),
        ("seglst", '[\n{"start_time": 0, "end_time": 1},\n]', "line 3: expected ','"),
        ("seglst", '[{"start_time": 2, "end_time": 1}]', "line 1: ends"),
        ("seglst", '[{"start_time": NaN, "end_time": 1}]', "NaN is not a number"),
        ("seglst", '[{"start_time": 0}]', "line 1: end_time is missing"),
        ("seglst", '[{"start_time": 0, "end_time": 1, "speaker": 3}]', "speaker is not a text"),
        ("audacity", "0.0 1.0 S1\n", "line 1: expected start, end and label with tabs"),
        ("audacity", "0.0\t1.0\tS1\n2.0\t1.0\tS1\n", "line 2: ends"),
        ("audacity", "0.0\t1.0\t\n", "line 1: the label is empty"),
    ],
)  # fmt: skip
def test_malformed_input_names_the_line(format_name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_text(text, "file", by_name(format_name), "ep")
    assert caught.value.message.startswith("file")


def test_bytes_that_are_not_text_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.rttm"
    path.write_bytes(b";; fine\n\xff\xfa\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        read_file(path)
    with pytest.raises(InputError, match="cannot read"):
        read_file(tmp_path / "missing.rttm")
    with pytest.raises(InputError, match="does not tell its format"):
        read_file(tmp_path / "x.doc")
    with pytest.raises(UsageError, match="no format 'doc'"):
        by_name("doc")


def test_text_cannot_become_rows() -> None:
    with pytest.raises(InputError, match="no times"):
        read_text("S1: hi", "x.txt", FORMATS["txt"], "ep")


def test_what_the_rows_lack_is_said() -> None:
    with pytest.raises(InputError, match="no utterances") as caught:
        write(TURNS, by_name("srt"))
    assert caught.value.hint == "Run `podtool transcribe` first."
    bare: list[Row] = [Utterance("u0001", "ep", 0.0, 1.0, "hi")]
    with pytest.raises(InputError, match="u0001 has none"):
        write(bare, by_name("ctm"))
    with pytest.raises(InputError, match="no turns"):
        write(bare, by_name("rttm"))


def test_one_recording_at_a_time_where_the_format_has_no_place_for_names() -> None:
    two: list[Row] = [
        Utterance("u0001", "a", 0.0, 1.0, "hi", "S1"),
        Utterance("u0002", "b", 0.0, 1.0, "ho", "S1"),
    ]
    for name in ("srt", "vtt", "textgrid", "audacity", "txt"):
        with pytest.raises(InputError, match="2: a, b"):
            write(two, by_name(name))
    assert len(write(two, by_name("rttm")).splitlines()) == 2


def test_a_textgrid_tier_cannot_hold_one_speaker_twice() -> None:
    rows: list[Row] = [Turn("a", "ep", 0.0, 2.0, "S1"), Turn("b", "ep", 1.0, 3.0, "S1")]
    with pytest.raises(InputError, match="overlapping intervals: 'S1'"):
        write(rows, by_name("textgrid"))


def test_rttm_of_other_tools(caplog: pytest.LogCaptureFixture) -> None:
    text = textwrap.dedent("""\
        ;; a comment
        SPKR-INFO ep 1 <NA> <NA> <NA> unknown A <NA>
        SPEAKER ep 1 0.00 1.50 <NA> <NA> A <NA>
        SPEAKER   ep 1 1 .5 <NA> <NA> B 0.25 <NA>

        """)
    with caplog.at_level(logging.WARNING):
        rows = read_text(text, "x", by_name("rttm"), "")
    assert rows == [
        Turn("t0001", "ep", 0.0, 1.5, "A"),
        Turn("t0002", "ep", 1.0, 1.5, "B", 0.25),
    ]
    assert "1 lines that are not turns" in caplog.text


def test_vtt_of_other_tools() -> None:
    text = textwrap.dedent("""\
        WEBVTT - with a title
        Kind: captions

        STYLE
        ::cue { color: red }

        NOTE a remark
        over two lines

        intro
        01:02.500 --> 01:04.000 align:start position:0%
        <v.loud Ann Lee>Hello <i>there</i>,<00:01:03.000><c> you</c></v>
        <v Bob>Hi &amp; bye</v>

        00:01:05.000 --> 00:01:06.000
        - Nobody &lt;knows&gt;
        """)
    assert read_text(text, "x", by_name("vtt"), "ep") == [
        Utterance("u0001", "ep", 62.5, 64.0, "Hello there, you", "Ann Lee"),
        Utterance("u0002", "ep", 62.5, 64.0, "Hi & bye", "Bob"),
        Utterance("u0003", "ep", 65.0, 66.0, "- Nobody <knows>"),
    ]


def test_srt_of_other_tools(tmp_path: Path) -> None:
    path = tmp_path / "x.srt"
    path.write_bytes(
        b"\xef\xbb\xbf1\r\n00:00:01.000 --> 00:00:02,500  X1:10 X2:20\r\n[laughter]\r\n"
        b"<i>Hello</i>{\\an8}\r\n\r\n2\r\n00:00:02,000 --> 00:00:03,000\r\nthere\r\n"
    )
    assert read_file(path) == [
        Utterance("u0001", "x", 1.0, 2.5, "[laughter] Hello"),
        Utterance("u0002", "x", 2.0, 3.0, "there"),
    ]


def test_textgrid_of_praat_in_utf16_and_short_form(tmp_path: Path) -> None:
    path = tmp_path / "x.TextGrid"
    text = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n3\n'
        '"IntervalTier"\n"Zoë - words"\n0\n2.5\n3\n0\n0.5\n""\n0.5\n1\n"say"\n1\n2.5\n"""hé"""\n'
        '"TextTier"\n"points"\n0\n2.5\n1\n1.5\n"!"\n'
        '"IntervalTier"\n"Zoë - phones"\n0\n2.5\n1\n0\n2.5\n"x"\n'
    )
    path.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    assert read_file(path) == [
        Utterance(
            "u0001", "x", 0.5, 2.5, 'say "hé"', "Zoë",
            words=(Word("say", 0.5, 1.0), Word('"hé"', 1.0, 2.5)),
        )
    ]  # fmt: skip


def test_textgrid_of_the_corpus(data: Path) -> None:
    path = data / "conversations" / "musan-music-noise-speech.TextGrid"
    rows = read_file(path, what="segments")
    assert rows[0] == Segment("musan-music-noise-speech", 0.0, 22.48, "music")
    assert all(isinstance(r, Segment) for r in rows)


def test_rttm_of_the_corpus_comes_back_the_same(data: Path) -> None:
    for path in sorted((data / "conversations").glob("*.rttm")):
        rows = [replace(r, id="") for r in read_file(path) if isinstance(r, Turn)]
        text = write([*rows], by_name("rttm"))
        again = read_text(text, "x", by_name("rttm"), "")
        back = [replace(r, id="") for r in again if isinstance(r, Turn)]
        assert back == sorted(rows, key=lambda t: (t.recording, t.start, t.end))


def test_seglst_of_chime_has_times_as_text_and_fields_of_its_own() -> None:
    text = '[{"end_time": "2.50", "start_time": "1.25", "words": "hi", "speaker": "P05",\n' \
           '  "session_id": "S02", "location": "kitchen"}]'  # fmt: skip
    assert read_text(text, "x", by_name("seglst"), "ep") == [
        Utterance("u0001", "S02", 1.25, 2.5, "hi", "P05", extra={"location": "kitchen"})
    ]


def test_ctm_with_eight_columns_and_a_gap() -> None:
    text = "ep 1 0.0 0.5 one 0.9 lex A\nep 1 0.25 0.5 uno 0.8 lex B\nep 1 3.0 0.5 two NA lex A\n"
    rows = read_text(text, "x", by_name("ctm"), "")
    assert [(u.speaker, u.text, u.start, u.end) for u in rows if isinstance(u, Utterance)] == [
        ("A", "one", 0.0, 0.5),
        ("B", "uno", 0.25, 0.75),
        ("A", "two", 3.0, 3.5),
    ]


def test_a_word_with_white_space_becomes_words_that_share_its_time() -> None:
    words = (Word("New York", 0.0, 0.7),)
    rows: list[Row] = [Utterance("u0001", "ep", 0.0, 0.7, "New York", words=words)]
    assert write(rows, by_name("ctm")) == "ep 1 0.000 0.300 New\nep 1 0.300 0.400 York\n"


def test_long_utterances_become_cues_that_can_be_read() -> None:
    tokens = ("word " * 9 + "end. ").split() * 6
    words = tuple(Word(t, 0.4 * i, 0.4 * i + 0.3) for i, t in enumerate(tokens))
    long = Utterance("u0001", "ep", 0.0, words[-1].end, " ".join(tokens), "S1", words=words)
    parts = list(cues(long))
    assert " ".join(c.text for c in parts) == long.text
    assert all(len(c.text) <= CUE_CHARS and c.end - c.start <= CUE_S for c in parts)
    assert all(a.end <= b.start for a, b in zip(parts, parts[1:], strict=False))
    assert all(c.text.endswith("end.") for c in parts)
    lines = write([long], by_name("srt")).splitlines()
    assert max(len(line) for line in lines) <= LINE_CHARS
    assert len(list(cues(Utterance("u", "ep", 0.0, 60.0, long.text)))) == 1  # no word times


def test_names_of_known_people_unless_two_share_one() -> None:
    rows: list[Row] = [
        Speaker("S1", "ep", 1.0, name="Ann"),
        Speaker("S2", "ep", 1.0, name="Bob"),
        Speaker("S3", "ep", 1.0, name="Bob"),
        Turn("t1", "ep", 0.0, 1.0, "S1"),
        Turn("t2", "ep", 0.0, 1.0, "S2"),
        Utterance("u1", "ep", 0.0, 1.0, "hi", "S3"),
        Utterance("u2", "ep", 0.0, 1.0, "hi"),
    ]
    named = with_names(rows)
    assert [r.speaker for r in named if isinstance(r, (Turn, Utterance))] == [
        "Ann", "S2", "S3", None,
    ]  # fmt: skip


def test_an_hour_is_read_in_seconds() -> None:
    words = tuple(Word(f"w{i}", i * 0.2, i * 0.2 + 0.2) for i in range(20_000))
    rows: list[Row] = [
        Utterance(
            f"u{i}", "ep", words[i].start, words[i + 9].end, "x", "S1", words=words[i : i + 10]
        )
        for i in range(0, len(words), 10)
    ]
    began = time.perf_counter()
    for name in ("ctm", "textgrid", "seglst", "vtt"):
        text = write(rows, by_name(name))
        assert len(read_text(text, "x", by_name(name), "ep")) == (1 if name == "ctm" else 2000)
    assert time.perf_counter() - began < 10.0
