"""Harbor's webhook policies: make sure that one is there, list, delete.

Webhooks are hints: changes of tags over Harbor's API send none, failing receivers are given up after three attempts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from pydantic import SecretStr

from harbor_satellite.harbor.documents import Document, created_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

EVENT_TYPES: Final = ("PUSH_ARTIFACT", "DELETE_ARTIFACT", "TAG_RETENTION")
"""What changes which artifacts there are; pulls would only be noise, and replications into Harbor are pushes."""

PayloadFormat = Literal["Default", "CloudEvents"]


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """A webhook policy as Harbor holds it."""

    id: int
    name: str
    is_enabled: bool
    event_types: frozenset[str]
    address: str
    auth_header: SecretStr
    """Harbor shows it in clear to whoever may list policies."""
    payload_format: str
    is_verify_skipped: bool

    @classmethod
    def from_document(cls, document: Document) -> WebhookPolicy:
        """Return the policy that a document describes; of several targets the first.

        Raises:
            UntrustedDataError: it describes none.
        """
        target = next(iter(document.objects("targets")), Document({}, document.what))
        return cls(
            id=document.id(),
            name=document.text("name"),
            is_enabled=document.flag("enabled"),
            event_types=frozenset(document.texts("event_types")),
            address=target.text("address"),
            auth_header=SecretStr(target.text("auth_header")),
            payload_format=target.text("payload_format"),
            is_verify_skipped=target.flag("skip_cert_verify"),
        )


def list_webhooks(client: HarborClient, project: str) -> Iterator[WebhookPolicy]:
    """Give a project's webhook policies.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 404 if there is no such project.
    """
    for item in client.items(_path(project)):
        yield WebhookPolicy.from_document(Document.of(item, f"a webhook of {project} at {client.url}"))


def ensure_webhook(
    client: HarborClient,
    project: str,
    *,
    name: str,
    address: str,
    auth_header: SecretStr,
    skip_verify: bool = False,
    payload_format: PayloadFormat = "Default",
) -> int:
    """Make sure that exactly one enabled policy of this name sends there, and return its id.

    One that differs in anything is deleted and made anew; what happens between the two is found by the next
    reconciliation, as everything that a webhook misses.

    Args:
        client: as whom to ask.
        project: whose events.
        name: of the policy; names are Ground Control's own.
        address: URL of the receiver, as Harbor reaches it.
        auth_header: sent by Harbor as ``Authorization``, the only proof that an event comes from it.
        skip_verify: whether Harbor takes any certificate of the receiver.
        payload_format: ``CloudEvents`` carries an id of the event, ``Default`` does not.

    Raises:
        RemoteError: unreachable or refused.
    """
    wanted = (True, frozenset(EVENT_TYPES), address, auth_header, payload_format, skip_verify)
    kept = None
    for policy in [each for each in list_webhooks(client, project) if each.name == name]:
        held = (
            policy.is_enabled,
            policy.event_types,
            policy.address,
            policy.auth_header,
            policy.payload_format,
            policy.is_verify_skipped,
        )
        if held == wanted and kept is None:
            kept = policy.id
        else:
            delete_webhook(client, project, policy.id)
    if kept is not None:
        return kept
    target = {
        "type": "http",
        "address": address,
        "auth_header": auth_header.get_secret_value(),
        "skip_cert_verify": skip_verify,
        "payload_format": payload_format,
    }
    body = {"name": name, "enabled": True, "event_types": list(EVENT_TYPES), "targets": [target]}
    answer = client.request("POST", _path(project), expected={201}, body=body)
    logger.info("webhook made project=%s name=%s", project, name)
    return created_id(client, answer, f"webhook {name} of {project}")


def delete_webhook(client: HarborClient, project: str, policy_id: int) -> None:
    """Delete a policy; one that is gone already is fine.

    Raises:
        RemoteError: unreachable or refused.
    """
    client.request("DELETE", f"{_path(project)}/{policy_id}", expected={200, 404})


def _path(project: str) -> str:
    return f"/projects/{quote(project, safe='')}/webhook/policies"
