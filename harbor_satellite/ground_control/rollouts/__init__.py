"""Rollouts: which generation each satellite may have, and moving them in waves."""
