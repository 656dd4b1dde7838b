"""The operator's side of the demo: what somebody at the centre does with Ground Control's API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
from pydantic import SecretStr

from harbor_satellite.errors import HarborSatelliteError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from harbor_satellite.oci.descriptor import Descriptor

_POLL_SECONDS: Final = 0.5
_NOT_FOUND: Final = 404


class Operator:
    """Somebody logged in at Ground Control."""

    def __init__(self, url: str, password: SecretStr) -> None:
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        answer = self._call("POST", "/login", {"username": "admin", "password": password.get_secret_value()})
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"

    def __enter__(self) -> Self:
        """Use the operator in a ``with`` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._http.close()

    def sync_group(self, group: str, registry: str, images: dict[tuple[str, str], Descriptor]) -> None:
        """Make a group exactly these images, by (repository, tag)."""
        artifacts = [
            {"repository": repository, "tag": [tag], "type": "IMAGE", "digest": str(image.digest), "deleted": False}
            for (repository, tag), image in images.items()
        ]
        self._call("POST", "/api/groups/sync", {"group": group, "registry": registry, "artifacts": artifacts})

    def register_satellite(self, name: str, groups: list[str]) -> SecretStr:
        """Register a satellite; return its one-time token."""
        body = {"name": name, "groups": groups, "config_name": "default"}
        return SecretStr(self._call("POST", "/api/satellites", body)["token"])

    def wait_in_step(
        self, satellite: str, after: str, timeout_seconds: float, check: Callable[[], None]
    ) -> dict[str, Any]:
        """Wait until the site reports a state newer than ``after`` and Ground Control calls it in step.

        Args:
            satellite: its name.
            after: digest of the state it was on before; empty for none.
            timeout_seconds: how long to wait.
            check: called at each look; raises if waiting is of no use.

        Raises:
            HarborSatelliteError: it did not get there; the message says what it reported last.
        """
        deadline = time.monotonic() + timeout_seconds
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            check()
            try:
                status = self._call("GET", f"/api/satellites/{satellite}/status", None)
            except RemoteError as error:
                if error.status != _NOT_FOUND:  # 404: it has not reported yet
                    raise
            if status.get("in_step") and status["latest_state_digest"] != after:
                return status
            time.sleep(_POLL_SECONDS)
        raise HarborSatelliteError(
            f"{satellite} was not in step after {timeout_seconds:.0f} s; it reported {status or 'nothing'}"
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise RemoteError(f"Ground Control did not answer {method} {path}: {error}", retryable=True) from error
        if answer.is_error:
            message = f"Ground Control refused {method} {path}: HTTP {answer.status_code} {answer.text[:300]}"
            raise RemoteError(message, status=answer.status_code)
        return answer.json()
