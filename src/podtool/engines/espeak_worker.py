"""The process that holds eSpeak NG: requests as JSON lines on stdin, speech on stdout.

eSpeak NG is GPL: it is loaded here and nowhere else, and this file needs nothing of podtool.
Request: {"text", "voice", "rate_wpm", "pitch"}. Answer: one JSON line {"sample_rate", "frames",
"words": [[first character, length, start in samples], ...]} or {"error"}, then that many 16-bit
samples, native byte order.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_WORD, _LIST_END = 1, 0


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class Synthesizer:
    """One loaded library; `say` is not reentrant."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library: Any = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT))
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG finds no voice data in {data.decode()}")
        self._pcm = bytearray()
        self._words: list[tuple[int, int, int]] = []
        self._callback = _Callback(self._receive)  # kept: the library holds a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, 2 * count)
        index = 0
        while events and events[index].type != _LIST_END:
            event = events[index]
            if event.type == _WORD:
                self._words.append((event.text_position - 1, event.length, event.sample))
            index += 1
        return 0

    def say(self, text: str, voice: str, rate_wpm: int, pitch: int) -> tuple[bytes, list[Any]]:
        """16-bit samples, and the word events."""
        self._pcm = bytearray()
        self._words = []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        raw = text.encode() + b"\0"
        buffer = ctypes.create_string_buffer(raw, len(raw))
        status = self._library.espeak_Synth(
            buffer, ctypes.c_size_t(len(raw)), 0, 1, 0, _UTF8, None, None
        )
        if status != 0:
            raise RuntimeError(f"eSpeak NG fails with status {status}")
        self._library.espeak_Synchronize()
        return bytes(self._pcm), list(self._words)


def main() -> None:
    """Answer requests until stdin ends."""
    out = sys.stdout.buffer
    try:
        synthesizer = Synthesizer()
    except Exception as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        out.flush()
        return
    # eSpeak NG carries state from one text to the next, so that a text sounds a little different
    # the second time. Each request is answered by a fork of the fresh library instead.
    for line in iter(sys.stdin.buffer.readline, b""):
        if not hasattr(os, "fork"):
            out.write(answer(synthesizer, line))
            out.flush()
            return  # the other side starts another process
        child = os.fork()
        if child == 0:
            out.write(answer(synthesizer, line))
            out.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)  # the answer is cut short: the other side sees the end of the stream


def answer(synthesizer: Synthesizer, line: bytes) -> bytes:
    """One request -> the bytes of its answer."""
    pcm = b""
    try:
        request = json.loads(line)
        pcm, words = synthesizer.say(
            request["text"], request["voice"], request["rate_wpm"], request["pitch"]
        )
        head: dict[str, Any] = {
            "sample_rate": synthesizer.sample_rate,
            "frames": len(pcm) // 2,
            "words": words,
        }
    except Exception as error:
        head = {"error": f"{error}"}
    return json.dumps(head).encode() + b"\n" + pcm


if __name__ == "__main__":
    main()
