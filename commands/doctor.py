"""`podtool doctor`: a diagnosis of this machine to paste into a bug report."""

from __future__ import annotations

from . import shared


def doctor(json: shared.Json = False) -> None:
    """Look at Python, tools, packages and weights; exit 5 where something needed is missing."""
    from podtool.diagnosis import diagnose
    from podtool.errors import EngineUnavailableError

    findings = list(diagnose())
    if json:
        shared.json_rows(
            {"part": f.part, "item": f.item, "value": f.value, "state": f.state, "hint": f.hint}
            for f in findings
        )
    else:
        rows = [[f.item, f.value, f.state, f.hint] for f in findings]
        columns = ["item", "value", "state", "what to do"]
        shared.table("podtool doctor", columns, rows, to_stdout=True, justify="left")
    missing = [f.item for f in findings if f.state == "missing"]
    if missing:
        raise EngineUnavailableError(
            f"missing: {', '.join(missing)}",
            "Weights: podtool models pull embedded. Packages: pip install podtool.",
        )
