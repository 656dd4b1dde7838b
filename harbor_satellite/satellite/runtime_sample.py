"""The image that container runtimes pull to show that they reach the local registry: a small one that the site holds.

It gets a tag of its own for the moment, which no other registry has: who pulls by it has pulled from the local one.
"""

from __future__ import annotations

import json
import logging
import platform as machine
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, MalformedStateError, NotFoundError, RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Manifest, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.oci.reference import check_repository, check_tag
from harbor_satellite.state.desired import LocalTag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harbor_satellite.registry.api import ManifestContent, Registry

_LOG = logging.getLogger(__name__)
TAG_PREFIX: Final = "satellite-verify-"
_LOOKED_AT_MAX: Final = 50
_NOT_FOUND: Final = 404
_CONFIG_MAX_BYTES: Final = 1024 * 1024
_LAYERS: Final = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What runtimes pull."""

    repository: str
    reference: str
    """``:TAG`` that only the local registry has, or ``@DIGEST``."""
    digest: Digest

    @property
    def is_only_here(self) -> bool:
        """Whether a pull of it shows that the local registry served it."""
        return self.reference.startswith(":")


def host_platform() -> Platform:
    """Return what images must be made for to run on this machine."""
    name = machine.machine().lower()
    return Platform("linux", _ARCHITECTURES.get(name, name))


def given_tag(text: str) -> LocalTag:
    """Read ``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``, as the local registry calls an image.

    Raises:
        InvalidInputError: it is something else.
    """
    repository, mark, reference = text.partition("@") if "@" in text else text.rpartition(":")
    if mark == "@":
        return LocalTag(check_repository(repository), str(Digest.parse(reference)))
    return LocalTag(check_repository(repository), check_tag(reference))


def choose_image(target: Registry, names: Iterable[LocalTag], platform: Platform) -> LocalTag:
    """Return the first name that stands for an image of a platform.

    Args:
        target: the local registry.
        names: the best one first; not all are looked at where there are many.
        platform: of the machine whose runtimes are to pull it.

    Raises:
        NotFoundError: there is none.
        RemoteError: the registry cannot be reached.
    """
    for _, name in zip(range(_LOOKED_AT_MAX), names, strict=False):
        if _is_image(target, name, platform):
            return name
    raise NotFoundError(f"found no small image for {platform} in the local registry: name one by --image")


@contextmanager
def tagged_sample(target: Registry, name: LocalTag) -> Iterator[Sample]:
    """Give an image a tag of its own while the context lasts; where the registry takes none, it is used by its digest.

    Raises:
        NotFoundError: it is not there.
        RemoteError: the registry cannot be reached.
    """
    content = _get(target, name)
    # Where no tag can be deleted, there is one from last time.
    tag = _sweep(target, name.repository) or f"{TAG_PREFIX}{secrets.token_hex(6)}"
    try:
        target.manifest_put(name.repository, tag, content)
    except RemoteError as error:
        if error.status is None:
            raise
        _LOG.info("no tag for a test at the local registry reason=%s", error)
        yield Sample(name.repository, f"@{content.digest}", content.digest)
        return
    try:
        yield Sample(name.repository, f":{tag}", content.digest)
    finally:
        _drop(target, name.repository, tag)


def _get(target: Registry, name: LocalTag) -> ManifestContent:
    try:
        return target.manifest_get(name.repository, name.tag)
    except RemoteError as error:
        if error.status == _NOT_FOUND:
            raise NotFoundError(f"no {name} in the local registry") from error
        raise


def _is_image(target: Registry, name: LocalTag, platform: Platform) -> bool:
    try:
        content = _get(target, name)
        manifest = parse_manifest(content.raw, content.media_type, str(name))
    except (NotFoundError, MalformedStateError):
        return False
    if manifest.is_index:
        fitting = [one for one in manifest.manifests if one.platform and platform.covers(one.platform)]
        return any(_is_there(target, name, child.digest) for child in fitting)
    return _is_runnable(manifest) and _is_made_for(target, name, manifest, platform)


def _is_there(target: Registry, name: LocalTag, digest: Digest) -> bool:
    """Tell whether a child of an index was brought: a site may hold some platforms only."""
    return target.manifest_head(name.repository, str(digest)) is not None


def _is_runnable(manifest: Manifest) -> bool:
    is_config = manifest.config and manifest.config.media_type in {media_types.OCI_CONFIG, media_types.DOCKER_CONFIG}
    return bool(is_config) and all(layer.media_type.startswith(_LAYERS) for layer in manifest.layers)


def _is_made_for(target: Registry, name: LocalTag, manifest: Manifest, platform: Platform) -> bool:
    config = manifest.config
    if config is None or config.size > _CONFIG_MAX_BYTES:
        return False
    try:
        with target.blob_get(name.repository, config.digest) as stream:
            document = json.loads(_read(stream, config.size))
        return platform.covers(Platform(str(document["os"]), str(document["architecture"])))
    except (ValueError, KeyError, TypeError):
        return False
    except RemoteError as error:
        if error.status == _NOT_FOUND:
            return False
        raise


def _read(stream: Iterable[bytes], size: int) -> bytes:
    found = b""
    for chunk in stream:
        found += chunk
        if len(found) > size:
            break
    return found[: size + 1]


def _sweep(target: Registry, repository: str) -> str:
    """Take away what was left when this was killed; return a tag that stays."""
    stays = ""
    try:
        for tag in target.tag_list(repository):
            if tag.startswith(TAG_PREFIX) and not _drop(target, repository, tag):
                stays = tag
    except RemoteError as error:
        _LOG.info("old tags of tests not looked for repository=%s reason=%s", repository, error)
    return stays


def _drop(target: Registry, repository: str, tag: str) -> bool:
    try:
        target.manifest_delete(repository, tag)
    except HarborSatelliteError as error:
        _LOG.warning("tag of a test stays reference=%s:%s reason=%s", repository, tag, error)
        return False
    return True
