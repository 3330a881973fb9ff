#!/usr/bin/env python3
"""Run the benchmarks and write docs/figures.md: every figure beside its target, met or missed.

usage: figures.py [BENCHMARK ...]      (default: all that targets.toml names)

The rows of each benchmark are kept in figures/NAME.jsonl, so that one of them can be run again
alone; sections of which no rows are there stay as the page has them. `figures.py --render` runs
nothing.
"""

from __future__ import annotations

import json
import operator
import os
import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "figures"
PAGE = ROOT / "docs" / "figures.md"
COMPARE = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
RIVALS = {"below": operator.lt, "above": operator.gt}


def run(name: str, arguments: list[str]) -> None:
    """One benchmark in its own process, its metric rows into figures/NAME.jsonl."""
    RAW.mkdir(exist_ok=True)
    part = RAW / f"{name}.part"
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    print(f"== {name}", file=sys.stderr)
    began = time.perf_counter()
    with part.open("w") as stream:
        done = subprocess.run(command, stdout=stream, cwd=ROOT, check=False)
    if done.returncode != 0:
        print(f"{name} failed with {done.returncode}; its older figures stand", file=sys.stderr)
        return
    part.replace(RAW / f"{name}.jsonl")
    print(f"== {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


def metrics(name: str) -> list[dict[str, Any]]:
    path = RAW / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def find(rows: list[dict[str, Any]], name: str, subject: str | None) -> float | None:
    for row in rows:
        if row["name"] == name and row.get("subject") == subject:
            return float(row["value"])
    return None


def verdict(value: float | None, target: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    if value is None:
        return "not measured"
    for key, compare in RIVALS.items():
        if key in target:  # a figure of the same run, such as a rival's
            other = find(rows, target[key], target.get("than", target.get("subject")))
            if other is None:
                return "not measured"
            return "met" if compare(value, other) else "**missed**"
    if "op" not in target:
        return ""
    compare = COMPARE[target["op"]]
    if "goal" in target and compare(value, target["goal"]):
        return "met, goal too"
    return "met" if compare(value, target["value"]) else "**missed**"


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def sections(page: str) -> dict[str, list[str]]:
    """The lines of a page under each of its titles."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in page.splitlines():
        if line.startswith("## "):
            lines = found.setdefault(line[3:], [])
        lines.append(line)
    return found


def render(table: dict[str, Any], page: str) -> str:
    """The page anew; what was not measured here stays as it was."""
    before = sections(page)
    lines = [
        "# Figures",
        "",
        "Written by `make figures`; one benchmark again: `python benchmarks/figures.py NAME`.",
        f"Embedded tier, {machine()}.",
        "The recordings are those of `PODTOOL_DATA`; the shows are mixed by `make_podcasts.py`, "
        "seed 7.",
        "",
    ]
    lines += [x for x in table.get("notes", "").strip().splitlines()] + [""]
    for name, benchmark in table["benchmark"].items():
        rows = metrics(name)
        if not rows and benchmark["title"] in before:
            lines += before[benchmark["title"]]
            continue
        command = " ".join(["python", f"benchmarks/{name}.py", *benchmark.get("arguments", [])])
        lines += [f"## {benchmark['title']}", "", f"`{command}`", ""]
        targets = benchmark.get("target", [])
        goals = any("goal" in t for t in targets)
        lines.append(f"| figure | target |{' goal |' if goals else ''} reached | |")
        lines.append("|---|---|---|---|" + ("---|" if goals else ""))
        used = set()
        for target in targets:
            subject = target.get("subject")
            used.add((target["metric"], subject))
            value = find(rows, target["metric"], subject)
            shown = "-" if value is None else f"{value:.4g}"
            wanted = target.get("text") or f"{target.get('op', '')} {target.get('value', '')}"
            goal = f" {target.get('goal', '')} |" if goals else ""
            end = verdict(value, target, rows)
            lines.append(f"| {target['figure']} | {wanted} |{goal} {shown} | {end} |")
        rest = [r for r in rows if (r["name"], r.get("subject")) not in used]
        if rest:
            lines += ["", "<details><summary>all rows</summary>", ""]
            lines += ["| metric | subject | value | unit | n |", "|---|---|---|---|---|"]
            lines += [
                f"| {r['name']} | {r.get('subject', '')} | {r['value']:.4g} | {r['unit']} "
                f"| {r.get('n', '')} |"
                for r in rest
            ]
            lines += ["", "</details>"]
        lines += ["", *benchmark.get("note", "").strip().splitlines()]
        lines += [""] if lines[-1] else []
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    table = tomllib.loads((ROOT / "benchmarks" / "targets.toml").read_text())
    chosen = sys.argv[1:] or list(table["benchmark"])
    for name in chosen:
        if name == "--render":
            continue
        if name not in table["benchmark"]:
            sys.exit(f"no benchmark {name!r}; there are {', '.join(table['benchmark'])}")
        run(name, table["benchmark"][name].get("arguments", []))
    PAGE.write_text(render(table, PAGE.read_text() if PAGE.exists() else ""))
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
