"""The chart as Helm renders it, and its objects looked at."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "deployments" / "helm" / "harbor-satellite"
VALUES = tuple(sorted((CHART / "ci").glob("*.yaml")))
Manifest = dict[str, Any]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm; skips the test where there is none."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("no helm on PATH: the chart is not rendered")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def render(*values: Path, sets: tuple[str, ...] = ()) -> list[Manifest]:
    """Return every object that the chart makes of some values files."""
    options = [option for path in values for option in ("--values", str(path))]
    options += [option for one in sets for option in ("--set", one)]
    # A helm that `go install` built knows no version of Kubernetes.
    done = helm("template", "centre", CHART, "--namespace", "hs", "--kube-version", "1.31.0", *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def named(manifests: Sequence[Manifest], kind: str, end: str) -> Manifest:
    """Return the one object of a kind whose name ends so."""
    (found,) = [each for each in of_kind(manifests, kind) if each["metadata"]["name"].endswith(end)]
    return found


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each Deployment and Job with its pod template."""
    for each in manifests:
        if each["kind"] in {"Deployment", "Job"}:
            yield each, each["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a label selector takes labels."""
    for rule in selector.get("matchExpressions", []):
        is_in = labels.get(rule["key"]) in rule["values"]
        if is_in != (rule["operator"] == "In"):
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
