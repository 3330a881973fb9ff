"""docs/artifacts.md shows every kind and every field, and each of its rows can be read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from podtool.artifacts import ROW_TYPES
from podtool.formats import FORMATS
from podtool.rowio import decode, encode, field_name

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "artifacts.md").read_text(encoding="utf-8")


def examples() -> list[str]:
    return [
        line
        for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
        for line in block.splitlines()
    ]


def test_every_example_reads_and_comes_back(tmp_path: Path) -> None:
    for line in examples():
        row = decode(line, "docs/artifacts.md", tmp_path)
        assert encode(row, tmp_path) == line


def test_every_kind_and_field_is_shown() -> None:
    shown = {line.split('"')[3]: "" for line in examples()}
    for line in examples():
        shown[line.split('"')[3]] += line
    assert set(shown) == set(ROW_TYPES)
    for kind, row_type in ROW_TYPES.items():
        for field in dataclasses.fields(row_type):
            if field.name != "extra":
                assert f'"{field_name(field)}"' in shown[kind], f"{kind}.{field.name}"


def test_every_format_is_in_the_table() -> None:
    for format_ in FORMATS.values():
        assert f"`{format_.name}`" in TEXT
        assert all(s.lower() in TEXT.lower() for s in format_.suffixes)
