"""Known people: one JSON file each under PODTOOL_HOME/speakers, with an embedding of their voice.

`diarize` gives their names to speakers that it finds. The files are readable by their owner only:
an embedding identifies a person.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from podtool.errors import InputError, OutputError
from podtool.home import home

if TYPE_CHECKING:
    from podtool.engines.protocols import EngineContext
    from podtool.progress import OnProgress

log = logging.getLogger(__name__)

MODEL = "campplus"  # the embedding that diarization compares speakers by
SHORTEST_S = 3.0  # less speech than this does not tell a person from others
OTHERS_S = 1.0  # a second person who speaks for longer than this spoils a clip
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording that a person was enrolled from."""

    path: str
    sha256: str
    speech_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """A person: a name, the clips heard, and one embedding of unit norm for each model."""

    name: str
    clips: tuple[Clip, ...]
    embeddings: dict[str, tuple[float, ...]]

    @property
    def speech_s(self) -> float:
        return sum(c.speech_s for c in self.clips)


def folder() -> Path:
    return home() / "speakers"


def known() -> list[Known]:
    """Everybody enrolled, by name. Raises InputError for a file that is damaged."""
    return sorted((_read(p) for p in sorted(folder().glob("*.json"))), key=lambda k: k.name)


def embeddings(model: str = MODEL) -> dict[str, NDArray[np.float32]]:
    """name -> embedding (dim,) of everybody who has one in the space of `model`."""
    return {
        k.name: np.array(k.embeddings[model], np.float32) for k in known() if model in k.embeddings
    }


def find(name: str) -> Known:
    """The person of that name. Raises InputError, naming those that there are."""
    people = known()
    for person in people:
        if person.name == name:
            return person
    names = ", ".join(p.name for p in people) or "nobody yet"
    raise InputError(
        f"nobody called {name!r} is enrolled", f"Enrolled: {names}. See `podtool speakers enrol`."
    )


def check_name(name: str) -> str:
    """The name without white space around it. Raises InputError for an empty one."""
    name = " ".join(name.split())
    if not name or not name.isprintable():
        raise InputError("a person needs a name of printable characters")
    return name


def enrol(
    name: str,
    clips: Sequence[str | Path],
    context: EngineContext,
    add: bool = False,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Known:
    """Listen to clips of one person and keep the name; `add` to the clips known already.

    Clips that do not sound like one person are logged as a warning. Raises InputError for a clip
    with two people or too little speech; OutputError for a name that is taken, without `add` or
    `force`.
    """
    name = check_name(name)
    old = next((k for k in known() if k.name == name), None)
    if old is not None and not (add or force):
        raise OutputError(
            f"{name} is enrolled already", "Give --add to add clips, --force to begin anew."
        )
    heard = [listen(Path(c), context, on_progress) for c in clips]
    weights = [(c.speech_s, np.array(v)) for c, v in heard]
    if old is not None and add:
        taken = {c.sha256 for c in old.clips}
        heard = [(c, v) for c, v in heard if c.sha256 not in taken]
        weights = [(c.speech_s, np.array(v)) for c, v in heard]
        if MODEL in old.embeddings:
            weights.append((old.speech_s, np.array(old.embeddings[MODEL])))
    _warn_of_strangers(name, [v for _, v in weights])
    person = Known(
        name,
        ((old.clips if old is not None and add else ()) + tuple(c for c, _ in heard)),
        {MODEL: _mean(weights)},
    )
    save(person)
    return person


def _warn_of_strangers(name: str, vectors: Sequence[NDArray[np.float64]]) -> None:
    from podtool.stages.diarize import DiarizeParams

    pairs = [float(a @ b) for i, a in enumerate(vectors) for b in vectors[:i]]
    if pairs and min(pairs) < DiarizeParams().enrolled_cosine:
        log.warning(
            "the clips of %s may not be of one person: similarity down to %.2f", name, min(pairs)
        )


def listen(
    path: Path, context: EngineContext, on_progress: OnProgress | None = None
) -> tuple[Clip, tuple[float, ...]]:
    """A clip of one person -> (clip, embedding of unit norm). Raises InputError."""
    from podtool.artifacts import Speaker
    from podtool.audio import open_audio
    from podtool.inputs import recording_of
    from podtool.pipeline import diarize_file
    from podtool.progress import ignore
    from podtool.rowio import of_kind
    from podtool.stages.diarize import DiarizeParams

    with open_audio(path) as audio:
        recording = recording_of(path, audio)
        rows = diarize_file(
            audio, recording, context, DiarizeParams(), on_progress=on_progress or ignore
        )
    people = sorted(of_kind(rows, Speaker), key=lambda s: -s.speech_s)
    if not people or people[0].speech_s < SHORTEST_S:
        speech = people[0].speech_s if people else 0.0
        raise InputError(
            f"{path} holds {speech:.1f} s of speech of one person; {SHORTEST_S:g} s are needed",
            "Give a clip of ten seconds or more, or several clips.",
        )
    if len(people) > 1 and people[1].speech_s > OTHERS_S:
        raise InputError(
            f"{path} holds {len(people)} people ("
            + ", ".join(f"{p.speech_s:.1f} s" for p in people)
            + " of speech)",
            "Give a clip in which this person alone speaks.",
        )
    embedding = people[0].embedding
    if embedding is None or embedding.model != MODEL:
        raise InputError(f"the diarization of {path} gave no {MODEL} embedding")
    clip = Clip(recording.path, recording.sha256, round(people[0].speech_s, 3))
    return clip, embedding.vector


def _mean(weighted: Sequence[tuple[float, NDArray[np.float64]]]) -> tuple[float, ...]:
    total = np.sum([w * v for w, v in weighted], axis=0)
    unit = total / np.linalg.norm(total)
    return tuple(round(float(x), 6) for x in unit)


def rename(old: str, new: str) -> Known:
    """Another name for a person. Raises InputError for a name that is not known or is taken."""
    person, new = find(old), check_name(new)
    if any(k.name == new for k in known()):
        raise InputError(f"{new} is the name of somebody else who is enrolled")
    renamed = replace(person, name=new)
    save(renamed)
    _path(person.name).unlink(missing_ok=True)
    return renamed


def remove(name: str) -> Known:
    """Forget a person. Raises InputError for a name that is not known."""
    person = find(name)
    _path(person.name).unlink(missing_ok=True)
    return person


def _path(name: str) -> Path:
    """A readable file name that no two names share, whatever characters are in them."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "person"
    return folder() / f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def save(person: Known) -> Path:
    """Write the file of a person, whole or not at all. Raises OutputError."""
    path = _path(person.name)
    record = {"kind": "known", "v": _VERSION, **asdict(person)}
    part: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")  # readable by its owner
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            json.dump(record, stream, ensure_ascii=False, allow_nan=False, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return path


def _read(path: Path) -> Known:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        if record["kind"] != "known" or record["v"] != _VERSION:
            raise ValueError("of another version")
        vectors = {
            str(m): tuple(float(x) for x in v) for m, v in dict(record["embeddings"]).items()
        }
        if not all(np.isfinite(v).all() and len(v) for v in vectors.values()):
            raise ValueError("not a number in the embedding")
        clips = tuple(Clip(str(c["path"]), str(c["sha256"]), float(c["speech_s"]))
                      for c in record["clips"])  # fmt: skip
        return Known(str(record["name"]), clips, vectors)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not the file of a known person ({error})",
            "Remove it and enrol the person again.",
        ) from None
