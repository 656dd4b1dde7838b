from __future__ import annotations

import httpx
import pytest

from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.registry.client_urls import (
    ContentRange,
    follow,
    next_page,
    parse_address,
    parse_content_range,
    same_origin,
)

BASE = httpx.URL("https://registry.example/v2/a/tags/list?n=2")


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("registry.example", "registry.example", "https://registry.example"),
        ("Registry.Example:5000", "registry.example:5000", "https://registry.example:5000"),
        ("localhost:5000", "localhost:5000", "http://localhost:5000"),
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1"),
        ("[::1]:5000", "[::1]:5000", "http://[::1]:5000"),
        ("http://registry.example:80/", "registry.example:80", "http://registry.example"),
        ("https://localhost:5000", "localhost:5000", "https://localhost:5000"),
        ("docker.io", "docker.io", "https://registry-1.docker.io"),
        ("127.example.com", "127.example.com", "https://127.example.com"),
    ],
)
def test_parse_address(text: str, name: str, url: str) -> None:
    address = parse_address(text)

    assert (address.name, address.url) == (name, httpx.URL(url))


@pytest.mark.parametrize(
    "text",
    ["", "ftp://a.example", "https://user:secret@a.example", "a.example/path", "a b", "http://", "a.example:99999999"],
)
def test_parse_address_refuses(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_address(text)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("plain_http", "scheme"), [(True, "http"), (False, "https")])
def test_parse_address_bare_host_as_told(plain_http: bool, scheme: str) -> None:  # noqa: FBT001 - table
    assert parse_address("registry.example", plain_http=plain_http).url.scheme == scheme
    with pytest.raises(InvalidInputError):
        parse_address(f"{scheme}://registry.example", plain_http=not plain_http)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://a.example:443/y", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443", False),
        ("https://a.example", "https://b.example", False),
    ],
)
def test_same_origin(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - table
    assert same_origin(httpx.URL(one), httpx.URL(other)) is same


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/blob?a=1#part", "https://registry.example/blob?a=1"),
        ("https://store.example/blob?sig=x", "https://store.example/blob?sig=x"),
    ],
)
def test_follow(location: str, expected: str) -> None:
    assert follow(BASE, location, "pull") == httpx.URL(expected)


@pytest.mark.parametrize(
    "location",
    [
        "http://registry.example/blob?sig=secret",
        "file:///etc/passwd",
        "https://u:secret@b.example/",
        "https://b.example:secret/",
    ],
    ids=["downgrade", "scheme", "userinfo", "malformed"],
)
def test_follow_refuses(location: str) -> None:
    with pytest.raises(RemoteError, match=r"pull: registry\.example points to") as caught:
        follow(BASE, location, "pull")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("</v2/a/tags/list?n=2&last=b>; rel=next", "/v2/a/tags/list?n=2&last=b"),
        ('<list?last=b>; rel="next"', "/v2/a/tags/list?last=b"),
        ('</p>; rel="prev", </n?x=1,2>; title="a"; rel="next"', "/n?x=1,2"),
        ('<https://registry.example:443/n>; rel="next"', "/n"),
        ('</p>; rel="previous"', None),
        ("</n>; rel=nextish", None),
    ],
    ids=["none", "bare", "relative", "several", "absolute", "other", "prefix"],
)
def test_next_page(header: str, expected: str | None) -> None:
    found = next_page(BASE, header, "list")

    assert found == (None if expected is None else BASE.join(expected))


@pytest.mark.parametrize("link", ["https://other.example/n", "http://registry.example/n", "//other.example/n"])
def test_next_page_elsewhere_is_refused(link: str) -> None:
    with pytest.raises(RemoteError, match="not followed"):
        next_page(BASE, f'<{link}>; rel="next"', "list")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 5-9/10", ContentRange(5, 9, 10)),
        ("bytes 5-9/*", ContentRange(5, 9, None)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("", None),
        ("5-9/10", None),
        ("bytes 5-/10", None),
    ],
)
def test_parse_content_range(header: str, expected: ContentRange | None) -> None:
    assert parse_content_range(header) == expected
