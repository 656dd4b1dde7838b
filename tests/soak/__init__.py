"""A site that is cut and killed at random for half an hour: ``python -m tests.soak [MINUTES [SEED]]``."""
