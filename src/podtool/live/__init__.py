"""Live transcription: sources, a deterministic pipeline, and the session that runs them."""
