"""Media types of manifests and configs that a replicator must tell apart. Blobs stay opaque."""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"

STATE_ARTIFACT_TYPE: Final = "application/vnd.goharbor.satellite.state.v1+json"
"""Artifact type of a group's state artifact and of a satellite state."""

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS: Final = INDEXES | IMAGES
"""Every kind of manifest that is copied; schema 1 and the withdrawn OCI artifact manifest are refused."""

ACCEPT_MANIFESTS: Final = ", ".join(sorted(MANIFESTS))
"""``Accept`` for manifests: all kinds at once, so that no registry converts one."""

# Layers that by their licence may stay where they are: their blob may be absent from a registry.
NONDISTRIBUTABLE: Final = (
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.foreign.diff.",
)


def is_nondistributable(media_type: str) -> bool:
    """Tell whether a layer's blob may lawfully be absent from a registry."""
    return media_type.startswith(NONDISTRIBUTABLE)
