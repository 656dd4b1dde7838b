"""How the fake Harbor replicates one artifact to a ``docker-registry``: the requests that a real one was seen to make.

``GET /v2/`` twice; ``HEAD`` of the tag; for every child ``HEAD`` of its manifest and of its blobs, uploads of those
that the target does not have, ``PUT`` of the child; the index by its tag last. Children go in parallel, in any order.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import httpx

from harbor_satellite.oci import media_types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.harbor import FakeHarbor
    from tests.fakes.harbor_content import FakeArtifact

_USER_AGENT = {"User-Agent": "harbor-registry-client"}


class SendingError(Exception):
    """The target refused."""


@asynccontextmanager
async def open_target(endpoint: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """Ask the target how to log in; credentials are sent only after a challenge."""
    cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))  # as Go's client: it keeps none
    async with httpx.AsyncClient(
        base_url=endpoint["url"], timeout=10, trust_env=False, headers=_USER_AGENT, cookies=cookies
    ) as client:
        answer = await client.get("/v2/")
        if answer.status_code == 401 and "basic" in answer.headers.get("WWW-Authenticate", "").lower():
            credential = endpoint.get("credential") or {}
            client.auth = httpx.BasicAuth(credential.get("access_key", ""), credential.get("access_secret", ""))
        answer = await client.get("/v2/")
        if answer.status_code != 200:
            raise SendingError(f"GET /v2/: {answer.status_code}")
        yield client


async def is_healthy(endpoint: dict[str, Any]) -> bool:
    try:
        async with open_target(endpoint):
            return True
    except (SendingError, httpx.HTTPError):
        return False


async def send(fake: FakeHarbor, client: httpx.AsyncClient, one: FakeArtifact, target: str, tags: list[str]) -> None:
    """Bring an artifact, its children and its referrers to a repository of the target, the tags last."""
    for tag in tags:
        head = await client.head(f"/v2/{target}/manifests/{tag}", headers={"Accept": media_types.ACCEPT_MANIFESTS})
        if head.status_code == 200 and head.headers.get("Docker-Content-Digest") == one.digest:
            continue
        await _parts(fake, client, one, target)
        await _put(client, target, tag, one)
    for referrer in fake.content.referrers(one):
        await _by_digest(fake, client, referrer, target)


async def remove(client: httpx.AsyncClient, one: FakeArtifact, target: str, tags: list[str]) -> None:
    """Delete an artifact at the target; its children stay there."""
    for tag in tags:
        head = await client.head(f"/v2/{target}/manifests/{tag}", headers={"Accept": media_types.ACCEPT_MANIFESTS})
        if head.status_code == 200:
            _check(await client.delete(f"/v2/{target}/manifests/{one.digest}"), {202, 404})


async def _parts(fake: FakeHarbor, client: httpx.AsyncClient, one: FakeArtifact, target: str) -> None:
    found = (fake.content.find(one.repository, digest) for digest in one.children)
    await asyncio.gather(*(_by_digest(fake, client, child, target) for child in found if child is not None))
    await asyncio.gather(*(_blob(fake, client, one.repository, digest, target) for digest in one.blobs))


async def _by_digest(fake: FakeHarbor, client: httpx.AsyncClient, one: FakeArtifact, target: str) -> None:
    head = await client.head(f"/v2/{target}/manifests/{one.digest}")
    if head.status_code == 200:
        return
    await _parts(fake, client, one, target)
    await _put(client, target, one.digest, one)


async def _put(client: httpx.AsyncClient, target: str, reference: str, one: FakeArtifact) -> None:
    path = f"/v2/{target}/manifests/{reference}"
    _check(await client.put(path, content=one.raw, headers={"Content-Type": one.media_type}), {201})


async def _blob(fake: FakeHarbor, client: httpx.AsyncClient, source: str, digest: str, target: str) -> None:
    head = await client.head(f"/v2/{target}/blobs/{digest}")
    if head.status_code == 200:
        return
    content = (await fake.backend.send("GET", f"/v2/{source}/blobs/{digest}")).body
    started = _check(await client.post(f"/v2/{target}/blobs/uploads/"), {202})
    location = httpx.URL(started.headers["Location"]).copy_add_param("digest", digest)
    _check(await client.put(location, content=content), {201})


def _check(answer: httpx.Response, expected: set[int]) -> httpx.Response:
    if answer.status_code not in expected:
        raise SendingError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code}")
    return answer
