"""podtool: terminal commands for the voices in podcasts, over WAV and JSONL."""

__version__ = "0.1.0"
