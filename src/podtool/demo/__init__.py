"""The demo episode: two real readers in turn over a music bed, with the truth of who says what.

Sources are the models `demo-recordings` (readings of A Tale of Two Cities and of Sense and
Sensibility) and `demo-voice` (a third person, whose voice the second reader is given). Everything
but the readings is made by seeded code, so a seed stands for one episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from podtool.artifacts import Recording, Row, Turn, Utterance
from podtool.audio import Audio, open_audio, sha256_of, write_audio
from podtool.demo.music import bed
from podtool.resample import resample, to_mono

RATE = 44_100
INTRO_S, OUTRO_S, MARGIN_S, FADE_S = 4.0, 4.0, 0.08, 0.02
SPEECH_RMS_DB, BED_RMS_DB, INTRO_RMS_DB = -21.0, -39.0, -27.0
CONSENT = "AMI Meeting Corpus, participant MEE009, published under CC BY 4.0"


@dataclass(frozen=True, slots=True)
class Clip:
    """Speech in a recording: from the first to the last word, in its own seconds."""

    file: str
    start: float
    end: float
    text: str


# Times by forced alignment of the known texts; a margin is kept on either side.
DICKENS = (
    Clip("two_cities.wav", 1.17, 8.21, "It was the best of times, it was the worst of times, "
         "it was the age of wisdom, it was the age of foolishness,"),
    Clip("two_cities.wav", 8.80, 16.71, "it was the epoch of belief, it was the epoch of "
         "incredulity, it was the season of light, it was the season of darkness,"),
    Clip("two_cities.wav", 17.55, 24.03, "it was the spring of hope, it was the winter of despair, "
         "we had everything before us, we had nothing before us,"),
    Clip("two_cities.wav", 24.63, 28.25, "we were all going direct to heaven, we were all going "
         "direct the other way."),
    Clip("two_cities.wav", 29.10, 36.58, "In short, the period was so far like the present period, "
         "that some of its noisiest authorities insisted on its being received,"),
    Clip("two_cities.wav", 36.89, 41.62, "for good or for evil, in the superlative degree of "
         "comparison only."),
)  # fmt: skip
AUSTEN = (
    Clip("austen-0870.wav", 0.20, 6.79, "And Mr. John Dashwood had then leisure to consider how "
         "much there might be prudently in his power to do for them."),
    Clip("austen-0880.wav", 0.21, 2.74, "He was not an ill-disposed young man,"),
    Clip("austen-0890.wav", 0.27, 5.09, "unless to be rather cold-hearted and rather selfish is to "
         "be ill-disposed."),
    Clip("austen-0920.wav", 0.22, 5.83, "Had he married a more amiable woman, he might have been "
         "made still more respectable than he was:"),
    Clip("austen-0930.wav", 0.21, 3.02, "he might even have been made amiable himself."),
)  # fmt: skip
# MEE009 where nobody else of the meeting is heard, by the corpus's own annotation.
VOICE = (
    ("ami-dev00.wav", 1.45, 13.10),
    ("ami-dev00.wav", 18.42, 20.52),
    ("ami-dev00.wav", 21.97, 23.04),
    ("ami-dev00.wav", 23.84, 26.16),
    ("ami-dev00.wav", 28.42, 29.96),
    ("ami-dev01.wav", 7.05, 11.75),
    ("ami-dev01.wav", 15.15, 16.36),
    ("ami-dev01.wav", 17.58, 19.54),
    ("ami-dev01.wav", 21.33, 22.44),
)


@dataclass(frozen=True, slots=True)
class Demo:
    """The episode (stereo), its parts, which sum to it, and the truth. A is S1, B is S2."""

    episode: Audio
    readers: tuple[Audio, Audio]
    music: Audio
    turns: list[Turn]
    utterances: list[Utterance]
    voice: Audio


def build(recordings: Path, voice: Path, seed: int = 7) -> Demo:
    """Read the clips from the two model folders and mix. About 75 s at 44.1 kHz."""
    rng = np.random.default_rng(seed)
    levels = (_gain(recordings, DICKENS), _gain(recordings, AUSTEN))
    placed: list[tuple[int, float, Clip, NDArray[np.float32]]] = []
    at = INTRO_S
    for number, (who, clip) in enumerate(_in_turn()):
        samples = _cut(recordings / clip.file, clip.start, clip.end) * levels[who]
        if number:
            # Once, one reader does not wait for the other to finish.
            at += -0.7 if number == 8 else float(rng.uniform(0.35, 0.75))
        placed.append((who, at, clip, samples))
        at += clip.end - clip.start
    frames = round((at + OUTRO_S) * RATE)
    tracks = np.zeros((2, frames), np.float32)
    turns: list[Turn] = []
    utterances: list[Utterance] = []
    for number, (who, start, clip, samples) in enumerate(placed, 1):
        first = round((start - MARGIN_S) * RATE)
        tracks[who, first : first + samples.size] += samples
        turn_id, end = f"t{number:04d}", start + clip.end - clip.start
        speaker = f"S{who + 1}"
        turns.append(Turn(turn_id, "episode", round(start, 6), round(end, 6), speaker))
        utterances.append(
            Utterance(
                f"u{number:04d}", "episode", round(start, 6), round(end, 6), clip.text,
                speaker=speaker, turn=turn_id, language="en",
            )
        )  # fmt: skip
    music = _ducked(bed(frames / RATE, RATE, seed), np.abs(tracks).sum(axis=0))
    readers = tuple(Audio(np.repeat(track[None], 2, axis=0), RATE) for track in tracks)
    episode = Audio(readers[0].samples + readers[1].samples + music.samples, RATE)
    return Demo(episode, (readers[0], readers[1]), music, turns, utterances, _reference(voice))


def write(demo: Demo, folder: Path) -> dict[str, Path]:
    """episode.wav, voice.wav, truth.rttm, truth.jsonl into `folder`; name -> path."""
    from podtool.formats.rttm import write as to_rttm
    from podtool.rowio import write_rows

    folder.mkdir(parents=True, exist_ok=True)
    paths = {name.split(".")[0]: folder / name for name in ("episode.wav", "voice.wav")}
    write_audio(paths["episode"], demo.episode)
    write_audio(paths["voice"], demo.voice)
    paths["rttm"], paths["rows"] = folder / "truth.rttm", folder / "truth.jsonl"
    episode = demo.episode
    recording = Recording(
        "episode",
        str(paths["episode"].resolve()),
        sha256_of(paths["episode"]),
        episode.sample_rate,
        episode.channels,
        episode.frames,
    )
    rows: list[Row] = [recording, *demo.turns, *demo.utterances]
    write_rows(rows, paths["rows"])
    paths["rttm"].write_text(to_rttm(rows), "utf-8")
    return paths


def _in_turn() -> list[tuple[int, Clip]]:
    order: list[tuple[int, Clip]] = []
    for number, clip in enumerate(DICKENS):
        order.append((0, clip))
        if number < len(AUSTEN):
            order.append((1, AUSTEN[number]))
    return order


def _cut(path: Path, start: float, end: float) -> NDArray[np.float32]:
    """Mono samples at 44.1 kHz with a margin on either side, faded at the cuts."""
    with open_audio(path) as source:
        rate = source.sample_rate
        first = max(0, round((start - MARGIN_S) * rate))
        audio = source.read(first, round((end + MARGIN_S) * rate))
    return _faded(resample(to_mono(audio), RATE).samples[0], RATE)


def _faded(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    ramp = np.linspace(0, 1, round(FADE_S * rate), dtype=np.float32)
    faded = samples.copy()
    faded[: ramp.size] *= ramp
    faded[-ramp.size :] *= ramp[::-1]
    return faded


def _gain(folder: Path, clips: tuple[Clip, ...]) -> np.float32:
    """One gain per reader, so that the readers are equally loud and keep their own dynamics."""
    whole = np.concatenate([_cut(folder / c.file, c.start, c.end) for c in clips])
    level = 10 ** (SPEECH_RMS_DB / 20) / np.sqrt(np.mean(whole.astype(float) ** 2))
    return np.float32(level)


def _ducked(music: Audio, speech: NDArray[np.float32]) -> Audio:
    """The bed at two levels: up where nobody speaks for long, down under speech, slow between."""
    step = RATE // 100
    talking = np.add.reduceat(speech, np.arange(0, speech.size, step)) > 0
    reach = np.ones(150)  # stays down 0.75 s around speech, so that it does not pump in pauses
    down = np.convolve(talking, reach, "same") > 0.5
    window = np.hanning(100) / np.hanning(100).sum()
    level_db = (
        INTRO_RMS_DB
        + (BED_RMS_DB - INTRO_RMS_DB)
        * np.convolve(np.pad(down.astype(float), 50, "edge"), window, "same")[50:-50]
    )
    samples = music.samples.astype(float)
    gain = 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2))
    at = np.arange(speech.size) / step
    envelope = np.interp(at, np.arange(gain.size), gain)
    edge = round(1.5 * RATE)
    envelope[:edge] *= np.linspace(0, 1, edge)
    envelope[-edge:] *= np.linspace(1, 0, edge)
    return Audio((samples * envelope).astype(np.float32), RATE)


def _reference(folder: Path) -> Audio:
    """The third person alone, without the listeners' interjections, mono at its own 16 kHz."""
    parts: list[NDArray[np.float32]] = []
    for name, start, end in VOICE:
        with open_audio(folder / name) as source:
            rate = source.sample_rate
            samples = source.read(round(start * rate), round(end * rate)).samples[0]
        parts += [_faded(samples, rate), np.zeros(round(0.25 * rate), np.float32)]
    whole = np.concatenate(parts[:-1])
    return Audio((0.5 * whole / np.abs(whole).max())[None].astype(np.float32), rate)
