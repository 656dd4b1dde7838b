"""Packed bodies: the same for the same body, and unpacked within bounds whatever came."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from harbor_satellite.errors import SizeLimitError, UntrustedDataError
from harbor_satellite.state.packed import pack, pays, takes_packed, unpack

BODY = b'{"name":"replicate-state","state":"COMPLETED"}' * 40


def test_pack_is_smaller_the_same_each_time_and_read_by_others() -> None:
    assert pack(BODY) == pack(BODY)
    assert len(pack(BODY)) < len(BODY) / 10
    assert gzip.decompress(pack(BODY)) == BODY


@pytest.mark.parametrize("body", [b"", b"a", BODY], ids=["empty", "one byte", "many"])
def test_unpack_of_what_fits_exactly_is_the_body(body: bytes) -> None:
    assert unpack(pack(body), len(body)) == body


def test_unpack_of_one_byte_too_many_is_refused() -> None:
    with pytest.raises(SizeLimitError, match="larger than 1839 bytes"):
        unpack(pack(BODY), len(BODY) - 1)


def test_unpack_of_a_bomb_takes_no_more_memory_than_may_be_unpacked() -> None:
    bomb = pack(b"\0" * 50_000_000)

    tracemalloc.start()
    try:
        with pytest.raises(SizeLimitError):
            unpack(bomb, 100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


@pytest.mark.parametrize(
    "packed",
    [b"", b"\x1f\x8b", b"no gzip", pack(BODY)[:-1], pack(BODY)[:30], pack(BODY) + pack(BODY), pack(BODY) + b"x"],
    ids=["nothing", "a head", "another thing", "no end", "cut", "twice", "more after it"],
)
def test_unpack_of_what_can_be_read_in_another_way_or_not_at_all_is_refused(packed: bytes) -> None:
    with pytest.raises(UntrustedDataError):
        unpack(packed, 1_000_000)


def test_unpack_of_damaged_content_is_refused() -> None:
    packed = bytearray(pack(BODY))
    packed[-6] ^= 1  # of its checksum

    with pytest.raises(UntrustedDataError):
        unpack(bytes(packed), 1_000_000)


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("", False),
        ("identity", False),
        ("x-gzip2", False),
    ],
)
def test_takes_packed_reads_the_header_as_http_has_it(header: str, is_taken: bool) -> None:  # noqa: FBT001
    assert takes_packed(header) is is_taken


def test_packing_pays_only_beyond_what_its_header_costs() -> None:
    assert not pays(b"a" * 512)
    assert pays(b"a" * 513)
