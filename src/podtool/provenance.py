"""What made an artifact: the components of its key, and the `provenance` row that tells them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from podtool import __version__
from podtool.artifacts import Provenance
from podtool.engines.protocols import EngineContext, EngineInfo, Incident
from podtool.keys import Components, key_of

STAGE_VERSIONS = {  # bump one when the stage gives another output for the same input
    "decode": "1",
    "separate": "1",
    "talkers": "1",
    "diarize": "1",
    "transcribe": "3",
    "clone": "1",
    "synthesize": "1",
    "reconstruct": "1",
    "live": "1",
    "check": "2",
    "report": "1",
}


def components(
    stage: str,
    context: EngineContext,
    infos: Mapping[str, EngineInfo] | None = None,
    params: Any = None,
    inputs: Mapping[str, str] | None = None,
    seed: int = 0,
    models: Iterable[str] = (),
) -> Components:
    """The key components of a stage. Raises ModelError where weights of an engine are missing.

    `infos` maps the role of each engine to its facts; `params` is a Params dataclass or a mapping;
    `inputs` maps names to content hashes; `models` are weights beside those of the engines.
    """
    infos = dict(infos or {})
    ids = sorted({m for info in infos.values() for m in info.models} | set(models))
    settings = params if isinstance(params, Mapping | None) else dataclasses.asdict(params)
    return {
        "stage": stage,
        "version": STAGE_VERSIONS[stage],
        "engines": {role: f"{i.name} {i.version}" for role, i in sorted(infos.items())},
        "models": {m: context.model(m).name for m in ids},
        "params": _plain(dict(settings or {})),
        "inputs": dict(inputs or {}),
        "seed": seed,
    }


def _plain(value: Any) -> Any:
    """JSON's own types only, so that a key read back equals the key written."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def provenance(parts: Components, incidents: Iterable[Incident] = ()) -> Provenance:
    """The row at the head of an artifact.

    Where another engine stepped in for one of the stage's own, `extra` says so: `degraded`, a list
    of {stage, engine, instead, times}. An engine that was started again gave the same result.
    """
    stepped_in = Counter(
        (i.stage, i.engine, i.instead)
        for i in incidents
        if i.instead != i.engine and i.stage in parts["engines"]
    )
    degraded = [
        {"stage": stage, "engine": engine, "instead": instead, "times": times}
        for (stage, engine, instead), times in sorted(stepped_in.items())
    ]
    return Provenance(
        stage=parts["stage"],
        podtool=__version__,
        engine=", ".join(parts["engines"].values()) or None,
        models=parts["models"] or None,
        params=parts["params"],
        inputs=parts["inputs"] or None,
        seed=parts["seed"],
        key=key_of(parts),
        extra={"degraded": degraded} if degraded else None,
    )
