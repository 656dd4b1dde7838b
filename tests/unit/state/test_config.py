"""The config of a satellite: strict for people, lenient for sites, without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.config import (
    FIELDS,
    RegistrySettings,
    RuntimeSettings,
    SatelliteConfig,
    config_json,
    merge_configs,
    parse_config,
    read_config,
)

FULL = {
    "schedule": "*/15 * * * *",
    "timezone": "Europe/Berlin",
    "sync_windows": ["Mon-Fri 22:00-06:00", "Sat-Sun"],
    "bytes_per_second": 2_000_000,
    "daily_bytes": 5_000_000_000,
    "monthly_bytes": 0,
    "platforms": ["linux/amd64", "linux/arm64"],
    "image_workers": 2,
    "blob_workers": 6,
    "poll_interval_seconds": 120,
    "report_interval_seconds": 300,
    "disk_reserve_bytes": 1024,
    "registry": {"kind": "embedded", "port": 8585, "anonymous_read": False, "retention_seconds": 86400},
    "runtimes": {"names": ["containerd"], "registries": ["docker.io"], "fallback": True},
}


def parse(**document: Any) -> SatelliteConfig:
    return parse_config(document, "config night")


def test_parse_config_of_all_fields_is_written_back_as_it_was() -> None:
    config = parse(**FULL)

    assert set(FULL) == set(FIELDS)
    assert config_json(config) == FULL
    assert config.registry == RegistrySettings("embedded", 8585, anonymous_read=False, retention_seconds=86400)


def test_parse_config_takes_sizes_and_windows_as_people_write_them() -> None:
    config = parse(bytes_per_second="2M", sync_windows="Sat; Sun 01:00-02:00")

    assert config == SatelliteConfig(bytes_per_second=2_000_000, sync_windows=("Sat", "Sun 01:00-02:00"))


def test_parse_config_null_is_left_out() -> None:
    assert parse(schedule=None) == SatelliteConfig()


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"shedule": "* * * * *"}, "did you mean schedule"),
        ({"zzz": 1}, "known are schedule"),
        ({"schedule": "@every 5m"}, "schedule: not a 5-field cron"),
        ({"schedule": 5}, "schedule: not text"),
        ({"timezone": "Mars/Base"}, "timezone: no time zone 'Mars/Base'"),
        ({"sync_windows": ["Mon 25:00-26:00"]}, "sync_windows: no times"),
        ({"sync_windows": 5}, "sync_windows: not a list"),
        ({"bytes_per_second": 5}, "bytes_per_second: not a count of bytes of at least 1024"),
        ({"bytes_per_second": "fast"}, "bytes_per_second: not a size"),
        ({"daily_bytes": True}, "daily_bytes: not a count of bytes"),
        ({"daily_bytes": 1.5}, "daily_bytes: not a count of bytes"),
        ({"platforms": ["linux"]}, "platforms: "),
        ({"image_workers": 65}, "image_workers: not a whole number from 1 to 64"),
        ({"poll_interval_seconds": 0}, "poll_interval_seconds: not a whole number from 1"),
        ({"registry": {"prt": 1}}, "registry: no field 'prt': did you mean port"),
        ({"registry": {"port": 70000}}, "registry: port: not a whole number"),
        ({"registry": {"kind": "harbor"}}, "registry: kind: not one of embedded, zot, external"),
        ({"registry": 5}, "registry: not a JSON object"),
        ({"runtimes": {"names": ["rkt"]}}, "runtimes: names: not one of containerd"),
        ({"runtimes": {"registries": ["https://docker.io/x"]}}, "runtimes: registries: not host"),
        ({"runtimes": {"fallback": "yes"}}, "runtimes: fallback: neither true nor false"),
    ],
    ids=str,
)
def test_parse_config_wrong_value_names_its_field(document: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match="config night: ") as caught:
        parse(**document)

    assert named in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        {"password": "x"},
        {"registry": {"Local-Registry.PassWord": "x"}},
        {"registry": {"auth": {"username": "u"}}},
        {"registry": {"tls": {"private_key": "x"}}},
        {"a": [{"b": {"API_KEY": 7}}]},
        {"runtimes": {"registries": ["https://user:word@docker.io"]}},
        {"timezone": "-----BEGIN PRIVATE KEY-----"},
    ],
    ids=str,
)
def test_parse_config_secret_is_refused_and_not_shown(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="is published") as caught:
        parse(**document)

    assert "user:word" not in str(caught.value)


def test_parse_config_secret_s_name_with_nothing_in_it_is_no_secret() -> None:
    with pytest.raises(InvalidInputError, match="no field 'auth'"):
        parse(auth={"password": "", "token": None, "has_secret": True})


def test_read_config_of_a_newer_centre_takes_what_it_understands() -> None:
    config, problems = read_config(
        {
            "image_workers": 3,
            "daily_bytes": "lots",
            "hologram": True,
            "registry": {"port": 1, "kind": "quantum"},
        }
    )

    assert config == SatelliteConfig(image_workers=3, registry=RegistrySettings(port=1))
    assert [problem.partition(":")[0] for problem in problems] == ["daily_bytes", "hologram", "registry.kind"]


def test_read_config_of_what_is_no_object_is_empty() -> None:
    config, problems = read_config([1])

    assert config == SatelliteConfig()
    assert problems


def test_merge_configs_last_one_that_says_a_field_holds() -> None:
    below = SatelliteConfig(image_workers=1, daily_bytes=5, registry=RegistrySettings(kind="zot", port=1))
    above = SatelliteConfig(image_workers=2, sync_windows=(), registry=RegistrySettings(port=2))

    assert merge_configs(below, above) == SatelliteConfig(
        image_workers=2, daily_bytes=5, sync_windows=(), registry=RegistrySettings(kind="zot", port=2)
    )


def test_merge_configs_of_none_is_empty() -> None:
    assert merge_configs() == SatelliteConfig()
    assert config_json(merge_configs()) == {}


def test_merge_configs_takes_a_part_that_only_the_upper_one_says() -> None:
    runtimes = RuntimeSettings(names=("docker",))

    assert merge_configs(SatelliteConfig(), SatelliteConfig(runtimes=runtimes)).runtimes == runtimes


def test_platforms_are_sorted_and_named_once() -> None:
    platforms = parse(platforms=["linux/arm64", "linux/amd64", "linux/arm64"]).platforms

    assert platforms == (Platform("linux", "amd64"), Platform("linux", "arm64"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), JSON, max_size=5))
def test_read_config_any_document_is_read_and_written(document: dict[str, Any]) -> None:
    config, _ = read_config(document)

    assert read_config(json.loads(json.dumps(config_json(config)))) == (config, ())
