"""Conversion: the ten pairs of pairs.toml, and the price of similarity in words and sound.

usage: python benchmarks/conversion.py [--engine NAME ...] [--out DIR] [--set FIELD=VALUE ...]

All conversion engines that run here by default, the same pairs in the same run, from the same
profiles (those of podtool's, in which WORLD's stand). The rows of the engine that `auto` takes have
the plain names of the pairs, those of others the name of the engine before it.

similarity   cosine of each converted utterance with the target's unseen speech (mean embedding of
             its utterances), by CAM++ and by GE2E; beside it: the unconverted source, the target's
             own other speech (the same-speaker level), and the source before and after. A take has
             the level of the turn that it replaces, and GE2E hears level (its mel is not
             logarithmic), so all clips are brought to -30 dBFS first, the level to which it raises
             quiet input; `ge2e_as_recorded` is without that
rank         pairs whose converted speech (mean of its utterances) is nearest to the target among
             all speakers of read/, each by the mean of its utterances (the target: the unseen ones)
wer          Moonshine on the converted utterance against Moonshine on the source
dnsmos       DNSMOS P.835 overall, converted less source
mcd          mel-cepstral distortion (24 coefficients, DTW) to the target's own reading of the same
             sentence, converted and unconverted
f0           correlation of log F0 with the source's where both are voiced; median F0 against the
             median of the target's unseen speech, as a share of it. Beside them: the same by
             Harvest, the engines' own tracker (`f0_correlation_harvest`); by both trackers, the
             source and the source in noise 40 dB under it, which is how well a pitch that has not
             changed can do (`f0_correlation_control`); and the target's enrolment against its
             unseen speech (`f0_median_off_itself`), which no voice made of it can expect to beat
rtf          seconds of computing per second of speech converted (analysis of the speaker apart), on
             one core
size         of the weights that the engine has beside those of the recogniser

`--out` keeps the converted audio. Needs PODTOOL_DATA (default ../shared/data) and weights
(`podtool models pull embedded dnsmos`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pitch as judge
from harness import ROOT, data_folder, say
from numpy.typing import NDArray

from podtool import engines
from podtool.artifacts import Turn
from podtool.audio import Audio, open_audio, write_audio
from podtool.engines.protocols import EngineContext
from podtool.engines.world_frames import analyse
from podtool.engines.world_profile import SpeechProfile, speech_frames
from podtool.resample import resample, to_mono
from podtool.segments import Span
from podtool.stages.clone import clone
from podtool.stages.convert import ConvertedTurn, ConvertParams, analyse_speaker, convert
from podtool.store import ModelStore
from podtool.text import normalise

Vector = NDArray[np.float64]
RATE = 16000


class Bench:
    """Data, engines and the embeddings that were asked for before."""

    def __init__(self, names: list[str]) -> None:
        self.context = EngineContext(store=ModelStore(), device="cpu", threads=1)
        rows = [json.loads(line) for line in (data_folder() / "MANIFEST.jsonl").open()]
        self.rows = {r["path"]: r for r in rows if r["kind"] == "read"}
        self.embedders = {
            n: engines.load("embedding", n.partition("_")[0], self.context) for n in NAMES
        }
        self.recogniser = engines.load("transcription", "moonshine", self.context)
        here = names or [
            n
            for n in engines.engine_names("conversion")
            if engines.availability("conversion", n, self.context).available
        ]
        self.engines = {n: engines.load("conversion", n, self.context) for n in here}
        self.hearing = self.engines.get("podtool") or next(iter(self.engines.values()))
        self.dnsmos = Dnsmos(self.context)
        self._vectors: dict[tuple[str, str], Vector] = {}

    def audio(self, path: str) -> Audio:
        with open_audio(data_folder() / path) as file:
            return resample(to_mono(file.read()), RATE)

    def of(self, speaker: str) -> list[str]:
        return sorted(p for p, r in self.rows.items() if r["speaker"] == speaker)

    def vector(self, name: str, path: str) -> Vector:
        key = (name, path)
        if key not in self._vectors:
            self._vectors[key] = self.embed(name, self.audio(path))
        return self._vectors[key]

    def embed(self, name: str, audio: Audio) -> Vector:
        samples = audio.samples
        if not name.endswith("_as_recorded"):
            rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean())) + 1e-9
            samples = (samples * (10 ** (LEVEL_DBFS / 20) / rms)).astype(np.float32)
        return np.asarray(self.embedders[name].embed(Audio(samples, RATE)), np.float64)

    def centre(self, name: str, paths: list[str]) -> Vector:
        return unit(np.mean([self.vector(name, p) for p in paths], axis=0))

    def text(self, audio: Audio) -> str:
        return " ".join(u.text for u in self.recogniser.transcribe(audio, "en"))


NAMES = ("campplus", "ge2e", "ge2e_as_recorded")
LEVEL_DBFS = -30.0


def unit(x: Vector) -> Vector:
    return np.asarray(x / np.linalg.norm(x))


class Dnsmos:
    """Overall quality, 1 to 5: windows of 9.01 s every second, short clips repeated.

    Reddy et al., "DNSMOS P.835", ICASSP 2022; the polynomial is that of the published script.
    """

    LENGTH = int(9.01 * RATE)

    def __init__(self, context: EngineContext) -> None:
        from podtool.engines.onnx_session import open_session

        self.session = open_session(context.model("dnsmos") / "sig_bak_ovr.onnx", 1)

    def overall(self, audio: Audio) -> float:
        x = np.clip(audio.samples[0], -1.0, 1.0)
        while len(x) < self.LENGTH:
            x = np.concatenate([x, x])
        hops = int(np.floor(len(x) / RATE) - 9.01) + 1
        raw = [
            float(self.session.run(None, {"input_1": x[None, s : s + self.LENGTH]})[0][0][2])
            for s in range(0, hops * RATE, RATE)
            if s + self.LENGTH <= len(x)
        ]
        return float(np.polyval([-0.06766283, 1.11546468, 0.04602535], np.mean(raw)))


def mel_cepstra(audio: Audio) -> Vector:
    """(n, 24) mel-cepstra 1 to 24 of the speech frames, 10 ms apart."""
    envelope = analyse(audio.samples[0]).envelope
    envelope = envelope[speech_frames(envelope)][::2]
    bands = envelope.shape[1]
    k = np.arange(1, 25)[:, None]
    waves = np.cos(np.pi * k * (np.arange(bands) + 0.5) / bands)
    # log amplitude = c0 + sum of c_k cos(k w): half of the log power, twice its mean against cos
    return np.asarray(envelope @ waves.T / bands)


def distortion(a: Audio, b: Audio) -> float:
    """dB: mean over the best warping path of 10/ln 10 * sqrt(2 * sum of squared differences)."""
    x, y = mel_cepstra(a), mel_cepstra(b)
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    cost = 10 / np.log(10) * np.sqrt(2 * np.maximum(squares, 0.0))
    total = np.full((len(x) + 1, len(y) + 1), np.inf)
    steps = np.zeros_like(total)
    total[0, 0] = 0.0
    for diagonal in range(2, len(x) + len(y) + 1):
        i = np.arange(max(1, diagonal - len(y)), min(len(x), diagonal - 1) + 1)
        j = diagonal - i
        options = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        counts = np.stack([steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]])
        best = options.argmin(axis=0)
        at = np.arange(len(i))
        total[i, j] = options[best, at] + cost[i - 1, j - 1]
        steps[i, j] = counts[best, at] + 1
    return float(total[-1, -1] / steps[-1, -1])


def log_f0(audio: Audio, tracker: str = "judge") -> Vector:
    """(n,) natural log of F0 every 5 ms, NaN where unvoiced."""
    samples = audio.samples[0]
    f0 = judge.f0(samples) if tracker == "judge" else analyse(samples, resynthesis=False).f0
    return np.asarray(np.log(np.where(f0 > 0, f0, np.nan)))


def correlation(a: Vector, b: Vector) -> float:
    """Of two contours where both are voiced; they may differ by a frame in length."""
    count = min(len(a), len(b))
    a, b = a[:count], b[:count]
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def in_noise(audio: Audio, below_db: float = 40.0) -> Audio:
    """With white noise so far under its mean level."""
    x = audio.samples
    rms = float(np.sqrt(np.square(x, dtype=np.float64).mean()))
    noise = np.random.default_rng(0).normal(0.0, rms * 10 ** (-below_db / 20), x.shape)
    return Audio((x + noise).astype(np.float32), audio.sample_rate)


def joined(bench: Bench, paths: list[str]) -> tuple[Audio, list[Turn]]:
    """Utterances as one recording with half a second between them, and a turn for each."""
    pause = np.zeros((1, RATE // 2), np.float32)
    parts: list[NDArray[np.float32]] = []
    turns: list[Turn] = []
    at = 0
    for n, path in enumerate(paths):
        samples = bench.audio(path).samples
        end = at + samples.shape[1]
        turns.append(Turn(f"t{n:04d}", "joined", at / RATE, end / RATE, "S1"))
        parts += [samples, pause]
        at = end + pause.shape[1]
    return Audio(np.concatenate(parts, axis=1), RATE), turns


def voice_of(bench: Bench, paths: list[str]) -> SpeechProfile:
    """The voice as `podtool clone` makes it of these recordings."""
    audio, turns = joined(bench, paths)
    return clone(audio, "joined", turns, "S1", bench.hearing, bench.embedders["campplus"]).profile


def run_pair(
    bench: Bench, pair: dict[str, Any], params: ConvertParams, out: Path | None
) -> dict[str, dict[str, list[float]]]:
    """Engine -> what was measured on the pair's utterances."""
    unseen, sources = pair["unseen"], bench.of(pair["source"])
    voice = voice_of(bench, [p for p in bench.of(pair["target"]) if p not in unseen])
    episode, turns = joined(bench, sources)
    spans = [Span(t.start, t.end) for t in turns]
    profile = analyse_speaker(episode, spans, bench.hearing, params, 1)
    chosen = [turns[sources.index(p)] for p in pair["convert"]]
    found = {}
    for name, engine in bench.engines.items():
        began = time.process_time()
        mapping = engine.voice_map(profile, voice, params.mapping())
        takes = list(convert(episode, chosen, engine, mapping, params, workers=1))
        seconds = time.process_time() - began
        folder = None if out is None else out / name
        found[name] = scored(bench, pair, takes, folder) | {"convert_s": [seconds]}
    return found


def scored(
    bench: Bench, pair: dict[str, Any], takes: list[ConvertedTurn], out: Path | None
) -> dict[str, list[float]]:
    unseen, sources = pair["unseen"], bench.of(pair["source"])
    enrolment = [p for p in bench.of(pair["target"]) if p not in unseen]
    found: dict[str, list[float]] = {
        "speech_s": [sum(t.turn.end - t.turn.start for t in takes)],
        "drift_ms": [
            max(abs(t.checks["first_word_drift_ms"]), abs(t.checks["last_word_drift_ms"]))
            for t in takes
        ],
        "left": [t.checks.get("left_to_source", 0.0) for t in takes],
        "length_error": [abs(t.checks["length_error_frames"]) for t in takes],
    }
    texts = {normalise(bench.rows[p]["transcript"]): p for p in unseen}
    vectors: dict[str, list[Vector]] = {n: [] for n in NAMES}
    pitches: list[Vector] = []
    for path, take in zip(pair["convert"], takes, strict=True):
        before, after = bench.audio(path), take.audio.read()
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_audio(out / f"{Path(path).stem}-as-{pair['target']}.wav", after)
        for name in NAMES:
            vectors[name].append(bench.embed(name, after))
        heard, meant = normalise(bench.text(after)), normalise(bench.text(before))
        add(found, "errors", word_distance(meant, heard))
        add(found, "words", len(meant.split()))
        pitch, noisy = log_f0(after), in_noise(before)
        for tracker, end in (("judge", ""), ("harvest", "_harvest")):
            its_own = log_f0(before, tracker)
            add(found, f"f0_correlation{end}", correlation(log_f0(after, tracker), its_own))
            control = correlation(log_f0(noisy, tracker), its_own)
            add(found, f"f0_correlation_control{end}", control)
        pitches.append(pitch[np.isfinite(pitch)])
        add(found, "dnsmos", bench.dnsmos.overall(after))
        add(found, "dnsmos_change", bench.dnsmos.overall(after) - bench.dnsmos.overall(before))
        same = texts.get(normalise(bench.rows[path]["transcript"]))
        if same is not None:
            theirs = bench.audio(same)
            add(found, "mcd", distortion(after, theirs))
            add(found, "mcd_source", distortion(before, theirs))
    theirs_f0 = np.concatenate([log_f0(bench.audio(p)) for p in unseen])
    middle = np.nanmedian(theirs_f0)
    known_f0 = np.nanmedian(np.concatenate([log_f0(bench.audio(p)) for p in enrolment]))
    found["f0_median_off"] = [abs(float(np.exp(np.median(np.concatenate(pitches)) - middle)) - 1)]
    found["f0_median_off_itself"] = [abs(float(np.exp(known_f0 - middle)) - 1)]
    for name in NAMES:
        target = bench.centre(name, unseen)
        source = bench.centre(name, [p for p in sources if p not in pair["convert"]] or sources)
        for path, vector in zip(pair["convert"], vectors[name], strict=True):
            add(found, f"similarity_{name}", vector @ target)
            add(found, f"unconverted_{name}", bench.vector(name, path) @ target)
            add(found, f"to_source_{name}", vector @ source)
            add(found, f"source_to_itself_{name}", bench.vector(name, path) @ source)
        for path in enrolment:
            add(found, f"same_speaker_{name}", bench.vector(name, path) @ target)
        found[f"rank_{name}"] = [
            rank(bench, name, unit(np.sum(vectors[name], axis=0)), pair["target"], unseen)
        ]
    return found


def add(found: dict[str, list[float]], name: str, value: Any) -> None:
    found.setdefault(name, []).append(float(value))


def word_distance(reference: str, found: str) -> int:
    """Levenshtein distance in words."""
    a, b = reference.split(), found.split()
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def rank(bench: Bench, name: str, vector: Vector, target: str, unseen: list[str]) -> float:
    """1 where the target is the nearest of all speakers of read/."""
    speakers = sorted({r["speaker"] for r in bench.rows.values()})
    near = {
        s: float(vector @ bench.centre(name, unseen if s == target else bench.of(s)))
        for s in speakers
    }
    return 1.0 + sum(v > near[target] for v in near.values())


def report(
    all_found: list[tuple[dict[str, Any], dict[str, list[float]]]], before: str, size: int
) -> None:
    """Rows of one engine; `before` stands before the names of the pairs."""
    kinds = {
        f"{before}ten pairs": all_found,
        f"{before}within gender": [f for f in all_found if not f[0]["across"]],
        f"{before}across gender": [f for f in all_found if f[0]["across"]],
    }
    whole = before.rstrip(" ,") or None
    for label, group in kinds.items():
        for name in NAMES:
            for what in ("similarity", "unconverted", "same_speaker", "to_source"):
                key = f"{what}_{name}"
                say(
                    key,
                    float(np.mean([np.mean(f[key]) for _, f in group])),
                    "cosine",
                    label,
                    len(group),
                )
            key = f"source_to_itself_{name}"
            say(
                key,
                float(np.mean([np.mean(f[key]) for _, f in group])),
                "cosine",
                label,
                len(group),
            )
            first = sum(f[f"rank_{name}"][0] == 1 for _, f in group)
            say(f"target_first_{name}", float(first), "pairs", label, len(group))
        errors, words = (sum(sum(f[k]) for _, f in group) for k in ("errors", "words"))
        say("conversion_wer", errors / words, "share", label, int(words))
        say("dnsmos", mean(group, "dnsmos"), "MOS", label)
        say("dnsmos_change", mean(group, "dnsmos_change"), "MOS", label)
        for name in ("", "_control", "_harvest", "_control_harvest"):
            say(f"f0_correlation{name}", mean(group, f"f0_correlation{name}"), "1", label)
        for name in ("f0_median_off", "f0_median_off_itself"):
            say(name, mean(group, name), "share", label)
        have = [f for f in group if "mcd" in f[1]]
        if have:
            ours, theirs = mean(have, "mcd"), mean(have, "mcd_source")
            count = sum(len(f["mcd"]) for _, f in have)
            say("mcd", ours, "dB", label, count)
            say("mcd_unconverted", theirs, "dB", label, count)
            say("mcd_gain", theirs - ours, "dB", label, count)
    speech = sum(f["speech_s"][0] for _, f in all_found)
    say("conversion_rtf", sum(f["convert_s"][0] for _, f in all_found) / speech, "x", whole)
    drift = max(max(f["drift_ms"]) for _, f in all_found)
    say("conversion_drift_ms", drift, "ms", f"{before}worst take")
    length = max(max(f["length_error"]) for _, f in all_found)
    say("conversion_length_error", length, "frames", whole)
    left = float(np.mean([np.mean(f["left"]) for _, f in all_found]))
    say("left_to_the_source", left, "share", f"{before}ten pairs")
    say("weights_mb", size / 1e6, "MB", whole)


def mean(group: list[tuple[dict[str, Any], dict[str, list[float]]]], key: str) -> float:
    """Over the pairs, each of which counts once, however many utterances it has."""
    return float(np.mean([np.mean(found[key]) for _, found in group]))


def main() -> None:
    parser = argparse.ArgumentParser(description="the conversion figures")
    parser.add_argument("--engine", action="append", default=[], help="one of those; repeatable")
    parser.add_argument("--out", type=Path, help="keep the converted audio here")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    params = ConvertParams()
    kinds = {f.name: type(getattr(params, f.name)) for f in fields(params)}
    for setting in options.set:
        name, _, value = setting.partition("=")
        params = replace(params, **{name: kinds[name](value)})
    pairs = tomllib.loads((ROOT / "benchmarks" / "pairs.toml").read_text())["pair"]
    bench = Bench(options.engine)
    done: dict[str, list[tuple[dict[str, Any], dict[str, list[float]]]]] = {}
    for pair in pairs:
        for speaker in (pair["source"], pair["target"]):
            if any(bench.rows[p]["in_train"] for p in bench.of(speaker)):
                sys.exit(f"{speaker} is a training speaker")
        for name, found in run_pair(bench, pair, params, options.out).items():
            done.setdefault(name, []).append((pair, found))
            print(
                f"{name}, {pair['source']} -> {pair['target']}: "
                + ", ".join(f"{k} {np.mean(v):.3f}" for k, v in found.items()),
                file=sys.stderr,
                flush=True,
            )
    usual = engines.choose("conversion", bench.context)
    for name, of_pairs in done.items():
        report(of_pairs, "" if name == usual else f"{name}, ", weights_bytes(bench, name))


def weights_bytes(bench: Bench, name: str) -> int:
    """Of the files of an engine's models, the recogniser's left out."""
    models = engines.engine_class("conversion", name).info.models
    folders = [bench.context.model(m) for m in models if not m.startswith("moonshine")]
    return sum(f.stat().st_size for folder in folders for f in folder.glob("*.onnx"))


if __name__ == "__main__":
    main()
