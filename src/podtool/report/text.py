"""Numbers as people read them."""

from __future__ import annotations

from podtool.artifacts import Metric


def clock(seconds: float, tenths: bool = False) -> str:
    """61.25 -> 1:01, or 1:01.2 with tenths; hours where there are any."""
    units = round(seconds * 10) if tenths else int(seconds) * 10
    minutes, rest = divmod(units, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest / 10:04.1f}" if tenths else f"{head}:{rest // 10:02d}"


def number(value: float, unit: str) -> str:
    """A value with its unit, as many decimals as the unit deserves."""
    decimals = {"dB": 1, "LU": 1, "LUFS": 1, "dBTP": 1, "dBFS": 1, "s": 1, "ms": 0, "Hz": 0, "": 3}
    places = decimals.get(unit, 2)
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "samples":  # a difference, in full scale
        return f"{value:.1e}" if value else "0"
    if unit in ("turns", "takes", "words", "frames", "utterances", "speakers"):
        places = 0
    text = f"{value:.{places}f}" if value or unit else "0"
    if value and float(text) == 0.0:
        text = text.lstrip("-")
    text = text.replace("-", "\N{MINUS SIGN}")
    return f"{text} {unit}".strip()


def title_of(metric: Metric) -> str:
    """A metric's name in words."""
    return TITLES.get(metric.name, metric.name.replace("_", " "))


TITLES = {
    "replaced_turns": "turns replaced",
    "replaced_s": "replaced",
    "kept_s": "kept original",
    "similarity": "similarity to the target voice",
    "similarity_before": "the same before",
    "first_word_drift_ms": "drift at the start",
    "last_word_drift_ms": "drift at the end",
    "background_level": "background under the voices",
    "true_peak_before_dbtp": "true peak before",
    "drift_ms": "largest drift",
    "loudness_change_lu": "loudness change",
    "lufs": "loudness of the episode",
    "lufs_before": "loudness before",
    "true_peak_dbtp": "true peak",
    "null_test_peak": "null test: largest difference outside replaced slots",
    "stems_sum_error": "stems: largest difference to the mixture",
    "wer": "word error rate of the new turns against the old",
}
