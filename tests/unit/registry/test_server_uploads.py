from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from tests.unit.registry.test_server import CONTENT, DIGEST, Site, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UPLOADS = "/v2/acme/app/blobs/uploads/"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with LayoutRegistry(tmp_path, "site") as registry:
        yield Site(create_registry_app(registry, allow_anonymous_writes=True), registry)


def stored(site: Site, digest: str = DIGEST, repository: str = "acme/app") -> bytes | None:
    answer = site.ask("GET", f"/v2/{repository}/blobs/{digest}")
    return answer.content if answer.status_code == 200 else None


def staged(site: Site) -> list[Path]:
    return list((site.registry.root / ".uploads").glob("*/*"))


def chunk(first: int, last: int) -> dict[str, str]:
    return {"content-range": f"{first}-{last}", "content-type": "application/octet-stream"}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_upload_in_one_post(site: Site, algorithm: str) -> None:
    digest = Digest.of(CONTENT, algorithm)

    answer = site.ask("POST", f"{UPLOADS}?digest={digest}", CONTENT)

    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/acme/app/blobs/{digest}")
    assert answer.headers["docker-content-digest"] == str(digest)
    assert stored(site, str(digest)) == CONTENT


@pytest.mark.parametrize("query", ["", "?digest-algorithm=sha512"])
def test_upload_post_then_put(site: Site, query: str) -> None:
    begun = site.ask("POST", UPLOADS + query)
    done = site.ask("PUT", f"{begun.headers['location']}?digest={DIGEST}", CONTENT)

    assert (begun.status_code, begun.headers["range"]) == (202, "0-0")
    assert done.status_code == 201
    assert stored(site) == CONTENT
    assert staged(site) == []


@pytest.mark.parametrize("has_body", [False, True], ids=["empty put", "last chunk in put"])
def test_upload_in_chunks(site: Site, has_body: bool) -> None:  # noqa: FBT001, a table's column
    location = site.ask("POST", UPLOADS).headers["location"]
    first = site.ask("PATCH", location, CONTENT[:6], chunk(0, 5))
    status = site.ask("GET", location)
    if not has_body:
        site.ask("PATCH", location, CONTENT[6:], chunk(6, 9))

    done = site.ask("PUT", f"{location}?digest={DIGEST}", CONTENT[6:] if has_body else b"")

    assert (first.status_code, first.headers["range"]) == (202, "0-5")
    assert (status.status_code, status.headers["range"]) == (204, "0-5")
    assert done.status_code == 201
    assert stored(site) == CONTENT


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (chunk(8, 9), 416, "BLOB_UPLOAD_INVALID"),
        (chunk(0, 1), 416, "BLOB_UPLOAD_INVALID"),
        ({"content-range": "nonsense"}, 416, "BLOB_UPLOAD_INVALID"),
        (chunk(6, 99), 400, "SIZE_INVALID"),
    ],
    ids=["gap", "again", "nonsense", "other length"],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_upload_chunk_refused_can_be_continued(
    site: Site, method: str, headers: dict[str, str], status: int, code: str
) -> None:
    location = site.ask("POST", UPLOADS).headers["location"]
    site.ask("PATCH", location, CONTENT[:6], chunk(0, 5))

    refused = site.ask(method, f"{location}?digest={DIGEST}", CONTENT[6:], headers)

    assert (refused.status_code, code_of(refused)) == (status, code)
    assert status != 416 or (refused.headers["location"], refused.headers["range"]) == (location, "0-5")
    assert site.ask("GET", location).headers["range"] == "0-5"
    assert site.ask("PUT", f"{location}?digest={DIGEST}", CONTENT[6:], chunk(6, 9)).status_code == 201
    assert stored(site) == CONTENT


def test_upload_cancelled_is_gone(site: Site) -> None:
    location = site.ask("POST", UPLOADS).headers["location"]

    assert site.ask("DELETE", location).status_code == 204
    assert site.ask("GET", location).status_code == 404
    assert staged(site) == []


@pytest.mark.parametrize("way", ["post", "put"])
def test_upload_wrong_digest_keeps_nothing(site: Site, way: str) -> None:
    location = UPLOADS if way == "post" else site.ask("POST", UPLOADS).headers["location"]

    answer = site.ask(way.upper(), f"{location}?digest={DIGEST}", b"other bytes")

    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")
    assert stored(site) is None
    assert staged(site) == []


def test_upload_put_without_digest_keeps_session(site: Site) -> None:
    location = site.ask("POST", UPLOADS).headers["location"]

    assert code_of(site.ask("PUT", location, CONTENT)) == "DIGEST_INVALID"
    assert site.ask("PUT", f"{location}?digest={DIGEST}", CONTENT).status_code == 201


@pytest.mark.parametrize(
    ("query", "status"),
    [("&from=other/repo", 201), ("", 201), ("&from=third", 202)],
    ids=["from", "from anywhere", "from where it is not"],
)
def test_mount(site: Site, query: str, status: int) -> None:
    site.ask("POST", f"/v2/other/repo/blobs/uploads/?digest={DIGEST}", CONTENT)

    answer = site.ask("POST", f"{UPLOADS}?mount={DIGEST}{query}")

    assert answer.status_code == status
    assert (stored(site) == CONTENT) is (status == 201)
    wanted = f"/v2/acme/app/blobs/{DIGEST}" if status == 201 else UPLOADS
    assert answer.headers["location"].startswith(wanted)


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EIO, 500)])
def test_upload_disk_fails_says_so_and_server_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        answer = site.ask("POST", f"{UPLOADS}?digest={DIGEST}", CONTENT)

    assert answer.status_code == status
    assert "acme/app" in answer.json()["errors"][0]["message"]
    assert stored(site) is None
    assert staged(site) == []
    assert site.ask("POST", f"{UPLOADS}?digest={DIGEST}", CONTENT).status_code == 201
