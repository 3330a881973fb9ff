"""Replacing a voice: the pipeline as a list of steps on a run directory."""
