"""Recognition: WER and RTF on read speech, cpWER on the shows, word starts on synthetic speech.

usage: python benchmarks/recognition.py [utterances] [shows] [starts] [true_turns]
                                                     (default: the first three)

utterances  30 each of test-clean, test-other and VCTK: sorted by path, taken in turn from each
            speaker; every utterance read whole, one thread
shows       `podtool transcribe` on the speech stem and the full mix of the six shows (count of
            speakers unknown), cpWER
true_turns  the same with the true turns in place of the diarization's
starts      eSpeak NG reads 20 sentences in four voices; its word events against the aligner given
            the text, and against the whole way by recognition (words that it got right)

Text is compared as podtool.text.normalise leaves it. Needs PODTOOL_DATA (default ../shared/data),
weights (`podtool models pull embedded`), meeteval, jiwer; `starts` needs the extra `speak`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import CROSSTALK, SHOWS, data_folder, podtool, say, shows_folder

from podtool import engines
from podtool.artifacts import Turn, Utterance
from podtool.audio import Audio, open_audio
from podtool.engines.protocols import EngineContext
from podtool.resample import resample, to_mono
from podtool.stages.transcribe import transcribe
from podtool.store import ModelStore
from podtool.text import normalise

SETS = {
    "librispeech-test-clean": "LibriSpeech test-clean",
    "librispeech-test-other": "LibriSpeech test-other",
    "vctk": "VCTK",
}
SENTENCES = (
    "The quick brown fox jumps over the lazy dog while the farmer sleeps.",
    "She opened the window, looked at the street, and closed it again.",
    "Our meeting starts at nine in the morning and ends before lunch.",
    "Nobody expected the river to rise so quickly after a single night of rain.",
    "He asked for a glass of water, two slices of bread and a little cheese.",
)
VOICES = ("en-us", "en-gb-x-rp", "en-us+f3", "en-gb-scotland+m3")


def context() -> EngineContext:
    return EngineContext(store=ModelStore(), device="cpu", threads=1)


def chosen(corpus: str, count: int = 30) -> list[dict[str, Any]]:
    """The first utterance by path of each speaker, then the second of each, ..."""
    rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
    rows = sorted((r for r in rows if r.get("corpus") == corpus), key=lambda r: str(r["path"]))
    rows = [r for r in rows if r["kind"] == "read" and r["transcript"]]
    speakers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        speakers.setdefault(row["speaker"], []).append(row)
    queues = [speakers[s] for s in sorted(speakers)]
    rounds = max(len(q) for q in queues)
    return [q[i] for i in range(rounds) for q in queues if i < len(q)][:count]


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    import jiwer

    pairs = [(normalise(r), normalise(h)) for r, h in zip(references, hypotheses, strict=True)]
    return float(jiwer.wer([r for r, _ in pairs], [h for _, h in pairs]))


def utterances() -> None:
    engine = engines.load("transcription", "moonshine", context())
    seconds = spent = computed = 0.0
    for name, corpus in SETS.items():
        rows = chosen(corpus)
        heard = []
        for row in rows:
            with open_audio(data_folder() / row["path"]) as file:
                audio = resample(to_mono(file.read()), engine.info.sample_rate)
            began, began_cpu = time.perf_counter(), time.process_time()
            found = engine.transcribe(audio, "en")
            spent += time.perf_counter() - began
            computed += time.process_time() - began_cpu
            seconds += audio.duration
            heard.append(" ".join(u.text for u in found))
        say("wer", word_errors([r["transcript"] for r in rows], heard), "share", name, len(rows))
    say("recogniser_rtf", spent / seconds, "x", n=3 * 30)
    say("recogniser_cpu_rtf", computed / seconds, "x", n=3 * 30)  # whatever else the machine does


def true_turns(folder: Path) -> list[Turn]:
    rows = json.loads((folder / "truth.seglst.json").read_text())
    return [
        Turn(f"t{n:04d}", folder.name, r["start_time"], r["end_time"], r["speaker"])
        for n, r in enumerate(rows)
    ]


def diarized_turns(audio: Path) -> list[Turn]:
    """The turns of `podtool diarize`, as a process of its own."""
    from podtool.rowio import of_kind, parse_rows

    done = podtool("diarize", audio)
    if done.code != 0:
        sys.exit(f"podtool diarize {audio} failed with {done.code}: {done.stderr}")
    return of_kind(list(parse_rows(iter(done.stdout.splitlines(True)), "diarize")), Turn)


def cpwer(folder: Path, found: Sequence[Utterance]) -> float:
    """Concatenated minimum-permutation WER (meeteval) against a show's truth."""
    from meeteval.io import SegLST
    from meeteval.wer import cpwer as measure

    truth = json.loads((folder / "truth.seglst.json").read_text())
    reference = SegLST([{**r, "words": normalise(r["words"])} for r in truth])
    hypothesis = SegLST(
        [
            {
                "session_id": folder.name,
                "speaker": u.speaker or "",
                "start_time": u.start,
                "end_time": u.end,
                "words": normalise(u.text),
            }
            for u in found
        ]
    )
    return float(measure(reference, hypothesis)[folder.name].error_rate)


def shows(true: bool = False) -> None:
    engine = engines.load("transcription", "moonshine", context())
    aligner = engines.load("alignment", "pocketsphinx", context())
    kind = "true_turns_" if true else ""
    for stem, label in (("speech.flac", "speech"), ("mix.flac", "mix")):
        errors = {}
        for show in (*SHOWS, CROSSTALK):
            folder = shows_folder() / show
            turns = true_turns(folder) if true else diarized_turns(folder / stem)
            with open_audio(folder / stem) as file:
                errors[show] = cpwer(folder, transcribe(file, turns, engine, aligner))
            say(f"{kind}cpwer_{label}", errors[show], "share", show)
        mean = sum(errors[s] for s in SHOWS) / len(SHOWS)
        say(f"{kind}cpwer_{label}", mean, "share", "five shows", len(SHOWS))


def starts() -> None:
    speaker = engines.load("speaking", "espeak", context())
    engine = engines.load("transcription", "moonshine", context())
    aligner = engines.load("alignment", "pocketsphinx", context())
    aligned: list[float] = []
    heard: list[float] = []
    timeless = 0
    for voice in VOICES:
        for sentence in SENTENCES:
            speech, events = speaker.speak_with_events(sentence, 1.0, voice)
            audio = resample(to_mono(speech), 16000)
            words = sentence.split()
            # eSpeak says "for a" as one: no event, no truth for such words.
            truth = [None if e.interpolated else e.start for e in events]
            placed = aligner.align(audio, words)
            timeless += sum(w.end <= w.start for w in placed) + len(words) - len(placed)
            aligned += [
                abs(w.start - t) for w, t in zip(placed, truth, strict=True) if t is not None
            ]
            heard += _heard_starts(audio, words, truth, engine, aligner)
    say("word_start_error_ms", 1000 * float(np.mean(aligned)), "ms", "aligned", len(aligned))
    say("word_start_p95_ms", 1000 * float(np.percentile(aligned, 95)), "ms", "aligned")
    say("word_start_error_ms", 1000 * float(np.mean(heard)), "ms", "transcribed", len(heard))
    say("words_without_times", float(timeless), "words", n=len(aligned))


def _heard_starts(
    audio: Audio, words: Sequence[str], truth: Sequence[float | None], engine: Any, aligner: Any
) -> list[float]:
    """Start errors of the words that recognition got right."""
    import difflib

    turn = Turn("t", "r", 0.0, audio.duration, "S1")
    found = [w for u in transcribe(audio, [turn], engine, aligner) for w in u.words or ()]
    match = difflib.SequenceMatcher(
        a=[normalise(w) for w in words], b=[normalise(w.text) for w in found], autojunk=False
    )
    pairs = [
        (found[b + i].start, truth[a + i])
        for a, b, size in match.get_matching_blocks()
        for i in range(size)
    ]
    return [abs(start - t) for start, t in pairs if t is not None]


def main() -> None:
    parts: dict[str, Callable[[], None]] = {
        "utterances": utterances,
        "shows": shows,
        "starts": starts,
        "true_turns": lambda: shows(true=True),
    }
    for name in sys.argv[1:] or list(parts)[:3]:
        parts[name]()


if __name__ == "__main__":
    main()
