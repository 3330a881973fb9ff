"""Programs as engines: declared in TOML, fed WAV or JSON lines, believed within the contract."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from podtool import config, engines
from podtool.audio import Audio, write_audio
from podtool.engines.protocols import EngineContext, WorkerParams
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError
from podtool.store import ModelStore

pytestmark = pytest.mark.slow

PROGRAMS = {
    "reader": """
        import json, sys, wave
        with wave.open(sys.stdin.buffer) as wav:
            seconds = wav.getnframes() / wav.getframerate()
        print(json.dumps({"start": 0, "end": seconds, "text": f"{seconds:.1f} {sys.argv[1]}"}))
    """,
    "listener": """
        import json
        print(json.dumps({"start": 0.25, "end": 0.75}))
    """,
    "voiceprint": """
        import json
        print(json.dumps({"embedding": [3.0, 4.0]}))
    """,
    "halver": """
        import io, sys, soundfile
        samples, rate = soundfile.read(io.BytesIO(sys.stdin.buffer.read()), dtype="float32")
        out = io.BytesIO()
        soundfile.write(out, samples / 2, rate, format="WAV", subtype="FLOAT")
        sys.stdout.buffer.write(out.getvalue())
    """,
    "parter": """
        import io, sys, numpy, soundfile
        samples, rate = soundfile.read(io.BytesIO(sys.stdin.buffer.read()), dtype="float32")
        out = io.BytesIO()
        both = numpy.stack([samples * (k + 1) for k in range(int(sys.argv[1]))], 1)
        soundfile.write(out, both, rate, format="WAV", subtype="FLOAT")
        sys.stdout.buffer.write(out.getvalue())
    """,
    "timer": """
        import json, sys
        recording, asked = [json.loads(line) for line in sys.stdin]
        words = asked["text"].split()
        step = recording["frames"] / recording["sample_rate"] / len(words)
        timed = [{"text": w, "start": k * step, "end": (k + 1) * step} for k, w in enumerate(words)]
        print(json.dumps({"start": 0, "end": step * len(words), "text": asked["text"],
                          "words": timed}))
    """,
    "speaker": """
        import io, json, sys, numpy, soundfile
        asked = json.loads(sys.stdin.readline())
        out = io.BytesIO()
        tone = numpy.ones(1000 * len(asked["text"]), "float32") / float(sys.argv[1])
        soundfile.write(out, tone, 22050, format="WAV", subtype="FLOAT")
        sys.stdout.buffer.write(out.getvalue())
    """,
    "fails": """
        import sys
        sys.exit("no licence key")
    """,
    "babbles": """
        print("Loading model... done")
    """,
    "lies": """
        print('{"start": 0, "end": 50, "text": "in one second"}')
    """,
    "sleeps": """
        import time
        time.sleep(600)
    """,
}
STAGES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "reader": ("transcription", ["{language}"], {"subtype": "pcm16"}),
    "listener": ("vad", [], {}),
    "voiceprint": ("embedding", [], {"dim": 2}),
    "halver": ("separation", [], {"sample_rate": 44100, "channels": 2}),
    "parter": ("talkers", ["{count}"], {}),
    "timer": ("alignment", [], {"input": "jsonl"}),
    "speaker": ("speaking", ["{rate}"], {"input": "jsonl"}),
    "fails": ("transcription", [], {}),
    "babbles": ("transcription", [], {}),
    "lies": ("transcription", [], {}),
    "sleeps": ("transcription", [], {}),
}


@pytest.fixture(autouse=True)
def programs(own_home: Path) -> Path:
    """All programs in a folder, declared in PODTOOL_HOME/engines.toml."""
    folder = own_home / "programs"
    folder.mkdir(parents=True)
    lines = []
    for name, text in PROGRAMS.items():
        script = folder / f"{name}.py"
        script.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
        script.chmod(0o755)
        stage, arguments, more = STAGES[name]
        lines += [f"[engine.{name}]", f'stage = "{stage}"']
        lines.append(f"command = {json.dumps([f'programs/{name}.py', *arguments])}")
        lines += [f"{k} = {json.dumps(v)}" for k, v in more.items()]
    (own_home / "engines.toml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture()
def load(own_home: Path) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(name: str, **params: Any) -> Any:
        context = EngineContext(ModelStore(), worker=WorkerParams(**params))
        engine = engines.load(STAGES[name][0], name, context)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def tone(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> Audio:
    t = np.arange(round(seconds * rate)) / rate
    wave = (0.1 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    return Audio(np.tile(wave, (channels, 1)), rate)


def test_each_stage(load: Callable[..., Any]) -> None:
    [row] = load("reader").transcribe(tone(2.0), "sv")
    assert row.text == "2.0 sv" and [w.text for w in row.words or ()] == ["2.0", "sv"]
    assert all(w.interpolated for w in row.words or ())
    assert load("listener").detect(tone()) == [(0.25, 0.75)]
    assert load("voiceprint").embed(tone()) == pytest.approx([0.6, 0.8])
    stereo = tone(0.5, 44100, 2)
    assert np.array_equal(
        load("halver").separate(stereo)["speech"].samples, stereo.samples / np.float32(2)
    )
    apart = load("parter").talkers(tone(), 2)
    assert np.array_equal(apart[1], apart[0] * 2) and apart.shape == (2, 16000)
    words = load("timer").align(tone(), ["one", "$5", "it's"])
    assert [w.text for w in words] == ["one", "$5", "it's"]
    assert words[-1].end == pytest.approx(1.0)
    [said] = list(load("speaker").speak("hello", 2.0, 0))
    assert said.sample_rate == 22050 and said.samples.shape == (1, 5000)
    assert said.samples[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "why"),
    [("fails", "ended with 1"), ("babbles", "line 1 of its output"), ("lies", "nonsense")],
)
def test_programs_that_fail(load: Callable[..., Any], name: str, why: str) -> None:
    with pytest.raises(EngineFailure, match=why):
        load(name).transcribe(tone(), None)


def test_a_program_that_hangs_is_ended_with_its_worker(load: Callable[..., Any]) -> None:
    engine = load("sleeps", timeout_s=1.0)
    first = engine.pid
    with pytest.raises(EngineFailure, match="longer than 1 s"):
        engine.transcribe(tone(), None)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        assert int(fields[2]) != first or fields[0] == "Z", "the program outlived its worker"


def test_another_engine_steps_in_for_a_program(load: Callable[..., Any]) -> None:
    engine = load("fails", fallback=("reader",))
    [row] = engine.transcribe(tone(), "en")
    assert row.text == "1.0 en" and row.extra == {"engine": "reader"}


def test_they_are_listed_as_engines(run: Callable[..., Result], programs: Path) -> None:
    shown = run("engines", "--stage", "transcription", "--json")
    found = {r["engine"]: r for r in map(json.loads, shown.stdout.splitlines())}
    assert found["reader"]["available"] and found["reader"]["tier"] == "own"
    assert not found["reader"]["auto"]
    (programs / "reader.py").unlink()
    shown = run("engines", "--stage", "transcription", "--json")
    found = {r["engine"]: r for r in map(json.loads, shown.stdout.splitlines())}
    assert "no program" in found["reader"]["reason"] and not found["reader"]["available"]


def test_a_preset_declares_one(
    run: Callable[..., Result], tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_declared", {})
    preset = tmp_path / "mine.toml"
    preset.write_text(
        'about = "mine"\n[separate]\nengine = "half"\n[engine.half]\nstage = "separation"\n'
        f'command = ["{programs}/halver.py"]\nsample_rate = 44100\nchannels = 2\n'
    )
    assert list(config.load_preset(str(preset)).engines) == ["half"]
    write_audio(tmp_path / "show.wav", tone(1.0, 44100, 2), "float")
    turns = tmp_path / "turns.rttm"
    turns.write_text("SPEAKER show 1 0.000 1.000 <NA> <NA> S1 <NA> <NA>\n")
    out = tmp_path / "stems"
    done = run(
        "separate", tmp_path / "show.wav", "--preset", preset, "--speakers", "--turns", turns,
        "--out-dir", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert '"half 1-' in done.stdout and (out / "speaker-S1.wav").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[engine.x]\nstage = "juggling"\ncommand = ["x"]', "these stages"),
        ('[engine.x]\nstage = "vad"\ncommand = []', "empty"),
        ('[engine.x]\nstage = "vad"\ncommand = "x -y"', "command"),
        ('[engine.x]\nstage = "vad"\ncommand = ["x"]\nfolder = "/"', "no setting"),
        ('[engine.x]\nstage = "vad"\ncommand = ["x"]\nwindow = 3', "window_s"),
        ('[engine.x]\nstage = "embedding"\ncommand = ["x"]', "dim"),
        ('[engine.silero]\nstage = "vad"\ncommand = ["x"]', "already"),
        ("[engine]\nx = 3", "not a table"),
        ("[motor.x]", "tables"),
        ("[engine", "TOML"),
    ],
)
def test_declarations_that_are_wrong(own_home: Path, text: str, why: str) -> None:
    (own_home / "engines.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        engines.engine_names("vad")
    assert why in f"{raised.value.message} {raised.value.hint}"


def test_a_program_that_is_not_there(own_home: Path) -> None:
    (own_home / "engines.toml").write_text('[engine.x]\nstage = "vad"\ncommand = ["no-such-x"]\n')
    with pytest.raises(EngineUnavailableError, match="no program no-such-x"):
        engines.load("vad", "x", EngineContext(ModelStore()))
