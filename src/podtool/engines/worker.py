"""An engine in a process of its own, so that what kills it does not kill the run.

A `Worker` answers like the engine that it holds. A crash, a hang, a memory blow-up, a fault of the
GPU or an answer that is nonsense ends the process; it is started again and asked once more, and
only then the call fails. Audio passes as raw float32 over a pipe, see `wire`. Workers live in
sessions of their own: Ctrl-C is answered here, and when podtool ends, however it ends, they end too
(on Linux by the parent-death signal, elsewhere when their pipe closes).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from podtool import errors
from podtool.audio import Audio
from podtool.engines.contract import check
from podtool.engines.protocols import EngineContext, EngineInfo, Incident
from podtool.engines.wire import Channel, Garbage, Handle, Message
from podtool.errors import EngineFailure, ModelError, PodtoolError
from podtool.progress import NOTICE

log = logging.getLogger(__name__)

_MAIN = Path(__file__).with_name("worker_main.py")
_ANSWERS = ("ready", "folder", "value", "item", "end", "kept", "error")
_TICK_S = 0.25  # how often limits are looked at while a worker lets wait
_LOOK_S = 0.1  # and its memory, where that is limited
# The parent-death signal is tied to the thread that starts a process: this one stays to the end.
_starter = ThreadPoolExecutor(1, thread_name_prefix="podtool-worker-starter")


_signature = functools.lru_cache(inspect.signature)


class Ended(Exception):
    """The worker died, or was ended since it broke a limit; the text says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker loads: the engine's facts, its class, and where it is found."""

    info: EngineInfo
    kind: type[Any]
    target: str  # module:Class
    python: Path | None = None  # of an environment of the engine's own


def must_isolate(info: EngineInfo) -> bool:
    """Whether an engine never runs in podtool's own process.

    GPL code stays out of it, and a second MLX model in one process is known to crash.
    """
    return info.licence.startswith(("GPL", "AGPL")) or info.runtimes == ("mlx",)


class Worker:
    """An engine, loaded in a process of its own when this is made; `close` ends it.

    Methods and plain attributes are those of the engine; an iterator comes back whole, and what
    cannot be sent stays in the worker (`Kept`). Calls from several threads are answered one after
    the other. Raises what the engine raises, and EngineFailure where it failed twice.
    """

    def __init__(self, order: Order, context: EngineContext) -> None:
        self._order, self._context = order, context
        self._lock = threading.RLock()
        self._process: _Process | None = None
        self.info = order.info
        self.peak_mb = 0.0
        self._facts: dict[str, Any] = {}
        with self._lock:
            self._persistently(lambda: None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._facts:
            return self._facts[name]
        member = getattr(self._order.kind, name)
        if not callable(member):
            return member

        def call(*args: Any, **named: Any) -> Any:
            return self._call(None, name, args, named)

        # stages look at what a method takes
        call.__signature__ = _signature(member)  # type: ignore[attr-defined]
        return functools.wraps(member)(call)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process; a later call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _call(
        self, on: Kept | None, method: str, args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """One call of a method of the engine, or `on` something that it keeps in the worker."""
        args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)

        def ask() -> Any:
            assert self._process is not None
            answer = self._once(_Recipe(on, method, args, named))
            if isinstance(answer, _Remote):
                return check(self.info, method, args, Kept(self, self._process, answer))
            if isinstance(answer, Iterator):
                return iter(check(self.info, method, args, list(answer)))
            return check(self.info, method, args, answer) if on is None else answer

        with self._lock:
            return self._persistently(ask)

    def _once(self, recipe: _Recipe) -> Any:
        """The answer of the running process."""
        assert self._process is not None
        args = [self._sendable(a) for a in recipe.args]
        named = {k: self._sendable(v) for k, v in recipe.named.items()}
        number = 0 if recipe.on is None else self._sendable(recipe.on).number
        what = f"{recipe.method} of {_length(recipe.args)}"
        self._process.allow(self._context.worker.timeout_s, what)
        answer, peak = self._process.ask(number, recipe, args, named)
        self.peak_mb = max(self.peak_mb, peak)
        return answer

    def _sendable(self, value: Any) -> Any:
        """A value for the running process; what an earlier one kept is made there again."""
        if isinstance(value, list):
            return [self._sendable(v) for v in value]
        if not isinstance(value, Kept):
            return value
        assert self._process is not None
        if value._process is not self._process:
            again = self._once(value._remote.recipe)
            if not isinstance(again, _Remote):
                raise EngineFailure(f"{self.info.name} made something else the second time")
            value._process, value._remote = self._process, again
        return Handle(value._remote.number)

    def _persistently(self, ask: Callable[[], Any]) -> Any:
        """`ask` of a running worker; of a fresh one, once, where that fails."""
        for last in (False, True):
            try:
                if self._process is None:
                    self._process = _Process(self._order, self._context)
                    self._facts = self._process.load(self._context)
                return ask()
            except (TypeError, *_TYPED):
                raise  # not the process's fault, and no better the second time
            except (Ended, EngineFailure, Garbage) as error:
                said = self._process.last_words() if self._process else ""
                reason = str(error)
                self.close()
                if last:
                    name = f"the {self.info.stage} engine {self.info.name}"
                    text = reason if name in reason else f"{name} failed twice: {reason}"
                    raise EngineFailure(text, said or _hint_of(error)) from error
                self._told(reason)
            except BaseException:  # Ctrl-C in the middle of an answer: nothing fits any more
                self.close()
                raise
        return None

    def _told(self, reason: str) -> None:
        name = self.info.name
        log.warning("%s %s: %s; started again", self.info.stage, name, reason)
        self._context.incidents.append(Incident(self.info.stage, name, reason, name))


@dataclass(frozen=True, slots=True)
class _Recipe:
    """A call, to be made again where a process has ended."""

    on: Kept | None
    method: str
    args: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Remote:
    """An object that a process keeps: its number there, what is known of it, how it was made."""

    number: int
    facts: dict[str, Any]
    methods: tuple[str, ...]
    recipe: _Recipe


class Kept:
    """An answer that cannot leave the worker, such as a voice of the engine's own.

    It can be given to the engine's methods, its plain attributes can be read, its methods called.
    """

    def __init__(self, worker: Worker, process: _Process, remote: _Remote) -> None:
        self._worker, self._process, self._remote = worker, process, remote

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._remote.facts:
            return self._remote.facts[name]
        if name in self._remote.methods:
            return lambda *args, **named: self._worker._call(self, name, args, named)
        raise AttributeError(f"what the worker keeps has no {name}")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._process.dropped.append(self._remote.number)


_TYPED = (errors.UsageError, errors.InputError, errors.ConfigError,
          errors.EngineUnavailableError, errors.ModelError, errors.OutputError)  # fmt: skip


class _Process:
    """One run of worker_main; dead or alive, never restarted. Raises Ended."""

    def __init__(self, order: Order, context: EngineContext) -> None:
        self._name = f"{order.info.stage} {order.info.name}"
        self._params = context.worker
        self.dropped: list[int] = []  # what the process need not keep any longer
        self._lines: deque[str] = deque(maxlen=20)
        self._popen, reader, writer = _start(order, context)
        self.pid = self._popen.pid
        assert self._popen.stdout is not None
        threading.Thread(target=self._drain, args=[self._popen.stdout], daemon=True).start()
        limited = self._params.max_memory_gb is not None
        tick_s = min(_LOOK_S if limited else _TICK_S, self._params.heartbeat_s / 2)
        self._channel = Channel(reader, writer, self._tick, tick_s)
        self.allow(context.worker.load_timeout_s, "loading")

    def allow(self, seconds: float, what: str) -> None:
        """Give the process this long for what comes next."""
        self._began = self._beat = time.monotonic()
        self._allowed, self._what = seconds, what

    def load(self, context: EngineContext) -> dict[str, Any]:
        """Wait for the engine; its plain attributes. Raises as `ask` does."""
        while True:
            answer = self._receive()
            if answer["is"] == "ready":
                facts: dict[str, Any] = answer["facts"]
                return facts
            try:
                self._send({"path": str(context.store.folder(answer["model"]))})
            except ModelError as error:
                self._send({"message": error.message, "hint": error.hint})

    def ask(
        self, on: int, recipe: _Recipe, args: list[Any], named: dict[str, Any]
    ) -> tuple[Any, float]:
        """The answer to one call (an iterator where the method gives one), and peak memory in MB.

        Raises Ended, Garbage, or what the engine raised.
        """
        call = {"on": on, "method": recipe.method, "args": args, "named": named}
        dropped = [self.dropped.pop() for _ in range(len(self.dropped))]
        self._send({**call, "dropped": dropped})
        items: list[Any] = []
        while True:
            answer = self._receive()
            if answer["is"] == "item":
                items.append(answer["value"])
                self.allow(self._allowed, self._what)
            elif answer["is"] == "end":
                return iter(items), float(answer["peak"])
            elif answer["is"] == "kept":
                known = (answer["number"], answer["facts"], tuple(answer["methods"]))
                return _Remote(*known, recipe), float(answer["peak"])
            else:
                return answer["value"], float(answer["peak"])

    def last_words(self) -> str:
        """What the process said last on stderr or stdout, in a line or two."""
        time.sleep(0.05)  # what it said while it died is still on its way
        lines = [x for x in self._lines if x.strip()]
        return " | ".join(lines[-3:])

    def stop(self) -> None:
        """End the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        with contextlib.suppress(OSError):
            self._channel.close()

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except EOFError:
            raise self._gone() from None

    def _receive(self) -> Message:
        try:
            answer = self._channel.receive()
        except EOFError:
            raise self._gone() from None
        if answer.get("is") not in _ANSWERS:
            raise Garbage("its answer is no answer")
        if answer["is"] == "error":
            _raise(answer)
        return answer

    def _gone(self) -> Ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(2.0)
        return Ended(_manner(self._popen.poll()))

    def _tick(self) -> None:
        """Called while the process lets wait: limits and the sign of life."""
        now = time.monotonic()
        busy = now - self._began
        if busy > self._allowed:
            raise Ended(f"{self._what} took longer than {self._allowed:g} s")
        limit = self._params.max_memory_gb
        if limit is not None:
            used = memory_of(self.pid)
            if used > limit * 1e9:
                raise Ended(f"{self._what} took {used / 1e9:.2f} GB of {limit:g} GB allowed")
        if now - self._beat >= self._params.heartbeat_s:
            self._beat = now
            memory = memory_of(self.pid) / 1e9
            log.log(NOTICE, "%s: %s for %.0f s, %.1f GB", self._name, self._what, busy, memory)

    def _drain(self, stream: IO[bytes]) -> None:
        """Take what the process says on stdout and stderr, so that it never waits for us."""
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()[:500]
                self._lines.append(line)
                log.debug("%s says: %s", self._name, line)


def _start(order: Order, context: EngineContext) -> tuple[subprocess.Popen[bytes], int, int]:
    """The process, the pipe that its answers come from, the pipe that calls go to."""
    own = order.python is not None
    their_reader, writer = os.pipe()
    reader, their_writer = os.pipe()
    job = {
        "engine": order.target,
        "device": context.device,
        "threads": context.threads,
        "options": context.options,
        "podtool": str(Path(__file__).resolve().parents[1]),
        "path": None if own else sys.path,
        "pipes": [their_reader, their_writer],
        "parent": os.getpid(),
    }
    python = str(order.python or sys.executable)
    command = [python, "-I", "-X", "faulthandler", str(_MAIN), json.dumps(job)]
    try:
        with contextlib.ExitStack() as theirs:
            theirs.callback(os.close, their_reader)
            theirs.callback(os.close, their_writer)
            for end in (reader, writer):
                _widen(end)
            popen = _starter.submit(
                subprocess.Popen,
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(their_reader, their_writer),
                start_new_session=True,
            ).result()
    except BaseException as error:
        os.close(reader)
        os.close(writer)
        if isinstance(error, OSError):
            raise Ended(f"{python} does not start: {error.strerror}") from None
        raise
    return popen, reader, writer


def _widen(pipe: int) -> None:
    """Let a pipe hold a megabyte, where that can be set: fewer turns for the same audio."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def _raise(answer: Message) -> None:
    log.debug("%s", answer.get("trace"))
    kind = getattr(errors, str(answer["type"]), None) if answer["type"] else None
    if isinstance(kind, type) and issubclass(kind, PodtoolError):
        raise kind(answer["message"], answer["hint"])
    raise EngineFailure(answer["message"])


def _hint_of(error: Exception) -> str | None:
    return error.hint if isinstance(error, PodtoolError) else None


def _manner(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "it closed its pipes"
    if code >= 0:
        return f"it ended by itself with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    said = {"SIGSEGV": "crashed", "SIGABRT": "gave up", "SIGKILL": "was killed"}
    return f"it {said.get(name, 'was ended')} ({name})"


def _length(args: Iterable[Any]) -> str:
    audio = next((a for a in args if isinstance(a, Audio)), None)
    return "its input" if audio is None else f"{audio.duration:.1f} s of audio"


def memory_of(pid: int) -> int:
    """Resident memory of a process and all below it, in bytes; 0 where it is gone."""
    if sys.platform != "linux":
        command = ["ps", "-o", "rss=", "-g", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return 1024 * sum(int(n) for n in done.stdout.split() if n.isdigit())
    total = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError, IndexError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
