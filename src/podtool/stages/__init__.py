"""Stages: pure functions from audio and rows to audio and rows, one file each."""
