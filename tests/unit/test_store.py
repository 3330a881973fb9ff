"""The model store against a package index of its own: taken whole, verified, or not at all."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from podtool.audio import sha256_of
from podtool.errors import ModelError
from podtool.store import ModelStore
from podtool.store.fetch import parse_origin
from podtool.store.table import Model, ModelTable

WHEEL = "weights-1.0-cp27-cp27m-win_arm64.whl"  # fits no machine that runs these tests
SDIST = "voices-2.1.tar.gz"
PAYLOAD = {"pkg/a.bin": bytes(range(256)) * 400, "pkg/b.bin": b"b" * 5000}


class Index:
    """A PEP 503 index on localhost that can misbehave."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[str] = []
        self.cut = 0  # send this many bytes too few
        self.pause_s = 0.0  # before the last byte
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        name = handler.path.rstrip("/").rsplit("/", 1)[-1]
        self.requests.append(name)
        if name in self.files:
            body, kind = self.files[name], "application/octet-stream"
        else:
            links = [f for f in self.files if f.startswith(f"{name}-")]
            page = "".join(f'<a href="/files/{f}">{f}</a>' for f in links)
            body, kind = f"<!DOCTYPE html><html><body>{page}</body></html>".encode(), "text/html"
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        sent = len(body) - self.cut if name in self.files else len(body)
        handler.wfile.write(body[: sent - 1])
        if name in self.files and self.pause_s:
            handler.wfile.flush()
            time.sleep(self.pause_s)
        handler.wfile.write(body[sent - 1 : sent])


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in PAYLOAD.items():
            archive.writestr(name, data)
        archive.writestr("pkg/secret.py", "raise SystemExit('was imported')")
    return buffer.getvalue()


def sdist(marker: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        run_me = f"open({str(marker)!r}, 'w').write('setup.py was run')\n".encode()
        for name, data in {
            "voices-2.1/setup.py": run_me,
            "voices-2.1/pyproject.toml": b"[build-system]\nrequires = []\n",
            "voices-2.1/data/c.bin": b"c" * 700,
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture()
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index({WHEEL: wheel(), SDIST: sdist(tmp_path / "marker")})
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name in ("PODTOOL_OFFLINE", "HTTP_PROXY", "http_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    yield served
    served.server.shutdown()


def entry(
    model_id: str, origin: str, data: bytes, extra: str = "", of_file: str = "", path: str = "w.bin"
) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return (
        f'[{model_id}]\nstage = "vad"\nlicence = "MIT"\nsource = "https://example.org"\n{extra}\n'
        f'[[{model_id}.files]]\npath = "{path}"\nfrom = "{origin}"\nsha256 = "{digest}"\n'
        f"bytes = {len(data)}\n{of_file}\n"
    )


A = entry("a", f"pypi://weights==1.0/{WHEEL}!/pkg/a.bin", PAYLOAD["pkg/a.bin"])
B = entry("b", f"pypi://weights==1.0/{WHEEL}!/pkg/b.bin", PAYLOAD["pkg/b.bin"])
C = entry("c", f"pypi://voices==2.1/{SDIST}!/voices-2.1/data/c.bin", b"c" * 700)


def store(home: Path, *entries: str) -> ModelStore:
    return ModelStore(home, ModelTable.parse("\n".join(entries), "test", home))


def everything_in(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file()} - {".lock"}


def test_members_of_a_foreign_wheel_and_of_an_sdist(index: Index, tmp_path: Path) -> None:
    there = store(tmp_path / "home", A, B, C)
    shown: list[Model] = []
    pulled = there.pull(["a", "b", "c"], announce=shown.append)
    assert [m.id for m in pulled] == [m.id for m in shown] == ["a", "b", "c"]
    assert (there.folder("a") / "w.bin").read_bytes() == PAYLOAD["pkg/a.bin"]
    assert (there.folder("b") / "w.bin").read_bytes() == PAYLOAD["pkg/b.bin"]
    assert (there.folder("c") / "w.bin").read_bytes() == b"c" * 700
    assert everything_in(there.root) == {"w.bin", "stamp.json"}, "nothing but the members"
    assert index.requests.count(WHEEL) == 1, "one wheel, two models: fetched once"
    assert not (tmp_path / "marker").exists(), "setup.py must not run"
    assert there.pull(["a", "b", "c"]) == []
    assert index.requests.count(WHEEL) == 1, "what is here is not fetched again"


def test_another_content_than_promised_is_never_used(index: Index, tmp_path: Path) -> None:
    damaged = bytearray(index.files[WHEEL])
    damaged[200] ^= 1  # within the stored bytes of a.bin
    index.files[WHEEL] = bytes(damaged)
    there = store(tmp_path / "home", A)
    with pytest.raises(ModelError) as caught:
        there.pull(["a"])
    assert caught.value.exit_code == 6
    assert everything_in(there.root) == set()
    assert there.state("a") == "missing"


@pytest.mark.parametrize("at", [0, 40, -20])
def test_a_damaged_sdist_is_never_used(index: Index, tmp_path: Path, at: int) -> None:
    damaged = bytearray(index.files[SDIST])
    damaged[at] ^= 0xFF
    index.files[SDIST] = bytes(damaged)
    there = store(tmp_path / "home", C)
    try:
        there.pull(["c"])
    except ModelError as error:
        assert error.exit_code == 6
        assert everything_in(there.root) == set()
    else:  # the flipped bits lie outside the member: what is kept is still what was promised
        assert (there.folder("c") / "w.bin").read_bytes() == b"c" * 700


def test_a_replaced_member_names_both_hashes(index: Index, tmp_path: Path) -> None:
    other = A.replace("sha256 = ", "sha256 = ", 1).replace(
        hashlib.sha256(PAYLOAD["pkg/a.bin"]).hexdigest(), "0" * 64
    )
    there = store(tmp_path / "home", other)
    with pytest.raises(ModelError, match="000000000000"):
        there.pull(["a"])
    assert everything_in(there.root) == set()


def test_a_transfer_cut_short_is_noticed(index: Index, tmp_path: Path) -> None:
    index.cut = 1000
    there = store(tmp_path / "home", A)
    with pytest.raises(ModelError):
        there.pull(["a"])
    assert everything_in(there.root) == set()
    index.cut = 0
    there.pull(["a"])
    assert there.state("a") == "ready"


def test_a_killed_pull_leaves_nothing_that_is_used(index: Index, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.toml").write_text(A)
    index.pause_s = 30.0
    code = "from podtool.store import ModelStore; ModelStore().pull(['a'])"
    env = {**os.environ, "PODTOOL_HOME": str(home)}
    pull = subprocess.Popen([sys.executable, "-c", code], env=env)
    until = time.monotonic() + 20
    while not list((home / "models").glob(".incoming-*/0.part")) and time.monotonic() < until:
        time.sleep(0.02)
    pull.send_signal(signal.SIGKILL)
    pull.wait()
    assert list((home / "models").glob(".incoming-*")), "it was in the middle of it"
    there = ModelStore(home)
    assert there.state("a") == "missing"
    with pytest.raises(ModelError, match="missing"):
        there.folder("a")
    index.pause_s = 0.0
    there.pull(["a"])
    assert there.state("a") == "ready"
    assert everything_in(there.root) == {"w.bin", "stamp.json"}, "leftovers are swept"


def test_a_file_that_the_index_does_not_have(index: Index, tmp_path: Path) -> None:
    gone = A.replace("weights-1.0-cp27", "weights-1.0-cp35")
    with pytest.raises(ModelError, match="weights-1.0-cp35.*not on the package index") as caught:
        store(tmp_path / "home", gone).pull(["a"])
    assert caught.value.hint and "pip config list" in caught.value.hint


def test_offline_touches_no_network(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "local.bin"
    local.write_bytes(b"here")
    there = store(tmp_path / "home", A, entry("near", str(local), b"here"))
    monkeypatch.setenv("PODTOOL_OFFLINE", "1")
    with pytest.raises(ModelError, match="offline"):
        there.pull(["near", "a"])
    assert index.requests == []
    there.pull(["near"])
    assert (there.folder("near") / "w.bin").read_bytes() == b"here"


def test_relative_paths_start_at_the_table(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "near.bin").write_bytes(b"near")
    (home / "models.toml").write_text(entry("near", "near.bin", b"near"))
    there = ModelStore(home)
    there.pull(["near"])
    assert (there.folder("near") / "w.bin").read_bytes() == b"near"
    assert (home / "near.bin").exists(), "the source is copied, not taken"


@pytest.mark.parametrize("kind", ["gated", "non_commercial"])
def test_licences_that_have_to_be_accepted(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "w"
    source.write_bytes(b"w")
    there = store(tmp_path / "home", entry("m", str(source), b"w", extra=f"{kind} = true"))
    with pytest.raises(ModelError, match=kind.replace("_", "-")) as caught:
        there.pull(["m"])
    assert caught.value.hint and "--accept-licence" in caught.value.hint
    with pytest.raises(ModelError, match="--commercial"):
        there.pull(["m"], accept_licence=True, commercial=True)
    assert there.state("m") == "missing"
    there.pull(["m"], accept_licence=True)
    assert there.state("m") == "ready"


def test_damage_after_the_pull(tmp_path: Path) -> None:
    source = tmp_path / "w"
    source.write_bytes(b"weights")
    there = store(tmp_path / "home", entry("m", str(source), b"weights"))
    there.pull(["m"])
    file = there.folder("m") / "w.bin"
    stamp = file.stat()
    file.write_bytes(b"weighty")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert there.state("m") == "ready", "size and time vouch for it"
    assert there.verify("m") == ["w.bin has another sha256"]
    os.utime(file)
    with pytest.raises(ModelError, match="damaged"):
        there.folder("m")
    there.pull(["m"])
    assert (there.folder("m") / "w.bin").read_bytes() == b"weights"
    os.utime(file)
    assert there.verify("m") == []
    file.unlink()
    assert there.state("m") == "damaged"
    assert there.remove("m") > 0
    assert there.state("m") == "missing"


def test_a_conversion_runs_once_and_its_source_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "turning.py").write_text(
        "def convert(source, target):\n"
        "    print('chatter')\n"
        "    target.write_bytes(source.read_bytes()[::-1])\n"
        "def fail(source, target):\n"
        "    raise RuntimeError('no')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "w"
    source.write_bytes(b"abc")
    good = entry("m", str(source), b"abc", of_file='convert="turning:convert"\nconverted="w.onnx"')
    bad = entry("n", str(source), b"abc", of_file='convert="turning:fail"\nconverted="w.onnx"')
    there = store(tmp_path / "home", good, bad)
    there.pull(["m"])
    folder = there.folder("m")
    assert {p.name for p in folder.iterdir()} == {"w.onnx", "stamp.json"}
    assert (folder / "w.onnx").read_bytes() == b"cba"
    stamp = json.loads((folder / "stamp.json").read_text())
    assert stamp["w.onnx"]["sha256"] == hashlib.sha256(b"cba").hexdigest()
    assert there.verify("m") == []
    with pytest.raises(ModelError, match="cannot be converted: no"):
        there.pull(["n"])
    assert there.state("n") == "missing"


def test_a_member_larger_than_promised_is_cut_off(tmp_path: Path) -> None:
    archive = tmp_path / "x-1.whl"
    archive.write_bytes(wheel())
    text = entry("m", f"{archive}!/pkg/a.bin", PAYLOAD["pkg/a.bin"]).replace("102400", "10")
    with pytest.raises(ModelError, match="larger than the 10 bytes"):
        store(tmp_path / "home", text).pull(["m"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("licence", "license"), "unknown key license"),
        (lambda t: t.replace('path = "w.bin"', 'path = "../w.bin"'), "leaves the model's folder"),
        (lambda t: t.replace('sha256 = "', 'sha256 = "x'), "64 hex digits"),
        (lambda t: t.replace("bytes =", "size ="), "unknown key size"),
        (lambda t: t + "[", "not valid TOML"),
    ],
)
def test_a_broken_table_says_where(change: Callable[[str], str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        ModelTable.parse(change(A), "test")


def test_the_users_table_cannot_redefine_a_shipped_model(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(A.replace("[a]", "[ge2e]").replace("[a.", "[ge2e."))
    with pytest.raises(ModelError, match="redefines ge2e"):
        _ = ModelStore(tmp_path).table


def test_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hub = parse_origin("hf://org/repo@abc123/deep/model.safetensors")
    assert hub.location == "https://huggingface.co/org/repo/resolve/abc123/deep/model.safetensors"
    package = parse_origin(f"pypi://weights==1.0/{WHEEL}!/pkg/a.bin")
    assert (package.package, package.location, package.member) == ("weights", WHEEL, "pkg/a.bin")
    for wrong in ("ftp://x/y", "http://x/y", f"pypi://weights==9/{WHEEL}!/x", "hf://org/x"):
        with pytest.raises(ModelError):
            parse_origin(wrong)


def test_the_shipped_table_serves_every_engine() -> None:
    from podtool.engines import BUILTIN, engine_class

    table = ModelTable.shipped()
    groups = table.groups()
    for stage, engines in BUILTIN.items():
        for name in engines:
            info = engine_class(stage, name).info
            for model in info.models:
                assert model in table.models, f"{stage} {name} wants {model}"
                if info.tier == "embedded":
                    assert model in groups["embedded"]
    assert {"demo-recordings", "demo-voice"} <= set(groups["embedded"])
    for model in table.models.values():
        own = model.id.startswith("podtool-")
        assert model.licence and model.source.startswith("docs/models/" if own else "https://")
        assert not own or (Path(__file__).parents[2] / model.source).is_file()
        for file in model.files:
            assert parse_origin(file.origin).remote != own


def test_own_weights_lie_in_the_package_as_the_table_says() -> None:
    models = [m for m in ModelTable.shipped().models.values() if m.id.startswith("podtool-")]
    assert models
    for model in models:
        for file in model.files:
            path = Path(parse_origin(file.origin, model.folder).location)
            assert (path.stat().st_size, sha256_of(path)) == (file.bytes, file.sha256)
    assert sum(m.bytes for m in models) < 25e6


def test_the_commands(
    run: Callable[..., Result], own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = own_home / "w"
    own_home.mkdir()
    source.write_bytes(b"w")
    (own_home / "models.toml").write_text(entry("m", "w", b"w"))
    monkeypatch.setenv("PODTOOL_OFFLINE", "0")
    missing = run("models", "path", "ge2e")
    assert missing.exit_code == 6 and missing.stdout == ""
    assert "podtool models pull embedded" in missing.stderr
    offline = run("models", "pull", "--offline", "ge2e")
    assert offline.exit_code == 6 and "offline" in offline.stderr
    assert "Apache-2.0" in offline.stderr and "17 MB" in offline.stderr, "said before the pull"
    assert run("models", "pull", "m").exit_code == 0
    folder = Path(run("models", "path", "m").stdout.strip())
    assert (folder / "w.bin").read_bytes() == b"w"
    rows = [json.loads(line) for line in run("models", "list", "--json").stdout.splitlines()]
    assert {r["id"]: r["state"] for r in rows}["m"] == "ready"
    assert run("models", "verify").exit_code == 0
    (folder / "w.bin").write_bytes(b"!")
    broken = run("models", "verify", "m", "--json")
    assert broken.exit_code == 6 and json.loads(broken.stdout)["ok"] is False
    assert run("models", "rm", "m").exit_code == 0
    assert run("models", "path", "m").exit_code == 6
    assert run("models", "pull", "nothing").exit_code == 6
