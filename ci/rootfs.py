"""The layers of an image, made natively from locked files: nothing of the image's platform runs.

Each comes as a folder that `ci/inside/archive.py` takes: the packed layer and its description.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.builder import builder, wheel, with_pip, with_sources
from ci.debian import lock_name, parse_debian_lock, python_packages
from ci.locks import LOCK_OF, requirements_text
from ci.platforms import GROUND_CONTROL, SATELLITE, wheel_tags
from ci.tools import tool

if TYPE_CHECKING:
    from ci.context import Build
    from ci.platforms import Platform

_SETTLED: Final = 1767225600
"""Seconds, 2026-01-01: the date in layers of locked files. A build's own would make them new with each commit."""
_INSTALL: Final = ("python3", "-m", "ci.inside.install", "--into=/layer")
_OWN_SCRIPT: Final = "harbor-satellite=harbor_satellite.__main__:main"
_SCRIPTS: Final = {SATELLITE: (), GROUND_CONTROL: ("prefect=prefect.cli:app",)}
"""Programs of dependencies that an image offers by name."""


def system(build: Build, image: str, platform: Platform) -> dagger.Directory:
    """Return the root file system of Debian's packages: Python, its libraries, certificates, the user."""
    text = (build.source / "ci/locks" / lock_name(image, platform)).read_text(encoding="utf-8")
    lock = parse_debian_lock(text)
    wanted = "".join(f"{each.sha256} {each.size_bytes} {each.path}\n" for each in lock.packages)
    fetch = ["python3", "-m", "ci.inside.fetch", "--lock=/wanted", "--into=/packages", "--cache=/cache"]
    container, sources = with_sources(builder(build, "fetch"), build)
    fetched = (
        container.with_new_file("/wanted", wanted)
        .with_mounted_cache("/cache", dag.cache_volume("debian-packages"))
        .with_exec([*fetch, f"--snapshot={lock.snapshot}", *([f"--sources={sources}"] if sources else [])])
        .directory("/packages")
    )
    container = (
        builder(build, "tree", "unpack", "layer")
        .with_mounted_directory("/packages", fetched)
        .with_exec(["python3", "-m", "ci.inside.unpack", "--packages=/packages", "--into=/layer"])
    )
    return _packed(container, f"Debian packages of {lock_name(image, platform)}")


def dependencies(build: Build, image: str, platform: Platform) -> dagger.Directory:
    """Return the layer of the Python distributions that the image's lock names for the platform."""
    lock = (build.source / LOCK_OF[image]).read_text(encoding="utf-8")
    requirements = requirements_text(lock, platform, python_packages(image, platform))
    scripts = [f"--script={each}" for each in _SCRIPTS[image]]
    container = (
        with_pip(builder(build, "tree", "install", "layer"), build)
        .with_new_file("/tags", "\n".join(wheel_tags(platform)))
        .with_new_file("/requirements.txt", requirements)
        .with_exec([*_INSTALL, "--tags=/tags", "--requirements=/requirements.txt", *scripts])
    )
    return _packed(container, f"Python distributions of {LOCK_OF[image]}")


def application(build: Build) -> dagger.Directory:
    """Return the layer of our own wheel: small, all that a new version of ours changes, the same for every platform."""
    container = (
        builder(build, "tree", "install", "layer")
        .with_mounted_directory("/dist", wheel(build))
        .with_exec([*_INSTALL, "--wheel=/dist", f"--script={_OWN_SCRIPT}"])
    )
    return _packed(container, f"harbor-satellite {build.version}", build.epoch)


def program(build: Build, name: str, platform: Platform, *places: str) -> dagger.Directory:
    """Return a layer with one program, statically linked, out of another project's image.

    Args:
        build: the tools.
        name: the tool's name, and the program's.
        platform: where it shall run.
        places: patterns of paths in that image, one of which has to fit.
    """
    image = dag.container(platform=dagger.Platform(platform.name)).from_(tool(name, build.tools)).rootfs()
    pick = ["python3", "-m", "ci.inside.pick", "--from=/image", "--into=/layer", f"--as=usr/local/bin/{name}"]
    pick.append(f"--machine={platform.elf}")
    container = (
        builder(build, "tree", "pick", "layer").with_mounted_directory("/image", image).with_exec([*pick, *places])
    )
    return _packed(container, f"{name} of {tool(name, build.tools)}")


def _packed(container: dagger.Container, by: str, epoch: int = _SETTLED) -> dagger.Directory:
    """Return what a container has in `/layer`, as one layer."""
    pack = ["python3", "-m", "ci.inside.layer", "--from=/layer", "--into=/blob"]
    return container.with_exec([*pack, f"--epoch={epoch}", f"--by={by}"]).directory("/blob")
