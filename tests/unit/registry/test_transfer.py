"""Going on where a body was cut: from a registry that misbehaves, and by arithmetic over many cuts and reboots."""

from __future__ import annotations

import random
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, PausedError, RemoteError, StorageError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.partials import PartialFolder
from harbor_satellite.registry.transfer import BARREN_MAX, RESTARTS_MAX, Transfer
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REPOSITORY = "acme/app"
CONTENT = bytes(index % 251 for index in range(700_000))
BLOB = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))
BLOB_GET = "GET .*/blobs/.*"
STEP = 64 * 1024


class Store:
    """Takes a blob as a target does: nothing is kept unless it is right."""

    def __init__(self, blob: Descriptor = BLOB) -> None:
        self.blob = blob
        self.content: bytes | None = None
        self.calls = 0

    def __call__(self, chunks: Iterable[bytes]) -> None:
        self.calls += 1
        content = b"".join(chunks)
        self.blob.digest.verify(content, "the blob")
        self.content = content


@pytest.fixture
def fake() -> FakeRegistry:
    fake = FakeRegistry()
    fake.add_blob(REPOSITORY, CONTENT)
    return fake


@pytest.fixture
def source(fake: FakeRegistry) -> Iterator[HttpRegistry]:
    with fake.serving() as url, HttpRegistry(url) as registry:
        yield registry


@pytest.fixture
def partials(tmp_path: Path) -> PartialFolder:
    return PartialFolder(tmp_path / "partials")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def store() -> Store:
    return Store()


def cut(after: int, start: int = 0) -> FakeReply:
    """Answer from ``start`` on, and cut the connection after some bytes."""
    if not start:
        return FakeReply(200, {}, CONTENT, cut_after=after)
    headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return FakeReply(206, headers, CONTENT[start:], cut_after=after)


def ranges(fake: FakeRegistry) -> list[str]:
    return [request.headers.get("range", "") for request in fake.seen(BLOB_GET)]


def keep(partials: PartialFolder, content: bytes) -> None:
    with partials.open(BLOB) as partial:
        partial.append(content)


def held(partials: PartialFolder) -> bytes:
    with partials.open(BLOB) as partial:
        return b"".join(partial.chunks())


def test_bring_whole_blob_leaves_no_part(source: HttpRegistry, partials: PartialFolder, store: Store) -> None:
    seen: list[int] = []

    read = Transfer(source, partials, seen.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert read == sum(seen) == len(CONTENT)
    assert partials.held_bytes() == 0


def test_bring_cut_goes_on_at_once_by_closed_ranges(
    fake: FakeRegistry, source: HttpRegistry, store: Store, waits: list[float]
) -> None:
    fake.misbehave(BLOB_GET, cut(100_000))
    fake.misbehave(BLOB_GET, cut(200_000, 100_000))

    read = Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    end = len(CONTENT) - 1
    assert (store.content, store.calls) == (CONTENT, 1)
    assert ranges(fake) == ["", f"bytes=100000-{end}", f"bytes=300000-{end}"]
    assert (read, waits) == (len(CONTENT), [])


def test_bring_source_gone_backs_off_and_keeps_what_arrived(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store, waits: list[float]
) -> None:
    fake.misbehave(BLOB_GET, cut(100_000))
    fake.misbehave(BLOB_GET, FakeReply(503), times=20)

    with pytest.raises(RemoteError, match="503") as caught:
        Transfer(source, partials, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert caught.value.retryable
    assert len(ranges(fake)) == 1 + BARREN_MAX
    assert waits == [0.2, 0.5, 1.0, 2.0]
    assert held(partials) == CONTENT[:100_000]


def test_bring_bytes_between_refusals_start_the_count_anew(
    fake: FakeRegistry, source: HttpRegistry, store: Store, waits: list[float]
) -> None:
    start = 0
    for _ in range(3):
        fake.misbehave(BLOB_GET, cut(1000, start))
        start += 1000
        fake.misbehave(BLOB_GET, FakeReply(502), times=BARREN_MAX - 1)

    Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert waits == [0.2, 0.5, 1.0, 2.0] * 3


@pytest.mark.parametrize("asked_and_waited", [("7", 7.0), ("600", 30.0), ("0", 0.2)])
def test_bring_refused_waits_as_asked_within_reason(
    fake: FakeRegistry, source: HttpRegistry, store: Store, waits: list[float], asked_and_waited: tuple[str, float]
) -> None:
    asked, waited = asked_and_waited
    fake.misbehave(BLOB_GET, cut(1000))
    fake.misbehave(BLOB_GET, FakeReply(429, {"Retry-After": asked}))

    Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert waits == [waited]


@pytest.mark.parametrize("status", [503, 404])
def test_bring_refused_before_any_byte_is_left_to_the_caller(
    fake: FakeRegistry, source: HttpRegistry, store: Store, waits: list[float], status: int
) -> None:
    fake.misbehave(BLOB_GET, FakeReply(status))

    with pytest.raises(RemoteError):
        Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert (len(ranges(fake)), waits) == (1, [])


def test_bring_refused_for_good_in_the_middle_raises(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store, waits: list[float]
) -> None:
    fake.misbehave(BLOB_GET, cut(1000))
    fake.misbehave(BLOB_GET, FakeReply(403))

    with pytest.raises(RemoteError) as caught:
        Transfer(source, partials, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert (caught.value.status, waits) == (403, [])
    assert held(partials) == CONTENT[:1000]


def test_bring_source_without_ranges_skips_what_is_given_out(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store, waits: list[float]
) -> None:
    fake.misbehave(BLOB_GET, cut(100_000))
    fake.misbehave(BLOB_GET, cut(300_000))  # 200 to a Range
    fake.misbehave(BLOB_GET, FakeReply(200, {}, CONTENT))

    read = Transfer(source, partials, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert read == 100_000 + 300_000 + len(CONTENT)


def test_bring_source_without_ranges_is_not_asked_for_ever(
    fake: FakeRegistry, source: HttpRegistry, store: Store, waits: list[float]
) -> None:
    for step in range(1, 20):
        fake.misbehave(BLOB_GET, cut(step * 1000))

    with pytest.raises(RemoteError, match="no ranges") as caught:
        Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert caught.value.retryable
    assert len(ranges(fake)) == RESTARTS_MAX + 2
    assert store.content is None


def test_bring_token_expired_in_the_middle_is_renewed(store: Store, waits: list[float]) -> None:
    fake = FakeRegistry(auth="bearer")
    fake.add_blob(REPOSITORY, CONTENT)
    # good_until is reached at once: each reopening asks for another token.
    fake.token_seconds = 0.0001
    fake.misbehave(BLOB_GET, cut(100_000))
    credentials = Credentials("robot$edge", SecretStr("made-up-secret"))

    with fake.serving() as url, HttpRegistry(url, credentials=credentials) as source:
        Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    used = [request.headers["authorization"] for request in fake.seen(BLOB_GET)]
    assert len(used) == len(set(used)) == 2


def test_bring_presigned_address_expired_in_the_middle_is_asked_for_again(store: Store, waits: list[float]) -> None:
    stores = [FakeRegistry(), FakeRegistry()]
    for one in stores:
        one.add_blob(REPOSITORY, CONTENT)
    stores[0].misbehave(BLOB_GET, cut(100_000))
    stores[0].misbehave(BLOB_GET, FakeReply(403), times=20)  # the signature has expired
    with stores[0].serving() as first, stores[1].serving() as second:
        fake = FakeRegistry()
        fake.add_blob(REPOSITORY, CONTENT)
        path = f"/v2/{REPOSITORY}/blobs/{BLOB.digest}"
        fake.misbehave(BLOB_GET, FakeReply(307, {"Location": f"{first}{path}"}))
        fake.misbehave(BLOB_GET, FakeReply(307, {"Location": f"{second}{path}"}))
        with fake.serving() as url, HttpRegistry(url) as source:
            Transfer(source, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert ranges(stores[1]) == [f"bytes=100000-{len(CONTENT) - 1}"]


def test_bring_paused_ends_at_once_and_loses_nothing(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, waits: list[float]
) -> None:
    def pause(_count: int) -> None:
        raise PausedError("outside the sync windows")

    interrupted, store = Store(), Store()
    source.on_read = pause
    with pytest.raises(PausedError):
        Transfer(source, partials, sleep=waits.append).bring(REPOSITORY, BLOB, interrupted)
    arrived = source.counters.bytes_read
    assert 0 < partials.held_bytes() == arrived
    source.on_read = None

    read = Transfer(source, partials, sleep=waits.append).bring(REPOSITORY, BLOB, store)

    assert store.content == CONTENT
    assert read == len(CONTENT) - arrived
    assert len(ranges(fake)) == (2 if read else 1)
    assert waits == []


def test_bring_from_a_part_reads_the_rest(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store
) -> None:
    keep(partials, CONTENT[:300_000])

    read = Transfer(source, partials).bring(REPOSITORY, BLOB, store)

    assert (store.content, read) == (CONTENT, 400_000)
    assert [request.method for request in fake.requests] == ["GET"]
    assert partials.held_bytes() == 0


def test_bring_from_a_whole_part_asks_nobody(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store
) -> None:
    keep(partials, CONTENT)

    assert Transfer(source, partials).bring(REPOSITORY, BLOB, store) == 0
    assert (store.content, fake.requests) == (CONTENT, [])


def test_bring_from_a_damaged_part_starts_over_once(
    source: HttpRegistry, partials: PartialFolder, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    keep(partials, b"!" * 300_000)

    read = Transfer(source, partials).bring(REPOSITORY, BLOB, store)

    assert (store.content, store.calls, read) == (CONTENT, 2, len(CONTENT))
    assert "starts over" in caplog.text


@pytest.mark.parametrize("part", [0, 1000], ids=["nothing at hand", "a part at hand"])
def test_bring_wrong_bytes_from_the_source_are_not_fetched_again(
    fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder, store: Store, part: int
) -> None:
    fake.blobs[REPOSITORY][str(BLOB.digest)] = CONTENT[:-1] + b"!"
    keep(partials, CONTENT[:part])

    with pytest.raises(DigestMismatchError):
        Transfer(source, partials).bring(REPOSITORY, BLOB, store)

    assert len(ranges(fake)) == (2 if part else 1)
    assert partials.held_bytes() == 0


def test_bring_target_fails_keeps_what_arrived(source: HttpRegistry, partials: PartialFolder) -> None:
    def full(chunks: Iterable[bytes]) -> None:
        next(iter(chunks))
        raise StorageError("no space left")

    with pytest.raises(StorageError):
        Transfer(source, partials).bring(REPOSITORY, BLOB, full)

    assert 0 < partials.held_bytes() == source.counters.bytes_read


def test_bring_blob_of_no_bytes_asks_nobody(fake: FakeRegistry, source: HttpRegistry, partials: PartialFolder) -> None:
    empty = Descriptor("x", Digest.of(b""), 0)
    store = Store(empty)

    Transfer(source, partials).bring(REPOSITORY, empty, store)

    assert (store.content, fake.requests) == (b"", [])


class Killed(BaseException):
    """The process ends here."""


class Stream:
    def __init__(self, offset: int, chunks: Iterator[bytes]) -> None:
        self.offset = offset
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


class UnsteadySource:
    """Serves one blob over connections that are cut wherever the script says; ranges are honoured or not."""

    name = "source.test"

    def __init__(self, content: bytes, lengths: Iterator[int], has_ranges: Iterator[bool]) -> None:
        self._content = content
        self._lengths = lengths
        self._has_ranges = has_ranges
        self.sent = 0
        self.repeated = 0

    @contextmanager
    def blob_get(self, _repository: str, _digest: Digest, offset: int = 0) -> Iterator[Stream]:
        start = offset if next(self._has_ranges) else 0
        self.repeated += offset - start
        yield Stream(start, self._body(start, start + next(self._lengths)))

    def _body(self, position: int, end: int) -> Iterator[bytes]:
        while position < min(end, len(self._content)):
            chunk = self._content[position : min(position + 10_000, end)]
            self.sent += len(chunk)
            position += len(chunk)
            yield chunk
        if position < len(self._content):
            raise RemoteError("cut", retryable=True)


def store_until(blob: Descriptor, end: int) -> Callable[[Iterable[bytes]], None]:
    """Take a blob, and be killed after so many bytes."""

    def store(chunks: Iterable[bytes]) -> None:
        content = b""
        for chunk in chunks:
            content += chunk
            if len(content) > end:
                raise Killed
        blob.digest.verify(content, "the blob")

    return store


def lose_power(folder: Path, chance: random.Random) -> None:
    """Leave of each partial file what was synced, and garbage or nothing in place of the rest."""
    for path in folder.glob("sha256-*"):
        content = path.read_bytes()
        safe = max(len(content) - 1, 0) // STEP * STEP
        path.write_bytes(content[:safe] + b"\0" * chance.randint(min(1, len(content) - safe), len(content) - safe))


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(131_072, 400_000),
    seed=st.integers(0, 2**32),
    ends=st.lists(st.tuples(st.integers(0, 450_000), st.booleans()), max_size=8),
    steadiness=st.sampled_from([5_000, 60_000, 300_000, 10**9]),
    range_chance=st.sampled_from([0.9, 1.0]),
)
def test_bring_any_cuts_kills_and_reboots_deliver_the_blob_and_cost_little(
    size: int, seed: int, ends: list[tuple[int, bool]], steadiness: int, range_chance: float
) -> None:
    chance = random.Random(seed)  # noqa: S311 - chance, no secret
    content = chance.randbytes(size)
    blob = Descriptor("x", Digest.of(content), size)
    lengths = (chance.randint(0, steadiness) for _ in iter(int, 1))
    source = UnsteadySource(content, lengths, (chance.random() < range_chance for _ in iter(int, 1)))
    boot = reboots = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "partials")

        def run(end: int) -> bool:
            partials = PartialFolder(folder, sync_bytes=STEP, boot_id=lambda: f"boot-{boot}")
            try:
                Transfer(source, partials, sleep=lambda _: None).bring("app", blob, store_until(blob, end))
            except (Killed, HarborSatelliteError):
                return False
            return True

        is_done = False
        for end, is_reboot in ends:
            is_done = is_done or run(end)
            if is_reboot and not is_done:
                lose_power(folder, chance)
                boot, reboots = boot + 1, reboots + 1
        for _ in range(500):
            is_done = is_done or run(size)

    assert is_done
    # A reboot costs a step of each file; a source without ranges sends again what it was not asked for.
    assert source.sent <= size + reboots * STEP + source.repeated
