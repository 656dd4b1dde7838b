"""Bodies of blobs, over loopback: they go through urllib3."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import DigestMismatchError, InvalidInputError, PausedError, RemoteError, StorageError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.client_api import Timeouts
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.registry.api import BlobStream, Registry

REPOSITORY = "acme/app"
CONTENT = bytes(index % 251 for index in range(700_000))
BLOB = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))
CREDENTIALS = Credentials("robot$edge", SecretStr("made-up-secret"))
BLOB_GET = "GET .*/blobs/.*"


def read(registry: HttpRegistry, offset: int = 0, *, size: int | None = None) -> tuple[int, bytes]:
    with registry.blob_get(REPOSITORY, BLOB.digest, offset, size=size) as stream:
        return stream.offset, b"".join(stream)


def collect(stream: BlobStream, chunks: list[bytes]) -> None:
    for chunk in stream:
        chunks.append(chunk)  # noqa: PERF402 - list() would lose what came before the error


def pieces(content: bytes = CONTENT, size: int = 300_000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@contextmanager
def counted_connections(fake: FakeRegistry, ports: set[int]) -> Iterator[str]:
    """Pass connections on to a fake, and write down the ports that they come from."""
    with fake.serving() as url, socket.create_server(("127.0.0.1", 0)) as listening:
        far_port = int(url.rpartition(":")[2])
        threads: list[threading.Thread] = []

        def pump(one: socket.socket, other: socket.socket) -> None:
            with suppress(OSError):
                while data := one.recv(65536):
                    other.sendall(data)
            for each in (one, other):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, address = listening.accept()
                    ports.add(address[1])
                    far = socket.create_connection(("127.0.0.1", far_port))
                    for pair in ((near, far), (far, near)):
                        threads.append(threading.Thread(target=pump, args=pair))
                        threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


@pytest.fixture
def fake() -> FakeRegistry:
    fake = FakeRegistry()
    fake.add_blob(REPOSITORY, CONTENT)
    return fake


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[HttpRegistry]:
    with fake.serving() as url, HttpRegistry(url, timeouts=Timeouts(connect=2, read=0.3, commit=0.3)) as registry:
        yield registry


def test_blob_get_whole_counts_its_bytes(registry: HttpRegistry) -> None:
    assert read(registry) == (0, CONTENT)
    assert registry.counters.bytes_read == len(CONTENT)


@pytest.mark.parametrize("offset", [1, len(CONTENT) - 1], ids=["second byte", "last byte"])
def test_blob_get_from_offset_asks_for_a_closed_range(fake: FakeRegistry, registry: HttpRegistry, offset: int) -> None:
    assert read(registry, offset) == (offset, CONTENT[offset:])
    (asked,) = fake.seen(BLOB_GET)
    assert asked.headers["range"] == f"bytes={offset}-{len(CONTENT) - 1}"


def test_blob_get_size_known_saves_the_head(fake: FakeRegistry, registry: HttpRegistry) -> None:
    read(registry, 5, size=len(CONTENT))

    assert [request.method for request in fake.requests] == ["GET"]


def test_blob_get_from_the_end_is_empty(fake: FakeRegistry, registry: HttpRegistry) -> None:
    assert read(registry, len(CONTENT)) == (len(CONTENT), b"")
    assert fake.seen(BLOB_GET) == []


def test_blob_get_from_beyond_the_end_starts_over(registry: HttpRegistry) -> None:
    assert read(registry, len(CONTENT) + 1) == (0, CONTENT)


def test_blob_get_below_zero_is_refused(registry: HttpRegistry) -> None:
    with pytest.raises(InvalidInputError):
        read(registry, -1)


@pytest.mark.parametrize(
    "reply",
    [
        FakeReply(200, {}, CONTENT),
        FakeReply(416, {"Content-Range": "bytes */1"}),
        FakeReply(206, {"Content-Range": f"bytes 6-{len(CONTENT) - 1}/{len(CONTENT)}"}, CONTENT[6:]),
        FakeReply(206, {"Content-Range": "bytes 5-9/10"}, CONTENT[5:10]),
        FakeReply(206, {}, CONTENT[5:]),
    ],
    ids=["ignored", "416", "another start", "another size", "no header"],
)
def test_blob_get_range_not_honoured_starts_over(fake: FakeRegistry, registry: HttpRegistry, reply: FakeReply) -> None:
    fake.misbehave(BLOB_GET, reply)

    assert read(registry, 5) == (0, CONTENT)


def test_blob_get_less_than_the_range_ends_early(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.misbehave(BLOB_GET, FakeReply(206, {"Content-Range": f"bytes 5-9/{len(CONTENT)}"}, CONTENT[5:10]))

    with pytest.raises(RemoteError, match=f"after 5 of {len(CONTENT) - 5} bytes") as caught:
        read(registry, 5)
    assert caught.value.retryable


def test_blob_get_cut_gives_all_that_arrived(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.misbehave(BLOB_GET, FakeReply(200, {}, CONTENT, cut_after=100_003))
    got: list[bytes] = []

    with registry.blob_get(REPOSITORY, BLOB.digest) as stream, pytest.raises(RemoteError) as caught:
        collect(stream, got)

    assert caught.value.retryable
    assert "after 100003 bytes" in str(caught.value)
    assert b"".join(got) == CONTENT[:100_003]


def test_blob_get_hanging_times_out(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.misbehave(BLOB_GET, FakeReply(200, hang=True))

    with pytest.raises(RemoteError, match="ReadTimeoutError") as caught:
        read(registry)
    assert caught.value.retryable


def test_blob_get_nobody_listens() -> None:
    with FakeRegistry().serving() as url:
        pass

    with HttpRegistry(url) as registry, pytest.raises(RemoteError, match="Connection refused") as caught:
        read(registry)
    assert caught.value.retryable


def test_blob_get_closed_early_leaves_the_client_usable(registry: HttpRegistry) -> None:
    with registry.blob_get(REPOSITORY, BLOB.digest) as stream:
        next(iter(stream))

    assert read(registry) == (0, CONTENT)


@pytest.mark.parametrize(("status", "is_retryable"), [(404, False), (403, False), (503, True)])
def test_blob_get_refused(fake: FakeRegistry, registry: HttpRegistry, status: int, is_retryable: bool) -> None:  # noqa: FBT001 - table
    fake.misbehave(BLOB_GET, FakeReply(status, {"Retry-After": "3"}, b'{"errors":[{"code":"NO","message":"no"}]}'))

    with pytest.raises(RemoteError, match=f"pull blob .*refused with status {status}: NO: no") as caught:
        read(registry)
    assert (caught.value.status, caught.value.retryable) == (status, is_retryable)
    assert caught.value.retry_after_seconds == 3.0


@pytest.mark.parametrize("offset", [0, 5])
def test_blob_get_redirected_to_a_store_carries_no_authorization(offset: int) -> None:
    store = FakeRegistry()
    store.add_blob(REPOSITORY, CONTENT)
    with store.serving() as store_url:
        fake = FakeRegistry(auth="bearer", redirect_blobs=store_url)
        fake.add_blob(REPOSITORY, CONTENT)
        with fake.serving() as url, HttpRegistry(url, credentials=CREDENTIALS) as registry:
            assert read(registry, offset) == (offset, CONTENT[offset:])

    assert "authorization" in fake.seen(BLOB_GET)[-1].headers
    (at_store,) = store.requests
    assert "authorization" not in at_store.headers
    assert at_store.query["signature"] == ["secret"]


def test_blob_get_store_refuses_keeps_the_signature_secret() -> None:
    store = FakeRegistry()
    with store.serving() as store_url:
        fake = FakeRegistry(redirect_blobs=store_url)
        fake.add_blob(REPOSITORY, CONTENT)
        with fake.serving() as url, HttpRegistry(url) as registry, pytest.raises(RemoteError) as caught:
            read(registry)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_blobs_of_a_registry_with_password(auth: str) -> None:
    fake = FakeRegistry(auth=auth)
    with fake.serving() as url, HttpRegistry(url, credentials=CREDENTIALS) as registry:
        registry.blob_put(REPOSITORY, BLOB, pieces())
        assert read(registry) == (0, CONTENT)


def test_blob_get_anonymous_token_is_fetched_after_the_refusal(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.auth = "bearer"
    fake.basic = "nobody"
    fake.tokens["token-1"] = (f"repository:{REPOSITORY}:pull",)
    fake.misbehave("GET /token", FakeReply(200, {}, b'{"token":"token-1"}'))

    assert read(registry) == (0, CONTENT)


@pytest.mark.parametrize("is_absolute", [True, False], ids=["absolute", "relative"])
def test_blob_put_keeps_the_query_of_the_location(is_absolute: bool) -> None:  # noqa: FBT001 - table
    fake = FakeRegistry(absolute_locations=is_absolute)
    with fake.serving() as url, HttpRegistry(url) as registry:
        registry.blob_put(REPOSITORY, BLOB, pieces())
        assert registry.counters.bytes_written == len(CONTENT)

    assert fake.blobs[REPOSITORY][str(BLOB.digest)] == CONTENT
    (put,) = fake.seen("PUT .*")
    assert put.headers["content-length"] == str(len(CONTENT))
    assert put.query == {"_state": ["a/b="], "digest": [str(BLOB.digest)]}


@pytest.mark.parametrize(
    "algorithm_and_content", [("sha512", CONTENT), ("sha256", b""), ("sha256", b"x")], ids=["sha512", "empty", "byte"]
)
def test_blob_put_other_kinds(
    registry: HttpRegistry, fake: FakeRegistry, algorithm_and_content: tuple[str, bytes]
) -> None:
    algorithm, content = algorithm_and_content
    blob = Descriptor("x", Digest.of(content, algorithm), len(content))

    registry.blob_put(REPOSITORY, blob, pieces(content))

    assert fake.blobs[REPOSITORY][str(blob.digest)] == content
    assert ("digest-algorithm" in fake.seen("POST .*")[0].query) == (algorithm == "sha512")


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1] + b"!", CONTENT[:-1], CONTENT + b"!", b"", b"!" * len(CONTENT)],
    ids=["last byte", "too short", "too long", "nothing", "all wrong"],
)
def test_blob_put_wrong_bytes_never_completes(fake: FakeRegistry, registry: HttpRegistry, content: bytes) -> None:
    fake.blobs.clear()

    with pytest.raises(DigestMismatchError, match=r"push blob 127\.0\.0\.1"):
        registry.blob_put(REPOSITORY, BLOB, pieces(content))

    assert fake.seen("PUT .*") == []
    assert fake.blobs.get(REPOSITORY, {}) == {}
    assert fake.sessions == set()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(OSError(5, "Input/output error"), StorageError), (RemoteError("source is gone", retryable=True), RemoteError)],
    ids=["disk", "source registry"],
)
def test_blob_put_chunks_fail_cancels_the_upload(
    fake: FakeRegistry, registry: HttpRegistry, raised: Exception, expected: type[Exception]
) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[:400_000]
        raise raised

    with pytest.raises(expected, match=r"Input/output error|source is gone"):
        registry.blob_put(REPOSITORY, BLOB, chunks())

    assert fake.seen("PUT .*") == []
    assert len(fake.seen("DELETE .*/uploads/.*")) == 1


@pytest.mark.parametrize(("status", "is_retryable"), [(400, False), (401, False), (507, False), (503, True)])
def test_blob_put_refused(fake: FakeRegistry, registry: HttpRegistry, status: int, is_retryable: bool) -> None:  # noqa: FBT001 - table
    fake.misbehave("PUT .*", FakeReply(status))

    with pytest.raises(RemoteError, match=f"push blob .*refused with status {status}") as caught:
        registry.blob_put(REPOSITORY, BLOB, pieces())
    assert (caught.value.status, caught.value.retryable) == (status, is_retryable)


def test_blob_put_registry_never_answers(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.misbehave("PUT .*", FakeReply(201, hang=True))

    with pytest.raises(RemoteError, match="ReadTimeoutError") as caught:
        registry.blob_put(REPOSITORY, BLOB, pieces())
    assert caught.value.retryable


def test_blob_put_location_elsewhere_carries_no_authorization() -> None:
    store = FakeRegistry()
    store.misbehave("PUT .*", FakeReply(201))
    fake = FakeRegistry(auth="basic")
    with store.serving() as store_url, fake.serving() as url, HttpRegistry(url, credentials=CREDENTIALS) as registry:
        fake.upload_host = store_url
        registry.blob_put(REPOSITORY, BLOB, pieces())

    (put,) = store.requests
    assert "authorization" not in put.headers
    assert put.body == CONTENT


def test_blob_put_no_location(fake: FakeRegistry, registry: HttpRegistry) -> None:
    fake.misbehave("POST .*", FakeReply(202))

    with pytest.raises(RemoteError, match="does not say where"):
        registry.blob_put(REPOSITORY, BLOB, pieces())


def test_blob_put_many_blobs_share_a_connection(fake: FakeRegistry) -> None:
    ports: set[int] = set()

    with counted_connections(fake, ports) as url, HttpRegistry(url) as registry:
        for content in (b"one", b"two", b"three"):
            registry.blob_put(REPOSITORY, Descriptor("x", Digest.of(content), len(content)), [content])

    assert len(ports) == 1


def test_blob_upload_of_what_is_missing_takes_the_blob(fake: FakeRegistry, registry: HttpRegistry) -> None:
    upload = registry.blob_upload("acme/other", BLOB.digest)

    assert upload is not None
    with upload:
        upload.put(BLOB, pieces())
    assert fake.blobs["acme/other"][str(BLOB.digest)] == CONTENT
    assert [request.method for request in fake.requests] == ["POST", "PUT"]


def test_blob_upload_second_put_opens_another(fake: FakeRegistry, registry: HttpRegistry) -> None:
    upload = registry.blob_upload("acme/other", BLOB.digest)

    assert upload is not None
    with upload:
        with pytest.raises(DigestMismatchError):
            upload.put(BLOB, [b"damaged"])
        upload.put(BLOB, pieces())
    assert fake.blobs["acme/other"][str(BLOB.digest)] == CONTENT


def test_blob_upload_of_what_is_there_opens_none(registry: HttpRegistry) -> None:
    assert registry.blob_upload(REPOSITORY, BLOB.digest) is None


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_blob_upload_mount_refused_leaves_the_answer_to_a_look(
    fake: FakeRegistry, registry: HttpRegistry, status: int
) -> None:
    fake.misbehave("POST .*", FakeReply(status))

    assert registry.blob_upload("acme/other", BLOB.digest) is None


def test_blob_upload_nothing_put_is_given_up(fake: FakeRegistry, registry: HttpRegistry) -> None:
    upload = registry.blob_upload("acme/other", BLOB.digest)

    assert upload is not None
    with pytest.raises(RemoteError), upload:
        raise RemoteError("the source is gone")
    assert len(fake.seen("DELETE .*/uploads/.*")) == 1


def test_blob_mount_known_and_unknown(fake: FakeRegistry, registry: HttpRegistry) -> None:
    assert registry.blob_mount("acme/other", BLOB.digest, REPOSITORY)
    assert registry.blob_head("acme/other", BLOB.digest) == len(CONTENT)
    assert not registry.blob_mount("acme/other", Digest.of(b"unknown"), REPOSITORY)
    # The upload that the registry opened instead was cancelled.
    assert fake.sessions == set()


def test_blob_mount_asks_for_both_repositories() -> None:
    fake = FakeRegistry(auth="bearer")
    fake.add_blob(REPOSITORY, CONTENT)
    with fake.serving() as url, HttpRegistry(url, credentials=CREDENTIALS) as registry:
        assert registry.blob_mount("acme/other", BLOB.digest, REPOSITORY)

    scopes = fake.seen("GET /token")[0].query["scope"]
    assert scopes == ["repository:acme/app:pull", "repository:acme/other:pull,push"]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_blob_mount_refused_is_false(fake: FakeRegistry, registry: HttpRegistry, status: int) -> None:
    fake.misbehave("POST .*", FakeReply(status))

    assert not registry.blob_mount("acme/other", BLOB.digest, REPOSITORY)


def test_blob_mount_token_refused_is_false() -> None:
    fake = FakeRegistry(auth="bearer")
    fake.misbehave("GET /token", FakeReply(403))
    with fake.serving() as url, HttpRegistry(url, credentials=CREDENTIALS) as registry:
        assert not registry.blob_mount("acme/other", BLOB.digest, REPOSITORY)


def test_blob_delete_twice(registry: HttpRegistry) -> None:
    assert registry.blob_delete(REPOSITORY, BLOB.digest)
    assert not registry.blob_delete(REPOSITORY, BLOB.digest)
    assert registry.blob_head(REPOSITORY, BLOB.digest) is None


def test_blobs_from_many_threads(registry: HttpRegistry) -> None:
    contents = [bytes([number]) * 50_000 for number in range(24)]
    blobs = [Descriptor("x", Digest.of(content), len(content)) for content in contents]

    def there_and_back(number: int) -> bytes:
        registry.blob_put(REPOSITORY, blobs[number], pieces(contents[number]))
        with registry.blob_get(REPOSITORY, blobs[number].digest) as stream:
            return b"".join(stream)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(there_and_back, range(24))) == contents


def test_on_read_that_raises_ends_the_read(fake: FakeRegistry) -> None:
    def refuse(_count: int) -> None:
        raise StorageError("the budget of the day is spent")

    with fake.serving() as url, HttpRegistry(url, on_read=refuse) as registry, pytest.raises(StorageError):
        read(registry)


def test_on_read_that_raises_leaves_what_arrived_to_the_reader(fake: FakeRegistry) -> None:
    def refuse(_count: int) -> None:
        raise PausedError("outside the sync windows")

    got: list[bytes] = []
    with fake.serving() as url, HttpRegistry(url, on_read=refuse) as registry:
        with registry.blob_get(REPOSITORY, BLOB.digest) as stream, pytest.raises(PausedError):
            collect(stream, got)

        assert len(got) == 1
        assert len(got[0]) == registry.counters.bytes_read > 0
    assert CONTENT.startswith(got[0])


def test_on_read_may_be_replaced(registry: HttpRegistry) -> None:
    first: list[int] = []
    second: list[int] = []

    registry.on_read = first.append
    read(registry)
    registry.on_read = second.append
    read(registry)
    registry.on_read = None
    read(registry)

    assert sum(first) == sum(second) == len(CONTENT)


def test_receive_buffer_keeps_the_peer_waiting_and_pieces_small() -> None:
    content = bytes(20_000_000)
    blob = Descriptor("x", Digest.of(content), len(content))
    sent: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
                connection.settimeout(0.5)
                with suppress(OSError):
                    while True:
                        sent.append(connection.send(content[:65536]))

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            HttpRegistry(url, receive_buffer_bytes=128 * 1024) as registry,
            registry.blob_get(REPOSITORY, blob.digest) as stream,
        ):
            chunk = next(iter(stream))
            thread.join()  # nobody reads: it sends until both buffers are full

    assert 0 < len(chunk) <= 64 * 1024
    assert sum(sent) < 2_000_000


@pytest.mark.parametrize("receive_buffer_bytes", [None, 65536])
def test_receive_buffer_is_no_matter_for_what_arrives(fake: FakeRegistry, receive_buffer_bytes: int | None) -> None:
    with fake.serving() as url, HttpRegistry(url, receive_buffer_bytes=receive_buffer_bytes) as registry:
        assert registry.blob_head(REPOSITORY, BLOB.digest) == len(CONTENT)
        assert read(registry) == (0, CONTENT)


def test_requests_in_a_row_use_one_connection(fake: FakeRegistry) -> None:
    store = FakeRegistry()
    store.add_blob(REPOSITORY, CONTENT)
    ports: set[int] = set()
    with store.serving() as store_url:
        fake.redirect_blobs = store_url
        with counted_connections(fake, ports) as url, HttpRegistry(url) as registry:
            for _ in range(3):
                assert registry.blob_head(REPOSITORY, BLOB.digest) == len(CONTENT)
                assert registry.blob_head(REPOSITORY, Digest.of(b"unknown")) is None
                assert read(registry) == (0, CONTENT)

    assert len(ports) == 1


@pytest.mark.parametrize("userinfo", ["", "edge:p%40ss@"], ids=["open", "with password"])
def test_proxy_of_the_environment_is_used_for_all(
    fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, userinfo: str
) -> None:
    with fake.serving() as url:
        monkeypatch.setenv("http_proxy", url.replace("://", f"://{userinfo}"))
        with HttpRegistry("http://registry.invalid") as registry:
            assert registry.blob_head(REPOSITORY, BLOB.digest) == len(CONTENT)
            assert read(registry) == (0, CONTENT)

    given = {request.headers.get("proxy-authorization") for request in fake.requests}
    assert given == ({"Basic ZWRnZTpwQHNz"} if userinfo else {None})


def test_proxy_is_passed_by_where_the_environment_says_so(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    with fake.serving() as url, HttpRegistry(url) as registry:
        assert registry.blob_head(REPOSITORY, BLOB.digest) == len(CONTENT)
        assert read(registry) == (0, CONTENT)


def test_registry_protocol_is_kept(registry: HttpRegistry) -> None:
    as_protocol: Registry = registry

    assert as_protocol.name.startswith("127.0.0.1:")
