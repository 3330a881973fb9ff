"""Recognisers: what podtool adds to mlx-whisper, memory on long files, the checks of texts.

usage: python benchmarks/recognisers.py [direct] [memory] [checks] [silences]     (default: all)

direct   80 s of read speech through the transcribe stage (speech detection, windows, text
         checks, the recogniser's own times) against mlx_whisper.transcribe on the same windows, the
         same weights, in turns, the best of three; words and tokens compared; and against one call
         with the whole file, whose windows are mlx_whisper's own
memory   `podtool transcribe` on three hours and on ten minutes with the smallest Whisper there can
         be: peak memory of the whole process tree
checks   texts of real recordings that are doubted (none should be), also sped up by half; loops and
         texts invented over silence that are not (none should be)
silences words that the embedded recogniser invents on twelve pieces of music and twelve noises
         without talkers, 20 s of each, with and without speech detection

Whisper's weights are constructed (tiny_whisper.py): they say nothing about recognition, and
everything about time and memory. Needs PODTOOL_DATA (default ../shared/data), the extra `mlx`, and
weights (`podtool models pull embedded`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from harness import data_folder, podtool, say

from podtool import engines
from podtool.artifacts import Recording, Turn, Utterance
from podtool.audio import Audio, open_audio, sha256_of
from podtool.engines.protocols import EngineContext
from podtool.resample import resample, to_mono
from podtool.rowio import write_rows
from podtool.stages.doubts import doubts
from podtool.stages.transcribe import TranscribeParams, transcribe
from podtool.store import ModelStore

RATE = 16000
GAP_S = 0.8
LONGEST_S = 28.0  # a speaker's clips in a row: about one window of Whisper


def context(**options: str) -> EngineContext:
    return EngineContext(store=ModelStore(), device="cpu", threads=0, options=options)


def readings(times: int = 100) -> Iterator[tuple[Audio, str]]:
    """Read speech of the data and its words, in the order of the paths, several times over."""
    rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
    rows = sorted(
        (r for r in rows if r["kind"] == "read" and r["transcript"] and r["duration_s"] > 2),
        key=lambda r: str(r["path"]),
    )
    for _ in range(times):
        for row in rows:
            with open_audio(data_folder() / row["path"]) as file:
                yield resample(to_mono(file.read()), RATE), row["transcript"]


def conversation(path: Path, seconds: float) -> list[Turn]:
    """Two speakers who read to each other, as a WAV of 16 kHz; the turns."""
    turns: list[Turn] = []
    at = began = 0.0
    speaker = "S1"
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for number, (clip, _) in enumerate(readings()):
            if at + clip.duration > seconds:
                break
            if at + clip.duration - began > LONGEST_S:
                speaker, began = ("S2" if speaker == "S1" else "S1"), at
            turns.append(Turn(f"t{number:05d}", path.stem, at, at + clip.duration, speaker))
            file.write(np.concatenate([clip.samples[0], np.zeros(round(GAP_S * RATE))]))
            at += clip.duration + GAP_S
    return turns


def model(folder: Path, size: str) -> Path:
    from tiny_whisper import write

    write(folder / size, size)
    return folder / size


class Listening:
    """mlx-whisper that remembers what it heard and what it said."""

    def __init__(self, engine: Any) -> None:
        self.info = engine.info
        self._engine = engine
        self.windows: list[Audio] = []
        self.words: list[str] = []

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        self.windows.append(audio)
        found: list[Utterance] = self._engine.transcribe(audio, language)
        self.words += [w.text for u in found for w in u.words or ()]
        return found


class Tokens:
    """Tokens that come out of mlx_whisper.transcribe while it is watched."""

    def __init__(self) -> None:
        import mlx_whisper

        self._module = mlx_whisper
        self._plain = mlx_whisper.transcribe
        self.said: list[int] = []

    def __enter__(self) -> Tokens:
        def watched(*args: Any, **named: Any) -> Any:
            result = self._plain(*args, **named)
            self.said += [t for s in result["segments"] for t in s["tokens"]]
            return result

        self._module.transcribe = watched
        return self

    def __exit__(self, *_: object) -> None:
        self._module.transcribe = self._plain


class Clock:
    """Wall and CPU seconds of the best of several tries."""

    def __init__(self) -> None:
        self.wall = self.cpu = float("inf")

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall = min(self.wall, time.perf_counter() - self._began[0])
        self.cpu = min(self.cpu, time.process_time() - self._began[1])


def direct() -> None:
    import mlx_whisper

    from podtool.engines.transcription_mlx_whisper import MlxWhisper

    with tempfile.TemporaryDirectory() as scratch:
        weights = model(Path(scratch), "half")
        path = Path(scratch) / "talk.wav"
        turns = conversation(path, 80)
        vad = engines.load("vad", "silero", context())
        params = TranscribeParams(language="en", align="own")
        options: dict[str, Any] = {
            "path_or_hf_repo": str(weights), "language": "en", "temperature": 0.0,
            "condition_on_previous_text": False, "word_timestamps": True, "verbose": None,
        }  # fmt: skip
        engine = Listening(MlxWhisper.load(context(model=str(weights))))
        with open_audio(path) as file:
            samples = file.read(0, file.frames).samples[0]
        through, alone, whole = Clock(), Clock(), Clock()
        for _ in range(3):  # the first of them warms up both
            engine.windows, engine.words = [], []
            with open_audio(path) as audio, Tokens() as ours, through:
                transcribe(audio, turns, engine, None, params, vad=vad)
            with Tokens() as theirs, alone:
                heard = [mlx_whisper.transcribe(w.samples[0], **options) for w in engine.windows]
            with whole:
                mlx_whisper.transcribe(samples, **options)
        said = [w["word"].strip() for h in heard for s in h["segments"] for w in s["words"]]
        # Before the stage leaves out what stands in silence: such weights give times by chance.
        words = engine.words
        count = len(engine.windows)
        say("mlx_whisper_time", through.wall / alone.wall, "x", "same windows", count)
        say("mlx_whisper_cpu", through.cpu / alone.cpu, "x", "same windows", count)
        say("mlx_whisper_cpu", through.cpu / whole.cpu, "x", "one call with the whole file")
        say("mlx_whisper_same_tokens", float(ours.said == theirs.said), "share", n=len(ours.said))
        say("mlx_whisper_same_words", float(words == said), "share", n=len(said))
        say("mlx_whisper_cpu_seconds", alone.cpu, "s", "called directly")
        say("mlx_whisper_cpu_seconds", through.cpu, "s", "through podtool")


def memory() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        weights = model(Path(scratch), "smallest")
        peaks = {}
        for label, seconds in (("ten minutes", 600), ("three hours", 3 * 3600)):
            path = Path(scratch) / f"{label.replace(' ', '-')}.wav"
            turns = conversation(path, seconds)
            info = soundfile.info(str(path))
            recording = Recording(path.stem, str(path), sha256_of(path), RATE, 1, info.frames)
            rows = path.with_suffix(".jsonl")
            write_rows([recording, *turns], rows)
            command = ["transcribe", rows, "--engine", "mlx-whisper", "--model", weights]
            done = podtool(*command, "--language", "en", "--align", "own")
            if done.code != 0:
                sys.exit(f"podtool transcribe failed with {done.code}: {done.stderr}")
            peaks[label] = done.peak_mb
            say("transcribe_peak_memory", done.peak_mb, "MB", label)
            say("transcribe_seconds", done.seconds, "s", label)
            path.unlink()
        say("transcribe_memory_growth", peaks["three hours"] / peaks["ten minutes"], "x")


def checks() -> None:
    vad = engines.load("vad", "silero", context())
    real = doubted = fast = 0
    texts: list[tuple[list[str], float]] = []
    for clip, text in readings(1):
        words = text.split()
        speech = sum(s.duration for s in vad.detect(clip))
        texts.append((words, speech))
        real += 1
        doubted += bool(doubts(words, speech))
        fast += bool(doubts(words, speech / 1.5))
    say("doubted_texts", doubted / real, "share", "read speech", real)
    say("doubted_texts", fast / real, "share", "the same at one and a half times the speed", real)
    missed = {"loops": 0, "invented": 0}
    rng = np.random.default_rng(0)
    for words, speech in texts:
        first = int(rng.integers(0, max(1, len(words) - 6)))
        phrase = words[first : first + int(rng.integers(1, 7))]
        loop = [*words[:first], *phrase * 8]
        missed["loops"] += not doubts(loop, speech + 30)
        missed["invented"] += len(words) > 5 and not doubts(words, 0.0)
    say(
        "missed_texts", missed["loops"] / real, "share", "a phrase of one to six words, eight times"
    )
    say("missed_texts", missed["invented"] / real, "share", "more than five words, no speech")


def silences() -> None:
    """Words of the embedded recogniser on music and noise that somebody took for a turn."""
    engine = engines.load("transcription", "moonshine", context())
    vad = engines.load("vad", "silero", context())
    rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
    for kind in ("music", "noise"):
        of_kind = [r for r in rows if r["kind"] == kind and r.get("category") != "babble"]
        paths = sorted(str(r["path"]) for r in of_kind)[:12]
        counts = {"with": 0, "without": 0}
        for path in paths:
            with open_audio(data_folder() / path) as file:
                rate = file.sample_rate
                heard = resample(to_mono(file.read(0, min(file.frames, 20 * rate))), RATE)
            turn = Turn("t", "r", 0.0, heard.duration, "S1")
            params = TranscribeParams(align="own")
            for name, gate in (("with", vad), ("without", None)):
                found = transcribe(heard, [turn], engine, None, params, vad=gate)
                counts[name] += sum(len(u.words or ()) for u in found)
        for name, count in counts.items():
            say("invented_words", count, "words", f"{kind}, {name} speech detection", len(paths))


def main() -> None:
    parts: dict[str, Callable[[], None]] = {
        "direct": direct,
        "memory": memory,
        "checks": checks,
        "silences": silences,
    }
    for name in sys.argv[1:] or list(parts):
        parts[name]()


if __name__ == "__main__":
    main()
