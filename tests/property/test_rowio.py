"""Any row of any kind comes back from its line as it was, to the microsecond."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podtool.artifacts import (
    ROW_TYPES,
    Consent,
    Embedding,
    EnrolmentClip,
    KnownRow,
    Opaque,
    Recording,
    Row,
    Word,
)
from podtool.errors import InputError
from podtool.rowio import decode, encode, read_rows, write_rows

FOLDER = Path("/some/folder")
micro = st.integers(-(10**12), 10**12).map(lambda n: n / 10**6 + 0.0)
positive = st.integers(0, 10**12).map(lambda n: n / 10**6)
json_value: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
objects = st.dictionaries(st.text(), json_value, max_size=3)
path_part = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
paths = st.lists(path_part.filter(lambda p: p not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(1, 2**40),
    float: micro,
    bool: st.booleans(),
    dict[str, float]: st.dictionaries(st.text(), micro, max_size=3),
    dict[str, str]: st.dictionaries(st.text(), st.text(), max_size=3),
    dict[str, Any]: objects,
    tuple[tuple[float, float], ...]: st.lists(st.tuples(micro, micro), max_size=3).map(tuple),
    Embedding: st.builds(Embedding, st.text(), st.lists(micro, max_size=4).map(tuple)),
    Consent: st.builds(Consent, st.text(), st.none() | st.text(), st.none() | st.text()),
    tuple[EnrolmentClip, ...]: st.lists(
        st.builds(EnrolmentClip, st.text(), positive, positive, st.none() | micro), max_size=2
    ).map(tuple),
    tuple[Word, ...]: st.lists(
        st.builds(Word, st.text(), micro, micro, st.none() | micro, st.none() | st.booleans()),
        max_size=3,
    ).map(tuple),
}


@st.composite
def known_rows(draw: st.DrawFn, row_type: type[KnownRow]) -> KnownRow:
    values: dict[str, Any] = {}
    for name, wanted in typing.get_type_hints(row_type).items():
        if typing.get_origin(wanted) is typing.ClassVar:
            continue
        args = typing.get_args(wanted)
        optional = type(None) in args
        if optional:
            wanted = next(a for a in args if a is not type(None))
        strategy = {"path": paths, "start": positive}.get(name, BY_TYPE[wanted])
        values[name] = draw(st.none() | strategy if optional else strategy)
    if "end" in values:
        values["end"] = values["start"] + abs(values["end"])
    return row_type(**values)


def rounded(row: KnownRow) -> KnownRow:
    """`end` as a sum of two microsecond values is one only after rounding."""
    if hasattr(row, "end"):
        changed: Any = row
        row = dataclasses.replace(changed, end=round(row.end, 6))
    return row


@pytest.mark.parametrize("kind", sorted(ROW_TYPES))
def test_a_row_comes_back(kind: str) -> None:
    @settings(max_examples=40)
    @given(known_rows(ROW_TYPES[kind]))
    def check(row: KnownRow) -> None:
        for folder in (None, FOLDER):
            line = encode(row, folder)
            assert "\n" not in line
            back = decode(line, "row", folder)
            assert back == rounded(row)
            assert encode(back, folder) == line

    check()


@given(objects, st.text().filter(lambda k: k not in ROW_TYPES))
def test_unknown_kinds_come_back(fields: dict[str, Any], kind: str) -> None:
    row = Opaque({"kind": kind, **{k: v for k, v in fields.items() if k != "kind"}})
    assert decode(encode(row)) == row


@given(st.text(max_size=40) | objects.map(lambda o: encode(Opaque(o))))
def test_any_line_gives_a_row_or_an_input_error(line: str) -> None:
    try:
        decode(line)
    except InputError as error:
        assert error.message


@settings(max_examples=60)
@given(st.data())
def test_any_damage_to_a_good_line_gives_a_row_or_an_input_error(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(sorted(ROW_TYPES)).flatmap(lambda k: known_rows(ROW_TYPES[k])))
    line = encode(row)
    at = data.draw(st.integers(0, len(line)))
    cut = data.draw(st.integers(0, 5))
    damaged = line[:at] + data.draw(st.text(max_size=3)) + line[at + cut :]
    try:
        decode(damaged)
    except InputError as error:
        assert error.message


@settings(max_examples=20)
@given(st.lists(known_rows(Recording), max_size=5), st.lists(objects, max_size=2))
def test_a_file_comes_back(
    tmp_path_factory: pytest.TempPathFactory, known: list[KnownRow], other: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows: list[Row] = [*known, *(Opaque({"kind": "mine", "value": o}) for o in other)]
    write_rows(rows, folder / "rows.jsonl")
    assert read_rows(folder / "rows.jsonl") == rows
