"""Weights that an option names: where they are looked for, and what they count as."""

from __future__ import annotations

from pathlib import Path

import pytest

from podtool.engines.local_models import content_of_model, model_folder, whole_number
from podtool.engines.protocols import EngineContext
from podtool.errors import ConfigError, ModelError
from podtool.pipeline import engine_options
from podtool.stages.transcribe import TranscribeParams


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, model_id: str) -> Path:
        if model_id != "known":
            raise ModelError(f"no {model_id}", f"podtool models pull {model_id}")
        return self.root / "known" / "0123abcd"


def context(root: Path, **options: str) -> EngineContext:
    return EngineContext(Store(root), options=options)


def test_a_name_is_an_id_a_folder_or_a_cached_repository(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "weights.onnx").write_bytes(b"1")
    assert model_folder(context(tmp_path), "known", ("*.onnx",), "a model").name == "0123abcd"
    found = model_folder(context(tmp_path, model=str(own)), "known", ("*.onnx",), "a model")
    assert found == own
    with pytest.raises(ModelError, match="holds no config.json"):
        model_folder(context(tmp_path, model=str(own)), "known", ("config.json",), "a model")
    with pytest.raises(ModelError, match="no other"):
        model_folder(context(tmp_path, model="other"), "known", (), "a model")
    for name in ("./nowhere", str(tmp_path / "nowhere"), "~/nowhere/at/all"):
        with pytest.raises(ModelError, match="there is no model folder"):
            model_folder(context(tmp_path, model=name), "known", (), "a model")
    with pytest.raises(ModelError) as caught:
        model_folder(context(tmp_path), "org/name", (), "a Whisper")
    assert caught.value.hint == "hf download org/name"


def test_the_content_of_a_model_is_what_its_files_hold(tmp_path: Path) -> None:
    assert content_of_model(context(tmp_path), "known") == "0123abcd"
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "deep").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "deep" / "weights.bin").write_bytes(b"x" * 3_000_000)
    same = content_of_model(context(tmp_path), str(first))
    assert same == content_of_model(context(tmp_path), str(second))
    (second / "deep" / "weights.bin").write_bytes(b"x" * 2_999_999 + b"y")
    assert content_of_model(context(tmp_path), str(second)) != same
    (first / "config.json").rename(first / "other.json")
    assert content_of_model(context(tmp_path), str(first)) != same


def test_counts_are_whole_numbers_from_one(tmp_path: Path) -> None:
    assert whole_number(context(tmp_path), "beam") is None
    assert whole_number(context(tmp_path, beam="5"), "beam") == 5
    for text in ("0", "-1", "2.5", "many", ""):
        with pytest.raises(ConfigError, match="beam"):
            whole_number(context(tmp_path, beam=text), "beam")


def test_engines_are_loaded_with_what_the_settings_say(tmp_path: Path) -> None:
    params = TranscribeParams(model="./m", prompt="Ann", align_model="./a", language="de")
    of = engine_options(context(tmp_path, threads="1"), params)
    assert of["transcription"].options == {"threads": "1", "model": "./m", "prompt": "Ann"}
    assert of["alignment"].options == {"threads": "1", "model": "./a", "language": "de"}
    plain = engine_options(context(tmp_path), TranscribeParams())
    assert plain["transcription"].options == {} and plain["alignment"].options == {}
