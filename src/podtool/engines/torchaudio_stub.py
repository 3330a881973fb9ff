"""Importing speechbrain where torchaudio's compiled part does not load.

speechbrain imports torchaudio at its top, and a torchaudio built for CUDA raises OSError on a
machine without it. podtool decodes and resamples by itself, so the compiled part is not missed: an
inert stand-in takes its place when, and only when, the real import fails.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from podtool.errors import EngineUnavailableError

_EXTENSION = "torchaudio._extension"


def make_harmless() -> None:
    """As `make_importable`, for packages that use torchaudio only where it is installed."""
    try:
        make_importable()
    except EngineUnavailableError:
        pass


def make_importable() -> bool:
    """Import torchaudio, with the stand-in where it must be; True where that was needed.

    Raises EngineUnavailableError where torchaudio is not installed.
    """
    try:
        importlib.import_module("torchaudio")
        return _EXTENSION in sys.modules and hasattr(sys.modules[_EXTENSION], "podtool_stand_in")
    except ModuleNotFoundError as error:
        raise EngineUnavailableError(
            f"speechbrain needs torchaudio: {error}", "pip install torchaudio"
        ) from None
    except (ImportError, OSError, RuntimeError):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
    sys.modules[_EXTENSION] = _stand_in()
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        del sys.modules[_EXTENSION]
        raise EngineUnavailableError(
            f"torchaudio does not load: {error}", "pip install --force-reinstall torchaudio"
        ) from None
    return True


def import_speechbrain(*modules: str) -> list[ModuleType]:
    """speechbrain's modules by their names below it, without the traps that it leaves behind.

    speechbrain registers stand-ins for modules that need further packages (k2, ...): whoever then
    looks through sys.modules, as inspect does, makes them import those and fail. They are taken
    out of sys.modules again; speechbrain itself does not need them there.
    """
    make_importable()
    found = [importlib.import_module(f"speechbrain.{name}") for name in modules]
    for name, module in list(sys.modules.items()):
        if name.startswith("speechbrain.") and "LazyModule" in (
            c.__name__ for c in type(module).__mro__
        ):
            del sys.modules[name]
    return found


def _stand_in() -> ModuleType:
    def fail_if_no_align(_: Any) -> Any:
        def refuse(*args: Any, **named: Any) -> None:
            raise RuntimeError("torchaudio's compiled part does not load on this machine")

        return refuse

    module = ModuleType(_EXTENSION)
    module.__dict__.update(
        podtool_stand_in=True,
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=fail_if_no_align,
    )
    return module
