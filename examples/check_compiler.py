"""Say what is missing before pip spends minutes to find out: pyworld is compiled on installing."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

PACKAGES = "Debian, Ubuntu: apt install g++ python3-dev; macOS: xcode-select --install"


def main() -> int:
    missing = []
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        missing.append("a C++ compiler")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        missing.append(f"the headers of Python {sys.version_info.major}.{sys.version_info.minor}")
    if missing:
        print(f"podtool needs {' and '.join(missing)} ({PACKAGES})", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
