"""A client that pulls in a loop, as container runtimes at a site do, and keeps account of what it was given."""

from __future__ import annotations

import json
import threading
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import httpx

from harbor_satellite.oci import media_types
from tests.acceptance import asking

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

_ACCEPT: Final = ", ".join(sorted(media_types.MANIFESTS))
_TIMEOUT_SECONDS: Final = 60.0
_JOIN_SECONDS: Final = 120.0


class PullError(Exception):
    """A pull failed; the message says which and why."""


def pull(client: httpx.Client, repository: str, reference: str) -> str:
    """Pull a manifest by tag or digest and all that it names, every byte hashed; return the manifest's digest.

    Raises:
        PullError: something is missing, refused, or is not what its digest promises.
    """
    name = f"{repository}{'@' if ':' in reference else ':'}{reference}"
    raw = _get(client, f"/v2/{repository}/manifests/{reference}", name)
    digest = f"sha256:{sha256(raw).hexdigest()}"
    if ":" in reference and reference != digest:
        raise PullError(f"{name}: its bytes are those of {digest}")
    document: dict[str, Any] = json.loads(raw)
    for child in document.get("manifests", ()):
        pull(client, repository, child["digest"])
    for part in (*([document["config"]] if "config" in document else ()), *document.get("layers", ())):
        content = _get(client, f"/v2/{repository}/blobs/{part['digest']}", f"{name}, blob {part['digest']}")
        if f"sha256:{sha256(content).hexdigest()}" != part["digest"]:
            raise PullError(f"{name}: blob {part['digest']} has other bytes ({len(content)} of {part['size']})")
    return digest


def _get(client: httpx.Client, path: str, what: str) -> bytes:
    try:
        answer = client.get(path, headers={"Accept": _ACCEPT})
    except httpx.HTTPError as error:
        raise PullError(f"{what}: {error!r}") from error
    if answer.status_code != httpx.codes.OK:
        raise PullError(f"{what}: status {answer.status_code}: {answer.text[:200]}")
    return answer.content


class Puller:
    """Pulls everything it was told of, again and again, in a thread of its own; a context manager.

    What may be pulled is told *before* the centre decides it: ``allow`` adds a digest that a tag may name,
    ``promise`` one that must be there by its digest, ``withdraw`` takes both back.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._tags: dict[str, set[str]] = {}
        self._digests: set[tuple[str, str]] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="puller")
        self.failures: list[str] = []
        self.given: Counter[tuple[str, str]] = Counter()
        """How often each (name, digest) was pulled, whole."""
        self.rounds = 0

    def allow(self, images: dict[str, str]) -> None:
        """Pull these tags from now on; each may name this digest besides those that were allowed before."""
        with self._guard:
            for reference, digest in images.items():
                self._tags.setdefault(reference, set()).add(digest)

    def only(self, images: dict[str, str]) -> None:
        """Let these tags name nothing but these digests from now on."""
        with self._guard:
            self._tags.update({reference: {digest} for reference, digest in images.items()})

    def promise(self, images: dict[str, str]) -> None:
        """Pull these by digest from now on: they must be there."""
        with self._guard:
            self._digests |= {(reference.partition(":")[0], digest) for reference, digest in images.items()}

    def withdraw(self, references: Iterable[str]) -> None:
        """Pull these tags no more: they may go."""
        with self._guard:
            for reference in references:
                self._tags.pop(reference, None)

    def forget(self, digests: Iterable[str]) -> None:
        """Pull these digests no more: they may go."""
        gone = set(digests)
        with self._guard:
            self._digests = {item for item in self._digests if item[1] not in gone}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def _loop(self) -> None:
        with asking.client(base_url=self._url, timeout=_TIMEOUT_SECONDS) as client:
            while not self._stop.is_set():
                self._round(client)
                self.rounds += 1

    def _round(self, client: httpx.Client) -> None:
        with self._guard:
            names = [(*reference.split(":"),) for reference in self._tags]
            names += sorted(self._digests)
        for repository, reference in names:
            if self._stop.is_set():
                return
            try:
                digest = pull(client, repository, reference)
            except PullError as error:
                if self._is_asked(repository, reference):
                    self.failures.append(str(error))
                continue
            self._account(repository, reference, digest)

    def _is_asked(self, repository: str, reference: str) -> bool:
        with self._guard:
            return f"{repository}:{reference}" in self._tags or (repository, reference) in self._digests

    def _account(self, repository: str, reference: str, digest: str) -> None:
        name = f"{repository}:{reference}"
        self.given[name, digest] += 1
        with self._guard:
            allowed = self._tags.get(name)
        if allowed is not None and digest not in allowed:
            self.failures.append(f"{name} names {digest}; it may name {sorted(allowed)}")
