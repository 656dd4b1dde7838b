"""The verbs `test` and `check`: what the Makefile does, in a container that has what it needs."""

from __future__ import annotations

import hashlib
import shlex
from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.builder import CA_BUNDLE, with_pip, with_sources
from ci.checkout import untracked_patterns
from ci.tools import BUILDER, tool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ci.context import Build

CHECK: Final = "check"
TEST: Final = "test"

_PACKAGES: Final = ("git", "make")
_TEST_PACKAGES: Final = (
    "containerd", "golang-go", "iproute2", "nftables", "openssl", "podman", "postgresql", "skopeo", "systemd",
)  # fmt: skip
"""Programs that tests start; what else they want is built by `make`, or they say what they skip."""

_SOURCE: Final = "/source"
_NOT_SOURCE: Final = (".git", ".venv", ".tools", "dist")
_SUMMARY: Final = "short test summary info"


async def run_make(build: Build, target: str, arguments: Sequence[str] = ()) -> str:
    """Run a target of the Makefile in a container and return what it says in the end.

    The same source is not run twice: what passed is in the engine's cache.

    Args:
        build: the source, the mirrors and the tools.
        target: CHECK or TEST.
        arguments: for pytest.

    Raises:
        dagger.ExecError: it failed; holds what it printed.
    """
    source = dag.host().directory(str(build.source), exclude=not_checked(build.source), gitignore=True)
    packages = (*_PACKAGES, *_TEST_PACKAGES) if target == TEST else _PACKAGES
    container = _with_caches(with_pip(_with_packages(build, packages), build), build)
    said = await (
        container.with_directory(_SOURCE, source)
        .with_workdir(_SOURCE)
        .with_exec(make_arguments(target, arguments))
        .stdout()
    )
    return summary(said)


def not_checked(source: Path) -> list[str]:
    """Return patterns of what stays on this machine: what git ignores. What is new is tested before it is committed."""
    return [*_NOT_SOURCE, *untracked_patterns(source, is_ignored_only=True)]


def make_arguments(target: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of make.

    Args:
        target: of the Makefile.
        arguments: for pytest, each as it shall arrive there.
    """
    quoted = shlex.join(arguments).replace("$", "$$")
    return ["make", target, *([f"PYTEST_OPTIONS={quoted}"] if arguments else [])]


def apt_script(packages: Sequence[str], sources: str | None, authorities: str | None) -> str:
    """Return the shell's line that installs Debian packages.

    Args:
        packages: their names.
        sources: path of the user's sources; None: the container's.
        authorities: path of a CA bundle, of which apt does not learn by a variable; None: the container's.
    """
    apt = "apt-get -qq"
    if sources is not None:
        apt += f" -o Dir::Etc::sourcelist={sources} -o Dir::Etc::sourceparts=/dev/null"
    if authorities is not None:
        apt += f" -o Acquire::https::CAInfo={authorities}"
    # One step: an index from the cache would name files that are gone by now.
    return f"{apt} update && {apt} install --yes --no-install-recommends {' '.join(packages)}"


def summary(said: str) -> str:
    """Return the end of what make printed: pytest's summary with what it skipped and why, else the last line."""
    lines = said.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if _SUMMARY in line]
    return "\n".join(lines[starts[-1] :] if starts else lines[-1:])


def cache_name(kind: str, *made_of: str) -> str:
    """Return the name of a cache volume for what is made of some texts: another text, another volume."""
    return f"{kind}-{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}"


def _with_packages(build: Build, packages: Sequence[str]) -> dagger.Container:
    """Return a container with Debian packages installed."""
    container, sources = with_sources(dag.container().from_(tool(BUILDER, build.tools)), build)
    authorities = None if build.mirrors.ca_bundle is None else CA_BUNDLE
    script = apt_script(packages, sources, authorities)
    return container.with_env_variable("DEBIAN_FRONTEND", "noninteractive").with_exec(["sh", "-c", script])


def _with_caches(container: dagger.Container, build: Build) -> dagger.Container:
    """Return a container that keeps what make installs, for as long as it is made of the same."""
    installed = cache_name(
        "venv", tool(BUILDER, build.tools), *_texts(build.source, "constraints.txt", "pyproject.toml")
    )
    tools = cache_name("tools", *_texts(build.source, "tests/install-tools.sh"))
    locked = dagger.CacheSharingMode.LOCKED  # two runs would install into the same folder
    return (
        container.with_mounted_cache(f"{_SOURCE}/.venv", dag.cache_volume(installed), sharing=locked)
        .with_mounted_cache(f"{_SOURCE}/.tools", dag.cache_volume(tools), sharing=locked)
        .with_mounted_cache("/root/.cache", dag.cache_volume("checks"), sharing=locked)
        .with_mounted_cache("/root/go", dag.cache_volume("go"), sharing=locked)
        .with_env_variable("GOTOOLCHAIN", "auto")  # a module may want a newer Go than Debian's
    )


def _texts(source: Path, *names: str) -> list[str]:
    return [(source / name).read_text(encoding="utf-8") for name in names]
