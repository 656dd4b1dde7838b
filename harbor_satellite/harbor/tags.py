"""Harbor's tags over its API; no webhook tells of what is done here."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from harbor_satellite.harbor.client import repository_path
from harbor_satellite.harbor.documents import Document
from harbor_satellite.harbor.listing import complete

if TYPE_CHECKING:
    from harbor_satellite.harbor.client import HarborClient


def list_tags(client: HarborClient, project: str, repository: str, reference: str) -> tuple[str, ...]:
    """Return the tags of an artifact, sorted."""
    path = _path(project, repository, reference)
    what = f"a tag of {project}/{repository} at {client.url}"
    items = complete(client, path, {}, identity="name")
    return tuple(sorted(Document.of(item, what).required("name") for item in items))


def add_tag(client: HarborClient, project: str, repository: str, reference: str, tag: str) -> None:
    """Give an artifact one more tag; one that it has already is fine.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 404 if there is no such artifact.
    """
    client.request("POST", _path(project, repository, reference), expected={201, 409}, body={"name": tag})


def delete_tag(client: HarborClient, project: str, repository: str, reference: str, tag: str) -> None:
    """Take a tag away; the artifact stays. A tag that is gone already is fine."""
    path = f"{_path(project, repository, reference)}/{quote(tag, safe='')}"
    client.request("DELETE", path, expected={200, 404})


def _path(project: str, repository: str, reference: str) -> str:
    return f"{repository_path(project, repository)}/artifacts/{quote(reference, safe='')}/tags"
