"""Zot's configuration: rendered as text, and checked by Zot itself before it is used.

What a Zot does by default is wrong for a site in these ways, and each has its line below:

* Blobs of an upload under way, and manifests without a tag, go after an hour (``gcDelay``, ``delay``): a slow
  replication would be eaten while it runs. Both wait for the retention, which has a lower bound.
* A retention policy that keeps any tags removes all that it does not name: here it names all of them. What is not
  tagged any more goes, and what refers to it with it, which Zot would keep for ever.
* Collecting locks a repository: once a day is enough. No time window: Zot reads it as UTC, whatever the site's zone.
* ``commit`` writes through to the disk before a request is answered; Zot's own choice loses content at a power cut.
* ``compat``: without it Docker's manifests are refused, or worse converted.
* One user writes, by htpasswd, which Zot reads again whenever it changes; others may read.
* On demand only if asked for, and bounded: a dead uplink would hold up pulls of what is here.
* No ``maxRepos`` (refuses manifests whose blobs it took), no ``fastRestart`` (hides damage), no scrub (it only logs;
  the site audits and heals by itself), no ``redirectBlobURL``, no search and no UI: memory for what nobody asks.
* No metrics: they would be served at the port that pulls come to; the agent has its own.

What Zot has no setting for, its clients see to: damage of unchanged size, a repository whose index is lost and
manifests without their blobs (audit and healing; every copy asks for blobs itself), a full disk (free space is checked
before a byte is fetched).
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

SHORTEST_RETENTION_SECONDS: Final = 48 * 3600
"""Of a registry that replications write to: 3 GB at 2 Mbit/s take 3.3 hours, and links are worse than that."""
_COLLECT_EVERY: Final = "24h"
_VERIFY_SECONDS: Final = 60.0  # it takes 0.1 s, and ten on a machine that is busy starting
_BUILT_IN: Final = re.compile(rb'"binary-type":"([^"]*)"')
_REASON_MAX_LENGTH: Final = 500  # characters of Zot's own words
_CHECK_UPSTREAM_EVERY: Final = "15m"
"""A tag that is here is served without asking upstream in between: else every pull hangs on the uplink."""
_UPSTREAM_PATIENCE: Final = "10s"
"""For one whole image: so long does a dead uplink hold up a pull of what is here, at most once in that interval (Zot's
own choice is three hours). What takes longer comes by the runtime's own fallback, or by a group."""


@dataclass(frozen=True, slots=True)
class ZotSettings:
    """What a site says about its Zot."""

    root: Path
    """Where it stores blobs."""
    host: str
    port: int
    htpasswd: Path
    """Its users; every user may read, only ``writer`` may write. Zot reads it again when it changes."""
    writer: str
    anonymous_read: bool = True
    """Whether pulls need no user; a wrong password is refused all the same."""
    retention_seconds: int = SHORTEST_RETENTION_SECONDS
    """How long what nothing names is kept; ``SHORTEST_RETENTION_SECONDS`` at least."""
    certificate: Path | None = None
    key: Path | None = None
    on_demand: tuple[str, ...] = ()
    """URLs of registries that Zot itself asks for what it lacks."""


def zot_config(zot: ZotSettings) -> str:
    """Render the configuration of a Zot with one writer."""
    delay = f"{max(zot.retention_seconds, SHORTEST_RETENTION_SECONDS)}s"
    http: dict[str, Any] = {
        "address": f"[{zot.host}]" if ":" in zot.host else zot.host,  # Zot puts the port behind it as it is
        "port": str(zot.port),
        "compat": ["docker2s2"],
        "auth": {"htpasswd": {"path": str(zot.htpasswd)}},
        "accessControl": {"repositories": {"**": _access(zot)}},
    }
    if zot.certificate and zot.key:
        http["tls"] = {"cert": str(zot.certificate), "key": str(zot.key)}
    document: dict[str, Any] = {
        "distSpecVersion": "1.1.1",
        "storage": {
            "rootDirectory": str(zot.root),
            "dedupe": True,
            "commit": True,
            "gc": True,
            "gcDelay": delay,
            "gcInterval": _COLLECT_EVERY,
            "retention": {
                "delay": delay,
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
        "http": http,
        "log": {"level": "error"},  # its warnings are 17 lines at every start, about features that are not built in
    }
    if zot.on_demand:
        document["extensions"] = {"sync": {"enable": True, "registries": [_on_demand(url) for url in zot.on_demand]}}
    return json.dumps(document, indent=2)


def verify_config(program: str, path: Path) -> None:
    """Have Zot check a configuration file.

    Raises:
        InvalidInputError: there is no such program, or it does not take the file; the message has its reason.
        StorageError: it gives no answer.
    """
    done = _run(program, "verify", str(path))
    if done.returncode:
        output = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        raise InvalidInputError(f"`{program} verify` does not take {path}: {_reason(output)}")


def check_on_demand(program: str) -> None:
    """Do nothing if this Zot can fetch what it lacks: a minimal build takes the configuration, and ignores it.

    Raises:
        InvalidInputError: it cannot, or there is no such program.
        StorageError: it gives no answer.
    """
    done = _run(program, "--version")
    found = _BUILT_IN.search(done.stdout + done.stderr)
    if found and b"sync" not in found.group(1).split(b"-"):
        raise InvalidInputError(
            f"{program!r} is a Zot without the sync extension, which HARBOR_SATELLITE_ON_DEMAND_REGISTRIES needs: "
            "take the full build, or leave it to the runtimes to ask those registries"
        )


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  (the operator's own program)
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERIFY_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no program {program!r} (HARBOR_SATELLITE_ZOT)") from error
    except OSError as error:
        raise InvalidInputError(f"cannot run {program!r} (HARBOR_SATELLITE_ZOT): {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"`{program} {arguments[0]}` gave no answer within {_VERIFY_SECONDS:.0f} s") from error


def _access(zot: ZotSettings) -> dict[str, Any]:
    # No adminPolicy: it would stand above all others.
    rules: dict[str, Any] = {
        "defaultPolicy": ["read"],
        "policies": [{"users": [zot.writer], "actions": ["read", "create", "update", "delete"]}],
    }
    return rules | ({"anonymousPolicy": ["read"]} if zot.anonymous_read else {})


def _on_demand(url: str) -> dict[str, Any]:
    return {
        "urls": [url],
        "onDemand": True,
        "tlsVerify": True,
        "preserveDigest": True,
        "maxRetries": 1,
        "retryDelay": "1s",  # without it Zot refuses maxRetries
        "syncTimeout": _UPSTREAM_PATIENCE,
        "manifestCheckInterval": _CHECK_UPSTREAM_EVERY,
        "content": [{"prefix": "**"}],
    }


def _reason(output: str) -> str:
    """Pick out of Zot's log what it does not like."""
    reasons = []
    for line in output.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal", "panic"}:
            said = [str(entry[key]) for key in ("message", "error") if entry.get(key)]
            reasons.append(": ".join(said))
    text = "; ".join(reasons) or output
    return " ".join(text.split())[:_REASON_MAX_LENGTH] or "it gave no reason"
