"""Zot's configuration: each line that keeps a site's content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harbor_satellite.registry.zot import ZotSettings, zot_config

SITE = ZotSettings(Path("/data/zot"), "127.0.0.1", 8585, Path("/data/htpasswd"), "satellite")


def rendered(**changes: Any) -> dict[str, Any]:
    values = {name: getattr(SITE, name) for name in SITE.__slots__} | changes
    document = json.loads(zot_config(ZotSettings(**values)))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    ("seconds", "delay"),
    [(0, "172800s"), (3600, "172800s"), (172_800, "172800s"), (604_800, "604800s")],
    ids=["none", "an hour", "two days", "a week"],
)
def test_zot_config_retention_is_never_shorter_than_a_slow_replication(seconds: int, delay: str) -> None:
    storage = rendered(retention_seconds=seconds)["storage"]

    assert storage["gcDelay"] == delay
    assert storage["retention"]["delay"] == delay


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("shop.example", "shop.example")]
)
def test_zot_config_address_can_have_a_port_behind_it(host: str, address: str) -> None:
    assert rendered(host=host)["http"]["address"] == address


def test_zot_config_keeps_every_tag_and_collects_what_has_none() -> None:
    storage = rendered()["storage"]

    assert storage["gc"] is True
    assert storage["gcInterval"] == "24h"
    assert storage["retention"]["policies"] == [
        {
            "repositories": ["**"],
            "deleteReferrers": True,
            "deleteUntagged": True,
            "keepTags": [{"patterns": [".*"]}],
        }
    ]


def test_zot_config_writes_through_to_the_disk_and_takes_docker_manifests() -> None:
    document = rendered()

    assert document["storage"]["commit"] is True
    assert document["storage"]["dedupe"] is True
    assert document["http"]["compat"] == ["docker2s2"]


@pytest.mark.parametrize("is_anonymous", [True, False], ids=["anybody reads", "users read"])
def test_zot_config_has_one_writer(*, is_anonymous: bool) -> None:
    rules = rendered(anonymous_read=is_anonymous)["http"]["accessControl"]

    assert rules == {"repositories": {"**": rules["repositories"]["**"]}}
    policy = rules["repositories"]["**"]
    assert policy["policies"] == [{"users": ["satellite"], "actions": ["read", "create", "update", "delete"]}]
    assert policy["defaultPolicy"] == ["read"]
    assert policy.get("anonymousPolicy") == (["read"] if is_anonymous else None)


def test_zot_config_speaks_tls_with_certificate_and_key_only() -> None:
    certificate, key = Path("/etc/c.pem"), Path("/etc/k.pem")

    assert rendered(certificate=certificate, key=key)["http"]["tls"] == {"cert": "/etc/c.pem", "key": "/etc/k.pem"}
    assert "tls" not in rendered()["http"]


def test_zot_config_on_demand_bounds_what_a_dead_uplink_can_hold_up() -> None:
    sync = rendered(on_demand=("https://registry.example",))["extensions"]["sync"]

    assert sync["enable"] is True
    (registry,) = sync["registries"]
    assert registry["urls"] == ["https://registry.example"]
    assert registry["onDemand"] is True
    assert registry["preserveDigest"] is True
    assert {"syncTimeout", "manifestCheckInterval", "maxRetries", "retryDelay"} <= registry.keys()
    assert "pollInterval" not in registry


def test_zot_config_without_on_demand_has_no_extension() -> None:
    assert "extensions" not in rendered()
