"""Harbor's replication rules (its API says policies): make sure that one is there, list, run, delete."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.harbor.client import filter_value
from harbor_satellite.harbor.documents import Document, created_id
from harbor_satellite.harbor.endpoints import Endpoint, delete_endpoint, ensure_endpoint, list_endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from harbor_satellite.harbor.client import HarborClient

__all__ = [
    "Endpoint",
    "Execution",
    "ReplicationRule",
    "delete_endpoint",
    "delete_rule",
    "ensure_endpoint",
    "ensure_rule",
    "find_execution",
    "list_endpoints",
    "list_rules",
    "run_rule",
]

logger = logging.getLogger(__name__)

_RULES: Final = "/replication/policies"
_EXECUTIONS: Final = "/replication/executions"
_CRON_FIELDS: Final = 6  # Harbor counts seconds, too, and refuses five fields with 400
_NOT_FOUND: Final = 404
_DONE: Final = frozenset({"Succeed", "Failed", "Stopped"})


@dataclass(frozen=True, slots=True)
class ReplicationRule:
    """A replication rule as Harbor holds it."""

    id: int
    name: str
    is_enabled: bool
    endpoint_id: int
    """Where it sends to; 0 for a rule that pulls into this Harbor."""
    namespace: str
    trigger: str
    """``manual``, ``scheduled`` or ``event_based``."""
    cron: str
    """Of ``scheduled``, with six fields."""
    filters: tuple[tuple[str, str], ...]
    """Kind (``name``, ``tag``, ``label``, ``resource``) and value; labels joined by commas."""

    @classmethod
    def from_document(cls, document: Document) -> ReplicationRule:
        """Return the rule that a document describes.

        Raises:
            UntrustedDataError: it describes none.
        """
        trigger = document.maybe("trigger")
        return cls(
            id=document.id(),
            name=document.required("name"),
            is_enabled=document.flag("enabled"),
            endpoint_id=document.maybe("dest_registry").number("id"),
            namespace=document.text("dest_namespace"),
            trigger=trigger.text("type"),
            cron=trigger.maybe("trigger_settings").text("cron"),
            filters=tuple(_filter(one) for one in document.objects("filters")),
        )


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a rule; its status comes 10 to 30 s after its work is done."""

    id: int
    rule_id: int
    status: str
    """``InProgress``, ``Succeed``, ``Failed`` or ``Stopped``."""
    status_text: str
    """Such as ``no resources need to be replicated``."""
    total: int
    failed: int
    start_time: datetime | None

    @property
    def is_done(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _DONE

    @classmethod
    def from_document(cls, document: Document) -> Execution:
        """Return the execution that a document describes.

        Raises:
            UntrustedDataError: it describes none.
        """
        return cls(
            id=document.id(),
            rule_id=document.number("policy_id"),
            status=document.required("status"),
            status_text=document.text("status_text"),
            total=document.number("total"),
            failed=document.number("failed"),
            start_time=document.moment("start_time"),
        )


def list_rules(client: HarborClient, *, name: str = "") -> Iterator[ReplicationRule]:
    """Give all rules, or the one of a name."""
    params = {"q": f"name={filter_value(name)}"} if name else None
    for item in client.items(_RULES, params):
        rule = ReplicationRule.from_document(Document.of(item, f"a replication rule at {client.url}"))
        if name in {"", rule.name}:
            yield rule


def ensure_rule(
    client: HarborClient,
    *,
    name: str,
    endpoint_id: int,
    namespace: str,
    name_filter: str,
    tag_filter: str = "",
    label: str = "",
    is_event_based: bool = True,
    cron: str = "",
    has_deletion: bool = True,
) -> int:
    """Make sure that a rule of this name sends this to an endpoint, and return its id.

    Args:
        client: as whom to ask.
        name: of the rule; names are Ground Control's own.
        endpoint_id: where to, from ``ensure_endpoint``.
        namespace: put before the whole name at the source: ``edge-shops`` gives ``edge-shops/acme/app``.
        name_filter: glob over ``project/repository``; ``**`` crosses slashes, ``{a,b}`` is a choice.
        tag_filter: glob over tags; empty for all.
        label: name of a label that an artifact must have; empty for none.
        is_event_based: whether pushes and deletions start it.
        cron: six fields, seconds first; starts it, too, when it is not event-based. Empty: it is run by hand.
        has_deletion: whether what is deleted at the source is deleted there; proved for event-based rules only.

    Raises:
        InvalidInputError: a label and event-based (a new image has no label yet, and a label starts nothing), both
            kinds of start, or a cron without six fields.
        RemoteError: unreachable or refused.
    """
    trigger = _trigger(label=label, is_event_based=is_event_based, cron=cron)
    filters: list[dict[str, object]] = [{"type": "name", "value": name_filter}]
    if tag_filter:
        filters.append({"type": "tag", "value": tag_filter})
    if label:
        filters.append({"type": "label", "value": [label]})
    body: dict[str, object] = {
        "name": name,
        "enabled": True,
        "override": True,
        "trigger": trigger,
        "filters": filters,
        "speed": -1,
        "dest_registry": {"id": endpoint_id},
        "dest_namespace": namespace,
        "dest_namespace_replace_count": 0,
        # Harbor ignores replicate_deletion, the name that its documentation gives.
        "deletion": has_deletion,
    }
    for rule in list_rules(client, name=name):
        # Written every time: whether deletions are sent on is not told apart from a rule that was never asked to.
        client.request("PUT", f"{_RULES}/{rule.id}", expected={200}, body=body | {"id": rule.id})
        return rule.id
    answer = client.request("POST", _RULES, expected={201}, body=body)
    logger.info("replication rule made name=%s", name)
    return created_id(client, answer, f"replication rule {name}")


def delete_rule(client: HarborClient, rule_id: int) -> None:
    """Delete a rule; one that is gone already is fine.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 412 while it runs.
    """
    client.request("DELETE", f"{_RULES}/{rule_id}", expected={200, 404})


def run_rule(client: HarborClient, rule_id: int) -> int:
    """Start a rule by hand, and return the id of its execution; it sends all that matches.

    Raises:
        RemoteError: unreachable or refused; ``.status`` 404 if there is no such rule.
    """
    answer = client.request("POST", _EXECUTIONS, expected={201}, body={"policy_id": rule_id})
    return created_id(client, answer, f"execution of replication rule {rule_id}")


def find_execution(client: HarborClient, execution_id: int) -> Execution | None:
    """Read an execution; None if Harbor has forgotten it."""
    answer = client.request("GET", f"{_EXECUTIONS}/{execution_id}", expected={200, 404})
    if answer.status == _NOT_FOUND:
        return None
    return Execution.from_document(Document.of(answer.document, f"execution {execution_id} at {client.url}"))


def _trigger(*, label: str, is_event_based: bool, cron: str) -> Mapping[str, object]:
    if is_event_based and label:
        raise InvalidInputError(
            f"a rule with the label {label!r} cannot be event-based: a new image has no label yet, "
            "and Harbor starts nothing when it gets one"
        )
    if is_event_based and cron:
        raise InvalidInputError("a rule starts by events or by a cron, not by both")
    if is_event_based:
        return {"type": "event_based"}
    if not cron:
        return {"type": "manual"}
    if len(cron.split()) != _CRON_FIELDS:
        raise InvalidInputError(f"Harbor's cron has six fields, seconds first: {cron[:80]!r}")
    return {"type": "scheduled", "trigger_settings": {"cron": cron}}


def _filter(document: Document) -> tuple[str, str]:
    value: Any = document.values.get("value")
    is_list = isinstance(value, list)
    return document.required("type"), ",".join(document.texts("value")) if is_list else document.text("value")
