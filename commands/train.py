"""`podtool train`: own networks from own recordings - a separator, a converter, their export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import shared

if TYPE_CHECKING:
    from podtool.artifacts import Metric, Provenance
    from podtool.progress import Progress
    from podtool.training.course import AnyRecipe, Course, Outcome
    from podtool.training.recipe import ConverterRecipe, Recipe

app = typer.Typer(
    help="Train podtool's own networks, and export what was trained.", no_args_is_help=True
)
Licence = Annotated[
    str, typer.Option("--licence", help="Of the weights, for the card and the table of models.")
]

Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="MANIFEST", help="JSON Lines of recordings; repeatable."),
]
Folder = Annotated[
    Path, typer.Option("-o", "--output", help="Folder of the training; it goes on if begun.")
]
Start = Annotated[
    Path | None, typer.Option("--start", help="Weights (.safetensors) to begin with.")
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="In all, instead of the recipe's number.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", help="cpu, cuda or mps. Default: cuda, else cpu.", envvar="PODTOOL_DEVICE"
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that make examples; 0: this one.")
]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="Threads of the network on the CPU; 0: all.")
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Folder of the decoded audio, to share between trainings."),
]
Changed = Annotated[
    bool,
    typer.Option("--changed", help="Go on though the recipe has changed since (not its shape)."),
]


@app.command()
def separator(
    recipe: Annotated[
        str,
        typer.Argument(help="TOML file, or background, talkers-pairs, talkers-streaming, talkers."),
    ],
    data: Data,
    output: Folder,
    start: Start = None,
    steps: Steps = None,
    device: Device = None,
    workers: Workers = 0,
    threads: Threads = 0,
    cache: Cache = None,
    changed: Changed = False,
    licence: Licence = "not stated",
) -> None:
    """Train a separator; Ctrl-C saves, and the same command goes on from there.

    A line per validation on stderr, `metric` rows of the best step on stdout at the end, and the
    weights as safetensors and ONNX with a model card in the folder's `export`.
    """
    _require("matplotlib", "pyroomacoustics")
    from podtool.training.recipe import read_recipe

    chosen = _lasting(read_recipe(recipe), steps)
    device = _device(device, threads)
    from podtool.training.trainer import Trainer

    with _locked(output):
        course = Trainer(chosen, data, output, device, start, workers, cache, changed)
        _train(course, chosen, data, course.data.unmatched, licence)


@app.command()
def converter(
    recipe: Annotated[str, typer.Argument(help="TOML file, or converter.")],
    data: Data,
    output: Folder,
    start: Start = None,
    steps: Steps = None,
    device: Device = None,
    workers: Workers = 0,
    threads: Threads = 0,
    cache: Cache = None,
    changed: Changed = False,
    licence: Licence = "not stated",
) -> None:
    """Train a voice converter from recordings of many people, with transcripts where there are any.

    All of it is listened to first, by the recogniser among others, and kept: a tenth of the
    recordings' length on one core. For the rest see `podtool train separator`.
    """
    _require("matplotlib", "pocketsphinx", "pyworld")
    from podtool.training.recipe import read_converter_recipe

    chosen = _lasting(read_converter_recipe(recipe), steps)
    device = _device(device, threads)
    from podtool.engines.protocols import EngineContext
    from podtool.progress import Progress
    from podtool.store import ModelStore
    from podtool.training.converter import ConverterCourse

    context = EngineContext(store=ModelStore(), device="cpu", threads=threads)
    with _locked(output):
        with shared.progress() as observe:
            course = ConverterCourse(
                chosen, data, output, context, device, start, workers, cache, changed,
                lambda done, whole: observe(Progress("listen", done, whole, "utterance")),
            )  # fmt: skip
        _train(course, chosen, data, course.data.unmatched, licence)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a training.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder, or one file: .safetensors, .onnx, .md or .png."
        ),
    ],
    id: Annotated[
        str | None, typer.Option("--id", help="Id of the model. Default: the recipe's name.")
    ] = None,
    licence: Licence = "not stated",
    add: Annotated[
        bool, typer.Option("--add", help="Add the entry to $PODTOOL_HOME/models.toml.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Weights in half precision: half of the size.")
    ] = False,
    force: shared.Force = False,
) -> None:
    """The best weights so far: safetensors, ONNX, model card, learning curve.

    stdout is the entry for models.toml, by which `podtool models pull ID` takes them.
    """
    from podtool.errors import UsageError
    from podtool.home import home
    from podtool.training.export import add_entry
    from podtool.training.export import export as write_export

    done = write_export(folder, output, id, licence, force, half)
    shared.note(f"exported: {', '.join(map(str, done.files))}")
    if add:
        if not done.entry:
            raise UsageError("--add needs the weights", "Give a folder or a .safetensors as -o.")
        add_entry(done.entry, home() / "models.toml")
        shared.note(f"added to {home() / 'models.toml'}")
    shared.text_stdout().write(done.entry)


T = TypeVar("T", bound="Recipe | ConverterRecipe")


def _lasting(recipe: T, steps: int | None) -> T:
    """The recipe with another number of steps."""
    from dataclasses import replace

    if steps is None:
        return recipe
    training: Any = replace(recipe.training, steps=steps)
    return replace(recipe, training=training)


def _train(
    course: Course, recipe: AnyRecipe, data: list[Path], unmatched: tuple[str, ...], licence: str
) -> None:
    """Run a course and export what it comes to."""
    from podtool.training.export import export as write_export

    if unmatched:
        shared.warn(f"the recipe names what no manifest has: {', '.join(unmatched)}")
    provenance = _provenance(recipe, data)
    outcome = _watched(course.run, recipe, course.at.step)
    if not outcome.best:
        shared.warn("no validation gave a finite loss: nothing to export")
    else:
        done = write_export(course.folder, course.folder / "export", licence=licence, force=True)
        shared.note(f"exported: {', '.join(map(str, done.files))}")
    shared.write_out([provenance, *_metrics(recipe.name, outcome)], None)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time in a training's folder. Raises OutputError."""
    from podtool.errors import OutputError
    from podtool.rundir.lock import FolderLock

    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder / "lock")
    try:
        lock.__enter__()
    except OutputError as error:
        raise OutputError(error.message, "Wait for it to end, or give another -o.") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    from podtool.errors import EngineUnavailableError

    if missing := [name for name in packages if find_spec(name) is None]:
        raise EngineUnavailableError(
            f"training needs {' and '.join(missing)}", "pip install 'podtool[train]'"
        )


def _device(wanted: str | None, threads: int) -> str:
    """The device to train on, the CPU set to `threads`. UsageError, EngineUnavailableError."""
    import torch

    from podtool.errors import EngineUnavailableError, UsageError

    if threads:
        torch.set_num_threads(threads)
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted is None:
        return "cuda" if here["cuda"] else "cpu"
    if wanted not in here:
        raise UsageError(f"there is no training on {wanted!r}", f"One of: {', '.join(here)}.")
    if not here[wanted]:
        raise EngineUnavailableError(f"there is no {wanted} here", "Leave out --device.")
    return wanted


def _watched(run: Callable[..., Outcome], recipe: AnyRecipe, first: int) -> Outcome:
    """Train with progress on stderr, and with Ctrl-C as a wish to save and stop."""
    import sys

    bar = shared.state.progress in ("bar", "json") or (
        shared.state.progress == "auto" and sys.stderr.isatty()
    )
    total = recipe.training.steps
    if first:
        shared.note(f"going on from step {first} of {total}")
    left = _TimeLeft()
    best = float("inf")

    def on_row(row: dict[str, float]) -> None:
        nonlocal best
        best = min(best, row["validation_loss"])
        shared.note(
            f"step {row['step']:.0f} of {total}, {row['hours']:.2f} h, {left.said()} left: "
            f"validation {row['validation_loss']:.2f} (best {best:.2f}), {_figures(row)}"
        )

    with _stop_on_signal() as stopping:
        if bar:
            with shared.progress() as observe:

                def both(event: Progress) -> None:
                    left.observe(event)
                    observe(event)

                outcome = run(both, on_row, stopping)
        else:
            outcome = run(left.observe, on_row, stopping)
        number = stopping()
    if outcome.interrupted:
        shared.note(f"saved at step {outcome.step} of {total}; the same command goes on from there")
        raise typer.Exit(128 + number)
    if outcome.stopped_early:
        shared.note(f"no better for {recipe.training.patience} validations: stopped")
    return outcome


def _figures(row: dict[str, float]) -> str:
    """What a validation measured beside the loss."""
    if gains := [f"{v:.1f}" for k, v in sorted(row.items()) if k.startswith("si_sdri_")]:
        return f"SI-SDRi {' / '.join(gains)} dB"
    said = {"mcd": "distortion {:.2f} dB", "phone_error": "phones wrong {:.0%}"}
    return ", ".join(text.format(row[k]) for k, text in said.items() if k in row) or "no scores"


class _TimeLeft:
    """How long the steps that are left will take, at the pace of those since the start."""

    def __init__(self) -> None:
        import time

        self._clock = time.monotonic
        self._began = time.monotonic()
        self._seconds = 0.0

    def observe(self, event: Progress) -> None:
        spent = self._clock() - self._began
        self._seconds = spent / event.done * (event.total - event.done)

    def said(self) -> str:
        if self._seconds >= 5400:
            return f"{self._seconds / 3600:.1f} h"
        return f"{self._seconds / 60:.0f} min" if self._seconds >= 90 else f"{self._seconds:.0f} s"


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], int]]:
    """Yields what gives the number of SIGINT or SIGTERM once it came; a second one acts at once."""
    import signal

    came = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal came
        came = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        shared.note("saving after this step; once more stops at once")

    before: dict[int, Any] = {}
    try:
        for wish in (signal.SIGINT, signal.SIGTERM):
            before[wish] = signal.signal(wish, handle)
    except ValueError:  # not in the main thread: nobody presses Ctrl-C there
        pass
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _provenance(recipe: AnyRecipe, manifests: list[Path]) -> Provenance:
    from podtool import __version__
    from podtool.artifacts import Provenance
    from podtool.audio import sha256_of

    return Provenance(
        stage="train",
        podtool=__version__,
        params={"recipe": recipe.name, "digest": recipe.digest, "steps": recipe.training.steps},
        inputs={f"data{number}": sha256_of(path) for number, path in enumerate(manifests, 1)},
        seed=recipe.seed,
    )


def _metrics(name: str, outcome: Outcome) -> Iterator[Metric]:
    from podtool.artifacts import Metric

    yield Metric("steps", outcome.step, "steps", name)
    extra = {"step": int(outcome.best.get("step", 0))}
    units = {"mcd": "dB", "phone_error": "share", "spread": "x"}
    units["validation_loss"] = "" if "mcd" in outcome.best else "dB"
    for key, value in outcome.best.items():
        if key.startswith("si_sdr"):
            yield Metric(key, value, "dB", name, extra=extra)
        elif key in units:
            yield Metric(key, value, units[key], name, extra=extra)
