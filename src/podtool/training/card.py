"""The model card of a training: what the network is, was taught with, reaches, and cannot do."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, float]
_CURVE_ROWS = 12
_TASKS = {
    "converter": "speech of anybody into the voice of an enrolment, keeping timing and intonation",
    "background": "speech apart from music and noise",
    "talkers": "simultaneous talkers apart from each other and from what is left of the mixture",
}
_CONVERTER_FIGURES = {
    "mcd": "mel-cepstral distortion (dB)",
    "phone_error": "share of frames whose phone is wrong",
    "spread": "spread of the cepstra against the true one",
}
_CONVERTER_LIMITS = """## Limits

- **A voice may be converted into with the consent of the person whose it is**, and what comes out
  is to be marked as synthetic. podtool asks for the consent at `clone` and marks its output.
- Its sounds come from an English recogniser: other languages are heard through English.
- It was taught by reading adults. Children, singing, shouting, whispers and accents unlike those
  of LibriSpeech are untested; laughter and what else is no phone stays in the source's timbre.
- It gives the envelope up to 8 kHz; intonation and rhythm stay those of the source."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The exported weights: which step of the training they are of, and the file's facts."""

    file: str
    sha256: str
    bytes: int
    parameters: int
    step: int


def write_card(
    name: str, licence: str, facts: Mapping[str, Any], rows: Sequence[Row], weights: Weights
) -> str:
    """The card as Markdown. `facts` is a training.json, `rows` are those of its curve."""
    converter = facts["recipe"]["task"] == "converter"
    parts = (
        f"# {name}\n\n{facts['recipe']['about'] or facts['recipe']['name']}",
        _what(licence, facts, rows, weights),
        _data(facts),
        _figures(facts, rows, weights),
        _CONVERTER_LIMITS if converter else _limits(facts),
    )
    return "\n\n".join(parts) + "\n"


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of a curve.csv; empty places are left out. Raises OSError, ValueError."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _what(licence: str, facts: Mapping[str, Any], rows: Sequence[Row], weights: Weights) -> str:
    recipe = facts["recipe"]
    hours = max((row["hours"] for row in rows if row["step"] <= weights.step), default=0.0)
    told = [
        ("task", _TASKS[recipe["task"]]),
        ("network", _network(recipe)),
        ("parameters", f"{weights.parameters / 1e6:.2f} million"),
        ("weights", f"`{weights.file}`, {weights.bytes} bytes, sha256 `{weights.sha256}`"),
        ("licence", licence),
        ("recipe", f"{recipe['name']}, digest `{facts['digest']}`, seed {recipe['seed']}"),
        (
            "trained",
            f"{weights.step} steps of {_per_step(recipe)}, {hours:.1f} h, "
            f"by podtool {facts['podtool']}",
        ),
    ]
    for earlier in facts.get("earlier") or ():
        told.append((f"to step {earlier['step']}", f"recipe of digest `{earlier['digest']}`"))
    if start := facts.get("start"):
        told.append(("began as", f"`{start['name']}`, sha256 `{start['sha256']}`"))
    return _table(("", ""), told)


def _network(recipe: Mapping[str, Any]) -> str:
    network = recipe["network"]
    if recipe["task"] == "converter":
        return (
            f"gated convolutions over 10 ms frames, {network['channels']} channels: "
            f"{network['sound_layers']} layers from the states of moonshine-tiny-en's encoder and "
            f"the shape of the spectrum to {network['sounds']} values of what is said, attention "
            f"of {network['heads']} heads to the enrolment, {network['voice_layers']} layers to "
            "mel-cepstra; offline"
        )
    frame_ms = 1000 * network["window"] / network["sample_rate"]
    form = f"causal, {frame_ms:g} ms of latency" if network["causal"] else "offline"
    return (
        f"band-split dual-path LSTM over {frame_ms:g} ms frames at "
        f"{network['sample_rate']} Hz, {network['layers']} layers, {form}"
    )


def _per_step(recipe: Mapping[str, Any]) -> str:
    count = recipe["training"]["batch"] * recipe["training"]["accumulate"]
    if recipe["task"] == "converter":
        p = recipe["examples"]
        seconds = p["frames"] / 100
        return f"{count} people, {p['said']} stretches of {seconds:g} s said from {p['known']}"
    return f"{count} scenes of {recipe['mixing']['seconds']:g} s"


def _data(facts: Mapping[str, Any]) -> str:
    data = facts["recipe"]["data"]
    credits = [(str(c), str(licence), int(n), float(s)) for c, licence, n, s in facts["credits"]]
    by_corpus: dict[str, float] = {}
    for corpus, _, _, seconds in credits:
        by_corpus[corpus] = by_corpus.get(corpus, 0.0) + seconds
    total = sum(by_corpus.values())
    most, seconds = max(by_corpus.items(), key=lambda item: item[1])
    mixing = facts["recipe"].get("mixing", {})
    converter = facts["recipe"]["task"] == "converter"
    beside = ", with music and noise, mixed while training"
    if converter:
        minutes = facts["recipe"]["examples"]["minutes"]
        beside = f", at most {minutes:g} minutes of each and at least one recording, out of these"
    made = [
        f"{mixing.get(f'synthetic_{what}_share', 0):.0%} of the {what}"
        for what in ("noise", "music")
        if mixing.get(f"synthetic_{what}_share")
    ]
    lines = [
        "## Data",
        f"{facts['speech_hours']:.1f} h of speech by {facts['speakers']} people{beside}"
        + (f"; {' and '.join(made)} is synthetic" if made else "")
        + ". Credits:",
        _table(
            ("collection", "licence", "files", "minutes"),
            [(c, licence, n, f"{s / 60:.1f}") for c, licence, n, s in credits],
        ),
        f"{seconds / total:.0%} of it is from {most}: **figures on {most} would be worthless**, "
        "as would be those on any other collection above.",
    ]
    kept_out = {
        "speakers": data["exclude_speakers"],
        "files": data["exclude_files"],
        "anything licensed": data["exclude_licences"],
        "for validation, speakers": data["validation_speakers"],
        "for validation, files": data["validation_files"],
    }
    told = [f"- {what}: {', '.join(names)}" for what, names in kept_out.items() if names]
    if told:
        lines.append("Kept out of training, by name:\n\n" + "\n".join(told))
    return "\n\n".join(lines)


def _figures(facts: Mapping[str, Any], rows: Sequence[Row], weights: Weights) -> str:
    training = facts["recipe"]["training"]
    converter = facts["recipe"]["task"] == "converter"
    chosen = tuple(_CONVERTER_FIGURES) if converter else ("si_sdr",)
    names = sorted({n for row in rows for n in row if n.startswith(chosen)})
    best = next((row for row in rows if row["step"] == weights.step), None)
    lines = ["## Figures"]
    if converter:
        lines.append(
            f"Over {training['validation_scenes']} examples of {facts['validation_speakers']} "
            "people kept out of training: each disguised, and said again in the own voice from "
            "other stretches of it, without what is fitted to an enrolment. The step was chosen by "
            "them, so they are slightly optimistic."
        )
    else:
        lines.append(
            f"In dB, over {training['validation_scenes']} scenes mixed by the recipe from people "
            f"and sounds kept out of training, of which {facts['validation_speakers']} people. The "
            "step was chosen by them, so they are slightly optimistic, and they are not of "
            "recordings."
        )
    if best:
        told = [(_said(n), f"{best[n]:.2f}") for n in names if n in best]
        lines.append(_table(("figure", "" if converter else "dB"), told))
    if rows:
        every = -(-len(rows) // _CURVE_ROWS)
        shown = {r["step"]: r for r in [*rows[every - 1 :: every], rows[-1], best or rows[-1]]}
        lines += [
            "The learning curve (the whole of it is curve.csv):",
            _table(
                ("step", "hours", "training loss", "validation loss", *map(_said, names)),
                [
                    (
                        f"{step:.0f}",
                        f"{row['hours']:.2f}",
                        *(
                            f"{row[n]:.2f}" if n in row else ""
                            for n in ("train_loss", "validation_loss", *names)
                        ),
                    )
                    for step, row in sorted(shown.items())
                ],
            ),
        ]
    return "\n\n".join(lines)


def _said(name: str) -> str:
    if name in _CONVERTER_FIGURES:
        return _CONVERTER_FIGURES[name]
    if name == "si_sdr_clean":
        return "SI-SDR, nothing to remove"
    kind, _, count = name.rpartition("_")
    what = "SI-SDR improvement" if kind == "si_sdri" else "SI-SDR"
    return f"{what}, {count} talker{'s' if count != '1' else ''}"


def _limits(facts: Mapping[str, Any]) -> str:
    network, task = facts["recipe"]["network"], facts["recipe"]["task"]
    lines = [
        f"- It hears up to {network['sample_rate'] // 2000} kHz. What an engine does above that "
        "is not learnt.",
        "- It has heard the collections above and simulated rooms. Other languages, children, "
        "singing, shouting and far microphones are untested.",
        "- Its errors sound like the other voice or the music shining through, or like gaps in a "
        "voice; it invents no speech.",
    ]
    if task == "talkers":
        lines += [
            f"- It has to be told how many talk, {network['talkers']} at most; more are mixed up.",
            "- Which output is whom is not defined; it may change where all of them pause.",
            "- Voices that are alike are separated worse than the mean above says.",
        ]
    else:
        lines.append("- Voices in the background (a film, babble) may be kept as speech.")
    return "## Limits\n\n" + "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])
