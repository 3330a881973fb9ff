"""Reading a pickled checkpoint without running any of it, and exporting a network as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podtool.errors import EngineUnavailableError, ModelError

if TYPE_CHECKING:
    import torch


def read_tensors(source: Path, stubs: Sequence[str] = ()) -> dict[str, Any]:
    """The top-level mapping of a checkpoint, loaded with `weights_only`.

    Classes named in `stubs` are replaced by inert ones: they hold state and do nothing; no class
    of the checkpoint is imported. Raises ModelError for anything that asks for more than tensors.
    """
    try:
        import torch
    except ImportError:
        raise EngineUnavailableError("torch is not installed", "pip install torch") from None
    allowed: list[Any] = [(inert(name), name) for name in stubs]
    try:
        with torch.serialization.safe_globals(allowed):
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{source.name} is not a plain checkpoint: {str(error).splitlines()[0]}",
            "podtool loads weights only, never code: fetch the file again from its source.",
        ) from None
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{source.name} holds a {type(loaded).__name__}, not named tensors")
    return dict(loaded)


def inert(full_name: str) -> type:
    """A class of the given full name that takes any state and does nothing with it."""
    module, _, name = full_name.rpartition(".")

    def accept(self: Any, *_: Any, **__: Any) -> None:
        del self

    return type(name, (), {"__init__": accept, "__setstate__": accept, "__module__": module})


def fill(network: torch.nn.Module, tensors: Mapping[str, Any], source: Path) -> None:
    """Put the tensors into the network; every name and shape must fit."""
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise ModelError(f"{source.name} does not fit the network: {error}") from None
    network.eval()


Axes = Mapping[str, Mapping[int, str]]  # input or output -> its axes that vary


def export_onnx(
    network: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    target: Path,
    inputs: Axes,
    outputs: Axes,
    check: Callable[[Path], None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `network` as ONNX; `example` are its inputs, in the order in which they are named.

    `metadata` goes into the file; `check` sees it before anybody else.
    """
    import torch

    try:
        import onnx
    except ImportError:
        raise EngineUnavailableError(
            "converting weights needs the package onnx", "pip install onnx"
        ) from None
    # A model's file must not change with the machine's number of cores or the order of calls.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            example,
            str(target),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in {**inputs, **outputs}.items()},
            opset_version=17,
            dynamo=False,
        )
    if metadata:
        model = onnx.load(str(target))
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, str(target))
    if check is not None:
        check(target)
