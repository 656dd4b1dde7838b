"""A fleet as rows: satellites that have registered and reported, made by SQL in a few seconds."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr
from sqlalchemy import insert, select, text

from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.fleet.report_values import fingerprint_of
from harbor_satellite.ground_control.models import (
    AppliedGroupRow,
    Credential,
    Group,
    GroupState,
    Satellite,
    SatelliteGroup,
    SatelliteLabel,
    SatelliteStateHistory,
    User,
)
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.tokens import hash_token
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory

ADMIN_PASSWORD: Final = "Ground-Control-1"
WANTED: Final = str(Digest.of(b"wanted"))
GROUPS: Final = 20


def satellite_name(number: int) -> str:
    """Return the name of a satellite."""
    return f"edge-{number:05}"


def secret_of(number: int) -> str:
    """Return a satellite's secret."""
    return hashlib.sha256(f"bench {number}".encode()).hexdigest()


def report_body(number: int) -> dict[str, Any]:
    """Return what a satellite at rest with a dozen images reports; of one at rest, only times and figures move."""
    images = [{"reference": f"127.0.0.1:8585/acme/app-{image}:v1", "size_bytes": 10**8} for image in range(12)]
    return {
        "name": satellite_name(number),
        "activity": f"0 copied, 12 kept, 0 deleted, 0 failed; 0 bytes from the source in {time.time() % 1:.1f} s",
        "state_report_interval": "60s",
        "latest_state_digest": WANTED,
        "storage_used_bytes": int(time.time()),
        "image_count": len(images),
        "cached_images": images,
        "groups": [{"group": "group-0", "generation": 2, "digest": WANTED}],
        "bytes_today": int(time.time()),
        "storage_free_bytes": 10**11,
    }


def seed(database_url: str, count: int) -> None:
    """Fill a new database with a fleet: one in ten satellites is behind, one in a hundred fails."""
    migrate(database_url)
    engine = make_engine(database_url)
    factory = make_session_factory(engine)
    now = datetime.now(UTC)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), now)
    _seed_rows(factory, count, now)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def login_token(database_url: str) -> str:
    """Return a session of the first user."""
    engine = make_engine(database_url)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        user = session.scalars(select(User)).one()
        principal = users.Principal(user.id, user.username, user.role)
        opened = users.open_session(session, principal, timedelta(days=1), datetime.now(UTC))
    engine.dispose()
    return opened.token.get_secret_value()


def _seed_rows(factory: SessionFactory, count: int, now: datetime) -> None:
    times = {"created_at": now, "updated_at": now}
    with factory.begin() as session:
        groups = [
            {"id": 1 + number, "name": f"group-{number}", "source_registry": "", "generation_floor": 0, **times}
            for number in range(GROUPS)
        ]
        session.execute(insert(Group), groups)
        states = [
            {"group_id": 1 + number, "generation": 2, "digest": WANTED, "content": "{}", "created_at": now}
            for number in range(GROUPS)
        ]
        session.execute(insert(GroupState), states)
        session.execute(insert(Satellite), [_satellite(number, now) for number in range(count)])
        ids = range(1, count + 1)
        session.execute(insert(Credential), [_credential(one, now) for one in ids])
        members = [{"satellite_id": one, "group_id": 1 + group} for one in ids for group in {0, one % GROUPS}]
        session.execute(insert(SatelliteGroup), members)
        applied = [
            {
                "satellite_id": item["satellite_id"],
                "group_name": f"group-{item['group_id'] - 1}",
                "generation": 1 if item["satellite_id"] % 10 == 0 else 2,
                "digest": WANTED,
                "reported_at": now,
            }
            for item in members
        ]
        session.execute(insert(AppliedGroupRow), applied)
        labels = [{"satellite_id": one, "key": "region", "value": f"region-{one % 50}"} for one in ids]
        session.execute(insert(SatelliteLabel), labels)
        history = [{"satellite_id": one, "digest": WANTED, "published_at": now} for one in ids]
        session.execute(insert(SatelliteStateHistory), history)


def _satellite(number: int, now: datetime) -> dict[str, Any]:
    is_behind = (number + 1) % 10 == 0
    is_failing = (number + 1) % 100 == 0
    return {
        "id": number + 1,
        "name": satellite_name(number),
        "schedule": "*/5 * * * *",
        "config_name": "",
        "created_at": now,
        "updated_at": now,
        "last_seen": now,
        "reported_at": now,
        "report_received_at": now,
        "report_fingerprint": fingerprint_of(StatusReport.model_validate(report_body(number)), number + 1),
        "report_interval_seconds": 60,
        "lifecycle": "active",
        "state_digest": WANTED,
        "state_published_at": now,
        "applied_digest": None if is_behind else WANTED,
        "behind_since": now if is_behind else None,
        "failure_count": 1 if is_failing else 0,
        "failure_reason": "acme/app:v1: digest mismatch" if is_failing else "",
        "activity": "0 copied, 12 kept, 0 deleted, 0 failed; 0 bytes from the source in 0.2 s",
    }


def _credential(satellite_id: int, now: datetime) -> dict[str, Any]:
    return {
        "id": satellite_id,
        "satellite_id": satellite_id,
        "username": f"robot$satellite-{satellite_name(satellite_id - 1)}",
        "secret_hash": hash_token(SecretStr(secret_of(satellite_id - 1))),
        "granted_projects": ["satellite"],
        "first_used_at": now,
        "created_at": now,
    }
