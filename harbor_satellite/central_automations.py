"""Automations that ``prefect.yaml`` cannot describe, since they run a deployment that their event names.

A trigger in that file starts its own deployment; here one automation serves all satellites, however many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.ground_control.outbox import SATELLITE_CHANGED

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

REPLICATE_CHANGED: Final = "replicate what changed"
"""Name of the automation that runs ``replicate-state`` of the satellite that an event is about."""
_REPLICATE_CHANGED: Final[dict[str, Any]] = {
    "name": REPLICATE_CHANGED,
    "description": "A satellite's state, token or credential changed: its site replicates now. "
    "Made by `harbor-satellite ground-control deploy`.",
    "trigger": {
        "type": "event",
        "posture": "Reactive",
        "expect": [SATELLITE_CHANGED],
        "match": {"prefect.resource.id": "harbor-satellite.satellite-state.*"},
        "threshold": 1,
        "within": 0,
    },
    "actions": [{"type": "run-deployment", "source": "inferred"}],  # the deployment that is related to the event
}


def apply_automations(client: SyncPrefectClient) -> None:
    """Make the automation what it shall be, if it is not; of several of its name one is left."""
    from prefect.events.schemas.automations import AutomationCore  # noqa: PLC0415  (reads Prefect's settings)

    wanted = AutomationCore.model_validate(_REPLICATE_CHANGED)
    found = client.read_automations_by_name(REPLICATE_CHANGED)
    if not found:
        client.create_automation(wanted)
    elif _content(found[0]) != _content(wanted):
        client.update_automation(found[0].id, wanted)
    for other in found[1:]:
        client.delete_automation(other.id)


def _content(automation: AutomationCore) -> dict[str, Any]:
    content = automation.model_dump(mode="json", include={"description", "enabled", "trigger", "actions"})
    content["trigger"].pop("id", None)
    return content
