"""What the centre says of how a site shall work reaches it while it runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import artifacts, asking
from tests.acceptance.centre import wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.centre import Centre


@pytest.mark.acceptance("A23")
def test_windows_and_schedule_of_a_config_reach_a_running_site(centre: Centre, name: str, tmp_path: Path) -> None:
    first, more = ({f"{name}/{tag}:v1": _push(centre, f"{name}/{tag}:v1")} for tag in ("app", "more"))
    centre.put_group(name, first)
    token = centre.add_satellite(name, [name])
    with Site(name, tmp_path / "site", centre) as site, site.worker(token) as worker:
        wait_until(lambda: site.holds(*first), lambda held: held == first, "the first image at the site")

        _config(centre, name, sync_windows=[_closed_now()], schedule="17 3 * * *", timezone="Europe/Vienna")
        wait_until(lambda: _schedules(centre, name), lambda found: found == [("17 3 * * *", "Europe/Vienna")], "it")
        centre.wait_status(name, lambda status: bool(status["LatestConfigDigest"]), "the config to be applied")
        centre.put_group(name, first | more)
        centre.wait_published(name, {name: first | more})
        wait_until(lambda: _paused_runs(centre, name), bool, "a run that was paused")
        held_meanwhile = site.holds(*more)
        _config(centre, name, sync_windows=None)

        wait_until(lambda: site.holds(*more), lambda held: held == more, "the second image at the site")
        assert held_meanwhile == dict.fromkeys(more)
        assert worker.returncode is None


def test_bad_schedule_is_refused_with_the_name_of_its_field(centre: Centre, name: str) -> None:
    answer = centre.api.post("/api/configs", json={"config_name": name, "config": {"schedule": "every day"}})

    assert answer.status_code == 400
    assert "schedule" in answer.json()["message"]


def _push(centre: Centre, reference: str) -> str:
    return artifacts.push_simple_image(centre.central.client, reference, reference)


def _config(centre: Centre, name: str, **fields: Any) -> None:
    """Change the satellite's config; the first time it is made and assigned."""
    changed = centre.api.patch(f"/api/configs/{name}", json=fields)
    if changed.status_code == 404:
        made = centre.api.post("/api/configs", json={"config_name": name, "config": fields})
        assert made.status_code == 201, made.text
        changed = centre.api.post("/api/configs/satellite", json={"satellite": name, "config_name": name})
    assert changed.status_code == 200, changed.text


def _closed_now() -> str:
    """Return a sync window that opens in ten hours, for one."""
    opens = datetime.now(UTC) + timedelta(hours=10)
    return f"{opens:%H}:00-{opens + timedelta(hours=1):%H}:00"


def _schedules(centre: Centre, name: str) -> list[tuple[str, str]]:
    found = asking.get(f"{centre.prefect_url}/deployments/name/replicate-state/{name}").json()
    return [(item["schedule"]["cron"], item["schedule"]["timezone"]) for item in found["schedules"]]


def _paused_runs(centre: Centre, name: str) -> list[str]:
    body = {
        "deployments": {"tags": {"all_": [f"satellite:{name}"]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    found = asking.post(f"{centre.prefect_url}/flow_runs/filter", json=body).json()
    return [run["name"] for run in found if "paused" in (run["state"]["message"] or "")]
