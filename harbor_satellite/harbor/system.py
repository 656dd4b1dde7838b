"""What Harbor says about itself, and who it takes this client for."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.harbor.documents import Document

if TYPE_CHECKING:
    from datetime import datetime

    from harbor_satellite.harbor.client import HarborClient

_PRECONDITION_FAILED: Final = 412


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """A Harbor's version, clock and mode."""

    version: str
    """Empty for who is not logged in."""
    current_time: datetime | None
    """Its clock; None where neither the body nor the ``Date`` header says it."""
    is_read_only: bool
    external_url: str


@dataclass(frozen=True, slots=True)
class HarborUser:
    """Whom Harbor takes this client for."""

    username: str
    """Empty for a robot."""
    is_admin: bool
    is_robot: bool


def system_info(client: HarborClient) -> SystemInfo:
    """Read what Harbor says about itself; some of it only to who is logged in.

    Raises:
        RemoteError: unreachable or refused.
    """
    answer = client.request("GET", "/systeminfo", expected={200})
    document = Document.of(answer.document, f"system information of {client.url}")
    return SystemInfo(
        version=document.text("harbor_version"),
        current_time=document.moment("current_time") or _date(answer.headers.get("Date", "")),
        is_read_only=document.flag("read_only"),
        external_url=document.text("external_url"),
    )


def current_user(client: HarborClient) -> HarborUser:
    """Tell whom Harbor takes this client for.

    The registry's token service is no proof: it answers 200 for wrong credentials, too.

    Raises:
        RemoteError: unreachable; ``.status`` 401 if the credentials are wrong, expired or disabled.
    """
    answer = client.request("GET", "/users/current", expected={200, _PRECONDITION_FAILED})
    if answer.status == _PRECONDITION_FAILED:  # Harbor's way to say that a robot is no user
        return HarborUser("", is_admin=False, is_robot=True)
    document = Document.of(answer.document, f"current user at {client.url}")
    return HarborUser(document.text("username"), document.flag("sysadmin_flag"), is_robot=False)


def _date(header: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
