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
