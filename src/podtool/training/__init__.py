"""Training of podtool's own networks; nothing here is imported by any other command."""
