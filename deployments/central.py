"""Names of the central flows' deployments, which ``prefect.yaml`` describes."""

from __future__ import annotations

CENTRAL_POOL = "central"
PUBLISH_STATE = "publish-state/central"
PROVISION_SATELLITE = "provision-satellite/central"
RECONCILE_FLEET = "reconcile-fleet/central"
ROLL_OUT = "roll-out/central"
ROTATE_CREDENTIALS = "rotate-credentials/central"
WATCH_FLEET = "watch-fleet/central"
