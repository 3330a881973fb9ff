"""Any program as an engine: WAV or JSON lines on its stdin, WAV or JSON lines on its stdout.

Declared in TOML, in `$PODTOOL_HOME/engines.toml` or in a preset, one table per engine:

    [engine.my-reader]
    stage = "transcription"
    command = ["my-reader", "--language", "{language}"]

It is started anew for each window, always below a worker, whose limits therefore hold for it too.
docs/engines.md says what a program of each stage gets and gives.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from podtool import rowio
from podtool.artifacts import Row, Segment, Speaker, Utterance, Word
from podtool.audio import Audio, to_wav_bytes, write_audio
from podtool.config import from_table
from podtool.engines.protocols import EngineContext, EngineInfo
from podtool.errors import ConfigError, EngineFailure, EngineUnavailableError, InputError
from podtool.segments import Span
from podtool.text import spread_words

STAGES = ("vad", "embedding", "separation", "talkers", "transcription", "alignment", "speaking")
FILE = "engines.toml"


@dataclass(frozen=True, slots=True)
class Declaration:
    """One table of TOML: what a program is, what it is given, and what it can do."""

    name: str
    stage: str
    command: tuple[str, ...]  # {language}, {text}, {rate}, {seed}, {count} are filled in
    input: Literal["wav", "jsonl"] = "wav"
    subtype: Literal["float", "pcm16", "pcm24"] = "float"
    sample_rate: int = 16000
    channels: int = 1
    window_s: float | None = None
    licence: str = "unknown"
    version: str = "1"
    languages: tuple[str, ...] = ()
    deterministic: bool = True
    dim: int = 0  # of an embedding
    max_talkers: int = 2
    folder: str = field(default="", metadata={"help": "Where the table stands."})

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"a program can be of these stages: {', '.join(STAGES)}")
        if not self.command:
            raise ValueError("command is empty")
        if self.sample_rate < 1:
            raise ValueError("sample_rate must be above 0")
        if self.stage == "embedding" and self.dim < 1:
            raise ValueError("an embedding needs dim, its number of values")

    def program(self) -> str | None:
        """The program's path; None where it is not found."""
        name = str(Path(self.command[0]).expanduser())
        if "/" in name and not Path(name).is_absolute():
            name = str(Path(self.folder) / name)
        return shutil.which(name)


def read_file(path: Path) -> dict[str, Declaration]:
    """Name -> declaration of a TOML file of engines; none where there is no file.

    Raises ConfigError.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    if set(table) - {"engine"}:
        raise ConfigError(f"{path} holds tables [engine.NAME], not {', '.join(sorted(table))}")
    return read_tables(table.get("engine", {}), str(path), path.parent)


def read_tables(tables: Any, where: str, folder: Path | None) -> dict[str, Declaration]:
    """The tables [engine.NAME]; relative programs are looked for in `folder`. Raises ConfigError"""
    if not isinstance(tables, Mapping):
        raise ConfigError(f"{where}: engine is not a table", "Write [engine.NAME] above it.")
    ready = {"folder": str(folder.absolute()) if folder else ""}
    return {
        name: from_table(Declaration, table, f"{where}: engine {name}", {**ready, "name": name})
        for name, table in tables.items()
    }


def class_of(declaration: Declaration) -> type[Command]:
    """The engine class of a declaration, as the registry wants one."""
    d = declaration
    line = hashlib.sha256("\0".join(d.command).encode()).hexdigest()[:8]
    info = EngineInfo(
        name=d.name,
        stage=d.stage,
        version=f"{d.version}-{line}",  # another command line may give another result
        licence=d.licence,
        tier="own",
        sample_rate=d.sample_rate,
        channels=d.channels,
        window_s=d.window_s,
        deterministic=d.deterministic,
        languages=d.languages,
    )
    return type("Command", (Command,), {"info": info, "declaration": declaration})


class Command:
    """A declared program behind the methods of its stage."""

    info: ClassVar[EngineInfo]
    declaration: ClassVar[Declaration]

    def __init__(self, declaration: Declaration) -> None:
        self._declared = declaration
        self.dim = declaration.dim
        self.stems = ("speech",)
        self.max_talkers = declaration.max_talkers

    @classmethod
    def load(cls, context: EngineContext) -> Self:
        """The option `declaration` holds the declaration as JSON."""
        told = json.loads((context.options or {})["declaration"])
        lists = {k: tuple(v) for k, v in told.items() if isinstance(v, list)}
        return cls(Declaration(**{**told, **lists}))

    @classmethod
    def locate(cls, context: EngineContext) -> str:
        """Where the program is. Raises EngineUnavailableError where it is not here."""
        program = cls.declaration.program()
        if program is None:
            name = cls.declaration.command[0]
            raise EngineUnavailableError(
                f"there is no program {name}", f"See [engine.{cls.info.name}]."
            )
        return program

    def detect(self, audio: Audio) -> list[Span]:
        """Rows of kind `segment`, in seconds from the start of the audio."""
        rows = self._rows(audio, [], {}, "segment")
        return [Span(r.start, r.end) for r in rows if isinstance(r, Segment)]

    def embed(self, audio: Audio) -> NDArray[np.float32]:
        """A row of kind `speaker` with its embedding, which is brought to unit norm."""
        for row in self._rows(audio, [], {}, "speaker"):
            if isinstance(row, Speaker) and row.embedding is not None:
                vector = np.array(row.embedding.vector, np.float32)
                if len(vector) != self.dim:
                    raise EngineFailure(f"{self._named} gave {len(vector)} values, not {self.dim}")
                return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
        raise EngineFailure(f"{self._named} gave no embedding")

    def separate(self, audio: Audio) -> dict[str, Audio]:
        """WAV of the speech, as long as the input."""
        return {"speech": self._audio(audio, {})}

    def talkers(self, audio: Audio, count: int) -> NDArray[np.float32]:
        """WAV with a channel for each talker, (count, n)."""
        return self._audio(audio, {"count": str(count)}).samples

    def transcribe(self, audio: Audio, language: str | None) -> list[Utterance]:
        """Rows of kind `utterance`; words without times are spread over theirs."""
        rows = self._rows(audio, [], {"language": language or ""}, "utterance")
        return [_with_words(r) for r in rows if isinstance(r, Utterance) and r.text.strip()]

    def align(self, audio: Audio, words: list[str]) -> list[Word]:
        """The words come as an `utterance` row or as {text}; they are given back with times."""
        if not words:
            return []
        given = Utterance("u0001", "input", 0.0, audio.duration, " ".join(words))
        rows = self._rows(audio, [given], {"text": given.text}, "utterance")
        found = [w for r in rows if isinstance(r, Utterance) for w in _with_words(r).words or ()]
        if len(found) != len(words):
            raise EngineFailure(f"{self._named} gave {len(found)} of {len(words)} words")
        return [replace(w, text=text) for w, text in zip(found, words, strict=True)]

    def speak(self, text: str, rate: float, seed: int) -> Iterator[Audio]:
        """WAV of the text, which comes as an `utterance` row or as {text}."""
        given = [Utterance("u0001", "input", 0.0, 0.0, text)]
        yield self._audio(None, {"text": text, "rate": f"{rate:g}", "seed": str(seed)}, given)

    @property
    def _named(self) -> str:
        return f"the program of {self._declared.name}"

    def _rows(
        self, audio: Audio, given: list[Utterance], values: dict[str, str], kind: str
    ) -> list[Row]:
        """What the program writes, as rows; `kind`, ids and the recording may be left out."""
        raw = self._run(audio, given, values)
        found: list[Row] = []
        for number, line in enumerate(raw.splitlines(), 1):
            if not line.strip():
                continue
            where = f"{self._named}, line {number} of its output"
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("not an object")
                found.append(rowio.decode(json.dumps(_completed(record, kind, number)), where))
            except InputError as error:
                raise EngineFailure(error.message) from None
            except ValueError as error:
                raise EngineFailure(f"{where}: {error}") from None
        return found

    def _audio(
        self, audio: Audio | None, values: dict[str, str], given: list[Utterance] | None = None
    ) -> Audio:
        import soundfile

        raw = self._run(audio, given or [], values)
        try:
            samples, rate = soundfile.read(io.BytesIO(raw), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise EngineFailure(f"{self._named} gave no WAV: {error}") from None
        return Audio(np.ascontiguousarray(samples.T), int(rate))

    def _run(self, audio: Audio | None, given: list[Utterance], values: dict[str, str]) -> bytes:
        """The program's stdout. Raises EngineFailure where it fails."""
        program = self._declared.program()
        if program is None:
            raise EngineUnavailableError(f"there is no program {self._declared.command[0]}")
        arguments = [_filled(a, values) for a in self._declared.command[1:]]
        with ExitStack() as stack:
            jsonl = audio is None or self._declared.input == "jsonl"
            sent = (
                self._as_rows(audio, given, Path(stack.enter_context(_scratch())))
                if jsonl
                else to_wav_bytes(audio, self._declared.subtype)  # type: ignore[arg-type]
            )
            try:
                done = subprocess.run(
                    [program, *arguments],
                    input=sent,
                    capture_output=True,
                    check=False,
                    preexec_fn=_end_with_parent(),
                )
            except OSError as error:
                raise EngineFailure(f"{program} does not run: {error.strerror}") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise EngineFailure(
                f"{self._named} ended with {done.returncode}", said[-1][:500] if said else None
            )
        return done.stdout

    def _as_rows(self, audio: Audio | None, given: list[Utterance], scratch: Path) -> bytes:
        """Input as JSON lines: a `recording` row that names a WAV, then what is asked about it."""
        lines = []
        if audio is not None:
            path = scratch / "input.wav"
            write_audio(path, audio, self._declared.subtype)
            facts = {"sample_rate": audio.sample_rate, "channels": audio.channels}
            row = {"kind": "recording", "v": 1, "id": "input", "path": str(path), "sha256": ""}
            lines.append(json.dumps({**row, **facts, "frames": audio.frames}))
        lines += [rowio.encode(row) for row in given]
        return "".join(line + "\n" for line in lines).encode()


def options_of(declaration: Declaration) -> dict[str, str]:
    """The option that tells `Command.load` what to run."""
    return {"declaration": json.dumps(asdict(declaration))}


def _completed(record: dict[str, Any], kind: str, number: int) -> dict[str, Any]:
    record = {"kind": kind, "v": 1, **record}
    if record["kind"] == kind:
        defaults: dict[str, Any] = {"recording": "input"}
        if kind == "segment":
            defaults |= {"label": "speech"}
        else:
            defaults |= {"id": f"u{number:04d}"}
        if kind == "speaker":
            defaults |= {"speech_s": 0.0}
            if isinstance(record.get("embedding"), list):
                record["embedding"] = {"model": "own", "vector": record["embedding"]}
        record = {**record, **{k: v for k, v in defaults.items() if k not in record}}
    return record


def _with_words(row: Utterance) -> Utterance:
    if row.words:
        return row
    timed = spread_words(row.text.split(), row.start, row.end)
    return replace(row, words=tuple(Word(t, s, e, row.score, True) for t, s, e in timed))


def _filled(argument: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        argument = argument.replace(f"{{{name}}}", value)
    return argument


def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="podtool-")


def _end_with_parent() -> Callable[[], object] | None:
    """On Linux the program ends with the worker that runs it, however that ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGKILL)
