#!/usr/bin/env python3
"""What must be exact: the null test, the sum of the stems, the drift, the loudness after mastering.

usage: integrity.py [SHOW ...]      (default: clean-2spk music-2spk)

Compares the files that `separate` and `replace` wrote with the input by its own reading of the
samples, not by podtool's word for it. Prints metric rows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyloudnorm
import soundfile
from harness import podtool, say, shows_folder
from scipy.signal import resample_poly

CONSENT = "benchmark on openly licensed recordings"


def samples(path: Path | str) -> tuple[np.ndarray, int]:
    data, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    return data, int(rate)


def rows(text: str, kind: str) -> list[dict]:
    return [r for r in map(json.loads, filter(None, text.splitlines())) if r["kind"] == kind]


def must(run, what: str):
    if run.code != 0:
        sys.exit(f"{what} ended with {run.code}:\n{run.stderr[-2000:]}")
    return run


def main() -> None:
    for show in sys.argv[1:] or ["clean-2spk", "music-2spk"]:
        source = shows_folder() / show
        mix, rate = samples(source / "mix.flac")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stems = must(podtool("separate", source / "mix.flac", "--out-dir", folder), "separate")
            total = sum(samples(r["path"])[0] for r in rows(stems.stdout, "stem"))
            say("stem_sum_error", float(np.abs(total - mix).max()), "max |sample|", show)

            turned = folder / "turns.jsonl"
            turns = must(podtool("diarize", source / "mix.flac"), "diarize")
            turned.write_text(turns.stdout)
            speaker = min(rows(turns.stdout, "speaker"), key=lambda s: s["speech_s"])["id"]
            common = (
                "--speaker", speaker, "--voice", source / "voice-target.flac",
                "--consent", CONSENT,
            )  # fmt: skip
            new = folder / "new.wav"
            must(podtool("replace", source / "mix.flac", *common, "-o", new), "replace")
            result, _ = samples(new)
            takes = [
                json.loads(line)
                for path in folder.glob("new.podtool/synthesize/*.jsonl")
                for line in path.read_text().splitlines()
            ]
            takes = [t for t in takes if t["kind"] == "take"]
            outside = np.ones(len(mix), bool)
            drift = 0.0
            for take in takes:
                first, last = round(take["start"] * rate), round(take["end"] * rate)
                outside[first:last] = False
                drift = max(drift, abs(take["frames"] - (last - first)) / rate * 1000)
            say("null_test", float(np.abs(result - mix)[outside].max()), "max |sample|", show)
            changed = np.abs(result - mix)[~outside]
            say("changed_inside_slots", float(np.sqrt((changed**2).mean())), "rms", show)
            say("convert_drift", round(drift, 3), "ms", show, len(takes))
            say("length_difference", abs(len(result) - len(mix)), "samples", show)

            text = must(podtool("transcribe", turned), "transcribe").stdout
            spoken = folder / "rows.jsonl"
            spoken.write_text(text)
            said = podtool(
                "synthesize", spoken, "--method", "speak", "--allow-draft", *common[:6],
                "--out-dir", folder / "spoken",
            )  # fmt: skip
            drifts = [
                abs(t["checks"][key])
                for t in rows(said.stdout, "take")
                for key in ("first_word_drift_ms", "last_word_drift_ms")
                if t["fits"]
            ]
            if drifts:  # without the extra `speak` there is nothing to measure
                say("speak_drift", max(drifts), "ms", show, len(drifts) // 2)
                unfit = sum(not t["fits"] for t in rows(said.stdout, "take"))
                say("speak_does_not_fit", unfit, "takes", show)

            apple = folder / "apple.wav"
            must(
                podtool("replace", source / "mix.flac", *common, "--master", "apple", "-o", apple),
                "replace --master apple",
            )
            mastered, _ = samples(apple)
            meter = pyloudnorm.Meter(rate)
            say("apple_loudness_error", abs(meter.integrated_loudness(mastered) + 16.0), "LU", show)
            peak = np.abs(resample_poly(mastered, 4, 1, axis=0)).max()
            say("apple_true_peak", 20 * np.log10(peak), "dBTP", show)


if __name__ == "__main__":
    main()
