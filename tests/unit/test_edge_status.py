"""Collecting a site's status from its disk: whole, empty, damaged, large."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.edge.delivery import deliver
from harbor_satellite.edge.services import Probe, Service, ServicePlan, Sighting, write_plan, write_sightings
from harbor_satellite.edge.status import StatusReader
from harbor_satellite.errors import AuthenticationError, RemoteError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.centre_contact import load_contact, note_contact
from harbor_satellite.satellite.health import problems_of, status_json
from harbor_satellite.satellite.options import ReplicationOptions
from harbor_satellite.satellite.record import Record
from harbor_satellite.satellite.status import RegistryStatus
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.quarantine import Quarantined
from harbor_satellite.state.wire import AppliedGroup, ImageFailure, Registration, RegistryAuth

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.satellite.status import SiteStatus

NOW = datetime(2026, 11, 23, 7, 12, 31, tzinfo=UTC)
SECRET = "never-to-be-seen"
STATE = Digest.of(b"state")


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    return SatelliteStore(tmp_path / "site")


def read(store: SatelliteStore, *, is_answering: bool = True, **settings: Any) -> SiteStatus:
    own = SatelliteSettings(
        _env_file=None, data_dir=store.folder, local_registry_password=SecretStr(SECRET), **settings
    )
    return StatusReader(lambda: own, lambda _: is_answering).read(NOW)


def register(store: SatelliteStore, **auth: Any) -> None:
    given = RegistryAuth(url="https://harbor.test", username="robot", password=SecretStr(SECRET), **auth)
    store.save_registration(
        Registration(auth=given, state="harbor.test/s:latest", satellite="shop-1", schedule="30 * * * *")
    )


def applied(**changes: Any) -> Applied:
    names = (LocalTag("acme/till", "v1"), LocalTag("acme/scale", "v2"))
    return Applied(
        **{
            "state_digest": STATE,
            "is_converged": True,
            "applied_at": NOW - timedelta(hours=5),
            "groups": (AppliedGroup(group="shops", generation=7, digest="sha256:0"),),
            "owned": {name: frozenset({STATE}) for name in names},
            "sizes": {names[0]: 1000},
            "last_run": LastRun(NOW - timedelta(minutes=11), 3.5, 5000, 1, 0, "1 copied"),
        }
        | changes
    )


def test_status_of_a_folder_that_is_not_there_says_not_registered_and_makes_nothing(store: SatelliteStore) -> None:
    status = read(store)

    assert status.registration is None
    assert status.state.digest == ""
    assert status.disk
    assert not status.damaged
    assert not store.folder.exists()


def test_status_of_a_site_says_what_it_follows_and_holds(store: SatelliteStore) -> None:
    register(store, expires_at=NOW + timedelta(days=9))
    store.save_applied(applied())
    store.write_document("link.json", {"bytes_per_second": 240_000})

    status = read(store)

    assert status.registration
    assert status.registration.satellite == "shop-1"
    assert status.registration.credential_expires_at == NOW + timedelta(days=9)
    assert status.state.digest == str(STATE)
    assert [(group.group, group.generation) for group in status.state.groups] == [("shops", 7)]
    assert [(image.reference, image.size_bytes) for image in status.images.listed] == [
        ("acme/scale:v2", None),
        ("acme/till:v1", 1000),
    ]
    assert (status.images.count, status.images.size_bytes) == (2, 1000)
    assert status.runs.last
    assert status.runs.last.outcome == "done"
    assert status.runs.next_at == datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
    assert status.runs.overdue_since is None
    assert status.link.measured_bytes_per_second == 240_000
    assert problems_of(status) == ()


def test_status_shows_no_secret(store: SatelliteStore) -> None:
    register(store)
    store.save_applied(applied())
    write_plan(
        store.folder, ServicePlan((Service("registry", (), {}, "", Probe("http://x/", {"Authorization": SECRET})),))
    )

    assert SECRET.encode() not in status_json(read(store))
    assert SECRET not in repr(read(store))


def test_status_writes_nothing(store: SatelliteStore) -> None:
    register(store)
    store.save_applied(applied())
    (store.folder / "ledger.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")}

    read(store)

    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")} == before


@pytest.mark.parametrize(
    "name",
    ["registration.json", "applied.json", "rest.json", "generations.json", "ledger.json", "link.json", "centre.json",
     "site-config.json", "runtimes-applied.json", "registry/current.json"],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"days": 1, "runtimes": 2, "place": 3}', b"\xff\xfe"])
def test_status_with_a_damaged_file_names_it_and_shows_the_rest(
    store: SatelliteStore, name: str, content: bytes
) -> None:
    register(store)
    store.save_applied(applied())
    (store.folder / name).parent.mkdir(exist_ok=True)
    (store.folder / name).write_bytes(content)

    status = read(store)

    assert [name in text for text in status.damaged] == [True]
    assert SECRET not in status.damaged[0]
    assert status.disk
    assert problems_of(status)[0].kind == "damaged"


def test_status_tells_damage_each_time_until_it_is_mended(store: SatelliteStore) -> None:
    store.save_applied(applied())
    own = SatelliteSettings(_env_file=None, data_dir=store.folder)
    reader = StatusReader(lambda: own, lambda _: True)
    (store.folder / "applied.json").write_text("{")

    assert [len(reader.read(NOW).damaged) for _ in range(2)] == [1, 1]

    store.save_applied(applied())
    assert reader.read(NOW).damaged == ()
    assert reader.read(NOW).images.count == 2


def test_status_after_failed_runs_says_since_when_they_fail(store: SatelliteStore) -> None:
    store.save_applied(applied())
    record = Record(store, ReplicationOptions())

    for hours in (3, 2, 1):
        record.failed(RemoteError("no route to harbor.test"), NOW - timedelta(hours=hours))
    status = read(store)

    assert status.runs.failing_since == NOW - timedelta(hours=3)
    assert status.runs.last
    assert (status.runs.last.outcome, status.runs.last.summary) == ("failed", "no route to harbor.test")
    assert status.failures == ()  # no image's


def test_status_after_a_run_at_rest_is_not_failing_any_more(store: SatelliteStore) -> None:
    store.save_applied(applied())
    Record(store, ReplicationOptions()).failed(RemoteError("no route"), NOW - timedelta(hours=1))
    store.save_rest(LastRun(NOW, 0.1, 20, 0, 0, "2 kept"), 0)

    assert read(store).runs.failing_since is None


def test_status_says_since_when_an_image_fails_and_when_it_is_tried_again(store: SatelliteStore) -> None:
    waits = Quarantined("acme/till", STATE, "HTTP 503", 3, NOW - timedelta(days=2), NOW + timedelta(hours=1), False)
    failure = ImageFailure(reference="acme/till:v1", reason="HTTP 503")
    store.save_applied(applied(is_converged=False, failures=(failure,), quarantine=(waits,)))

    (found,) = read(store).failures

    assert (found.since, found.retry_at) == (NOW - timedelta(days=2), NOW + timedelta(hours=1))


def test_status_while_a_run_holds_the_lock_says_since_when(store: SatelliteStore) -> None:
    with store.lock():
        since = read(store).runs.running_since

    assert since
    assert abs(since.timestamp() - time.time()) < 5
    assert read(store).runs.running_since is None


def test_status_knows_what_is_read_today_by_the_calendar_of_the_site(store: SatelliteStore) -> None:
    store.write_document("ledger.json", {"days": {"2026-11-22": 5, "2026-11-23": 7}, "months": {"2026-11-01": 12}})

    links = [read(store, timezone=zone, sync_windows="Mon 22:00-23:00").link for zone in ("UTC", "America/Los_Angeles")]

    assert [(link.bytes_today, link.bytes_this_month, link.is_open) for link in links] == [
        (7, 12, False),
        (5, 12, False),
    ]
    assert links[0].opens_at == datetime(2026, 11, 23, 22, tzinfo=UTC)


def test_status_says_when_a_run_was_due_and_did_not_come(store: SatelliteStore) -> None:
    register(store)
    store.save_applied(applied(last_run=LastRun(NOW - timedelta(hours=4), 1, 0, 0, 0, "2 kept")))

    assert read(store).runs.overdue_since == datetime(2026, 11, 23, 3, 30, tzinfo=UTC)


def test_status_of_services_does_not_believe_what_was_seen_before_a_power_cut(store: SatelliteStore) -> None:
    store.folder.mkdir()
    started = NOW.timestamp()
    gone = Sighting("gone", pid=2**22 + 1, started_at=started, restarts=2, last_end="signal 9")
    reused = Sighting("reused", pid=os.getppid(), started_at=started)
    with subprocess.Popen(["sleep", "60"]) as child:
        write_sightings(store.folder, (Sighting("registry", pid=child.pid, started_at=started), gone, reused))

        services = read(store).services
        child.kill()

    assert [(service.name, service.is_running, service.restarts) for service in services] == [
        ("registry", True, 0),
        ("gone", False, 2),
        ("reused", False, 0),
    ]


def test_status_of_services_of_an_unreadable_file_is_none(store: SatelliteStore) -> None:
    store.folder.mkdir()
    (store.folder / "services-seen.json").write_text('{"services": []}')

    assert read(store).services == ()


def test_status_says_when_the_agent_was_well_and_whether_the_registry_answers(store: SatelliteStore) -> None:
    store.folder.mkdir()
    alive = store.folder / "agent.alive"
    alive.touch()
    os.utime(alive, (NOW.timestamp() - 400, NOW.timestamp() - 400))

    status = read(store, is_answering=False, local_registry_url="http://127.0.0.1:5000")

    assert status.agent_alive_at == NOW - timedelta(seconds=400)
    expected = RegistryStatus("external", "http://127.0.0.1:5000", is_answering=False, reason="no answer within 2 s")
    assert status.registry == expected
    assert {"agent_down", "registry_silent"} <= {problem.kind for problem in problems_of(status)}


def test_status_asks_the_registry_as_the_supervisor_does(store: SatelliteStore) -> None:
    store.folder.mkdir()
    probe = Probe("http://127.0.0.1:5000/v2/acme/till/manifests/v1", {"Authorization": SECRET}, timeout_seconds=30)
    write_plan(store.folder, ServicePlan((Service("registry", ("zot",), probe=probe),)))
    asked: list[Probe] = []
    own = SatelliteSettings(_env_file=None, data_dir=store.folder)

    StatusReader(lambda: own, lambda given: bool(asked.append(given))).read(NOW)

    assert [(one.url, one.headers["Authorization"], one.timeout_seconds) for one in asked] == [(probe.url, SECRET, 2.0)]


def test_status_of_ten_thousand_images_is_there_at_once(store: SatelliteStore) -> None:
    names = [LocalTag(f"acme/image-{number}", "v1") for number in range(10_000)]
    store.save_applied(
        applied(
            owned=dict.fromkeys(names, frozenset({STATE})),
            wanted=dict.fromkeys(names, STATE),
            sizes=dict.fromkeys(names, 10),
            sources=dict.fromkeys(names, "harbor.test"),
        )
    )
    started = time.process_time()

    status = read(store)

    assert (status.images.count, status.images.size_bytes, len(status.images.listed)) == (10_000, 100_000, 10_000)
    assert time.process_time() - started < 0.8  # seconds of CPU; half of it on a small machine's share


def test_contact_is_written_when_it_changes_only(store: SatelliteStore) -> None:
    note_contact(store, "timed out", NOW)
    before = (store.folder / "centre.json").stat().st_ino

    note_contact(store, "timed out", NOW + timedelta(hours=1))
    assert (store.folder / "centre.json").stat().st_ino == before

    note_contact(store, "refused", NOW + timedelta(hours=2))
    link = read(store).link
    assert (link.away_since, link.away_reason) == (NOW, "refused")

    note_contact(store, "", NOW + timedelta(hours=3))
    assert load_contact(store).away_since is None


def test_contact_that_is_damaged_is_replaced(store: SatelliteStore) -> None:
    note_contact(store, "timed out", NOW)
    (store.folder / "centre.json").write_text("{")

    note_contact(store, "timed out", NOW)

    assert json.loads((store.folder / "centre.json").read_text())["reason"] == "timed out"


@pytest.mark.parametrize(
    ("answers", "is_away"),
    [((503,), True), ((503, 200), False), ((401,), False), ((None,), True)],
    ids=["not well", "well again", "refuses the credential", "out of reach"],
)
def test_delivery_notes_whether_the_centre_answers(
    store: SatelliteStore, answers: tuple[int | None, ...], *, is_away: bool
) -> None:
    register(store)
    store.save_applied(applied())
    settings = SatelliteSettings(_env_file=None, data_dir=store.folder, ground_control_url="https://centre.test")
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if (status := left.pop(0)) is None:
            raise httpx.ConnectError("no route", request=request)
        return httpx.Response(status, json={})

    for _ in answers:
        with contextlib.suppress(RemoteError, AuthenticationError):
            deliver(settings, transport=httpx.MockTransport(answer))

    assert (read(store).link.away_since is not None) is is_away


def test_status_of_a_site_that_cannot_register_says_why_and_since_when(store: SatelliteStore) -> None:
    note_contact(store, "Ground Control at https://centre.test cannot be reached", NOW - timedelta(hours=1))

    (problem,) = problems_of(read(store))

    assert problem.kind == "not_registered"
    assert "https://centre.test cannot be reached" in problem.text
    assert problem.since == NOW - timedelta(hours=1)
