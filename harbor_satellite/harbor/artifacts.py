"""Harbor's repositories and artifacts: list, read, delete."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from harbor_satellite.errors import UntrustedDataError
from harbor_satellite.harbor.client import repository_path
from harbor_satellite.harbor.documents import Document
from harbor_satellite.harbor.listing import complete
from harbor_satellite.oci.digest import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_NOT_FOUND: Final = 404
_NO_PLATFORM: Final = "unknown"  # of the attestations that build tools put into an index


@dataclass(frozen=True, slots=True)
class HarborArtifact:
    """An artifact as Harbor lists it; signatures and other referrers, and children without a tag, are not listed."""

    digest: str
    type: str
    """Harbor's own word: ``IMAGE``, ``CHART``, …, ``UNKNOWN`` for what it does not know."""
    media_type: str
    """Of its manifest."""
    artifact_type: str
    """As in its manifest; for an image the media type of its config, for an index empty."""
    push_time: datetime | None
    """When its bytes first came; a push of the same bytes does not change it."""
    tags: tuple[str, ...]
    """Sorted."""
    labels: tuple[str, ...]
    """Names, sorted; those of the project and global ones alike."""
    platforms: tuple[str, ...]
    """Such as ``linux/amd64`` or ``linux/arm/v7``, sorted; empty for what is no image."""
    size: int
    """Bytes, as Harbor counts them: layers, config and manifest; for an index of all children."""

    @classmethod
    def from_document(cls, document: Document) -> HarborArtifact:
        """Return the artifact that a document describes.

        Raises:
            UntrustedDataError: it describes none.
        """
        digest = document.required("digest")
        if not is_digest(digest):
            raise UntrustedDataError(f"{document.what}: digest is none")
        return cls(
            digest=digest,
            type=document.text("type"),
            media_type=document.text("manifest_media_type"),
            artifact_type=document.text("artifact_type"),
            push_time=document.moment("push_time"),
            tags=tuple(sorted(tag.required("name") for tag in document.objects("tags"))),
            labels=tuple(sorted({label.required("name") for label in document.objects("labels")})),
            platforms=_platforms(document),
            size=document.number("size"),
        )


def list_repositories(client: HarborClient, project: str) -> Iterator[str]:
    """Give the names of a project's repositories, without the project: ``app``, ``team/app``; sorted.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 404 if there is no such project (for a robot 403), and
            retryable if the listing changed while it was read.
        UntrustedDataError: the answer is no listing of this project's repositories.
    """
    path = f"/projects/{quote(project, safe='')}/repositories"
    prefix = f"{project}/"
    names = []
    for item in complete(client, path, {}, identity="name"):
        name = Document.of(item, f"a repository of {project} at {client.url}").required("name")
        if not name.startswith(prefix) or name == prefix:
            raise UntrustedDataError(f"a repository at {client.url} is not of project {project}: {name[:80]!r}")
        names.append(name.removeprefix(prefix))
    yield from sorted(names)


def list_artifacts(client: HarborClient, project: str, repository: str) -> Iterator[HarborArtifact]:
    """Give a repository's artifacts, newest push first, every one once; nothing is left out by chance.

    Args:
        client: as whom to ask.
        project: its name.
        repository: its name below the project.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 404 if there is no such repository, and retryable if the
            listing changed while it was read.
        UntrustedDataError: the answer is no listing of artifacts.
    """
    path = f"{repository_path(project, repository)}/artifacts"
    params = {"with_tag": "true", "with_label": "true", "sort": "-push_time"}
    what = f"an artifact of {project}/{repository} at {client.url}"
    items = complete(client, path, params, identity="digest")
    artifacts = [HarborArtifact.from_document(Document.of(item, what)) for item in items]
    # Harbor ignores a sort key it does not know. The digest decides between equals, so that every reader agrees.
    yield from sorted(artifacts, key=lambda artifact: (artifact.push_time or _NEVER, artifact.digest), reverse=True)


def find_artifact(client: HarborClient, project: str, repository: str, reference: str) -> HarborArtifact | None:
    """Read one artifact by its tag or digest, with tags and labels; None if it is not there."""
    path = f"{repository_path(project, repository)}/artifacts/{quote(reference, safe='')}"
    params = {"with_tag": "true", "with_label": "true"}
    answer = client.request("GET", path, expected={200, 404}, params=params)
    if answer.status == _NOT_FOUND:
        return None
    return HarborArtifact.from_document(Document.of(answer.document, f"{project}/{repository} at {client.url}"))


def delete_artifact(client: HarborClient, project: str, repository: str, reference: str) -> None:
    """Delete an artifact with all of its tags; one that is gone already is fine.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 412 for the child of an index.
    """
    path = f"{repository_path(project, repository)}/artifacts/{quote(reference, safe='')}"
    client.request("DELETE", path, expected={200, 404})


def delete_repository(client: HarborClient, project: str, repository: str) -> None:
    """Delete a repository with everything in it; one that is gone already is fine.

    Raises:
        RemoteError: unreachable or refused.
    """
    client.request("DELETE", repository_path(project, repository), expected={200, 404})
    logger.info("repository deleted repository=%s/%s", project, repository)


def _platforms(document: Document) -> tuple[str, ...]:
    children = document.objects("references")
    if children:
        return tuple(sorted({name for child in children if (name := _platform(child.maybe("platform")))}))
    name = _platform(document.maybe("extra_attrs"))
    return (name,) if name else ()


def _platform(document: Document) -> str:
    parts = [document.text(key) for key in ("os", "architecture", "variant")]
    if not all(parts[:2]) or _NO_PLATFORM in parts:
        return ""
    return "/".join(part for part in parts if part)
