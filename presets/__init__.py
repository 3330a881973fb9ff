"""Presets shipped with podtool, as TOML data (see podtool.config)."""
