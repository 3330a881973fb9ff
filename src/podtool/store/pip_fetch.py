"""One exact file from a package index to stdout: `python -m podtool.store.pip_fetch NAME FILE`.

Runs in a process of its own and asks pip's index and session code for the link and the bytes, so
that the user's mirrors, find-links, proxies, certificates and credentials hold. `pip download`
would do for wheels that fit this machine only, and runs a package's build backend for an sdist;
here nothing is resolved, unpacked, built or run. Output: one JSON line {"url", "bytes"}, then the
file. Written against pip 23.2 to 26; pip's internals are reached nowhere else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

NO_PIP, NOT_FOUND, NETWORK = 10, 11, 12  # exit codes


def find_link(collector: Any, package: str, filename: str) -> Any | None:
    """The first link of that exact file name over the user's find-links and indexes."""
    from pip._internal.index.collector import parse_links

    def links_of_page(location: Any) -> list[Any]:
        page = collector.fetch_response(location)
        return list(parse_links(page)) if page is not None else []

    def links() -> Iterator[Any]:
        found = collector.collect_sources(package, candidates_from_page=links_of_page)
        for source in [*found.find_links, *found.index_urls]:
            if source is not None:
                yield from source.file_links()
                yield from source.page_candidates()

    return next((link for link in links() if link.filename == filename), None)


def fetch(package: str, filename: str, out: Any) -> int:
    try:
        from pip._internal.commands import create_command
        from pip._internal.index.collector import LinkCollector
        from pip._internal.network.utils import HEADERS, raise_for_status, response_chunks
    except ImportError as error:
        print(f"pip is not usable here: {error}", file=sys.stderr)
        return NO_PIP
    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-deps", "--no-input", package])
    with command._build_session(options) as session:
        session.auth.prompting = False
        collector = LinkCollector.create(session, options=options)
        link = find_link(collector, package, filename)
        if link is None:
            print(f"{filename} is not on the package index", file=sys.stderr)
            return NOT_FOUND
        response = session.get(link.url_without_fragment, headers=HEADERS, stream=True)
        raise_for_status(response)
        size = int(response.headers.get("content-length") or 0)
        head = {"url": link.show_url, "bytes": size}
        out.write(json.dumps(head).encode() + b"\n")
        for chunk in response_chunks(response, 1 << 18):
            out.write(chunk)
        out.flush()
    return 0


def main(arguments: list[str]) -> int:
    # pip and what it loads may print: keep the real stdout for the file alone.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    package, filename = arguments
    try:
        with out:
            return fetch(package, filename, out)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:  # pip's and requests' own families: whatever it is, say it
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return NETWORK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
