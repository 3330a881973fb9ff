"""Engines in workers: whatever an engine does to its process, the run goes on or ends in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool import engines
from podtool.artifacts import Word
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, WorkerParams
from podtool.engines.worker import Worker, memory_of
from podtool.errors import ConfigError, EngineFailure, ModelError
from podtool.progress import NOTICE
from podtool.segments import FrameGrid, Span

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ENGINES = {
    "good": "Good",
    "trouble": "Trouble",
    "slow-rate": "EightKilohertz",
    "swedish": "Swedish",
    "stored": "Stored",
}


class Store:
    def folder(self, model_id: str) -> Path:
        if model_id != "some-weights":
            raise ModelError(f"the weights of {model_id} are missing", "podtool models pull it")
        return Path("/weights") / model_id


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    table = {name: f"troublesome:{kind}" for name, kind in ENGINES.items()}
    monkeypatch.setitem(engines.BUILTIN, "transcription", table)


@pytest.fixture()
def load() -> Iterator[Callable[..., Any]]:
    """load(name, trouble=..., once=..., timeout_s=..., ...): a worker that is closed in the end."""
    made: list[Any] = []

    def make(name: str, trouble: str = "", once: Path | None = None, **params: Any) -> Any:
        options = {"trouble": trouble} | ({"once": str(once)} if once else {})
        worker = WorkerParams(**params)
        context = EngineContext(Store(), threads=1, options=options, worker=worker)
        engine = engines.load("transcription", name, context)
        engine.context = context
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def tone(level: float = 0.1, seconds: float = 1.0) -> Audio:
    return Audio(np.full((1, round(16000 * seconds)), level, np.float32), 16000)


def texts(engine: Any, *levels: float) -> list[str]:
    return [engine.transcribe(tone(level), "en")[0].text for level in levels]


def gone(pid: int, seconds: float = 3.0) -> bool:
    """Whether a process ends in time; one that nobody has waited for yet counts as ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_answers_are_those_of_the_engine(load: Callable[..., Any]) -> None:
    engine = load("good")
    assert isinstance(engine, Worker) and engine.pid not in (None, os.getpid())
    audio = tone(0.3)
    inside = engines.engine_class("transcription", "good")()
    assert engine.transcribe(audio, "en") == inside.transcribe(audio, "en")
    parts = list(engine.pieces(audio, count=3))
    assert np.array_equal(np.concatenate([p.samples for p in parts], axis=1), audio.samples)
    assert not hasattr(engine, "transcribe_at")
    assert engine.info.name == "good"


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2.5, float("inf"), "grüße", [1, [2]], (1, "a"), {"a": (1,)},
        Span(1.0, 2.0), Word("a", 0.0, 1.0, None, True), FrameGrid(0.1, 0.2),
        (Word("a", 0.0, 1.0), [Span(0.0, 0.5)]),
    ],
)  # fmt: skip
def test_values_come_back_as_they_went(load: Callable[..., Any], value: Any) -> None:
    found = load("good").echo(value)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 5), (2, 400_000)])
def test_arrays_come_back_bit_for_bit(kind: str, shape: tuple[int, ...], echo: Any) -> None:
    rng = np.random.default_rng(1)
    array = rng.integers(0, 2, shape).astype(kind)
    found = echo([array, {"t": array.T}])
    assert found[0].dtype == array.dtype and found[0].shape == array.shape
    assert np.array_equal(found[0], array) and np.array_equal(found[1]["t"], array.T)


@pytest.fixture()
def echo(load: Callable[..., Any]) -> Any:
    return load("good").echo


def test_what_cannot_be_sent_is_refused_and_the_worker_goes_on(load: Callable[..., Any]) -> None:
    engine = load("good")
    for value in (object(), {1: 2}, np.array([object()]), Path("x")):
        with pytest.raises(TypeError, match="sent to a worker"):
            engine.echo(value)
    assert engine.echo(7) == 7 and engine.context.incidents == []


def test_what_cannot_be_sent_back_stays_and_is_made_again(load: Callable[..., Any]) -> None:
    engine = load("good")
    quiet = engine.voice(tone(0.25))
    loud = quiet.louder(2.0)
    assert (quiet.level, loud.level) == (0.25, 0.5) and not hasattr(quiet, "whisper")
    assert engine.say(quiet, [loud, loud]) == 1.25
    os.kill(engine.pid, signal.SIGKILL)
    assert engine.say(loud, [quiet]) == 0.75  # both were made again, one out of the other
    del quiet, loud
    assert engine.say(engine.voice(tone(0.5)), []) == 0.5


TROUBLES = {
    "segfault": "SIGSEGV",
    "hang": "longer than",
    "hang-hard": "longer than",
    "memory": "GB allowed",
    "killed": "SIGKILL",
    "exit": "ended by itself with 3",
    "raise": "device-side assert",
    "nonsense": "nonsense",
    "nan": "no number",
    "text": "not a list",
    "object": "not a list",
    "closes": "closed its pipes",
}
LIMITS = {"timeout_s": 4.0, "max_memory_gb": 0.25}


def limits(trouble: str) -> dict[str, float]:
    return LIMITS | ({"timeout_s": 60.0} if trouble in ("memory", "closes") else {})


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_comes_once_costs_nothing(
    load: Callable[..., Any], tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load("trouble", trouble, once=tmp_path / "once", **limits(trouble))
    first = engine.pid
    assert texts(engine, 0.1, 0.2, 0.3) == ["level100", "level200", "level300"]
    assert engine.pid != first and gone(first)
    [incident] = engine.context.incidents
    assert TROUBLES[trouble] in incident.reason and incident.instead == "trouble"
    assert "started again" in caplog.text


@pytest.mark.parametrize("trouble", ["segfault", "hang", "memory", "raise", "nonsense"])
def test_trouble_that_stays_is_an_error_that_says_what_it_is(
    load: Callable[..., Any], trouble: str
) -> None:
    limit = {**limits(trouble), "timeout_s": 60.0 if trouble == "memory" else 2.0}
    engine = load("trouble", trouble, **limit)
    with pytest.raises(EngineFailure, match=TROUBLES[trouble]) as raised:
        engine.transcribe(tone(), "en")
    assert "trouble" in raised.value.message
    if trouble == "segfault":
        assert "Segmentation fault" in (raised.value.hint or "") or raised.value.hint
    assert engine.pid is None


@pytest.mark.parametrize("trouble", ["load-segfault", "load-hang", "load-raise"])
def test_trouble_while_loading(load: Callable[..., Any], tmp_path: Path, trouble: str) -> None:
    limit = 10.0 if trouble == "load-hang" else 120.0  # a busy machine loads slowly
    engine = load("trouble", trouble, once=tmp_path / "once", load_timeout_s=limit)
    assert texts(engine, 0.4) == ["level400"] and len(engine.context.incidents) == 1
    with pytest.raises(EngineFailure, match=TROUBLES[trouble.removeprefix("load-")]):
        load("trouble", trouble, load_timeout_s=limit)


def test_what_an_engine_prints_stays_out_of_its_answers(load: Callable[..., Any]) -> None:
    engine = load("trouble", "chatter")
    assert texts(engine, 0.1, 0.2) == ["level100", "level200"]
    assert engine.context.incidents == []


def test_errors_that_are_the_users_are_passed_on_as_they_are(load: Callable[..., Any]) -> None:
    engine = load("swedish")
    before = engine.pid
    with pytest.raises(ConfigError, match="not en") as raised:
        engine.transcribe(tone(), "en")
    assert raised.value.hint == "Swedish it is." and engine.pid == before


def test_weights_are_asked_of_the_parents_store(load: Callable[..., Any]) -> None:
    assert load("stored").folder == "/weights/some-weights"


def test_a_worker_killed_in_mid_chunk_loses_no_row(
    load: Callable[..., Any], tmp_path: Path
) -> None:
    engine = load("trouble", "slow")
    killer = threading.Timer(0.4, lambda: os.kill(engine.pid, signal.SIGKILL))
    killer.start()
    assert texts(engine, 0.1, 0.2) == ["level100", "level200"]
    assert len(engine.context.incidents) == 1


def test_a_worker_killed_between_chunks_loses_no_row(load: Callable[..., Any]) -> None:
    engine = load("good")
    os.kill(engine.pid, signal.SIGKILL)
    assert gone(engine.pid) and texts(engine, 0.5) == ["level500"]


def test_a_heartbeat_while_it_works(
    load: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    engine = load("trouble", "slow", heartbeat_s=0.25)
    with caplog.at_level(NOTICE, "podtool"):
        engine.transcribe(tone(seconds=2.0), "en")
    beats = [r.getMessage() for r in caplog.records if r.levelno == NOTICE]
    assert 2 <= len(beats) <= 4
    assert "transcription trouble: transcribe of 2.0 s of audio for" in beats[0]


def test_calls_from_threads_are_answered_one_by_one(load: Callable[..., Any]) -> None:
    engine = load("good")
    levels = [k / 100 for k in range(1, 21)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda level: texts(engine, level)[0], levels))
    assert found == [f"level{10 * k}" for k in range(1, 21)]
    assert texts(engine, 0.9) == ["level900"]  # also after the threads have ended


def test_two_engines_never_share_a_process(load: Callable[..., Any]) -> None:
    assert len({load("good").pid, load("good").pid, os.getpid()}) == 3


def test_mlx_and_gpl_are_isolated_whatever_is_asked() -> None:
    from podtool.engines.worker import must_isolate

    kinds = [engines.engine_class(s, n) for s in engines.BUILTIN for n in _known(s)]
    apart = {k.info.name for k in kinds if must_isolate(k.info)}
    assert "espeak" in apart
    assert all(k.info.name in apart for k in kinds if k.info.licence.startswith("GPL"))
    assert all(k.info.name in apart for k in kinds if k.info.runtimes == ("mlx",))


def _known(stage: str) -> list[str]:
    return [n for n in engines.engine_names(stage) if n not in ENGINES]


def test_embedded_engines_stay_here_unless_there_is_a_limit(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(load("good"), Worker)
    assert not isinstance(load_here("never"), Worker)


def load_here(isolate: Any) -> Any:
    context = EngineContext(Store(), worker=WorkerParams(isolate=isolate))
    return engines.load("transcription", "good", context)


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"heartbeat_s": -1}, {"max_memory_gb": 0}])
def test_limits_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        WorkerParams(**settings)


# ---------------------------------------------------------------- the parent ends

PARENT = """
import sys, os
sys.path.insert(0, {here!r})
from podtool import engines
from podtool.audio import Audio
from podtool.engines.protocols import EngineContext, WorkerParams
import numpy as np
engines.BUILTIN["transcription"] = {{"trouble": "troublesome:Trouble"}}
context = EngineContext(None, options={{"trouble": {trouble!r}}})
try:
    engine = engines.load("transcription", "trouble", context)
    print(engine.pid, flush=True)
    {then}
except KeyboardInterrupt:
    sys.exit(130)
"""
CALL = "engine.transcribe(Audio(np.ones((1, 16000), np.float32), 16000), 'en')"


@contextlib.contextmanager
def parent(trouble: str, then: str = CALL) -> Iterator[tuple[subprocess.Popen[str], int]]:
    code = PARENT.format(here=str(HERE), trouble=trouble, then=then)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        time.sleep(0.3)
        assert not gone(worker, 0.1)
        try:
            yield run, worker
        finally:
            run.kill()


@pytest.mark.parametrize("trouble", ["hang", "hang-hard"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphans(trouble: str, how: signal.Signals) -> None:
    if trouble == "hang-hard" and sys.platform != "linux":
        pytest.skip("only Linux tells a process of its parent's death")
    with parent(trouble) as (run, worker):
        run.send_signal(how)
        code = run.wait(5)
        assert code == (130 if how == signal.SIGINT else -how)
        assert gone(worker)


def test_the_worker_ends_with_a_run_that_ends_well() -> None:
    with parent("hang", "import time; time.sleep(1)") as (run, worker):
        assert run.wait(5) == 0 and gone(worker)


def test_ctrl_c_does_not_reach_the_worker(load: Callable[..., Any]) -> None:
    engine = load("good")
    assert os.getpgid(engine.pid) != os.getpgid(0)
    os.kill(engine.pid, signal.SIGINT)
    assert texts(engine, 0.1) == ["level100"] and engine.context.incidents == []


def test_memory_of_a_process_and_its_children() -> None:
    own = memory_of(os.getpid())
    assert 10e6 < own < 20e9
    code = "import time; x = bytearray(80_000_000); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert memory_of(os.getpid()) > own + 70e6
        child.kill()
    assert memory_of(2**22 + 1) == 0
