"""Scripts that run inside containers of the pipeline: the standard library alone, Python 3.13, one job each."""
