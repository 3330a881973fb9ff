"""The learning curve of a training: CSV for machines, PNG for eyes."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from podtool.training import files

log = logging.getLogger(__name__)


def write(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """`rows` of one training to `path` (.csv), and to the same name with .png: OutputError."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names)
    table.writeheader()
    table.writerows(rows)
    files.write(path, text.getvalue().encode())
    try:
        draw(rows, path.with_suffix(".png"))
    except ImportError:
        log.info("no picture of the curve: pip install 'podtool[train]'")


def draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Losses above; below what was scored: SI-SDR improvement, or a converter's distortion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in rows]
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        above.plot(steps, [row.get(name) for row in rows], label=label, marker=".")
    for name in sorted({n for row in rows for n in row if n.startswith("si_sdri_")}):
        talkers = name.removeprefix("si_sdri_")
        label = f"{talkers} talker{'s' if talkers != '1' else ''}"
        below.plot(steps, [row.get(name) for row in rows], label=label, marker=".")
    if any("mcd" in row for row in rows):
        below.plot(steps, [row.get("mcd") for row in rows], label="people kept out", marker=".")
        above.set_ylabel("loss")
        below.set_ylabel("mel-cepstral distortion (dB)")
    else:
        above.set_ylabel("loss (dB)")
        below.set_ylabel("SI-SDR improvement (dB)")
    below.set_xlabel(f"step ({rows[-1]['hours']:.1f} h)")
    for axes in (above, below):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    files.write(path, picture.getvalue())
