"""Zot's configuration, as text. Pure: nothing is started here.

Chosen so that a slow replication is never eaten: nothing unreferenced is collected for two days.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_COLLECT_AFTER: Final = "48h"
_COLLECT_EVERY: Final = "24h"


def zot_config(root: Path, host: str, port: int, *, htpasswd: Path, writer: str, anonymous_read: bool) -> str:
    """Render the configuration of a Zot with one writer.

    Args:
        root: where it stores blobs.
        host: address to listen on.
        port: TCP port to listen on.
        htpasswd: its users; every user may read, only ``writer`` may write.
        writer: the user who may push and delete.
        anonymous_read: whether pulls need no user.
    """
    access = {
        "defaultPolicy": ["read"],
        "policies": [{"users": [writer], "actions": ["read", "create", "update", "delete"]}],
    } | ({"anonymousPolicy": ["read"]} if anonymous_read else {})
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {
            "rootDirectory": str(root),
            "dedupe": True,
            "commit": True,
            "gc": True,
            "gcDelay": _COLLECT_AFTER,
            "gcInterval": _COLLECT_EVERY,
            "retention": {
                "delay": _COLLECT_AFTER,
                "policies": [
                    {
                        "repositories": ["**"],
                        "deleteReferrers": True,
                        "deleteUntagged": True,
                        "keepTags": [{"patterns": [".*"]}],
                    }
                ],
            },
        },
        "http": {
            "address": host,
            "port": str(port),
            "compat": ["docker2s2"],
            "auth": {"htpasswd": {"path": str(htpasswd)}},
            "accessControl": {"repositories": {"**": access}},
        },
        "log": {"level": "warn"},
    }
    return json.dumps(document, indent=2)
