"""Write the demo episode, the third voice and the truth into a folder: FOLDER [SEED]."""

from __future__ import annotations

import sys
from pathlib import Path

from podtool.demo import build, write
from podtool.store import ModelStore


def main(folder: str = "demo", seed: str = "7") -> None:
    store = ModelStore()
    demo = build(store.folder("demo-recordings"), store.folder("demo-voice"), int(seed))
    for path in write(demo, Path(folder)).values():
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
