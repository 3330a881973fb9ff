"""`podtool evaluate`: figures against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import shared
from .shared import Device, Force, Json, Out, TimingsFlag

Bars = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        metavar="METRIC=VALUE",
        help="Exit with 10 where a metric is worse than this: above it for errors (der=0.05), "
        "below it for similarity, si_sdr, words_matched. Repeatable.",
    ),
]
Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="der, jer, wer, cer, cpwer, tcpwer, timing, si_sdr, similarity or loudness; "
        "repeatable. Default: all that both sides allow.",
    ),
]


def evaluate(
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Rows, RTTM, SegLST, SRT, text, ... or audio."),
    ],
    reference: Annotated[
        str, typer.Option("-r", "--reference", help="What it should be, in any of these formats.")
    ],
    metric: Measures = None,
    collar: Annotated[
        float,
        typer.Option(help="Seconds left out on either side of a boundary in DER and JER.", min=0.0),
    ] = 0.25,
    word_collar: Annotated[
        float, typer.Option(help="Seconds by which words may be off in tcpWER.", min=0.0)
    ] = 5.0,
    skip_overlap: Annotated[
        bool, typer.Option("--skip-overlap", help="Leave overlapping speech out of DER and JER.")
    ] = False,
    mixture: Annotated[
        Path | None, typer.Option(help="What was separated, for the improvement of SI-SDR.")
    ] = None,
    fail_under: Bars = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Embedding engine of the similarity.")
    ] = "campplus",
    output: Out = None,
    force: Force = False,
    as_json: Json = False,
    device: Device = None,
    timings: TimingsFlag = False,
) -> None:
    """Measure turns, transcripts or audio against a reference: `metric` rows, and a table.

    DER and JER score overlap unless told otherwise, over the whole file. WER, CER, cpWER and
    tcpWER compare words after the normaliser. A collar is stated as the seconds on either side.
    """
    from podtool import metrics
    from podtool.engines import load
    from podtool.errors import CheckFailed, UsageError
    from podtool.evaluation import Settings, open_side
    from podtool.evaluation import evaluate as measure
    from podtool.progress import Timings

    if input == "-" and reference == "-":
        raise UsageError("only one of INPUT and --reference can be stdin")
    bars = {name: value for name, value in (_bar(text) for text in fail_under or [])}
    if output is not None:
        shared.refuse_existing(output, force)
    settings = Settings(
        measures=tuple(metric or ()),
        collar_s=collar,
        word_collar_s=word_collar,
        skip_overlap=skip_overlap,
        mixture=mixture,
        load_embedding=lambda: load("embedding", engine, shared.context(device)),
    )
    parts = Timings()
    with parts.part("read"):
        sides = [open_side(name, shared.binary_stdin) for name in (input, reference)]
    with parts.part("measure"):
        result = measure(sides[0], sides[1], settings)
    extra = shared.timing_rows(parts, "evaluate") if timings else []
    shared.write_out([*result.rows, *extra], output, force)
    for line in result.notes:
        shared.note(line)
    if not as_json:
        shared.table(
            f"{input} against {reference}",
            ["metric", "of", "value", "unit", "n", "how"],
            (
                (r.name, r.subject or "", f"{r.value:.4f}", r.unit, str(r.n or ""), _how(r.extra))
                for r in result.rows
            ),
            to_stdout=False,
        )
    broken = metrics.breaches(result.overall, bars)
    if broken:
        raise CheckFailed("; ".join(broken))


def _how(extra: dict[str, object] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (extra or {}).items())


def _bar(text: str) -> tuple[str, float]:
    """`der=0.05` as a pair. Raises UsageError."""
    import math

    from podtool.errors import UsageError

    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise UsageError(f"--fail-under takes METRIC=VALUE, not {text!r}")
    return name.strip(), number
