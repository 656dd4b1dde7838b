"""Tasks: one call into the library each, plus its retry, time-out and naming policy."""
