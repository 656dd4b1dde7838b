"""Harbor Satellite: keeps a local OCI registry at every edge site in step with what the centre decided."""

__version__ = "0.1.0"
