"""The statement of how an image was built: the predicate of SLSA provenance v1. Pure.

Source: https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

BUILD_TYPE: Final = "urn:harbor-satellite:pipeline:v1"
LOCAL_BUILDER: Final = "urn:harbor-satellite:builder:local"
_DIGEST: Final = re.compile(r"@sha256:(?P<hex>[0-9a-f]{64})$")

# As git and ssh name a repository: `git@github.com:acme/app.git`.
_SCP: Final = re.compile(r"[\w.-]+@(?P<host>[\w.-]+):(?P<path>[^/].*)")


@dataclass(frozen=True)
class Origin:
    """Who builds, and from whose source."""

    builder: str = LOCAL_BUILDER
    """A URI that names the CI's workflow or runner."""
    invocation: str = ""
    """A URI of this run; empty: it has none."""
    source: str = ""
    """The repository's URL, without credentials; empty: unknown."""


def origin_of(environment: Mapping[str, str]) -> Origin:
    """Return what the variables of GitHub Actions or GitLab CI say; elsewhere a local builder."""

    def get(name: str, default: str = "") -> str:
        return environment.get(name) or default

    if repository := get("GITHUB_REPOSITORY"):
        server = get("GITHUB_SERVER_URL", "https://github.com")
        source = f"{server}/{repository}"
        workflow = get("GITHUB_WORKFLOW_REF")
        builder = f"{server}/{workflow}" if workflow else source
        run = f"{source}/actions/runs/{get('GITHUB_RUN_ID')}/attempts/{get('GITHUB_RUN_ATTEMPT', '1')}"
        return Origin(builder, run, source)
    if source := get("CI_PROJECT_URL"):
        return Origin(f"{source}/-/runners/{get('CI_RUNNER_ID')}", get("CI_JOB_URL"), without_credentials(source))
    return Origin()


def without_credentials(url: str) -> str:
    """Return the URL of a repository without user and password; empty for a folder, which nobody else can reach."""
    if found := _SCP.fullmatch(url):
        return f"ssh://{found['host']}/{found['path']}"
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.hostname else ""


def predicate(
    origin: Origin,
    *,
    image: str,
    version: str,
    commit: str,
    epoch: int,
    platforms: Sequence[str],
    files: Mapping[str, bytes],
    tools: Mapping[str, str],
    started: datetime,
    finished: datetime,
) -> dict[str, object]:
    """Return the predicate: what was asked for, from what it was made, by whom and when.

    Args:
        origin: who builds.
        image: `satellite`.
        version: of the package.
        commit: git's; empty: not a checkout.
        epoch: seconds; the date of every file in the image.
        platforms: those built.
        files: path → content of the lock files that decide what is in the image.
        tools: name → reference of the images that the build ran or took files from.
        started: when the build began, with time zone.
        finished: when it ended, with time zone.
    """
    materials = [_source(origin, commit)] if commit else []
    materials += [_file(path, content) for path, content in sorted(files.items())]
    materials += [_tool(name, reference) for name, reference in sorted(tools.items())]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"image": image, "version": version, "platforms": list(platforms)},
            "internalParameters": {"sourceDateEpoch": epoch},
            "resolvedDependencies": materials,
        },
        "runDetails": {"builder": {"id": origin.builder}, "metadata": _run(origin, started, finished)},
    }


def _run(origin: Origin, started: datetime, finished: datetime) -> dict[str, object]:
    run: dict[str, object] = {"startedOn": _stamp(started), "finishedOn": _stamp(finished)}
    return run | {"invocationId": origin.invocation} if origin.invocation else run


def _source(origin: Origin, commit: str) -> dict[str, object]:
    uri = f"git+{origin.source}@{commit}" if origin.source else f"git:{commit}"
    return {"name": "source", "uri": uri, "digest": {"gitCommit": commit}}


def _file(path: str, content: bytes) -> dict[str, object]:
    return {"name": path, "uri": f"file:{path}", "digest": {"sha256": hashlib.sha256(content).hexdigest()}}


def _tool(name: str, reference: str) -> dict[str, object]:
    tool: dict[str, object] = {"name": name, "uri": f"docker://{reference}"}
    if found := _DIGEST.search(reference):
        tool["digest"] = {"sha256": found["hex"]}
    return tool


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
