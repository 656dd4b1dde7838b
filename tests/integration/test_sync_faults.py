"""``edge sync`` against a source that misbehaves in the middle of a blob: expired tokens, refusals, other bytes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from harbor_satellite.demo import images
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import descriptor_json
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply
from tests.fixtures_registry import PASSWORD, USERNAME, run_embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

SYNC: Final = (sys.executable, "-c", "from harbor_satellite.cli import main; main()", "edge", "sync")
REPOSITORY: Final = "acme/app"
SIZE: Final = 2_000_000
CUT_AT: Final = 800_000
TOKEN_AGE_SECONDS: Final = 5.5
"""A token that is refused when it is younger was not refused for its age, so no other is asked for."""
_BLOB: Final = re.compile(r"/v2/.+/blobs/sha256:.+")


class FaultyRegistry(FakeRegistry):
    """Cuts the first body of the large blob, and then does something to itself."""

    def __init__(self, fault: str) -> None:
        super().__init__(auth="bearer")
        self._fault = fault
        self.blob_bytes = 0
        self.cuts = 0

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FakeReply:
        """Answer as ever, but cut the first long body."""
        is_blob = method == "GET" and _BLOB.fullmatch(url.partition("?")[0]) is not None
        if is_blob and self._fault == "no ranges":
            headers = {name: value for name, value in headers.items() if name.lower() != "range"}
        reply = super().answer(method, url, headers, body)
        if not is_blob or reply.status not in {200, 206} or len(reply.body) < CUT_AT:
            return reply
        if not self.cuts:
            self.cuts += 1
            self._break()
            reply = FakeReply(reply.status, reply.headers, reply.body, cut_after=CUT_AT)
        self.blob_bytes += CUT_AT if reply.cut_after else len(reply.body)
        return reply

    def _break(self) -> None:
        if self._fault == "token expired":
            time.sleep(TOKEN_AGE_SECONDS)
            self.tokens.clear()
        elif self._fault in {"429", "503"}:
            refusal = FakeReply(int(self._fault), {"Retry-After": "1"}, b"")
            self.misbehave(r"GET /v2/.+/blobs/.+", refusal, times=2)
        elif self._fault == "other bytes":
            held = self.blobs[REPOSITORY]
            digest = max(held, key=lambda one: len(held[one]))
            held[digest] = held[digest][:-1] + bytes([held[digest][-1] ^ 1])


@pytest.fixture
def target(tmp_path: Path) -> Iterator[RunningRegistry]:
    with run_embedded(tmp_path / "local", has_password=True) as running:
        yield running


def add_image(source: FakeRegistry) -> str:
    layer = source.add_blob(REPOSITORY, images.layer("large", SIZE).content)
    config = source.add_blob(REPOSITORY, b'{"architecture":"amd64","os":"linux"}', media_types.OCI_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor_json(config),
        "layers": [descriptor_json(layer)],
    }
    return str(source.add_manifest(REPOSITORY, json.dumps(document).encode(), "v1").digest)


def sync(folder: Path, url: str, digest: str, target: RunningRegistry) -> tuple[int, dict[str, Any]]:
    entry = {"repository": REPOSITORY, "tag": ["v1"], "digest": digest, "referrers": []}
    state = folder / "state.json"
    state.write_text(json.dumps({"group": "g", "registry": url, "artifacts": [entry]}))
    environment = {
        "HARBOR_SATELLITE_SOURCE_USERNAME": "robot$edge",
        "HARBOR_SATELLITE_SOURCE_PASSWORD": "made-up-secret",
        "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": USERNAME,
        "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": PASSWORD,
    }
    argv = [*SYNC, "--state", str(state), "--source", url, "--target", target.url]
    argv += ["--data-dir", str(folder / "data"), "--output", "json"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("fault", ["token expired", "429", "503"])
def test_sync_blob_cut_and_then_refused_for_a_while_goes_on_where_it_was(
    tmp_path: Path, target: RunningRegistry, fault: str
) -> None:
    source = FaultyRegistry(fault)
    digest = add_image(source)
    with source.serving() as url, HttpRegistry(target.url) as local:
        code, said = sync(tmp_path, url, digest, target)

        assert (code, said["failed"], local.tag_list(REPOSITORY)) == (0, [], ("v1",))
        assert source.cuts == 1
        assert source.blob_bytes < SIZE * 1.02


def test_sync_blob_cut_at_a_source_without_ranges_starts_over_and_arrives(
    tmp_path: Path, target: RunningRegistry
) -> None:
    source = FaultyRegistry("no ranges")
    digest = add_image(source)
    with source.serving() as url, HttpRegistry(target.url) as local:
        code, said = sync(tmp_path, url, digest, target)

        assert (code, said["failed"], local.tag_list(REPOSITORY)) == (0, [], ("v1",))


def test_sync_blob_whose_rest_is_of_other_bytes_is_refused(tmp_path: Path, target: RunningRegistry) -> None:
    source = FaultyRegistry("other bytes")
    digest = add_image(source)
    with source.serving() as url, HttpRegistry(target.url) as local:
        code, said = sync(tmp_path, url, digest, target)

        assert code == 1
        assert "mismatch" in said["failed"][0]["reason"]
        assert local.tag_list(REPOSITORY) == ()
