"""Satellites: registration, credentials, configs, and publishing their states."""
