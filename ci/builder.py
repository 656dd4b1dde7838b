"""The container in which everything is put together, on the engine's own platform; the wheel and sdist made in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dagger import dag

from ci.checkout import untracked_patterns
from ci.locks import parse_lock
from ci.tools import BUILDER, tool

if TYPE_CHECKING:
    from pathlib import Path

    import dagger

    from ci.context import Build

_PIPELINE: Final = "/pipeline"
_PIP_CACHE: Final = "/cache/pip"
_PIP_CONF: Final = "/run/secrets/pip.conf"
_APT_SOURCES: Final = "/run/secrets/apt.sources"
CA_BUNDLE: Final = "/run/secrets/ca-bundle.crt"
"""Where the user's authorities are, if there are any."""

_PACKAGE: Final = (
    "harbor_satellite", "flows", "tasks", "deployments/*.py", "deployments/systemd", "prefect.yaml", "pyproject.toml",
    "README.md", "LICENSE",
)  # fmt: skip
"""What the wheel is made of."""
_NOT_SOURCE: Final = (".git", ".venv", ".tools", ".ci", "**/__pycache__", "dist")
_BUILD_BACKEND: Final = ("hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers")


def builder(build: Build, *scripts: str) -> dagger.Container:
    """Return the builder, in which `python -m ci.inside.NAME` runs.

    Args:
        build: the source, the mirrors and the tools.
        scripts: names of modules of `ci.inside`; no others are there, so that a step is done again only if one changed.
    """
    files = ["ci/__init__.py", "ci/inside/__init__.py", *(f"ci/inside/{name}.py" for name in scripts)]
    return (
        dag.container()
        .from_(tool(BUILDER, build.tools))
        .with_env_variable("PYTHONPATH", _PIPELINE)
        .with_env_variable("PYTHONDONTWRITEBYTECODE", "1")
        .with_env_variable("PYTHONHASHSEED", "0")  # byte-code holds sets in the order of their hashes
        .with_mounted_directory(_PIPELINE, dag.host().directory(str(build.source), include=files))
    )


def with_pip(container: dagger.Container, build: Build) -> dagger.Container:
    """Return a builder whose pip goes to the user's index; only for steps that need it."""
    container = _with_authorities(container, build)
    container = container.with_mounted_cache(_PIP_CACHE, dag.cache_volume("pip")).with_env_variable(
        "PIP_CACHE_DIR", _PIP_CACHE
    )
    if build.mirrors.pip_conf is None:
        return container
    secret = dag.secret(f"file://{build.mirrors.pip_conf.absolute()}", cache_key="pip_conf")
    return container.with_mounted_secret(_PIP_CONF, secret).with_env_variable("PIP_CONFIG_FILE", _PIP_CONF)


def with_sources(container: dagger.Container, build: Build) -> tuple[dagger.Container, str | None]:
    """Return a builder that has the user's apt sources, and their path in it; None: nobody named any."""
    container = _with_authorities(container, build)
    if build.mirrors.apt_sources is None:
        return container, None
    # apt reads a file by what its name ends with.
    path = _APT_SOURCES if build.mirrors.apt_sources.suffix == ".sources" else _APT_SOURCES.replace(".sources", ".list")
    secret = dag.secret(f"file://{build.mirrors.apt_sources.absolute()}", cache_key="apt_sources")
    return container.with_mounted_secret(path, secret), path


def _with_authorities(container: dagger.Container, build: Build) -> dagger.Container:
    """Return a builder that believes the user's mirrors."""
    if build.mirrors.ca_bundle is None:
        return container
    secret = dag.secret(f"file://{build.mirrors.ca_bundle.absolute()}", cache_key="ca_bundle")
    # Nothing in it is secret, and apt reads it as a user of its own.
    container = container.with_mounted_secret(CA_BUNDLE, secret, owner="0:0", mode=0o444)
    for variable in ("SSL_CERT_FILE", "PIP_CERT"):
        container = container.with_env_variable(variable, CA_BUNDLE)
    return container


def wheel(build: Build) -> dagger.Directory:
    """Return a folder with the wheel alone; the same for the same package, whatever else of the checkout changed."""
    source = dag.host().directory(str(build.source), include=list(_PACKAGE), exclude=not_in_wheel(build.source))
    return _built(build, source, "wheel")


def dist(build: Build) -> dagger.Directory:
    """Return a folder with the wheel and the sdist; the sdist has what git keeps, and nothing else that lies there."""
    source = dag.host().directory(str(build.source), exclude=not_in_sdist(build.source), gitignore=True)
    return wheel(build).with_directory("/", _built(build, source, "sdist"))


def not_in_wheel(source: Path) -> list[str]:
    """Return patterns of what stays out of the wheel though it is in the package's folders: what git ignores."""
    return ["**/__pycache__", *untracked_patterns(source, is_ignored_only=True)]


def not_in_sdist(source: Path) -> list[str]:
    """Return patterns of what stays out of the sdist: all that git does not keep, such as files of another run."""
    return [*_NOT_SOURCE, *untracked_patterns(source, is_ignored_only=False)]


def _built(build: Build, source: dagger.Directory, target: str) -> dagger.Directory:
    """Return what the build backend, as locked, makes of a source."""
    lock = parse_lock((build.source / "constraints.txt").read_text(encoding="utf-8"))
    backend = "".join(
        f"{each.name}=={each.version} {' '.join(f'--hash={digest}' for digest in each.hashes)}\n"
        for each in lock
        if each.name in _BUILD_BACKEND
    )
    pip = ["python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return (
        with_pip(builder(build), build)
        .with_new_file("/backend.txt", backend)
        .with_exec([*pip, "--no-deps", "--require-hashes", "--target=/backend", "--requirement=/backend.txt"])
        .with_env_variable("PYTHONPATH", "/backend")
        .with_env_variable("SOURCE_DATE_EPOCH", str(build.epoch))
        .with_directory("/source", source)
        .with_workdir("/source")
        .with_exec(["python3", "-m", "hatchling", "build", "--target", target, "--directory", "/dist"])
        .directory("/dist")
    )
