"""The two images: which layers they are made of, how they start, and the OCI archives that have them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagger
from dagger import dag

from ci.builder import builder
from ci.platforms import GROUND_CONTROL, SATELLITE
from ci.rootfs import application, dependencies, program, system
from ci.tools import COSIGN, ZOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.context import Build
    from ci.platforms import Platform

_ARCHIVE: Final = ("python3", "-m", "ci.inside.archive")
_FILE: Final = "/image.tar"
_HOME: Final = "/var/lib/harbor-satellite"
_USER: Final = "65532:65532"
"""By number: a cluster that wants `runAsNonRoot` can tell that it is not root."""

_ARGUMENTS: Final = {SATELLITE: ("edge", "run"), GROUND_CONTROL: ("ground-control", "serve")}
_TITLES: Final = {SATELLITE: "Harbor Satellite", GROUND_CONTROL: "Harbor Satellite: Ground Control"}
_DESCRIPTIONS: Final = {
    SATELLITE: "An edge site's agent and its local registry, kept in step with what the centre decided.",
    GROUND_CONTROL: "Groups of artifacts, the satellites that follow them, and the flows that bring them there.",
}
_PORTS: Final = {SATELLITE: 8585, GROUND_CONTROL: 8080}

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin",
    "LANG": "C.UTF-8",
    "HOME": _HOME,
    "PREFECT_HOME": f"{_HOME}/prefect",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
_ENVIRONMENT_OF: Final = {
    SATELLITE: {"HARBOR_SATELLITE_DATA_DIR": _HOME},
    GROUND_CONTROL: {
        "HARBOR_SATELLITE_GROUND_CONTROL_DATA_DIR": _HOME,
        "HARBOR_SATELLITE_GROUND_CONTROL_HOST": "0.0.0.0",  # noqa: S104 - the container's own network decides who reaches it
    },
}


def labels(build: Build, image: str) -> Mapping[str, str]:
    """Return what an image says about itself, by OCI's names; the same as labels and on manifest and index."""
    said = {
        "title": _TITLES[image],
        "description": _DESCRIPTIONS[image],
        "version": build.version,
        "revision": build.commit,
        "source": "https://github.com/container-registry/harbor-satellite",
        "licenses": "Apache-2.0",
        "created": _created(build),
    }
    return {f"org.opencontainers.image.{name}": value for name, value in said.items() if value}


def config(build: Build, image: str, platform: Platform) -> Mapping[str, Any]:
    """Return an image's config, without its layers (image-spec, config.md)."""
    system_name, _, architecture = platform.name.partition("/")
    environment = {**_ENVIRONMENT, **_ENVIRONMENT_OF[image]}
    return {
        "os": system_name,
        "architecture": architecture,
        "config": {
            "User": _USER,
            "WorkingDir": _HOME,
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Entrypoint": ["harbor-satellite"],
            "Cmd": list(_ARGUMENTS[image]),
            "ExposedPorts": {f"{_PORTS[image]}/tcp": {}},
            "Labels": dict(labels(build, image)),
        },
    }


def container(build: Build, image: str, platform: Platform) -> dagger.Container:
    """Return an image for a platform, as its archive has it; nothing was run in it."""
    return dag.container(platform=dagger.Platform(platform.name)).import_(platform_archive(build, image, platform))


def platform_archive(build: Build, image: str, platform: Platform) -> dagger.File:
    """Return the OCI archive of an image for one platform.

    Layers from what changes seldom to what changes always: a site that has the version before fetches the last alone.

    Args:
        build: what it is made of.
        image: SATELLITE or GROUND_CONTROL.
        platform: one that the image is built for.
    """
    layers = [system(build, image, platform)]
    if image == SATELLITE and platform.has_zot:
        layers.append(program(build, ZOT, platform, "usr/local/bin/zot*", "usr/bin/zot*"))
    if image == GROUND_CONTROL:
        layers.append(program(build, COSIGN, platform, "ko-app/cosign", "usr/local/bin/cosign", "usr/bin/cosign"))
    layers += [dependencies(build, image, platform), application(build)]
    about = {**_about(build, image), "config": config(build, image, platform)}
    made = builder(build, "archive").with_new_file("/about.json", json.dumps(about))
    for number, layer in enumerate(layers):
        made = made.with_mounted_directory(f"/layers/{number}", layer)
    return made.with_exec([*_ARCHIVE, "image", "--layers=/layers", "--about=/about.json", f"--into={_FILE}"]).file(
        _FILE
    )


def archive(build: Build, image: str, platforms: Sequence[Platform]) -> dagger.File:
    """Return the OCI archive of an image: an index of the platforms; the same bytes for the same build.

    The entry is called as the image is: `oras cp --from-oci-layout image.tar:satellite …` pushes it as it is.
    """
    made = builder(build, "archive").with_new_file("/about.json", json.dumps(_about(build, image)))
    for number, platform in enumerate(platforms):
        made = made.with_mounted_file(f"/images/{number}.tar", platform_archive(build, image, platform))
    return made.with_exec([*_ARCHIVE, "index", "--images=/images", "--about=/about.json", f"--into={_FILE}"]).file(
        _FILE
    )


def _about(build: Build, image: str) -> dict[str, Any]:
    return {"name": image, "created": _created(build), "annotations": dict(labels(build, image))}


def _created(build: Build) -> str:
    return datetime.fromtimestamp(build.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
