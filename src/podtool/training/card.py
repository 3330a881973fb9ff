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
    "background": "speech apart from music and noise",
    "talkers": "simultaneous talkers apart from each other and from what is left of the mixture",
}


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
    parts = (
        f"# {name}\n\n{facts['recipe']['about'] or facts['recipe']['name']}",
        _what(licence, facts, rows, weights),
        _data(facts),
        _figures(facts, rows, weights),
        _limits(facts),
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
    recipe, network = facts["recipe"], facts["recipe"]["network"]
    frame_ms = 1000 * network["window"] / network["sample_rate"]
    form = f"causal, {frame_ms:g} ms of latency" if network["causal"] else "offline"
    hours = max((row["hours"] for row in rows if row["step"] <= weights.step), default=0.0)
    told = [
        ("task", _TASKS[recipe["task"]]),
        (
            "network",
            f"band-split dual-path LSTM over {frame_ms:g} ms frames at "
            f"{network['sample_rate']} Hz, {network['layers']} layers, {form}",
        ),
        ("parameters", f"{weights.parameters / 1e6:.2f} million"),
        ("weights", f"`{weights.file}`, {weights.bytes} bytes, sha256 `{weights.sha256}`"),
        ("licence", licence),
        ("recipe", f"{recipe['name']}, digest `{facts['digest']}`, seed {recipe['seed']}"),
        (
            "trained",
            f"{weights.step} steps of {_per_step(recipe)} scenes of "
            f"{recipe['mixing']['seconds']:g} s, {hours:.1f} h, by podtool {facts['podtool']}",
        ),
    ]
    for earlier in facts.get("earlier") or ():
        told.append((f"to step {earlier['step']}", f"recipe of digest `{earlier['digest']}`"))
    if start := facts.get("start"):
        told.append(("began as", f"`{start['name']}`, sha256 `{start['sha256']}`"))
    return _table(("", ""), told)


def _per_step(recipe: Mapping[str, Any]) -> int:
    return int(recipe["training"]["batch"] * recipe["training"]["accumulate"])


def _data(facts: Mapping[str, Any]) -> str:
    data = facts["recipe"]["data"]
    credits = [(str(c), str(licence), int(n), float(s)) for c, licence, n, s in facts["credits"]]
    by_corpus: dict[str, float] = {}
    for corpus, _, _, seconds in credits:
        by_corpus[corpus] = by_corpus.get(corpus, 0.0) + seconds
    total = sum(by_corpus.values())
    most, seconds = max(by_corpus.items(), key=lambda item: item[1])
    mixing = facts["recipe"]["mixing"]
    made = [
        f"{mixing.get(f'synthetic_{what}_share', 0):.0%} of the {what}"
        for what in ("noise", "music")
        if mixing.get(f"synthetic_{what}_share")
    ]
    lines = [
        "## Data",
        f"{facts['speech_hours']:.1f} h of speech by {facts['speakers']} people, with music and "
        "noise, mixed while training"
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
    names = sorted({n for row in rows for n in row if n.startswith("si_sdr")})
    best = next((row for row in rows if row["step"] == weights.step), None)
    lines = [
        "## Figures",
        f"In dB, over {training['validation_scenes']} scenes mixed by the recipe from people and "
        f"sounds kept out of training, of which {facts['validation_speakers']} people. The step "
        "was chosen by them, so they are slightly optimistic, and they are not of recordings.",
    ]
    if best:
        told = [(_said(n), f"{best[n]:.2f}") for n in names if n in best]
        lines.append(_table(("figure", "dB"), told))
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
