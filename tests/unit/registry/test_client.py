from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    InvalidInputError,
    MalformedStateError,
    RemoteError,
    SizeLimitError,
    UntrustedDataError,
)
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = "acme/app"
RAW = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "layers": []}).encode()
MANIFEST = ManifestContent(media_types.OCI_MANIFEST, RAW)
RIGHT = Credentials("robot$edge", SecretStr("made-up-secret"))
WRONG = Credentials("robot$edge", SecretStr("wrong"))
JSON = {"Content-Type": "application/json"}


def client(fake: FakeRegistry, credentials: Credentials | None = None) -> HttpRegistry:
    return HttpRegistry("http://registry.example", credentials=credentials, transport=fake.transport())


def signature_of(subject: Descriptor, number: int = 0) -> ManifestContent:
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": descriptor_json(Descriptor(media_types.OCI_EMPTY, Digest.of(b"{}"), 2)),
        "layers": [],
        "subject": descriptor_json(subject),
        "annotations": {"number": str(number)},
    }
    return ManifestContent(media_types.OCI_MANIFEST, json.dumps(document).encode())


def test_manifest_get_by_tag_and_digest_gives_exact_bytes() -> None:
    fake = FakeRegistry()
    pushed = fake.add_manifest(REPOSITORY, RAW, "1")

    with client(fake) as registry:
        assert registry.manifest_get(REPOSITORY, "1") == MANIFEST
        assert registry.manifest_get(REPOSITORY, str(pushed.digest)) == MANIFEST
        assert registry.name == "registry.example"
    for request in fake.requests:
        assert request.headers["accept"] == media_types.ACCEPT_MANIFESTS
        assert request.headers["accept-encoding"] == "identity"


def test_manifest_get_wrong_bytes_for_digest() -> None:
    fake = FakeRegistry()
    digest = Digest.of(b"promised")
    # Zot sends the right header with corrupt bytes.
    headers = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": str(digest)}
    fake.misbehave(".*", FakeReply(200, headers, RAW))

    with client(fake) as registry, pytest.raises(DigestMismatchError, match=f"pull manifest .*{digest}"):
        registry.manifest_get(REPOSITORY, str(digest))


@pytest.mark.parametrize("length", [str(MANIFEST_MAX_BYTES + 1), "10", "many"], ids=["honest", "lies", "text"])
def test_manifest_get_larger_than_the_cap(length: str) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        body = httpx.ByteStream(b" " * (MANIFEST_MAX_BYTES + 1))
        return httpx.Response(200, headers={"Content-Length": length}, stream=body)

    with (
        HttpRegistry("http://registry.example", transport=httpx.MockTransport(answer)) as registry,
        pytest.raises(SizeLimitError),
    ):
        registry.manifest_get(REPOSITORY, "1")


def test_manifest_get_compressed_is_refused() -> None:
    fake = FakeRegistry()
    fake.misbehave(".*", FakeReply(200, {"Content-Encoding": "br"}, b"x"))

    with client(fake) as registry, pytest.raises(UntrustedDataError, match="compressed"):
        registry.manifest_get(REPOSITORY, "1")


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (f"{media_types.OCI_MANIFEST}; charset=utf-8", b"{}", media_types.OCI_MANIFEST),
        ("text/plain", RAW, media_types.OCI_MANIFEST),
        ("", RAW, media_types.OCI_MANIFEST),
        ("application/json", b"{}", "application/json"),
        ("application/json", b"<", "application/json"),
    ],
    ids=["parameter", "wrong header", "no header", "neither", "not json"],
)
def test_manifest_get_kind(content_type: str, body: bytes, expected: str) -> None:
    fake = FakeRegistry()
    fake.misbehave(".*", FakeReply(200, {"Content-Type": content_type}, body))

    with client(fake) as registry:
        assert registry.manifest_get(REPOSITORY, "1").media_type == expected


def test_manifest_head_asks_once() -> None:
    fake = FakeRegistry()
    pushed = fake.add_manifest(REPOSITORY, RAW, "1")

    with client(fake) as registry:
        assert registry.manifest_head(REPOSITORY, "1") == pushed
        assert registry.manifest_head(REPOSITORY, "2") is None
    assert [request.method for request in fake.requests] == ["HEAD", "HEAD"]


@pytest.mark.parametrize(
    "head",
    [
        FakeReply(200, {"Content-Type": media_types.OCI_MANIFEST}),
        FakeReply(200, {"Docker-Content-Digest": "sha256:short", "Content-Type": media_types.OCI_MANIFEST}),
        FakeReply(200, {"Docker-Content-Digest": str(Digest.of(RAW))}),
        FakeReply(405),
    ],
    ids=["no digest", "malformed digest", "no kind", "no HEAD"],
)
def test_manifest_head_says_too_little_asks_for_the_manifest(head: FakeReply) -> None:
    fake = FakeRegistry()
    pushed = fake.add_manifest(REPOSITORY, RAW, "1")
    fake.misbehave("HEAD .*", head)

    with client(fake) as registry:
        assert registry.manifest_head(REPOSITORY, "1") == pushed


def test_manifest_head_other_digest_than_asked() -> None:
    fake = FakeRegistry()
    headers = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(b"other"))}
    fake.misbehave("HEAD .*", FakeReply(200, headers, b"x"))

    with client(fake) as registry, pytest.raises(DigestMismatchError):
        registry.manifest_head(REPOSITORY, str(Digest.of(RAW)))


def test_manifest_put_by_digest_of_other_bytes_sends_nothing() -> None:
    fake = FakeRegistry()

    with client(fake) as registry, pytest.raises(DigestMismatchError):
        registry.manifest_put(REPOSITORY, str(Digest.of(b"other")), MANIFEST)
    assert fake.requests == []


def test_manifest_put_registry_stored_other_bytes() -> None:
    fake = FakeRegistry()
    fake.misbehave("PUT .*", FakeReply(201, {"Docker-Content-Digest": str(Digest.of(b"other"))}))

    with client(fake) as registry, pytest.raises(DigestMismatchError, match="the registry says"):
        registry.manifest_put(REPOSITORY, "1", MANIFEST)


@pytest.mark.parametrize("media_type", ["a\r\nX-Evil: 1", "bl\u00f6d"], ids=["newline", "umlaut"])
def test_manifest_put_kind_that_is_no_header(media_type: str) -> None:
    with client(FakeRegistry()) as registry, pytest.raises(InvalidInputError):
        registry.manifest_put(REPOSITORY, "1", ManifestContent(media_type, RAW))


def test_manifest_put_referrer_with_api_writes_no_tag() -> None:
    fake = FakeRegistry()
    subject = fake.add_manifest(REPOSITORY, RAW, "1")

    with client(fake) as registry:
        registry.manifest_put(REPOSITORY, "sig", signature_of(subject))
        (listed,) = registry.referrer_list(REPOSITORY, subject.digest)
    assert listed.digest == signature_of(subject).digest
    assert set(fake.tags[REPOSITORY]) == {"1", "sig"}


def test_manifest_put_referrer_without_api_keeps_the_tag() -> None:
    fake = FakeRegistry(has_referrers_api=False)
    subject = fake.add_manifest(REPOSITORY, RAW, "1")
    signatures = [signature_of(subject, number) for number in range(3)]

    with client(fake) as registry:
        for signature in (*signatures, signatures[0]):
            registry.manifest_put(REPOSITORY, str(signature.digest), signature)
        listed = registry.referrer_list(REPOSITORY, subject.digest)
        again = registry.referrer_list(REPOSITORY, subject.digest)

    assert [one.digest for one in listed] == [signature.digest for signature in signatures]
    assert listed[0].artifact_type == "application/vnd.example.signature"
    assert dict(listed[2].annotations) == {"number": "2"}
    assert again == listed
    assert f"sha256-{subject.digest.hex}" in fake.tags[REPOSITORY]
    assert len(fake.seen("GET .*/referrers/.*")) == 1


def test_manifest_put_referrers_tag_holds_something_else_is_left() -> None:
    fake = FakeRegistry(has_referrers_api=False)
    subject = fake.add_manifest(REPOSITORY, RAW, "1")
    tag = f"sha256-{subject.digest.hex}"
    fake.add_manifest(REPOSITORY, RAW, tag)

    with client(fake) as registry, pytest.raises(MalformedStateError, match="not an image index"):
        registry.manifest_put(REPOSITORY, "sig", signature_of(subject))
    assert fake.tags[REPOSITORY][tag] == str(Digest.of(RAW))


def test_referrer_list_unknown_repository_is_no_proof_of_a_missing_api() -> None:
    fake = FakeRegistry()
    subject = fake.add_manifest(REPOSITORY, RAW, "1")
    body = b'{"errors":[{"code":"NOT_FOUND","message":"repository not found"}]}'
    fake.misbehave("GET .*/referrers/.*", FakeReply(404, JSON, body))

    with client(fake) as registry:
        assert registry.referrer_list("acme/unknown", subject.digest) == ()
        assert registry.referrer_list(REPOSITORY, subject.digest) == ()
    assert len(fake.seen("GET .*/referrers/.*")) == 2


def test_manifest_delete_not_allowed_says_so() -> None:
    fake = FakeRegistry()
    fake.misbehave("DELETE .*", FakeReply(405, JSON, b'{"errors":[{"code":"UNSUPPORTED","message":"nope"}]}'))

    with client(fake) as registry, pytest.raises(RemoteError, match="does not allow to delete") as caught:
        registry.manifest_delete(REPOSITORY, "1")
    assert caught.value.status == 405


def test_tag_list_follows_pages_and_sorts() -> None:
    fake = FakeRegistry(page_size=2)
    for tag in "edcba":
        fake.add_manifest(REPOSITORY, RAW, tag)

    with client(fake) as registry:
        assert registry.tag_list(REPOSITORY) == ("a", "b", "c", "d", "e")
        assert registry.tag_list("acme/unknown") == ()
    assert len(fake.seen("GET .*acme/app/tags/list")) == 3


def test_tag_list_page_gone_starts_over() -> None:
    fake = FakeRegistry(page_size=1)
    for tag in "ab":
        fake.add_manifest(REPOSITORY, RAW, tag)
    first = {**JSON, "Link": f'</v2/{REPOSITORY}/tags/list?last=gone>; rel="next"'}
    fake.misbehave("GET .*", FakeReply(200, first, b'{"tags":["gone"]}'))
    fake.misbehave("GET .*", FakeReply(404))

    with client(fake) as registry:
        assert registry.tag_list(REPOSITORY) == ("a", "b")


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (f"/v2/{REPOSITORY}/tags/list?n=1000", UntrustedDataError),
        ("/v2/other?x=1", UntrustedDataError),
        ("http://elsewhere.example/", RemoteError),
    ],
    ids=["itself", "circle", "another host"],
)
def test_tag_list_bad_link(link: str, error: type[HarborSatelliteError]) -> None:
    fake = FakeRegistry()
    fake.misbehave("GET .*", FakeReply(200, {"Link": f'<{link}>; rel="next"'}, b'{"tags":["a"]}'), times=99)

    with client(fake) as registry, pytest.raises(error):
        registry.tag_list(REPOSITORY)
    assert len(fake.requests) <= 2


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"tags":"a"}', b'{"tags":[1]}', b"[" * 9999])
def test_tag_list_something_else(body: bytes) -> None:
    fake = FakeRegistry()
    fake.misbehave("GET .*", FakeReply(200, {}, body))

    with client(fake) as registry, pytest.raises(UntrustedDataError):
        registry.tag_list(REPOSITORY)


def test_repository_list_is_sorted() -> None:
    fake = FakeRegistry()
    fake.add_manifest("b", RAW, "1")
    fake.add_blob("a", b"x")

    with client(fake) as registry:
        assert registry.repository_list() == ("a", "b")


def test_cookies_are_never_sent_back() -> None:
    fake = FakeRegistry()

    with client(fake) as registry:
        registry.manifest_put(REPOSITORY, "1", MANIFEST)
        registry.manifest_put(REPOSITORY, "2", MANIFEST)
    assert all("cookie" not in request.headers for request in fake.requests)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_auth_right_credentials(auth: str) -> None:
    fake = FakeRegistry(auth=auth)

    with client(fake, RIGHT) as registry:
        registry.manifest_put(REPOSITORY, "1", MANIFEST)
        assert registry.manifest_get(REPOSITORY, "1") == MANIFEST
        assert registry.manifest_delete(REPOSITORY, "1")
    # Learned once from /v2/: no request is refused first.
    assert len(fake.seen("GET /v2/")) == 1
    assert len(fake.seen("GET /token")) == (3 if auth == "bearer" else 0)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("credentials", [WRONG, None], ids=["wrong", "none"])
def test_auth_wrong_credentials_are_reported_without_a_loop(auth: str, credentials: Credentials | None) -> None:
    fake = FakeRegistry(auth=auth)

    with client(fake, credentials) as registry, pytest.raises(RemoteError, match="401: UNAUTHORIZED") as caught:
        registry.manifest_get(REPOSITORY, "1")
    assert (caught.value.status, caught.value.retryable) == (401, False)
    assert len(fake.requests) <= 3


def test_auth_token_revoked_is_renewed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.registry.auth._RENEWAL_MIN_SECONDS", 0.0)
    fake = FakeRegistry(auth="bearer")
    fake.add_manifest(REPOSITORY, RAW, "1")

    with client(fake, RIGHT) as registry:
        registry.manifest_get(REPOSITORY, "1")
        fake.tokens.update(dict.fromkeys(fake.tokens, ()))
        assert registry.manifest_get(REPOSITORY, "1") == MANIFEST
    assert len(fake.seen("GET /token")) == 2


def test_redirect_of_a_manifest_elsewhere_carries_no_authorization() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.host == "registry.example":
            if "authorization" not in request.headers:
                return httpx.Response(401, headers={"WWW-Authenticate": "Basic"})
            return httpx.Response(307, headers={"Location": "http://store.example/x?signature=secret"})
        return httpx.Response(200, content=RAW)

    transport = httpx.MockTransport(answer)
    with HttpRegistry("http://registry.example", credentials=RIGHT, transport=transport) as registry:
        assert registry.manifest_get(REPOSITORY, "1") == MANIFEST
    assert "authorization" in seen[-2].headers
    assert "authorization" not in seen[-1].headers


@pytest.mark.parametrize(
    ("call", "location"),
    [
        (lambda registry: registry.manifest_get(REPOSITORY, "1"), f"/v2/{REPOSITORY}/manifests/1"),
        (lambda registry: registry.manifest_put(REPOSITORY, "1", MANIFEST), "/elsewhere"),
        (lambda registry: registry.manifest_delete(REPOSITORY, "1"), "/elsewhere"),
    ],
    ids=["circle", "PUT", "DELETE"],
)
def test_redirect_that_is_not_followed(call: Callable[[HttpRegistry], object], location: str) -> None:
    fake = FakeRegistry()
    fake.misbehave(".*", FakeReply(307, {"Location": location}), times=99)

    with client(fake) as registry, pytest.raises(RemoteError, match="redirect"):
        call(registry)
    assert len(fake.requests) <= 6


@pytest.mark.parametrize("reply", [FakeReply(200, hang=True), FakeReply(200, cut_after=1)], ids=["hangs", "cut"])
def test_network_failure_is_retryable(reply: FakeReply) -> None:
    fake = FakeRegistry()
    fake.misbehave(".*", reply)

    with client(fake) as registry, pytest.raises(RemoteError, match=r"pull manifest registry\.example") as caught:
        registry.manifest_get(REPOSITORY, "1")
    assert (caught.value.status, caught.value.retryable) == (None, True)


def test_too_many_requests_says_when() -> None:
    fake = FakeRegistry()
    fake.misbehave(".*", FakeReply(429, {"Retry-After": "12"}))

    with client(fake) as registry, pytest.raises(RemoteError) as caught:
        registry.manifest_get(REPOSITORY, "1")
    assert (caught.value.retryable, caught.value.retry_after_seconds) == (True, 12.0)


@pytest.mark.parametrize("repository", ["", "../x", "A", "a/../b", "a?b"])
def test_repository_name_is_checked(repository: str) -> None:
    fake = FakeRegistry()

    with client(fake) as registry, pytest.raises(InvalidInputError):
        registry.tag_list(repository)
    assert fake.requests == []


def test_counters_and_on_read_see_the_same_bytes() -> None:
    fake = FakeRegistry()
    fake.add_manifest(REPOSITORY, RAW, "1")
    read: list[int] = []

    with HttpRegistry("http://registry.example", transport=fake.transport(), on_read=read.append) as registry:
        registry.manifest_get(REPOSITORY, "1")
        registry.manifest_put(REPOSITORY, "2", MANIFEST)
        counters = registry.counters

    assert (counters.requests, counters.bytes_read, counters.bytes_written) == (2, len(RAW), len(RAW))
    assert sum(read) == len(RAW)


def test_certificate_file_that_is_none() -> None:
    with pytest.raises(InvalidInputError, match="CA file"):
        HttpRegistry("registry.example", verify="/nonexistent.pem")
