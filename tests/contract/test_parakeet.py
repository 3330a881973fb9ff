"""Parakeet through onnx-asr and in MLX, on tiny models in the format of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio
from podtool.engines import availability
from podtool.engines.protocols import EngineContext
from podtool.engines.transcription_parakeet import Parakeet
from podtool.engines.transcription_parakeet_mlx import ParakeetMlx
from podtool.errors import ModelError

PIECES = ("\u2581Good", "\u2581morn", "ing", "\u2581every", "one", ".")
SAID = {3: "\u2581Good", 6: "\u2581morn", 8: "ing", 12: "\u2581every", 13: "one", 15: "."}
FRAME_S = 0.08


class NoStore:
    def folder(self, model_id: str) -> Path:
        raise ModelError(model_id)


def context(folder: Path, **options: str) -> EngineContext:
    return EngineContext(NoStore(), threads=1, options={"model": str(folder), **options})


def noise(seconds: float, channels: int = 1) -> Audio:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (channels, int(seconds * 16000)))
    return Audio(samples.astype(np.float32), 16000)


def write_onnx(folder: Path, suffix: str = "") -> None:
    """A TDT model whose encoder counts frames, and whose joint network looks up what each says."""
    from onnx import TensorProto, helper, numpy_helper, save

    vocabulary = [*PIECES, "<blk>"]
    folder.mkdir(exist_ok=True)
    lines = [f"{piece} {n}" for n, piece in enumerate(vocabulary)]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    about = {"model_type": "nemo-conformer-tdt", "features_size": 128, "subsampling_factor": 8}
    (folder / "config.json").write_text(json.dumps(about))

    def constant(name: str, value: Any, kind: Any = np.int64) -> Any:
        return numpy_helper.from_array(np.asarray(value, kind), name)

    def tensor(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    real, whole, short = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
    encoder = helper.make_graph(
        [
            helper.make_node(
                "Slice", ["audio_signal", "begin", "stop", "axes", "steps"], ["thin"]
            ),
            helper.make_node("Mul", ["thin", "none"], ["flat"]),
            helper.make_node("Add", ["flat", "one"], ["ones"]),
            helper.make_node("CumSum", ["ones", "time"], ["outputs"]),
            helper.make_node("Sub", ["length", "unit"], ["before"]),
            helper.make_node("Div", ["before", "eight"], ["whole"]),
            helper.make_node("Add", ["whole", "unit"], ["encoded_lengths"]),
        ],
        "encoder",
        [tensor("audio_signal", real, ["b", 128, "t"]), tensor("length", whole, ["b"])],
        [tensor("outputs", real, ["b", 1, "n"]), tensor("encoded_lengths", whole, ["b"])],
        [
            constant("begin", [0, 0]), constant("stop", [1, 2**31]), constant("axes", [1, 2]),
            constant("steps", [1, 8]), constant("none", 0, np.float32),
            constant("one", 1, np.float32), constant("time", 2), constant("unit", [1]),
            constant("eight", [8]),
        ],
    )  # fmt: skip
    frames = 512
    table = np.full((frames + 1, len(vocabulary) + 2), -4.0, np.float32)
    table[:, len(PIECES)] = 4.0  # blank
    table[:, -1] = 1.0  # one frame on
    for frame, piece in SAID.items():
        table[frame + 1, len(PIECES)] = -4.0
        table[frame + 1, vocabulary.index(piece)] = 4.0
    joint = helper.make_graph(
        [
            helper.make_node("Cast", ["encoder_outputs"], ["frame"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["frame", "one"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["scores"], axis=0),
            helper.make_node("Reshape", ["scores", "four"], ["outputs"]),
            helper.make_node("Identity", ["input_states_1"], ["output_states_1"]),
            helper.make_node("Identity", ["input_states_2"], ["output_states_2"]),
            helper.make_node("Identity", ["targets"], ["seen"]),
            helper.make_node("Identity", ["target_length"], ["counted"]),
        ],
        "decoder_joint",
        [
            tensor("encoder_outputs", real, ["b", 1, 1]), tensor("targets", short, ["b", 1]),
            tensor("target_length", short, ["b"]), tensor("input_states_1", real, [1, "b", 4]),
            tensor("input_states_2", real, [1, "b", 4]),
        ],
        [
            tensor("outputs", real, [1, 1, 1, len(vocabulary) + 2]),
            tensor("output_states_1", real, [1, "b", 4]),
            tensor("output_states_2", real, [1, "b", 4]),
            tensor("seen", short, ["b", 1]), tensor("counted", short, ["b"]),
        ],
        [
            constant("table", table, np.float32), constant("one", [1]),
            constant("four", [1, 1, 1, -1]),
        ],
    )  # fmt: skip
    for name, graph in (("encoder-model", encoder), ("decoder_joint-model", joint)):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        save(model, str(folder / f"{name}{suffix}.onnx"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx_asr")
    path = tmp_path_factory.mktemp("onnx") / "parakeet-tiny"
    write_onnx(path)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Parakeet:
    return Parakeet.load(context(folder))


@pytest.mark.engine("parakeet")
@pytest.mark.parametrize("channels", [1, 2])
def test_words_begin_where_their_first_token_does(engine: Parakeet, channels: int) -> None:
    found = engine.transcribe(noise(2.0, channels), "en")
    assert [u.text for u in found] == ["Good morning everyone."] and found[0].language == "en"
    words = found[0].words or ()
    assert [w.start for w in words] == pytest.approx([3 * FRAME_S, 6 * FRAME_S, 12 * FRAME_S])
    assert [w.end for w in words] == pytest.approx([6 * FRAME_S, 12 * FRAME_S, 16 * FRAME_S])
    assert all(w.score is not None and 0.9 < w.score <= 1 for w in words)
    assert not any(w.interpolated for w in words)
    assert engine.transcribe(noise(2.0, channels), "en") == found


@pytest.mark.engine("parakeet")
def test_a_batch_gives_what_single_windows_give(engine: Parakeet) -> None:
    windows = [noise(2.0), noise(0.05), noise(0.6), noise(1.3)]
    together = engine.transcribe_many(windows, None)
    assert together == [engine.transcribe(w, None) for w in windows]
    assert [len(u.words or ()) for f in together for u in f] == [3, 2, 3]
    assert together[1] == [] and engine.transcribe_many([], None) == []
    for window, found in zip(windows, together, strict=True):
        assert all(w.end <= window.duration for u in found for w in u.words or ())


@pytest.mark.engine("parakeet")
@pytest.mark.parametrize("frames", [0, 1, 160, 1599, 1600])
def test_scraps_say_little(engine: Parakeet, frames: int) -> None:
    found = engine.transcribe(noise(frames / 16000), None)
    assert all(u.end <= frames / 16000 + 1e-9 for u in found)


@pytest.mark.engine("parakeet")
def test_small_weights_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    pytest.importorskip("onnx_asr")
    write_onnx(tmp_path / "small", ".int8")
    found = Parakeet.load(context(tmp_path / "small")).transcribe(noise(2.0), None)
    assert [u.text for u in found] == ["Good morning everyone."]
    with pytest.raises(ModelError, match="full"):
        Parakeet.load(context(tmp_path / "full", precision="full"))


@pytest.mark.engine("parakeet")
def test_what_is_no_parakeet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx_asr")
    with pytest.raises(ModelError, match="vocab.txt"):
        Parakeet.load(context(tmp_path))
    (tmp_path / "vocab.txt").write_text("<blk> 0\n")
    (tmp_path / "encoder-model.onnx").write_text("nothing")
    with pytest.raises(ModelError, match="not a Parakeet"):
        Parakeet.load(context(tmp_path))


def test_missing_weights_are_named_with_their_command() -> None:
    for kind, name in ((Parakeet, "istupakov/parakeet-tdt-0.6b-v3-onnx"),
                       (ParakeetMlx, "mlx-community/parakeet-tdt-0.6b-v3")):  # fmt: skip
        with pytest.raises(ModelError) as told:
            kind.locate(EngineContext(NoStore()))
        assert told.value.hint == f"hf download {name}"
    assert not availability("transcription", "parakeet", EngineContext(NoStore())).available


def write_mlx(folder: Path) -> None:
    """A TDT Parakeet of one block with random weights, biased towards saying something."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from parakeet_mlx.utils import from_config

    vocabulary = [*PIECES, "\u2581and"]
    config = {
        "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        "model_defaults": {"tdt_durations": [0, 1, 2, 3, 4]},
        "preprocessor": {
            "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025,
            "window_stride": 0.01, "window": "hann", "features": 16, "n_fft": 512, "dither": 0.0,
            "pad_to": 0, "pad_value": 0.0,
        },
        "encoder": {
            "feat_in": 16, "n_layers": 1, "d_model": 16, "n_heads": 2, "ff_expansion_factor": 2,
            "subsampling_factor": 8, "self_attention_model": "rel_pos",
            "subsampling": "dw_striding", "conv_kernel_size": 3, "subsampling_conv_channels": 8,
            "pos_emb_max_len": 500,
        },
        "decoder": {
            "blank_as_pad": True, "vocab_size": len(vocabulary),
            "prednet": {"pred_hidden": 16, "pred_rnn_layers": 1},
        },
        "joint": {
            "num_classes": len(vocabulary), "vocabulary": vocabulary, "num_extra_outputs": 5,
            "jointnet": {
                "joint_hidden": 16, "activation": "relu", "encoder_hidden": 16, "pred_hidden": 16
            },
        },
        "decoding": {
            "model_type": "tdt", "durations": [0, 1, 2, 3, 4], "greedy": {"max_symbols": 10}
        },
    }  # fmt: skip
    mx.random.seed(3)
    parameters: Any = tree_flatten(from_config(config).parameters())
    weights = dict(parameters)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


@pytest.fixture(scope="module")
def mlx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("parakeet_mlx")
    path = tmp_path_factory.mktemp("mlx") / "parakeet-tiny"
    write_mlx(path)
    return path


@pytest.mark.engine("parakeet-mlx")
def test_mlx_says_what_the_library_says(mlx_folder: Path) -> None:
    import mlx.core as mx
    from parakeet_mlx import from_pretrained
    from parakeet_mlx.audio import get_logmel

    engine = ParakeetMlx.load(context(mlx_folder))
    audio = noise(3.0)
    found = engine.transcribe(audio, "en")
    precision = mx.bfloat16 if mx.default_device().type == mx.DeviceType.gpu else mx.float32
    model = from_pretrained(str(mlx_folder), dtype=precision)
    samples = mx.array(audio.samples[0]).astype(precision)
    direct = model.generate(get_logmel(samples, model.preprocessor_config))[0]
    assert direct.tokens
    assert " ".join(u.text for u in found) == " ".join(direct.text.split())
    words = found[0].words or ()
    assert all(0 <= w.start <= w.end <= audio.duration for w in words)
    assert all(a.end <= b.start for a, b in zip(words, words[1:], strict=False))
    assert engine.transcribe(audio, "en") == found
    assert engine.transcribe(noise(3.0, 2), "en")[0].words


@pytest.mark.engine("parakeet-mlx")
@pytest.mark.parametrize("frames", [0, 1, 160, 1600])
def test_mlx_takes_scraps(mlx_folder: Path, frames: int) -> None:
    found = ParakeetMlx.load(context(mlx_folder)).transcribe(noise(frames / 16000), None)
    assert all(u.end <= frames / 16000 + 1e-9 for u in found)


@pytest.mark.engine("parakeet-mlx")
def test_mlx_refuses_what_is_no_parakeet(tmp_path: Path) -> None:
    pytest.importorskip("parakeet_mlx")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a Parakeet"):
        ParakeetMlx.load(context(tmp_path))
