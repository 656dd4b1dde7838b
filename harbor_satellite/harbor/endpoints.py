"""Harbor's registry endpoints: where replication rules send to."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.harbor.client import filter_value
from harbor_satellite.harbor.documents import Document, created_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import SecretStr

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_TYPE: Final = "docker-registry"  # Harbor knows no satellites: another type is answered with a 500
_PATH: Final = "/registries"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry that Harbor replicates to or from."""

    id: int
    name: str
    type: str
    url: str
    is_insecure: bool
    username: str
    """Its secret is never shown."""
    status: str
    """``healthy`` or ``unhealthy``, when Harbor last looked."""

    @classmethod
    def from_document(cls, document: Document) -> Endpoint:
        """Return the endpoint that a document describes; that of Harbor itself has the id 0.

        Raises:
            UntrustedDataError: it describes none.
        """
        return cls(
            id=document.number("id"),
            name=document.required("name"),
            type=document.text("type"),
            url=document.text("url"),
            is_insecure=document.flag("insecure"),
            username=document.maybe("credential").text("access_key"),
            status=document.text("status"),
        )


def list_endpoints(client: HarborClient, *, name: str = "") -> Iterator[Endpoint]:
    """Give all endpoints, or the one of a name."""
    params = {"q": f"name={filter_value(name)}"} if name else None
    for item in client.items(_PATH, params):
        endpoint = Endpoint.from_document(Document.of(item, f"an endpoint at {client.url}"))
        if name in {"", endpoint.name}:
            yield endpoint


def ensure_endpoint(
    client: HarborClient, *, name: str, url: str, username: str, secret: SecretStr, insecure: bool = False
) -> int:
    """Make sure that an endpoint of this name is there, goes there and logs in so; return its id.

    Harbor asks the registry at once, and again before a change.

    Args:
        client: as whom to ask.
        name: of the endpoint; names are Ground Control's own.
        url: the registry as Harbor reaches it.
        username: whom Harbor logs in as.
        secret: theirs; Harbor never shows it, so it is written every time.
        insecure: whether Harbor takes any certificate.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 400 if Harbor does not reach the registry.
    """
    for endpoint in list_endpoints(client, name=name):
        change = {
            "name": name,
            "url": url,
            "insecure": insecure,
            "credential_type": "basic",
            "access_key": username,
            "access_secret": secret.get_secret_value(),
        }
        client.request("PUT", f"{_PATH}/{endpoint.id}", expected={200}, body=change)
        return endpoint.id
    credential = {"type": "basic", "access_key": username, "access_secret": secret.get_secret_value()}
    body = {"name": name, "type": _TYPE, "url": url, "insecure": insecure, "credential": credential}
    answer = client.request("POST", _PATH, expected={201}, body=body)
    logger.info("endpoint made name=%s", name)
    return created_id(client, answer, f"endpoint {name}")


def delete_endpoint(client: HarborClient, endpoint_id: int) -> None:
    """Delete an endpoint; one that is gone already is fine.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 412 while a rule uses it.
    """
    client.request("DELETE", f"{_PATH}/{endpoint_id}", expected={200, 404})
