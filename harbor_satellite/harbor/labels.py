"""Harbor's labels: global ones and those of a project, and putting them on artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from harbor_satellite.harbor.client import filter_value, repository_path
from harbor_satellite.harbor.documents import Document, created_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.harbor.client import HarborClient

_GLOBAL: Final = "g"
_OF_PROJECT: Final = "p"


@dataclass(frozen=True, slots=True)
class HarborLabel:
    """A label as Harbor holds it."""

    id: int
    name: str
    project_id: int | None
    """None: a global one."""

    @classmethod
    def from_document(cls, document: Document) -> HarborLabel:
        """Return the label that a document describes.

        Raises:
            UntrustedDataError: it describes none.
        """
        return cls(document.id(), document.required("name"), document.number("project_id") or None)


def list_labels(client: HarborClient, *, project_id: int | None = None, name: str = "") -> Iterator[HarborLabel]:
    """Give a project's labels, or the global ones; all, or the one of a name."""
    params = _scope(project_id) | ({"name": filter_value(name)} if name else {})
    for item in client.items("/labels", params):
        label = HarborLabel.from_document(Document.of(item, f"a label at {client.url}"))
        # Harbor's own filter by name also gives names that only contain it.
        if label.project_id == project_id and name in {"", label.name}:
            yield label


def ensure_label(client: HarborClient, name: str, *, project_id: int | None = None, color: str = "#0065AB") -> int:
    """Make sure that a label is there, and return its id."""
    for label in list_labels(client, project_id=project_id, name=name):
        return label.id
    body = {"name": name, "color": color, **_scope(project_id)}
    return created_id(client, client.request("POST", "/labels", expected={201}, body=body), f"label {name}")


def add_label(client: HarborClient, project: str, repository: str, reference: str, label_id: int) -> None:
    """Put a label on an artifact; one that it has already is fine."""
    path = _path(project, repository, reference)
    client.request("POST", path, expected={200, 409}, body={"id": label_id})


def remove_label(client: HarborClient, project: str, repository: str, reference: str, label_id: int) -> None:
    """Take a label off an artifact; one that it does not have is fine."""
    client.request("DELETE", f"{_path(project, repository, reference)}/{label_id}", expected={200, 404})


def _scope(project_id: int | None) -> dict[str, str | int]:
    # Harbor refuses a listing without a scope.
    return {"scope": _GLOBAL} if project_id is None else {"scope": _OF_PROJECT, "project_id": project_id}


def _path(project: str, repository: str, reference: str) -> str:
    return f"{repository_path(project, repository)}/artifacts/{quote(reference, safe='')}/labels"
