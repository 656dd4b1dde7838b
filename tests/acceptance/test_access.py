"""Who may not: anybody at the source and at a site's registry, and one site at another's runs."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from harbor_satellite.errors import RemoteError
from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance import artifacts, asking
from tests.acceptance.centre import wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.acceptance.centre import Centre


@dataclass(frozen=True)
class Neighbours:
    """Two sites that have each done a run."""

    centre: Centre
    mine: Site
    other: Site

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Call Prefect as the site that is mine."""
        registration = json.loads((self.mine.data_dir / "registration.json").read_text())
        auth = registration["auth"]
        return asking.request(
            method,
            registration["prefect_api_url"] + path,
            json=body,
            auth=(auth["username"], auth["password"]),
        )

    def run_of(self, site: Site) -> dict[str, Any]:
        """Return a run of a site, as the centre sees it."""
        body = {"deployments": {"tags": {"all_": [f"satellite:{site.name}"]}}, "limit": 1, "sort": "START_TIME_DESC"}
        url = f"{self.centre.prefect_url}/flow_runs/filter"
        # A site whose work pool was late did its first run by itself: then Prefect's next one has yet to be planned.
        found: list[dict[str, Any]] = wait_until(lambda: asking.post(url, json=body).json(), bool, "a run")
        return found[0]


@pytest.fixture(scope="module")
def neighbours(
    centre: Centre, tmp_path_factory: pytest.TempPathFactory, unique: Callable[[str], str]
) -> Iterator[Neighbours]:
    group = unique("neighbours")
    reference = f"{group}/app:v1"
    digest = artifacts.push_simple_image(centre.central.client, reference, reference)
    centre.put_group(group, {reference: digest})
    with ExitStack() as stack:
        sites = []
        for name in (f"{group}-mine", f"{group}-other"):
            token = centre.add_satellite(name, [group])
            site = stack.enter_context(Site(name, tmp_path_factory.mktemp(name) / "site", centre))
            sites.append((site, stack.enter_context(site.worker(token))))
        for site, _ in sites:
            wait_until(lambda each=site: each.holds(reference), lambda held: held == {reference: digest}, "the image")
            centre.wait_status(site.name, lambda status: status["in_step"], "a site in step")
        yield Neighbours(centre, sites[0][0], sites[1][0])


@pytest.mark.acceptance("A26")
def test_nobody_reads_states_or_images_at_the_source(neighbours: Neighbours) -> None:
    central, mine = neighbours.centre.central, neighbours.mine.name
    group = mine.removesuffix("-mine")
    places = [f"satellite/satellite-state/{mine}/state", f"satellite/group-state/{group}/state", f"{group}/app"]

    with HttpRegistry(central.url) as anonymous:
        refused = {place: _refusal(lambda at=place: anonymous.manifest_get(at, "latest")) for place in places}
    project = asking.get(f"{central.url}/api/v2.0/projects/satellite").status_code

    assert refused == dict.fromkeys(places, 401)
    assert project == 401
    assert central.fake.accounts.projects["satellite"] is False


@pytest.mark.acceptance("A26")
def test_nobody_pushes_to_the_registry_of_a_site(neighbours: Neighbours) -> None:
    site = neighbours.mine

    refused = _refusal(lambda: artifacts.push_simple_image(site.registry, "intruder/app:v1", "intruder"))

    assert refused == 401
    assert site.holds("intruder/app:v1") == {"intruder/app:v1": None}


@pytest.mark.acceptance("A26")
def test_site_reads_its_own_run_at_prefect_and_no_other(neighbours: Neighbours) -> None:
    mine, other = neighbours.run_of(neighbours.mine), neighbours.run_of(neighbours.other)
    calls = {
        "run": ("GET", "/flow_runs/{id}", None),
        "deployment": ("GET", "/deployments/{deployment_id}", None),
        "state": ("POST", "/flow_runs/{id}/set_state", {"state": {"type": "CANCELLED"}}),
        "start": ("POST", "/deployments/{deployment_id}/create_flow_run", {}),
        "logs": ("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": ["{id}"]}}}),
        "pool": ("GET", "/work_pools/{work_pool_name}", None),
        "variables": ("POST", "/variables/filter", {}),
        "blocks": ("POST", "/block_documents/filter", {}),
    }

    own = {what: neighbours.call("GET", calls[what][1].format(**mine)).status_code for what in ("run", "deployment")}
    foreign = {
        what: neighbours.call(method, path.format(**other), body).status_code
        for what, (method, path, body) in calls.items()
    }

    assert own == {"run": 200, "deployment": 200}
    assert foreign == dict.fromkeys(calls, 403)
    assert neighbours.run_of(neighbours.other)["state_type"] == other["state_type"]


@pytest.mark.acceptance("A26")
def test_site_finds_only_its_own_runs_whatever_it_asks_for(neighbours: Neighbours) -> None:
    other = neighbours.run_of(neighbours.other)
    questions = [{}, {"flow_runs": {"id": {"any_": [other["id"]]}}}, {"work_pools": {"name": {"like_": "satellite"}}}]

    answers = [neighbours.call("POST", "/flow_runs/filter", question) for question in questions]

    assert all(answer.status_code in {200, 403} for answer in answers)
    assert not any(other["id"] in answer.text or neighbours.other.name in answer.text for answer in answers)


@pytest.mark.acceptance("A26")
def test_nothing_that_a_site_keeps_names_prefect_itself(neighbours: Neighbours) -> None:
    address = urlsplit(neighbours.centre.prefect_url).netloc.encode()
    files = [path for path in neighbours.mine.folder.rglob("*") if path.is_file() and "logs" not in path.parts]

    naming = [path for path in files if address in path.read_bytes()]

    assert any(path.name == "registration.json" for path in files)
    assert naming == []


def _refusal(call: Callable[[], object]) -> int | None:
    """Return with what status a registry refuses."""
    with pytest.raises(RemoteError) as raised:
        call()
    return raised.value.status
