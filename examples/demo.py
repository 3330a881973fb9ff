"""What `make demo` runs: the demo episode (or your own), one speaker of it in another voice."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from podtool import demo
from podtool.store import ModelStore


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episode", type=Path, help="your recording (default: the demo episode)")
    parser.add_argument("--voice", type=Path, help="reference audio of the voice to give")
    parser.add_argument("--speaker", help="who gets it: S1, S2, ..., a name, or a clip")
    parser.add_argument("--consent", help="who agreed to the use of the voice")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where results go")
    chosen = parser.parse_args()
    episode, voice, speaker, consent = chosen.episode, chosen.voice, chosen.speaker, chosen.consent
    if episode is None:
        store = ModelStore()
        made = demo.build(store.folder("demo-recordings"), store.folder("demo-voice"))
        paths = demo.write(made, chosen.folder)
        episode, voice, consent = paths["episode"], paths["voice"], demo.CONSENT
        speaker = "S2"
    chosen.folder.mkdir(parents=True, exist_ok=True)
    output = chosen.folder / f"{episode.stem}-new.wav"
    command = [sys.executable, "-m", "podtool", "replace", str(episode), "--voice", str(voice)]
    command += ["--consent", consent or "the user of this demo supplied the reference"]
    command += ["-o", str(output), "--force"]
    if speaker:  # without one, replace lists who there is
        command += ["--speaker", speaker]
    code = subprocess.run(command, check=False).returncode
    if code:
        return code
    report = next(output.with_suffix(".podtool").glob("**/report.html"), None)
    print(f"\nbefore:  {episode}\nafter:   {output}\nreport:  {report or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
