"""Bundles on the disk: written in a stream, split, read at any place, and never believed when damaged."""

from __future__ import annotations

import json
import random
import tarfile
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import DigestMismatchError, InvalidInputError, RemoteError, StorageError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.bundle_format import (
    CONTENTS_PATH,
    LAYOUT,
    REF_NAME,
    REFERRER_SUBJECT,
    BundleContents,
    BundleEnd,
    BundleError,
    Segment,
    contents_json,
    end_block,
    member_header,
    padding,
)
from harbor_satellite.registry.bundle_registry import BundleRegistry
from harbor_satellite.registry.bundle_writer import BundleWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PART = 64 * 1024
CONTENT = [random.Random(size).randbytes(size) for size in (0, 1, 511, 512, 513, 200_000, 70_000)]  # noqa: S311  (content)


def described(content: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(content, algorithm), len(content))


def image(config: bytes, *layers: bytes, media_type: str = media_types.OCI_MANIFEST) -> ManifestContent:
    document = {
        "schemaVersion": 2,
        **({"mediaType": media_type} if media_type else {}),
        "config": descriptor_json(described(config)),
        "layers": [descriptor_json(described(item)) for item in layers],
    }
    return ManifestContent(media_type or media_types.OCI_MANIFEST, json.dumps(document).encode())


def write(path: Path, part_bytes: int | None = None) -> tuple[Path, ...]:
    with BundleWriter(path, part_bytes) as writer:
        for content in CONTENT:
            writer.add_blob(described(content), [content[:100], content[100:]])
        manifest = image(CONTENT[1], CONTENT[5])
        writer.add_manifest(manifest.digest, manifest)
        root = Descriptor(manifest.media_type, manifest.digest, len(manifest.raw))
        writer.add_name("acme/app", "v1", root)
        writer.add_name("acme/app", str(manifest.digest), root)
        return writer.finish({"a": "b"})


def read(registry: BundleRegistry, content: bytes, offset: int = 0) -> bytes:
    with registry.blob_get("any/where", Digest.of(content), offset) as stream:
        assert stream.offset == offset
        return b"".join(stream)


@pytest.mark.parametrize("part_bytes", [None, PART, PART + 1], ids=["whole", "split", "split-unevenly"])
def test_bundle_written_reads_back_from_any_offset(tmp_path: Path, part_bytes: int | None) -> None:
    paths = write(tmp_path / "bundle.tar", part_bytes)

    with BundleRegistry(paths[0]) as registry:
        registry.check()

        assert all(read(registry, content) == content for content in CONTENT)
        assert read(registry, CONTENT[5], 199_999) == CONTENT[5][199_999:]
        assert registry.blob_head("x", Digest.of(CONTENT[5])) == 200_000
        assert registry.manifest_get("acme/app", "v1") == image(CONTENT[1], CONTENT[5])
        assert registry.tag_list("acme/app") == ("v1",)
        assert registry.repository_list() == ("acme/app",)
        assert registry.annotations == {"a": "b"}


def test_bundle_split_keeps_parts_within_size_and_joins_to_plain_tar(tmp_path: Path) -> None:
    paths = write(tmp_path / "bundle.tar", PART)

    assert [path.name for path in paths] == [f"bundle.tar.{number:03}" for number in range(len(paths))]
    assert len(paths) > 4
    assert all(path.stat().st_size <= PART for path in paths)
    (tmp_path / "joined.tar").write_bytes(b"".join(path.read_bytes() for path in paths))
    with tarfile.open(tmp_path / "joined.tar") as archive:
        assert archive.getnames()[0] == "oci-layout"
        assert "index.json" in archive.getnames()
        layer = archive.extractfile(f"blobs/sha256/{Digest.of(CONTENT[5]).hex}")
        assert layer is not None
        assert layer.read() == CONTENT[5]


def test_bundle_same_content_same_bytes(tmp_path: Path) -> None:
    (first,), (second,) = write(tmp_path / "one.tar"), write(tmp_path / "two.tar")

    assert first.read_bytes() == second.read_bytes()


def test_bundle_sha512_blob_reads_back(tmp_path: Path) -> None:
    descriptor = described(CONTENT[6], "sha512")
    with BundleWriter(tmp_path / "b.tar") as writer:
        writer.add_blob(descriptor, [CONTENT[6]])
        writer.finish({})

    with BundleRegistry(tmp_path / "b.tar") as registry, registry.blob_get("x", descriptor.digest) as stream:
        assert b"".join(stream) == CONTENT[6]


def test_bundle_manifest_without_media_type_keeps_the_one_it_was_sent_with(tmp_path: Path) -> None:
    manifest = image(CONTENT[1], media_type="")
    with BundleWriter(tmp_path / "b.tar") as writer:
        writer.add_manifest(manifest.digest, manifest)
        writer.finish({})

    with BundleRegistry(tmp_path / "b.tar") as registry:
        assert registry.manifest_get("x", str(manifest.digest)) == manifest


def test_bundle_lists_referrer_once_in_its_repository(tmp_path: Path) -> None:
    manifest = image(CONTENT[1])
    referrer = Descriptor(manifest.media_type, manifest.digest, len(manifest.raw), artifact_type="application/x")
    subject = Digest.of(b"subject")
    with BundleWriter(tmp_path / "b.tar") as writer:
        writer.add_manifest(manifest.digest, manifest)
        writer.add_referrer("acme/app", subject, referrer)
        writer.add_referrer("acme/app", subject, referrer)
        writer.finish({})

    with BundleRegistry(tmp_path / "b.tar") as registry:
        (found,) = registry.referrer_list("acme/app", subject)
        assert (found.digest, found.artifact_type) == (manifest.digest, "application/x")
        assert registry.referrer_list("acme/other", subject) == ()
        assert registry.tag_list("acme/app") == ()


def test_registry_absent_content_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "b.tar")
    absent = Digest.of(b"absent")

    with BundleRegistry(tmp_path / "b.tar") as registry:
        assert registry.blob_head("x", absent) is None
        assert registry.manifest_head("acme/app", "v2") is None
        assert registry.manifest_head("acme/app", str(absent)) is None
        with pytest.raises(RemoteError, match=f"acme/app@{absent} is not in b.tar") as caught:
            registry.manifest_get("acme/app", str(absent))
        assert caught.value.status == 404


def test_registry_write_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "b.tar")

    with BundleRegistry(tmp_path / "b.tar") as registry, pytest.raises(RemoteError, match="only read") as caught:
        registry.manifest_put("acme/app", "v1", image(CONTENT[1]))
    assert caught.value.status == 405


def broken(content: bytes) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    raise RemoteError("cut", retryable=True)


def test_writer_blob_cut_leaves_no_trace_across_parts(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b.tar", PART) as writer:
        writer.add_blob(described(CONTENT[6]), [CONTENT[6]])
        before = writer.size
        with pytest.raises(RemoteError, match="cut"):
            writer.add_blob(described(CONTENT[5]), broken(CONTENT[5]))
        assert writer.size == before
        assert not writer.holds(Digest.of(CONTENT[5]))
        writer.add_blob(described(CONTENT[4]), [CONTENT[4]])
        paths = writer.finish({})

    with BundleRegistry(paths[0]) as registry:
        registry.check()
        assert registry.blob_head("x", Digest.of(CONTENT[5])) is None
        assert read(registry, CONTENT[6]) == CONTENT[6]
        assert read(registry, CONTENT[4]) == CONTENT[4]


@pytest.mark.parametrize(
    "sent", [CONTENT[5][:-1], CONTENT[5] + b"x", CONTENT[5][:-1] + b"x"], ids=["short", "long", "other"]
)
def test_writer_blob_with_other_bytes_is_refused(tmp_path: Path, sent: bytes) -> None:
    with BundleWriter(tmp_path / "b.tar") as writer:
        with pytest.raises(DigestMismatchError, match=str(Digest.of(CONTENT[5]))):
            writer.add_blob(described(CONTENT[5]), [sent])
        assert not writer.holds(Digest.of(CONTENT[5]))


def test_writer_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield CONTENT[5][:100_000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "b.tar", PART) as writer:  # noqa: PT012
        writer.add_blob(described(CONTENT[6]), [CONTENT[6]])
        writer.add_blob(described(CONTENT[5]), interrupted())

    assert list(tmp_path.iterdir()) == []


def test_writer_after_kill_starts_over(tmp_path: Path) -> None:
    leftover = tmp_path / ".b.tar.unfinished"
    leftover.mkdir()
    (leftover / "part.000").write_bytes(b"of a killed export")
    (tmp_path / "b.tar.003").write_bytes(b"of an export killed while it named its parts")

    paths = write(tmp_path / "b.tar", PART)

    with BundleRegistry(paths[0]) as registry:
        registry.check()
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_writer_existing_bundle_is_not_replaced(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "b.tar")
    before = path.read_bytes()

    with pytest.raises(InvalidInputError, match=r"b\.tar exists already"):
        write(tmp_path / "b.tar")
    assert path.read_bytes() == before


def test_writer_second_export_of_the_same_bundle_is_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "b.tar") as first:
        with pytest.raises(StorageError, match="another export"):
            BundleWriter(tmp_path / "b.tar")
        first.finish({})

    with BundleRegistry(tmp_path / "b.tar") as registry:
        registry.check()


def test_writer_part_smaller_than_sensible_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="too small"):
        BundleWriter(tmp_path / "b.tar", 1000)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [0, 2], ids=["first", "middle"])
def test_bundle_missing_part_is_named(tmp_path: Path, number: int) -> None:
    paths = write(tmp_path / "b.tar", PART)
    paths[number].unlink()

    with pytest.raises(BundleError, match=rf"b\.tar\.00{number} is missing"):
        BundleRegistry(paths[-1])


def test_bundle_missing_last_part_is_noticed(tmp_path: Path) -> None:
    paths = write(tmp_path / "b.tar", PART)
    paths[-1].unlink()

    with pytest.raises(BundleError, match=rf"{paths[-2].name} does not end as a bundle does"):
        BundleRegistry(paths[0])


def test_bundle_part_cut_short_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path / "b.tar", PART)
    paths[1].write_bytes(paths[1].read_bytes()[:-10])

    with pytest.raises(BundleError, match=rf"b\.tar\.001 has {PART - 10} bytes instead of {PART}"):
        BundleRegistry(paths[0])


def test_bundle_swapped_parts_are_named(tmp_path: Path) -> None:
    paths = write(tmp_path / "b.tar", PART)
    one, two = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes(two)
    paths[2].write_bytes(one)

    with pytest.raises(BundleError, match=r"b\.tar\.001 is not part 1 of this bundle: it is part 2"):  # noqa: SIM117
        with BundleRegistry(paths[0]) as registry:
            registry.check()


def test_bundle_damaged_byte_is_found_by_check_and_names_the_part(tmp_path: Path) -> None:
    paths = write(tmp_path / "b.tar", PART)
    damaged = bytearray(paths[2].read_bytes())
    damaged[30_000] ^= 1
    paths[2].write_bytes(damaged)

    with BundleRegistry(paths[0]) as registry, pytest.raises(BundleError, match=r"b\.tar\.002 .* damaged"):
        registry.check()


def test_bundle_of_part_of_another_bundle_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path / "b.tar", PART)
    with BundleWriter(tmp_path / "other.tar", PART) as writer:
        other = bytes(300_000)
        writer.add_blob(described(other), [other])
        others = writer.finish({})
    paths[1].write_bytes(others[1].read_bytes())

    with pytest.raises(BundleError, match=r"b\.tar\.001 is not part 1 of this bundle: it is damaged, or a part of"):  # noqa: SIM117
        with BundleRegistry(paths[0]) as registry:
            registry.check()


@pytest.mark.parametrize("keep", [0, 100, 5000, -1], ids=["empty", "header", "blobs", "all-but-a-byte"])
def test_bundle_cut_anywhere_is_no_bundle(tmp_path: Path, keep: int) -> None:
    (path,) = write(tmp_path / "b.tar")
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(BundleError, match=r"b\.tar"):
        BundleRegistry(path)


def test_bundle_any_flipped_byte_is_never_given_out(tmp_path: Path) -> None:
    """Bytes in every region in turn: what can be opened and passes the check gives right bytes."""
    (path,) = write(tmp_path / "b.tar")
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 4999):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with BundleRegistry(path) as registry:
                registry.check()
                assert all(read(registry, content) == content for content in CONTENT)
        except BundleError:
            refused += 1

    assert refused > 40


def forged(*members: bytes) -> bytes:
    """Make a bundle whose sums are right and whose members are a stranger's."""
    body = member_header("oci-layout", len(LAYOUT)) + LAYOUT + padding(len(LAYOUT)) + b"".join(members)
    contents = contents_json(BundleContents((Segment(len(body), Digest.of(body)),)))
    end = end_block(BundleEnd(len(body), len(contents), Digest.of(contents)))
    return body + member_header(CONTENTS_PATH, len(contents)) + contents + padding(len(contents)) + end


def member(path: str, content: bytes) -> bytes:
    return member_header(path, len(content)) + content + padding(len(content))


def header(path: str, size: int, kind: bytes) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


INDEX = member("index.json", b'{"manifests":[]}')
ENTRY = b'{"manifests":[{"mediaType":"a","size":1,"digest":"sha256:%s","annotations":{"%s":"%s"}}]}'


@pytest.mark.parametrize(
    "content",
    [
        forged(header("blobs/sha256/" + "0" * 64, 2**60, tarfile.REGTYPE), INDEX),
        forged(header("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME), INDEX),
        forged(header("blobs/sha256/" + "0" * 64, -1024, tarfile.REGTYPE), INDEX),
        forged(member("blobs/md5/0", b"x"), INDEX),
        forged(),
        forged(member("index.json", b"[]")),
        forged(member("index.json", b'{"manifests":' + b"[" * 100_000)),
        forged(member("index.json", ENTRY % (b"0" * 64, REF_NAME.encode(), b"../../etc:v1"))),
        forged(member("index.json", ENTRY % (b"0" * 64, REFERRER_SUBJECT.encode(), b"nothing"))),
    ],
    ids=["size", "header", "negative", "algorithm", "no-index", "list", "deep", "name", "subject"],
)
def test_bundle_forged_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.tar").write_bytes(content)

    with pytest.raises(BundleError, match=r"b\.tar"):
        BundleRegistry(tmp_path / "b.tar")


def test_bundle_forged_link_to_a_file_of_the_site_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(forged(header("blobs/sha256/" + "0" * 64, 0, tarfile.SYMTYPE), INDEX))

    with BundleRegistry(tmp_path / "b.tar") as registry:
        assert registry.blob_head("x", Digest("sha256", "0" * 64)) is None


def test_bundle_that_is_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(bytes(10_000))

    with pytest.raises(BundleError, match="is no bundle"):
        BundleRegistry(tmp_path / "b.tar")


def test_bundle_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no such bundle: .*b\.tar"):
        BundleRegistry(tmp_path / "b.tar")
