"""Where the Prefect project (flows, tasks, deployments, prefect.yaml) lies, and the pull step that enters it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def project_dir() -> Path:
    """Return the folder that holds ``flows/``: inside the installed wheel, else the checkout."""
    package = Path(__file__).resolve().parent
    bundled = package / "_project"
    return bundled if bundled.is_dir() else package.parent


def enter() -> dict[str, str]:
    """Prefect pull step: make the project the working directory, wherever the worker was started.

    Returns:
        ``{"directory": …}``, which Prefect takes as the run's working directory.
    """
    directory = str(project_dir())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    os.chdir(directory)
    return {"directory": directory}
