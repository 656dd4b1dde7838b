"""A site's credential is renewed while the site works, after its end too, and ends at once when it is revoked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from harbor_satellite.ground_control.database import make_engine
from tests.acceptance import artifacts, asking
from tests.acceptance.centre import wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.centre import Centre

_ROTATE = (
    "from harbor_satellite.project import enter; enter(); "
    "from flows.rotate_credentials import rotate_credentials; print(rotate_credentials(return_state=True))"
)
_RENEW_EARLY = {
    "HARBOR_SATELLITE_GROUND_CONTROL_ROBOT_DURATION_DAYS": "90",
    "HARBOR_SATELLITE_GROUND_CONTROL_RENEWAL_BEFORE_DAYS": "40",
    "HARBOR_SATELLITE_GROUND_CONTROL_SUPERSEDED_GRACE_SECONDS": "0",
}
"""The robots live for 30 days: all of them are due at once, and the old ones may go as soon as they are not used."""
_RUN_SECONDS = 120.0


@pytest.mark.acceptance("A27")
def test_credential_is_renewed_without_a_gap_while_its_site_replicates(
    centre: Centre, name: str, tmp_path: Path
) -> None:
    first, renewed = f"robot${name}", f"robot${name}-r1"
    token = _made(centre, name)
    with Site(name, tmp_path / "site", centre) as site, site.worker(token):
        _change(centre, site, 1)

        _rotate(centre)
        _change(centre, site, 2)
        wait_until(lambda: _username(site), lambda now: now == renewed, "the site to have its next credential")
        wait_until(lambda: _status(centre, name, "in_step"), bool, "the site to have reported with it")
        both = set(centre.central.robots(name))
        _rotate(centre)
        _change(centre, site, 3)

        assert both == {first, renewed}
        # The second round has found the renewed one due as well, and the site may have its next one by now.
        after = set(centre.central.robots(name))
        assert (first in after, renewed in after) == (False, True)
        assert not _failed_runs(centre, name)


@pytest.mark.acceptance("A27")
def test_site_that_was_away_past_the_end_of_its_robot_goes_on(centre: Centre, name: str, tmp_path: Path) -> None:
    token = _made(centre, name)
    with Site(name, tmp_path / "site", centre) as site:
        with site.worker(token):
            _change(centre, site, 1)
        _let_weeks_pass(centre, site)
        _push(centre, site.name, 2)

        with site.worker():
            wait_until(lambda: _username(site), lambda now: now == f"robot${name}-r1", "the site's next credential")
            _change(centre, site, 3)
            centre.wait_status(name, lambda status: status["in_step"], "the site in step")


@pytest.mark.acceptance("A27")
def test_site_that_is_revoked_is_cut_off_at_once_and_its_robot_goes(centre: Centre, name: str, tmp_path: Path) -> None:
    token = _made(centre, name)
    with Site(name, tmp_path / "site", centre) as site:
        assert site.register(token).returncode == 0
        auth, gateway = _auth(site), _registration(site)["prefect_api_url"]
        pool = f"{gateway}/work_pools/satellite-{name}"
        wait_until(lambda: centre.deployed(name), bool, "the satellite to be deployed")
        before = (centre.report(name, auth).status_code, asking.get(pool, auth=auth).status_code)

        revoked = centre.api.post(f"/api/satellites/{name}/revoke")
        after = (centre.report(name, auth).status_code, asking.get(pool, auth=auth).status_code)

        assert (before, revoked.status_code, after) == ((200, 200), 200, (401, 401))
        wait_until(lambda: centre.central.robots(name), lambda robots: robots == {}, "its robot to go")


def _made(centre: Centre, name: str) -> str:
    _push(centre, name, 0)
    return centre.add_satellite(name, [name])


def _push(centre: Centre, name: str, number: int) -> dict[str, str]:
    """Have the group name a new image; gives it."""
    reference = f"{name}/app:{number}"
    wanted = {reference: artifacts.push_simple_image(centre.central.client, reference, reference)}
    centre.put_group(name, wanted)
    return wanted


def _change(centre: Centre, site: Site, number: int) -> None:
    wanted = _push(centre, site.name, number)
    wait_until(lambda: site.holds(*wanted), lambda held: held == wanted, f"the site to follow change {number}")


def _status(centre: Centre, name: str, key: str) -> Any:
    status = centre.status(name)
    return status and status[key]


def _rotate(centre: Centre) -> None:
    """Run the central flow as a worker whose credentials are due would."""
    environment = {**os.environ, **centre.environment, "PREFECT_API_URL": centre.prefect_url, **_RENEW_EARLY}
    command = [sys.executable, "-c", _ROTATE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def _let_weeks_pass(centre: Centre, site: Site) -> None:
    """Move the end of the site's credential into the past: at Harbor, at Ground Control and on the site's disk."""
    passed = timedelta(days=40)
    for robot in centre.central.fake.accounts.robots.values():
        if robot.name == site.name:
            robot.created -= passed
    database = centre.environment["HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL"]
    if not database:
        pytest.skip("time can be moved in PostgreSQL only")
    engine = make_engine(database)
    ended = datetime.now(UTC) - timedelta(days=10)
    with engine.begin() as connection:
        statement = text("UPDATE credentials SET expires_at = :ended WHERE username = :username")
        assert connection.execute(statement, {"ended": ended, "username": f"robot${site.name}"}).rowcount == 1
    engine.dispose()
    path = site.data_dir / "registration.json"
    document = json.loads(path.read_text())
    document["auth"]["expires_at"] = ended.isoformat()
    path.write_text(json.dumps(document))


def _registration(site: Site) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((site.data_dir / "registration.json").read_text())
    return document


def _auth(site: Site) -> tuple[str, str]:
    auth = _registration(site)["auth"]
    return auth["username"], auth["password"]


def _username(site: Site) -> str:
    return _auth(site)[0]


def _failed_runs(centre: Centre, name: str) -> list[str]:
    """Return the runs of the site that did not end well."""
    body = {
        "deployments": {"tags": {"all_": [f"satellite:{name}"]}},
        "flow_runs": {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}},
    }
    found = asking.post(f"{centre.prefect_url}/flow_runs/filter", json=body)
    return [f"{run['name']}: {run['state']['message']}" for run in found.json()]
