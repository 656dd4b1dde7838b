"""Names of the central flows' deployments, which ``prefect.yaml`` describes."""

from __future__ import annotations

CENTRAL_POOL = "central"
PUBLISH_STATE = "publish-state/central"
RECONCILE_FLEET = "reconcile-fleet/central"
