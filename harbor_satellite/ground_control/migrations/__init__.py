"""Alembic's scripts; they travel in the wheel. A migration must be safe beside the previous release."""
