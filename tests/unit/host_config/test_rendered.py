from __future__ import annotations

import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.rendered import MirrorSettings, TextFiles, certificates
from tests.unit.host_config.pem import KEY, PEM


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8585",
        "ftp://127.0.0.1",
        "http://127.0.0.1:8585/v2",
        "http://127.0.0.1:8585?x",
        "http://u:p@127.0.0.1:8585",
        'http://a"b',
        "http://a\nb",
        "http://127.0.0.1:99999",
        "http://",
    ],
)
def test_mirror_settings_url_that_is_more_than_a_registry_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        MirrorSettings(url)


@pytest.mark.parametrize("registry", ["", "a/b", 'a"', "a b", "*.corp", "../x", "satellite.zot", "127.0.0.1:8585"])
def test_mirror_settings_registry_that_is_none_is_refused(registry: str) -> None:
    with pytest.raises(InvalidInputError):
        MirrorSettings("http://127.0.0.1:8585", (registry,))


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("http://127.0.0.1:8585", True),
        ("http://127.9.9.9", True),
        ("http://localhost:80", True),
        ("http://[::1]:8585", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://10.0.0.1:8585", False),
    ],
)
def test_mirror_settings_know_the_loopback(url: str, is_loopback: bool) -> None:  # noqa: FBT001  (a parameter of the table)
    assert MirrorSettings(url).is_loopback is is_loopback


def test_certificates_leave_a_key_out() -> None:
    assert certificates(f"comment\n{KEY}{PEM}{KEY}") == PEM


def test_mirror_settings_ca_with_a_key_in_it_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        MirrorSettings("https://10.0.0.1", ca=KEY + PEM)


def test_text_files_wildcard_stays_within_one_folder() -> None:
    files = TextFiles({"/a/b.conf": "", "/a/c/d.conf": "", "/a/e.txt": ""})

    assert files.match("/a/*.conf") == ["/a/b.conf"]
