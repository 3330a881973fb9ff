"""Classes of transformers, for engines that run on it."""

from __future__ import annotations

import importlib
from typing import Any

from podtool.engines.torchaudio_stub import make_harmless
from podtool.errors import EngineUnavailableError


def classes(what: str, install: str, *names: str) -> list[Any]:
    """Classes of transformers by name; from then on it shows no bars and no warnings.

    `what` does not run here, and `install` is what makes it run, where transformers is missing or
    too old: raises EngineUnavailableError.
    """
    make_harmless()
    try:
        transformers = importlib.import_module("transformers")
        found = [getattr(transformers, name) for name in names]
    except (ImportError, AttributeError, OSError) as error:
        raise EngineUnavailableError(f"{what} does not run here: {error}", install) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return found
