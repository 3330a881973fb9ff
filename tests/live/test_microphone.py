"""A real way from sound to samples: a private PulseAudio, its null sink, PortAudio on the monitor.

PortAudio reaches PulseAudio through ALSA's plugin (Debian: libasound2-plugins).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podtool.audio import Audio, write_audio
from podtool.live.sources import Microphone, list_devices
from podtool.live.status import Block, Samples

pytestmark = pytest.mark.slow
RATE = 16000
PLUGINS = ("/usr/lib", "/usr/lib64")
ALSA = """
</usr/share/alsa/alsa.conf>
pcm.podtool_test {
  type pulse
  hint { show on description "podtool's test" }
}
ctl.podtool_test { type pulse }
"""


class Sound:
    """A PulseAudio of its own, which only this test can reach."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = home / "native"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["pulseaudio", "--daemonize=no", "--system=false", "--exit-idle-time=-1", "-n"]
        command += ["--use-pid-file=no", "--disable-shm=yes", "--realtime=no", "--high-priority=no"]
        command += ["-L", f"module-native-protocol-unix socket={self.socket} auth-anonymous=1"]
        with (self.home / "pulse.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: self.pactl("info"), "PulseAudio does not start")
        self.plug()

    def plug(self) -> None:
        """A null sink; its monitor is the microphone."""
        assert self.pactl("load-module", "module-null-sink", "sink_name=podtool", "rate=48000")

    def unplug(self) -> None:
        assert self.pactl("unload-module", "module-null-sink")

    def pactl(self, *words: str) -> bool:
        return subprocess.run(["pactl", *words], capture_output=True, timeout=20).returncode == 0

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGCONT)
            self.daemon.kill()
            self.daemon.wait()

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["paplay", "--latency-msec=50", "--device=podtool", str(path)])


def eventually(condition: Callable[[], Any], otherwise: str, within: float = 15.0) -> Any:
    ends = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < ends, otherwise
        time.sleep(0.05)
    return found


@pytest.fixture()
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sound]:
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: pulseaudio, pulseaudio-utils)")
    if not any(p for lib in PLUGINS for p in Path(lib).glob("**/libasound_module_pcm_pulse.so")):
        pytest.skip("ALSA's plugin for PulseAudio is not installed (Debian: libasound2-plugins)")
    (tmp_path / "asound.conf").write_text(ALSA)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PULSE_SERVER", f"unix:{tmp_path}/native")
    monkeypatch.setenv("PULSE_SOURCE", "podtool.monitor")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    private = Sound(tmp_path)
    try:
        private.start()
        yield private
    finally:
        private.kill()


class Heard:
    """A microphone that is read in a thread: the blocks so far."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.mic = Microphone("podtool_test", rate=RATE, channels=1)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        eventually(lambda: self.blocks, "nothing is heard")

    def _read(self) -> None:
        for block in self.mic.blocks():
            self.blocks.append(block)

    @property
    def samples(self) -> Samples:
        return np.concatenate([b.samples[0] for b in self.blocks])

    @property
    def gap_s(self) -> float:
        return sum(b.gap_s for b in self.blocks)

    def close(self) -> float:
        """Seconds until `blocks` ended."""
        began = time.monotonic()
        threading.Thread(target=self.mic.close).start()
        self._thread.join(5)
        assert not self._thread.is_alive()
        return time.monotonic() - began


@pytest.fixture()
def heard(sound: Sound) -> Iterator[Heard]:
    import sounddevice

    sounddevice._terminate()  # imported elsewhere it knows of no such device
    sounddevice._initialize()
    one = Heard()
    yield one
    one.mic.close()


def speech(seconds: float) -> Samples:
    """Noise in syllables: a correlation with it has one peak."""
    t = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(3)
    wave = rng.standard_normal(t.size) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
    kernel = np.hanning(9)
    return (0.2 * np.convolve(wave, kernel / kernel.sum(), "same")).astype(np.float32)


def likeness(played: Samples, heard: Samples) -> tuple[float, int]:
    """Correlation at the best lag, and the lag in samples."""
    size = 1 << (played.size + heard.size).bit_length()
    both = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(played, size))
    lag = int(np.argmax(np.fft.irfft(both, size)[: heard.size]))
    part = heard[lag : lag + played.size]
    part = np.pad(part, (0, played.size - part.size))
    return float(part @ played / np.linalg.norm(part) / np.linalg.norm(played)), lag


def test_what_is_heard_is_what_is_played(sound: Sound, heard: Heard, tmp_path: Path) -> None:
    assert "podtool_test" in {d.name for d in list_devices()}
    played = speech(3)
    write_audio(tmp_path / "x.wav", Audio(played[None], RATE))
    assert sound.play(tmp_path / "x.wav").wait() == 0
    eventually(lambda: likeness(played, heard.samples)[0] > 0.98, "something else is heard", 10)
    assert heard.gap_s == 0
    assert heard.mic.waiting is None
    assert heard.close() < 0.5


@pytest.mark.parametrize("away", ["device", "server"])
def test_a_device_that_is_lost_comes_back(
    sound: Sound, heard: Heard, tmp_path: Path, away: str
) -> None:
    played = speech(2)
    write_audio(tmp_path / "x.wav", Audio(played[None], RATE))
    sound.unplug() if away == "device" else sound.kill()
    gone = time.monotonic()
    eventually(lambda: heard.mic.waiting, "the loss is not noticed", 3)
    assert "podtool_test" in str(heard.mic.waiting)
    time.sleep(2)
    before = len(heard.blocks)
    sound.plug() if away == "device" else sound.start()
    eventually(lambda: len(heard.blocks) > before + 3, "it does not come back", 20)
    silent = time.monotonic() - gone
    assert heard.mic.waiting is None
    assert heard.gap_s == pytest.approx(silent, abs=0.5)
    assert sound.play(tmp_path / "x.wav").wait() == 0
    eventually(lambda: likeness(played, heard.samples)[0] > 0.98, "something else is heard", 10)
    assert heard.close() < 0.5


def test_a_server_that_hangs_does_not_hold_up_the_end(sound: Sound, heard: Heard) -> None:
    assert sound.daemon is not None
    sound.daemon.send_signal(signal.SIGSTOP)
    eventually(lambda: heard.mic.waiting, "the hang is not noticed", 5)
    assert heard.close() < 0.5
