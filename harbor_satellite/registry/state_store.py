"""Pushing states; the only home of oras-py.

A state is pushed as one manifest that two kinds of reader understand: ORAS (artifact type, a titled layer
that its clients unpack) and the original's satellites (an image whose single layer holds ``artifacts.json``).
Reading is ``state_pull``: sites read, and have no need of oras-py.
"""

from __future__ import annotations

import gzip
import inspect
import io
import json
import tarfile
import tempfile
import threading
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import oras.provider
import requests
from oras.auth import AuthenticationException, TokenAuth
from requests.adapters import HTTPAdapter

from harbor_satellite.errors import RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.challenge import parse_challenges
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client_errors import ERROR_BODY_MAX_BYTES, RETRYABLE_STATUSES, refusal
from harbor_satellite.registry.state_pull import STATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harbor_satellite.registry.auth import Credentials

_PUSH_TIMEOUT_SECONDS: Final = (10.0, 60.0)  # connect, read
_OK: Final = range(200, 300)


def state_manifest(raw: bytes) -> tuple[dict[str, Any], tuple[bytes, bytes]]:
    """Build the manifest of a state and its two blobs (config, layer). Pure; the same JSON gives the same bytes."""
    archive = _tar_of(raw)
    layer = gzip.compress(archive, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(archive))]},
        },
        separators=(",", ":"),
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.STATE_ARTIFACT_TYPE,
        "config": _descriptor(media_types.OCI_CONFIG, config),
        "layers": [
            _descriptor(media_types.OCI_LAYER_GZIP, layer)
            | {
                "annotations": {
                    "org.opencontainers.image.title": STATE_FILE,
                    # ORAS clients unpack a layer that carries these two.
                    "io.deis.oras.content.digest": str(Digest.of(archive)),
                    "io.deis.oras.content.unpack": "true",
                }
            }
        ],
    }
    return manifest, (config, layer)


def state_digest(raw: bytes) -> Digest:
    """Return the digest that pushing this state will give its manifest."""
    return Digest.of(_manifest_bytes(state_manifest(raw)[0]))


@dataclass(frozen=True, slots=True)
class StatePusher:
    """Pushes states to one registry through oras-py, with the deadlines that it lacks."""

    host: str
    """``host[:port]``"""
    plain_http: bool
    credentials: Credentials | None = None
    verify: bool | str = True
    """False, or the path of a CA bundle, as for ``requests``."""
    _kept: threading.local = field(default_factory=threading.local, repr=False, compare=False)
    """Each thread's client, with its connections: who pushes thousands of states asks once how to log in."""

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        """Push a state under every tag, and return its manifest's digest.

        The tags are moved one after another, in the given order; give the moving one (``latest``) last.

        Raises:
            RemoteError: the registry refused or could not be reached.
        """
        manifest, blobs = state_manifest(raw)
        expected = Digest.of(_manifest_bytes(manifest))
        try:
            client = self._client()
            with tempfile.TemporaryDirectory(prefix="harbor-satellite-state-") as folder:
                for number, (blob, layer) in enumerate(zip(blobs, _blob_descriptors(manifest), strict=True)):
                    path = Path(folder, str(number))
                    path.write_bytes(blob)
                    name = f"{self.host}/{repository}"
                    _check(client.upload_blob(str(path), client.get_container(name), layer))
            for tag in tags:
                container = client.get_container(f"{self.host}/{repository}:{tag}")
                response = client.upload_manifest(manifest, container)
                _check(response)
                expected.verify(_sent_bytes(response), f"the state sent to {self.host}/{repository}:{tag}")
        except (requests.RequestException, AuthenticationException, ValueError, RuntimeError, OSError) as error:
            self._kept.client = None  # the registry may ask for another login by now
            # oras-py reports a refusal as ValueError or RuntimeError, its text being the registry's answer.
            retryable = isinstance(error, requests.ConnectionError | requests.Timeout)
            message = f"pushing a state to {self.host}/{repository} failed: {_first_line(error)}"
            raise RemoteError(message, retryable=retryable) from error
        return expected

    def _client(self) -> Any:
        client = getattr(self._kept, "client", None)
        if client is None:
            client = self._kept.client = self._new_client()
        return client

    def _new_client(self) -> Any:
        backend = "basic" if self._asks_for_basic() else "token"
        client = _OneTryRegistry(
            hostname=self.host, insecure=self.plain_http, tls_verify=self.verify, auth_backend=backend
        )
        client.session.mount("http://", _DeadlineAdapter())
        client.session.mount("https://", _DeadlineAdapter())
        client.session.auth = _no_auth  # else requests would look into ~/.netrc at every request
        client.session.cookies.set_policy(
            DefaultCookiePolicy(allowed_domains=[])
        )  # no push goes on in another's session
        if self.credentials:
            client.auth.set_basic_auth(self.credentials.username, self.credentials.password.get_secret_value())
        return client

    def _asks_for_basic(self) -> bool:
        # oras-py's token backend takes the realm of a Basic challenge for an address, and asks it for a token.
        url = f"{'http' if self.plain_http else 'https'}://{self.host}/v2/"
        with requests.Session() as session:
            session.auth = _no_auth  # else requests would look into ~/.netrc
            # Zot answers HEAD with 405 and no challenge; the body of GET is left unread.
            answer = session.get(
                url, timeout=_PUSH_TIMEOUT_SECONDS, verify=self.verify, allow_redirects=False, stream=True
            )
        challenges = parse_challenges(answer.headers.get("WWW-Authenticate", ""))
        return any(challenge.scheme == "basic" for challenge in challenges)


def _tar_of(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(STATE_FILE)  # time, owner and mode stay at their constants: same JSON, same digest
        entry.size = len(raw)
        archive.addfile(entry, io.BytesIO(raw))
    return buffer.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(blob)), "size": len(blob)}


def _blob_descriptors(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return manifest["config"], manifest["layers"][0]


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    # As requests writes `json=`, which is how oras-py sends it; checked against what was sent at every push.
    return json.dumps(manifest, allow_nan=False).encode()


def _sent_bytes(response: requests.Response) -> bytes:
    body = response.request.body
    if isinstance(body, str):
        return body.encode()
    return body if isinstance(body, bytes) else b""


def _check(response: requests.Response) -> None:
    if response.status_code not in _OK:
        raise _refusal(response)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


class _OneTryRegistry(oras.provider.Registry):  # type: ignore[misc]  # untyped
    """Asks once: oras-py would sleep through two minutes of retries that nobody sees; retrying is the task's."""

    def do_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Ask once, with a token fetched for this very request: oras-py would go on with its first, for pulls."""
        if isinstance(self.auth, TokenAuth):
            self.auth.token = None
        response: requests.Response = _ask_once(self, *args, **kwargs)
        if response.status_code in RETRYABLE_STATUSES:
            # oras-py takes any answer to the start of an upload for a start, and drops its status.
            raise _refusal(response)
        return response

    def blob_exists(self, layer: object, container: object) -> bool:
        """Say no without asking: a state is pushed when it is new, and its blobs are small."""
        del layer, container
        return False


_ask_once = inspect.unwrap(oras.provider.Registry.do_request)


def _refusal(response: requests.Response) -> RemoteError:
    address = urlsplit(response.url)
    what = f"pushing a state: {response.request.method} {address.netloc}{address.path}"
    return refusal(what, response.status_code, response.headers, response.content[:ERROR_BODY_MAX_BYTES])


class _DeadlineAdapter(HTTPAdapter):
    """Gives every request of oras-py the time-out that it never sets."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send with the module's time-outs, whatever the caller said."""
        kwargs["timeout"] = _PUSH_TIMEOUT_SECONDS
        return super().send(request, *args, **kwargs)
