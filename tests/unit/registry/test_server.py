from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from harbor_satellite.registry.server_process import parse_listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp

CONTENT = b"0123456789"
DIGEST = str(Digest.of(CONTENT))


class Site:
    """Speaks HTTP with an application in this process."""

    def __init__(self, app: ASGIApp, registry: LayoutRegistry) -> None:
        self.registry = registry
        self._app = app

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            step = max(4, len(content) // 8)
            for start in range(0, len(content), step):
                yield content[start : start + step]

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
                sent = body() if method in ("POST", "PUT", "PATCH") else None
                return await client.request(method, path, content=sent, headers=headers, auth=auth)

        return asyncio.run(run())

    def push_image(self, tag: str, repository: str = "acme/app", **more: object) -> Digest:
        self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={DIGEST}", CONTENT)
        config = {"mediaType": media_types.OCI_EMPTY, "digest": DIGEST, "size": len(CONTENT)}
        body = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": config, "layers": [], **more}
        raw = json.dumps({**body, "annotations": {"tag": tag}}).encode()
        answer = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", raw, {"content-type": media_types.OCI_MANIFEST})
        assert answer.status_code == 201, answer.text
        return Digest.of(raw)


def code_of(answer: httpx.Response) -> str:
    (error,) = answer.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    return str(error["code"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with LayoutRegistry(tmp_path, "site") as registry:
        yield Site(create_registry_app(registry, allow_anonymous_writes=True), registry)


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/healthz"])
def test_ping_and_health_answer(site: Site, path: str) -> None:
    assert site.ask("GET", path).status_code == 200
    assert site.ask("HEAD", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/app/manifests/v1", 405, "UNSUPPORTED"),
        ("GET", "/v2/app/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/app/manifests/{DIGEST}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/app/manifests/sha256:short", 400, "DIGEST_INVALID"),
        ("GET", "/v2/app/manifests/-tag", 400, "TAG_INVALID"),
        ("GET", "/v2/App/manifests/v1", 400, "NAME_INVALID"),
        ("GET", "/v2/..%2F..%2Fetc/manifests/v1", 400, "NAME_INVALID"),
        ("DELETE", "/v2/app/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/app/blobs/{DIGEST}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/app/blobs/..%2Findex.json", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/blobs/md5:0", 400, "DIGEST_INVALID"),
        ("DELETE", f"/v2/app/blobs/{DIGEST}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/app/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/app/referrers/x", 400, "DIGEST_INVALID"),
        ("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("POST", "/v2/app/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5", 400, "UNSUPPORTED"),
        ("GET", "/v2/app/blobs/uploads/0", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", f"/v2/app/blobs/uploads/{'0' * 32}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", f"/v2/app/blobs/uploads/{'0' * 32}", 404, "BLOB_UPLOAD_UNKNOWN"),
    ],
)
def test_error_table(site: Site, method: str, path: str, status: int, code: str) -> None:
    answer = site.ask(method, path)

    assert (answer.status_code, code_of(answer)) == (status, code)


@pytest.mark.parametrize(
    ("asked", "status", "part", "content_range"),
    [
        ("", 200, CONTENT, None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, CONTENT, "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=1-2,4-5", 200, CONTENT, None),
        ("pages=1-2", 200, CONTENT, None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=5-0", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ],
)
def test_blob_range_table(site: Site, asked: str, status: int, part: bytes | None, content_range: str | None) -> None:
    site.push_image("v1")

    answer = site.ask("GET", f"/v2/acme/app/blobs/{DIGEST}", headers={"range": asked} if asked else {})

    assert (answer.status_code, answer.headers.get("content-range")) == (status, content_range)
    assert part is None or answer.content == part
    assert part is None or answer.headers["content-length"] == str(len(part))


def test_blob_head_and_etag(site: Site) -> None:
    site.push_image("v1")
    path = f"/v2/acme/app/blobs/{DIGEST}"

    head = site.ask("HEAD", path)

    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["docker-content-digest"]) == ("10", DIGEST)
    assert site.ask("GET", path, headers={"if-none-match": head.headers["etag"]}).status_code == 304
    stale = site.ask("GET", path, headers={"range": "bytes=1-2", "if-range": '"other"'})
    assert (stale.status_code, stale.content) == (200, CONTENT)


def test_blob_delete_needed_is_405_then_202(site: Site) -> None:
    digest = site.push_image("v1")

    refused = site.ask("DELETE", f"/v2/acme/app/blobs/{DIGEST}")
    site.ask("DELETE", f"/v2/acme/app/manifests/{digest}")

    assert (refused.status_code, code_of(refused)) == (405, "UNSUPPORTED")
    assert site.ask("DELETE", f"/v2/acme/app/blobs/{DIGEST}").status_code == 202


def test_manifest_head_get_and_etag(site: Site) -> None:
    digest = site.push_image("v1")

    for reference in ("v1", str(digest)):
        head, got = (site.ask(method, f"/v2/acme/app/manifests/{reference}") for method in ("HEAD", "GET"))
        assert Digest.of(got.content) == digest
        assert (head.content, head.headers["content-length"]) == (b"", str(len(got.content)))
        for answer in (head, got):
            assert answer.headers["content-type"] == media_types.OCI_MANIFEST
            assert answer.headers["docker-content-digest"] == str(digest)
        known = site.ask("GET", f"/v2/acme/app/manifests/{reference}", headers={"if-none-match": got.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")


def test_manifest_put_with_tags_and_subject_names_them(site: Site) -> None:
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": DIGEST, "size": 10}
    body = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [], "subject": subject}
    raw = json.dumps(body).encode()
    digest = Digest.of(raw, "sha512")
    headers = {"content-type": media_types.OCI_INDEX}

    answer = site.ask("PUT", f"/v2/app/manifests/{digest}?tag=a&tag=b", raw, headers)

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v2/app/manifests/{digest}"
    assert (answer.headers["oci-tag"], answer.headers["oci-subject"]) == ("a, b", DIGEST)
    assert site.ask("HEAD", "/v2/app/manifests/b").headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"not json", 400, "MANIFEST_INVALID"),
        (b"{}", 400, "MANIFEST_INVALID"),
        (b" " * (4 * 1024 * 1024 + 1), 413, "SIZE_INVALID"),
    ],
    ids=["not json", "no kind", "too large"],
)
def test_manifest_put_refused_table(site: Site, raw: bytes, status: int, code: str) -> None:
    answer = site.ask("PUT", "/v2/app/manifests/v1", raw)

    assert (answer.status_code, code_of(answer)) == (status, code)


def test_manifest_put_missing_blob_is_manifest_blob_unknown(site: Site) -> None:
    config = {"mediaType": media_types.OCI_EMPTY, "digest": DIGEST, "size": 10}
    raw = json.dumps({"mediaType": media_types.OCI_MANIFEST, "config": config, "layers": []}).encode()

    answer = site.ask("PUT", "/v2/app/manifests/v1", raw)

    assert (answer.status_code, code_of(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert DIGEST in answer.json()["errors"][0]["message"]


def test_manifest_get_damaged_is_500_and_server_goes_on(site: Site) -> None:
    digest = site.push_image("v1")
    path = site.registry.root / "acme/app/blobs/sha256" / digest.hex
    path.write_bytes(path.read_bytes().upper())

    answer = site.ask("GET", "/v2/acme/app/manifests/v1")

    assert (answer.status_code, code_of(answer)) == (500, "UNKNOWN")
    assert site.ask("GET", "/v2/").status_code == 200


@pytest.mark.parametrize(
    ("query", "tags", "link"),
    [
        ("", ["a", "b", "c"], None),
        ("?n=2", ["a", "b"], '</v2/acme/app/tags/list?n=2&last=b>; rel="next"'),
        ("?n=2&last=b", ["c"], None),
        ("?n=3", ["a", "b", "c"], None),
        ("?n=0", [], None),
        ("?last=aa", ["b", "c"], None),
        ("?n=1&last=zz", [], None),
    ],
)
def test_tags_list_pages(site: Site, query: str, tags: list[str], link: str | None) -> None:
    for tag in ("c", "a", "b"):
        site.push_image(tag)

    answer = site.ask("GET", f"/v2/acme/app/tags/list{query}")

    assert answer.json() == {"name": "acme/app", "tags": tags}
    assert answer.headers.get("link") == link


def test_tags_list_all_deleted_is_empty_not_unknown(site: Site) -> None:
    site.push_image("v1")
    site.ask("DELETE", "/v2/acme/app/manifests/v1")

    assert site.ask("GET", "/v2/acme/app/tags/list").json() == {"name": "acme/app", "tags": []}


def test_catalog_pages(site: Site) -> None:
    for repository in ("b", "a/x", "c"):
        site.push_image("v1", repository)

    first = site.ask("GET", "/v2/_catalog?n=2")
    rest = site.ask("GET", first.headers["link"].partition(">")[0].removeprefix("<"))

    assert first.json() == {"repositories": ["a/x", "b"]}
    assert rest.json() == {"repositories": ["c"]}
    assert "link" not in rest.headers


@pytest.mark.parametrize(
    ("query", "count", "filters"),
    [("", 2, None), ("?artifactType=a/sbom", 1, "artifactType"), ("?artifactType=none", 0, "artifactType")],
)
def test_referrers_filtered(site: Site, query: str, count: int, filters: str | None) -> None:
    subject = {"mediaType": media_types.OCI_MANIFEST, "digest": DIGEST, "size": 10}
    for kind in ("a/sbom", "a/signature"):
        site.push_image(kind[2:], subject=subject, artifactType=kind)

    answer = site.ask("GET", f"/v2/acme/app/referrers/{DIGEST}{query}")

    index: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == media_types.OCI_INDEX
    assert answer.headers.get("oci-filters-applied") == filters
    assert (index["mediaType"], len(index["manifests"])) == (media_types.OCI_INDEX, count)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:8585", ("127.0.0.1", 8585)), ("[::1]:0", ("::1", 0)), ("edge.local:80", ("edge.local", 80))],
)
def test_parse_listen(listen: str, address: tuple[str, int]) -> None:
    assert parse_listen(listen) == address


@pytest.mark.parametrize("listen", ["", "8585", ":8585", "host:", "host:x", "host:65536", "::1:8585", "[host]:80"])
def test_parse_listen_refused(listen: str) -> None:
    with pytest.raises(InvalidInputError, match="HOST:PORT"):
        parse_listen(listen)
