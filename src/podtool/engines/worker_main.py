"""The process that holds one engine: it loads it, answers calls, and ends with its parent.

Run as a file by `podtool.engines.worker`, also by the Python of another environment. It needs
podtool's source, whose folder it is told, numpy, the standard library, and what the engine needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the engine that the order on the command line names, and answer until the pipes end."""
    order = json.loads(sys.argv[1])
    reader, writer = order["pipes"]
    _end_with(order["parent"], reader)
    sys.path[:] = order["path"] or sys.path
    _find_podtool(order["podtool"])
    from podtool.engines.wire import Channel

    try:
        serve(Channel(reader, writer), order)
    except EOFError:
        pass
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what a broken backend does at exit is nobody's concern


def _end_with(parent: int, reader: int) -> None:
    """Die when the parent does, however it ends and whatever the engine is at."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        try:  # where memory runs out, the system is to end the worker rather than the run
            Path("/proc/self/oom_score_adj").write_text("1000")
        except OSError:
            pass
    if os.getppid() != parent:
        os._exit(0)

    def watch() -> None:
        poll = select.poll()
        poll.register(reader, 0)  # wakes for the end of the pipe alone
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _find_podtool(folder: str) -> None:
    """Make podtool importable, and of what lies beside its folder nothing."""
    spec = importlib.util.spec_from_file_location(
        "podtool", f"{folder}/__init__.py", submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["podtool"] = module
    spec.loader.exec_module(module)


def serve(channel: Any, order: dict[str, Any]) -> None:
    """Load the engine, tell what it is, then one answer per call until EOFError."""
    try:
        engine = _load(channel, order)
    except BaseException as error:
        channel.send(_failure(error))
        return
    channel.send({"is": "ready", "facts": _facts(engine)})
    kept: dict[int, Any] = {0: engine}  # and what earlier answers left here
    peaks = PeakMemory()
    while True:
        call = channel.receive()
        for number in call["dropped"]:
            kept.pop(number, None)
        try:
            args = [_meant(a, kept) for a in call["args"]]
            named = {k: _meant(v, kept) for k, v in call["named"].items()}
            result = getattr(kept[call["on"]], call["method"])(*args, **named)
            peak = peaks.read()
            if isinstance(result, Iterator):
                for item in result:
                    channel.send({"is": "item", "value": item})
                channel.send({"is": "end", "peak": peak})
                continue
            try:
                channel.send({"is": "value", "value": result, "peak": peak})
            except TypeError:  # a state of the engine's own, such as a voice: its name goes out
                number = max(kept) + 1
                kept[number] = result
                channel.send({"is": "kept", "number": number, "peak": peak} | _outline(result))
        except EOFError:
            raise
        except BaseException as error:
            channel.send(_failure(error))


def _load(channel: Any, order: dict[str, Any]) -> Any:
    from podtool.engines.protocols import EngineContext
    from podtool.errors import ModelError

    class Store:
        """The parent's model store, asked through the pipes."""

        def folder(self, model_id: str) -> Path:
            channel.send({"is": "folder", "model": model_id})
            answer = channel.receive()
            if "path" in answer:
                return Path(answer["path"])
            raise ModelError(answer["message"], answer["hint"])

    module, _, name = order["engine"].partition(":")
    context = EngineContext(Store(), order["device"], order["threads"], order["options"])
    return getattr(importlib.import_module(module), name).load(context)


def _meant(value: Any, kept: dict[int, Any]) -> Any:
    """A value, with what a handle stands for in place of the handle."""
    from podtool.engines.wire import Handle

    if isinstance(value, Handle):
        return kept[value.number]
    if isinstance(value, list):
        return [_meant(v, kept) for v in value]
    return value


def _is_plain(value: Any) -> bool:
    from podtool.engines.wire import pack

    try:
        pack(value, [])
    except TypeError:
        return False
    return True


def _outline(kept: Any) -> dict[str, Any]:
    """What the parent may know of an object that stays here."""
    names = [n for n in dir(kept) if not n.startswith("_")]
    methods = [n for n in names if callable(getattr(kept, n, None))]
    return {"facts": _facts(kept), "methods": methods}


def _facts(engine: Any) -> dict[str, Any]:
    """The plain public attributes of an engine: `dim`, `stems`, `grid`, ..."""
    found: dict[str, Any] = {}
    for name in dir(engine):
        if name.startswith("_"):
            continue
        try:
            value = getattr(engine, name)
            if not callable(value) and _is_plain(value):
                found[name] = value
        except Exception:
            continue  # not data, or a property that needs more than the engine has yet
    return found


def _failure(error: BaseException) -> dict[str, Any]:
    from podtool.errors import PodtoolError

    typed = isinstance(error, PodtoolError)
    return {
        "is": "error",
        "type": type(error).__name__ if typed else "",
        "message": str(error) if typed else f"{type(error).__name__}: {error}",
        "hint": error.hint if isinstance(error, PodtoolError) else None,
        "trace": "".join(traceback.format_exception(error))[-4000:],
    }


class PeakMemory:
    """Peak memory of this process in MB, looked at every half second at most."""

    def __init__(self) -> None:
        self._value, self._looked = 0.0, -1.0

    def read(self) -> float:
        now = time.monotonic()
        if now - self._looked > 0.5:
            self._value, self._looked = _peak_memory(), now
        return self._value


def _peak_memory() -> float:
    try:  # on Linux, ru_maxrss begins with what the parent had
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on macOS


if __name__ == "__main__":
    main()
