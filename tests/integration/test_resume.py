"""Blobs that go on after cuts and kills, from real registries: what crosses the link is counted."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from harbor_satellite.demo import images
from harbor_satellite.errors import RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, KnownBlobs, is_complete
from harbor_satellite.registry.partials import PartialFolder
from tests.fixtures_registry import run_cncf, run_embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.oci.descriptor import Descriptor
    from tests.fixtures_registry import RunningRegistry

REPOSITORY: Final = "acme/app"
LAYER_BYTES: Final = 24_000_000
_PROJECT: Final = Path(__file__).resolve().parents[2]
_WAIT_SECONDS: Final = 60.0


class Link:
    """A link to a registry: cuts its connections, or stays silent, after some bytes of each answer.

    Args:
        address: ``host:port`` at its far end.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._far = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.cut_after: int | None = None
        """Bytes of one connection after which it is cut; None: never."""
        self.silent_after: int | None = None
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listening]

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._far)
                self._sockets += [near, far]
                for target, arguments in ((self._up, (near, far)), (self._down, (near, far))):
                    thread = threading.Thread(target=target, args=arguments)
                    thread.start()
                    self._threads.append(thread)

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def _down(self, near: socket.socket, far: socket.socket) -> None:
        count = 0
        with suppress(OSError):
            while data := far.recv(65536):
                count += len(data)
                if self.silent_after is not None and count > self.silent_after:
                    continue
                near.sendall(data)
                if self.cut_after is not None and count > self.cut_after:
                    self.cuts += 1
                    break
        for each in (near, far):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def link_to(registry: RunningRegistry) -> Iterator[Link]:
    link = Link(registry.host)
    thread = threading.Thread(target=link.serve)
    thread.start()
    try:
        yield link
    finally:
        link.stop()
        thread.join()


@pytest.fixture(params=["cncf", "embedded"])
def central(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRegistry]:
    start = {"cncf": run_cncf, "embedded": run_embedded}[request.param]
    with start(tmp_path / "central") as running:
        yield running


def layer(name: str, size: int = LAYER_BYTES) -> images.Blob:
    return images.blob(media_types.OCI_LAYER_GZIP, random.Random(name).randbytes(size))  # noqa: S311 - no secret


def push(registry: RunningRegistry, repository: str, *layers: images.Blob) -> Descriptor:
    config = images.blob(media_types.OCI_CONFIG, b'{"architecture":"amd64","os":"linux"}')
    with HttpRegistry(registry.url) as target:
        return images.push_manifest(target, repository, config, layers)


def partials_in(folder: Path) -> PartialFolder:
    return PartialFolder(folder / "partials", boot_id=lambda: "boot-1")


def wait_for(partials: PartialFolder, count: int) -> int:
    """Wait until so many bytes are kept, and return how many are."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while partials.held_bytes() < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return partials.held_bytes()


def test_stage_over_a_link_that_is_cut_again_and_again_reads_each_byte_once(
    central: RunningRegistry, embedded_registry: RunningRegistry, tmp_path: Path
) -> None:
    image = push(central, REPOSITORY, item := layer("a"))
    with (
        link_to(central) as link,
        HttpRegistry(link.url) as source,
        HttpRegistry(embedded_registry.url) as target,
    ):
        link.cut_after = 3_000_000

        result = Copier(source, target, partials=partials_in(tmp_path)).stage(REPOSITORY, image.digest, ())

        assert link.cuts >= 7
        assert is_complete(target, REPOSITORY, image.digest)
        assert result.bytes_copied < LAYER_BYTES + 10_000
        assert source.counters.bytes_read == result.bytes_copied
        assert item.descriptor.size == LAYER_BYTES


def test_stage_link_down_for_long_goes_on_in_the_next_run(
    central: RunningRegistry, embedded_registry: RunningRegistry, tmp_path: Path
) -> None:
    image = push(central, REPOSITORY, layer("a"))
    with HttpRegistry(embedded_registry.url) as target:
        with link_to(central) as link, HttpRegistry(link.url) as source:
            link.cut_after = 5_000_000

            def go_down(_seconds: float) -> None:
                link.cut_after = 0

            def listen(_count: int) -> None:
                if link.cuts:
                    link.stop()

            source.on_read = listen
            with pytest.raises(RemoteError) as caught:
                Copier(source, target, partials=partials_in(tmp_path), sleep=go_down).stage(
                    REPOSITORY, image.digest, ()
                )
            assert caught.value.retryable
        at_hand = partials_in(tmp_path).held_bytes()
        assert at_hand > 4_000_000
        with HttpRegistry(central.url) as source:
            Copier(source, target, partials=partials_in(tmp_path)).stage(REPOSITORY, image.digest, ())

            assert source.counters.bytes_read < LAYER_BYTES - at_hand + 10_000
        assert is_complete(target, REPOSITORY, image.digest)


_CHILD: Final = """
import sys
from pathlib import Path
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier
from harbor_satellite.registry.partials import PartialFolder

source, target, folder, *images = sys.argv[1:]
with HttpRegistry(source) as one, HttpRegistry(target) as other:
    partials = PartialFolder(Path(folder, "partials"), boot_id=lambda: "boot-1")
    for image in images:
        repository, _, digest = image.partition("@")
        Copier(one, other, partials=partials).stage(repository, Digest.parse(digest), ())
"""


@contextmanager
def copying_child(source: str, target: str, folder: Path, *wanted: str) -> Iterator[subprocess.Popen[bytes]]:
    command = (sys.executable, "-c", _CHILD, source, target, str(folder), *wanted)
    environment = dict(os.environ) | {"PYTHONPATH": str(_PROJECT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        try:
            yield child
        finally:
            child.kill()


def test_stage_after_kill_in_the_middle_of_a_blob_reads_the_rest(
    central: RunningRegistry, embedded_registry: RunningRegistry, tmp_path: Path
) -> None:
    image = push(central, REPOSITORY, item := layer("a"))
    wanted = f"{REPOSITORY}@{image.digest}"
    with link_to(central) as link:
        link.silent_after = 17_000_000
        with copying_child(link.url, embedded_registry.url, tmp_path, wanted) as child:
            wait_for(partials_in(tmp_path), 16_500_000)
            child.send_signal(signal.SIGKILL)
            child.wait()
    at_hand = partials_in(tmp_path).held_bytes()
    assert 16_000_000 < at_hand < LAYER_BYTES

    with HttpRegistry(central.url) as source, HttpRegistry(embedded_registry.url) as target:
        result = Copier(source, target, partials=partials_in(tmp_path)).stage(REPOSITORY, image.digest, ())

        manifest = len(source.manifest_get(REPOSITORY, str(image.digest)).raw)
        assert result.blobs_copied == 1
        assert result.bytes_copied == item.descriptor.size - at_hand + manifest
        assert is_complete(target, REPOSITORY, image.digest)
    assert partials_in(tmp_path).held_bytes() == 0


def test_stage_after_kill_shared_layer_is_mounted_from_where_it_arrived(
    central: RunningRegistry, embedded_registry: RunningRegistry, tmp_path: Path
) -> None:
    shared, second = layer("shared", 2_000_000), layer("second")
    first_image = push(central, "acme/first", shared)
    second_image = push(central, "acme/second", second)
    third_image = push(central, "acme/third", shared, layer("third", 1000))
    wanted = (f"acme/first@{first_image.digest}", f"acme/second@{second_image.digest}")
    with link_to(central) as link:
        link.silent_after = 10_000_000
        with copying_child(link.url, embedded_registry.url, tmp_path, *wanted) as child:
            wait_for(partials_in(tmp_path), 5_000_000)
            child.send_signal(signal.SIGKILL)
            child.wait()

    with HttpRegistry(central.url) as source, HttpRegistry(embedded_registry.url) as target:
        # Nothing but the journal knows: no state names the first image yet.
        copier = Copier(source, target, KnownBlobs(), partials=partials_in(tmp_path))
        result = copier.stage("acme/third", third_image.digest, ())

        assert result.blobs_mounted == 2  # with the config
        assert source.counters.bytes_read < 10_000
        assert is_complete(target, "acme/third", third_image.digest)


class _LargeBlobs(BaseHTTPRequestHandler):
    """A source of blobs that are never held in full, and a target that drops what it is given."""

    protocol_version = "HTTP/1.1"
    size = 0
    letters: dict[str, bytes] = {}  # noqa: RUF012 - set once, by large_blobs

    def do_GET(self) -> None:
        if not self.path.startswith("/v2/acme/app/blobs/"):
            self._answer(200)
            return
        block = self.letters[self.path.rpartition("/")[2]] * 1_048_576
        self._answer(200, self.size)
        with suppress(OSError):
            for _ in range(self.size // len(block)):
                self.wfile.write(block)

    def do_POST(self) -> None:
        self._answer(202, location=f"{self.path}session")

    def do_PUT(self) -> None:
        rest = int(self.headers["Content-Length"])
        while rest:
            rest -= len(self.rfile.read(min(rest, 1_048_576)))
        self._answer(201)

    def _answer(self, status: int, size: int = 0, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        if location:
            self.send_header("Location", location)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Keep quiet."""


@contextmanager
def large_blobs(size: int, count: int) -> Iterator[tuple[str, list[str]]]:
    letters = {}
    for number in range(count):
        hasher, block = hashlib.sha256(), bytes([number]) * 1_048_576
        for _ in range(size // len(block)):
            hasher.update(block)
        letters[f"sha256:{hasher.hexdigest()}"] = bytes([number])
    handler = type("Handler", (_LargeBlobs,), {"size": size, "letters": letters})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", list(letters)
        finally:
            server.shutdown()
            thread.join()


_SINK: Final = """
import re, sys, threading
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.partials import PartialFolder
from harbor_satellite.registry.transfer import Transfer
from pathlib import Path

source, target, folder, size, *digests = sys.argv[1:]
blobs = [Descriptor("x", Digest.parse(digest), int(size)) for digest in digests]
with HttpRegistry(source) as one, HttpRegistry(target) as other:
    partials = PartialFolder(Path(folder))
    failures = []
    def bring(blob):
        try:
            transfer = Transfer(one, partials if blob == blobs[0] else None)
            transfer.bring("acme/app", blob, lambda chunks: other.blob_put("acme/app", blob, chunks))
        except Exception as error:
            failures.append(error)
    threads = [threading.Thread(target=bring, args=(blob,)) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
# Not getrusage: its peak is never below that of the process which started this one.
print(int(re.search("VmHWM:[ \\t]*([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.slow
def test_transfer_eight_large_layers_at_once_stay_small_in_memory(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    size = int(os.environ.get("LARGE_BLOB_MIB", "256")) * 1024 * 1024
    # Keeping parts costs disk, not memory: one layer in eight shows it.
    with large_blobs(size, 8) as (url, digests):
        command = (sys.executable, "-c", _SINK, url, url, str(tmp_path / "partials"), str(size), *digests)
        environment = dict(os.environ) | {"PYTHONPATH": str(_PROJECT)}
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)

    assert done.returncode == 0, done.stderr
    record_property("peak RSS of eight layers at once (bytes)", done.stdout.strip())
    assert int(done.stdout) < 120_000_000
