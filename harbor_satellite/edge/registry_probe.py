"""What the supervisor asks the registry that the agent runs, to see that it is well.

A manifest that the site put there, and not merely ``/v2/``: that one comes from memory, and a 401 before the storage is
asked, so a registry whose disk hangs would pass for a living one. Where pulls need a user, the supervisor is one: the
plan holds its password in clear, also where credentials are encrypted, since the supervisor has nothing to decrypt
with. So it is a user of its own, who may read and no more. That opens nothing to who holds the disk: the same images
lie on it, as files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harbor_satellite.edge.own_registry import watcher
from harbor_satellite.edge.registry_process import reachable
from harbor_satellite.edge.services import Probe
from harbor_satellite.satellite.generations import load_generations

if TYPE_CHECKING:
    from harbor_satellite.edge.registry_process import Listening
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.settings import SatelliteSettings


def probe_of(site: SatelliteSettings, store: SatelliteStore, listening: Listening) -> Probe:
    """Return what a registry that is well answers: a manifest that the site itself put there, or else ``/v2/``.

    Args:
        site: the site's settings, with the centre's config.
        store: its record.
        listening: where the registry does.

    Raises:
        StorageError: the record, or the file of the registry's users, cannot be read or written.
    """
    headers = {"Accept": "*/*"}
    if not site.registry_anonymous_read:
        headers["Authorization"] = watcher(site.data_dir).basic
    generation = load_generations(store).current
    # Always the same one as long as it is there: every other probe would be another plan.
    found = min(generation.contents(), default=None) if generation else None
    path = f"{found[0]}/manifests/{found[1]}" if found else ""
    address, certificate = reachable(listening.host), str(listening.certificate or "")
    return Probe(f"{listening.url}/v2/{path}", headers, address, certificate)
