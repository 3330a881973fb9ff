"""One self-contained HTML page about a replaced episode: what was done, with the sound of it."""

from podtool.report.page import ReplacedTurn, Report, render_page

__all__ = ["ReplacedTurn", "Report", "render_page"]
