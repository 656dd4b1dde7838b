"""Harbor's projects: find, list, make private."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from harbor_satellite.errors import RemoteError
from harbor_satellite.harbor.client import filter_value
from harbor_satellite.harbor.documents import Document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_OK: Final = 200
_FORBIDDEN: Final = 403
_HIDDEN: Final = frozenset({_FORBIDDEN, 404})  # to a robot a project that is not there is a forbidden one


@dataclass(frozen=True, slots=True)
class HarborProject:
    """A project as Harbor holds it."""

    id: int
    name: str
    is_public: bool
    """Whether anybody reads it without credentials."""

    @classmethod
    def from_document(cls, document: Document) -> HarborProject:
        """Return the project that a document describes.

        Raises:
            UntrustedDataError: it describes none.
        """
        is_public = document.maybe("metadata").text("public") == "true"
        return cls(document.number("project_id"), document.required("name"), is_public)


def project_exists(client: HarborClient, name: str) -> bool:
    """Tell whether a project is there."""
    answer = client.request("HEAD", "/projects", expected={200, 404}, params={"project_name": name})
    return answer.status == _OK


def find_project(client: HarborClient, name: str) -> HarborProject | None:
    """Read a project by its name; None if it is not there, or hidden from this user.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 401 for credentials that are not valid.
    """
    try:
        answer = client.request("GET", f"/projects/{quote(name, safe='')}", expected={200})
    except RemoteError as error:
        if error.status in _HIDDEN:
            return None
        raise
    return HarborProject.from_document(Document.of(answer.document, f"project {name} at {client.url}"))


def list_projects(client: HarborClient, *, name: str = "") -> Iterator[HarborProject]:
    """Give the projects that this user sees, or the one of a name (for a robot: what it holds, and public ones)."""
    params = {"q": f"name={filter_value(name)}"} if name else None
    for item in client.items("/projects", params):
        project = HarborProject.from_document(Document.of(item, f"a project at {client.url}"))
        if not name or project.name == name:  # a filter of Harbor's is only a hint
            yield project


def ensure_private_project(client: HarborClient, name: str) -> None:
    """Make sure that a project is there and that nobody reads it without credentials.

    The original creates its ``satellite`` project public, states and configs readable by all.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 403 if it is public and this user may not change that.
    """
    if not project_exists(client, name):
        body = {"project_name": name, "public": False, "metadata": {"public": "false"}, "storage_limit": -1}
        client.request("POST", "/projects", expected={201, 409}, body=body)
        logger.info("project created project=%s", name)
        return
    if any(project.is_public for project in list_projects(client, name=name)):
        _make_private(client, name)
        logger.warning("project was public, made private project=%s", name)


def _make_private(client: HarborClient, name: str) -> None:
    path = f"/projects/{quote(name, safe='')}"
    try:
        client.request("PUT", path, expected={200}, body={"metadata": {"public": "false"}})
    except RemoteError as error:
        if error.status != _FORBIDDEN:
            raise
        message = f"project {name} at {client.url} is public, and a robot may not make it private: do it in Harbor"
        raise RemoteError(message, status=_FORBIDDEN) from error
