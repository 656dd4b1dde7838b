"""At a Harbor: what a satellite's robot account may pull is what all of its groups need, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance import artifacts
from tests.acceptance.centre import wait_until

if TYPE_CHECKING:
    from tests.acceptance.centre import Centre


@pytest.mark.acceptance("A18")
def test_robot_pulls_from_the_union_of_its_groups_projects_and_from_no_other(centre: Centre, name: str) -> None:
    tills, kiosks, other = (_image(centre, f"{name}-{part}") for part in ("tills", "kiosks", "other"))
    centre.put_group(f"{name}-tills", {tills: ""})
    centre.put_group(f"{name}-kiosks", {kiosks: ""})

    auth = centre.claim(centre.add_satellite(name, [f"{name}-tills", f"{name}-kiosks"]))

    wait_until(lambda: _pulls(centre, auth, tills, kiosks, other), lambda found: found == {tills, kiosks}, "its rights")


@pytest.mark.acceptance("A18")
def test_change_of_one_group_leaves_the_robot_the_projects_of_the_others(centre: Centre, name: str) -> None:
    tills, kiosks, scanners = (_image(centre, f"{name}-{part}") for part in ("tills", "kiosks", "scanners"))
    centre.put_group(f"{name}-tills", {tills: ""})
    centre.put_group(f"{name}-kiosks", {kiosks: ""})
    centre.claim(centre.add_satellite(name, [f"{name}-tills", f"{name}-kiosks"]))

    centre.put_group(f"{name}-kiosks", {scanners: ""})

    _wait_for_projects(centre, name, "satellite", f"{name}-tills", f"{name}-scanners")


@pytest.mark.acceptance("A18")
def test_robot_that_is_gone_holds_up_no_other_satellite(centre: Centre, name: str) -> None:
    group, first, second = f"{name}-group", f"{name}-1", f"{name}-2"
    tills, scanners = (_image(centre, f"{name}-{part}") for part in ("tills", "scanners"))
    centre.put_group(group, {tills: ""})
    for satellite in (first, second):
        centre.claim(centre.add_satellite(satellite, [group]))
    robots = centre.central.fake.accounts.robots
    del robots[next(number for number, robot in robots.items() if robot.name == first)]

    centre.put_group(group, {scanners: ""})

    _wait_for_projects(centre, second, "satellite", f"{name}-scanners")


@pytest.mark.acceptance("A19")
def test_satellite_that_leaves_a_group_is_refused_its_projects(centre: Centre, name: str) -> None:
    tills, kiosks = (_image(centre, f"{name}-{part}") for part in ("tills", "kiosks"))
    centre.put_group(f"{name}-tills", {tills: ""})
    centre.put_group(f"{name}-kiosks", {kiosks: ""})
    auth = centre.claim(centre.add_satellite(name, [f"{name}-tills", f"{name}-kiosks"]))
    wait_until(lambda: _pulls(centre, auth, tills, kiosks), lambda found: found == {tills, kiosks}, "its rights")

    centre.change_membership("DELETE", name, f"{name}-kiosks")

    wait_until(lambda: _pulls(centre, auth, tills, kiosks), lambda found: found == {tills}, "its rights to shrink")


def _image(centre: Centre, project: str) -> str:
    reference = f"{project}/app:v1"
    artifacts.push_simple_image(centre.central.client, reference, reference)
    return reference


def _pulls(centre: Centre, auth: tuple[str, str], *references: str) -> set[str]:
    """Return which of these a robot can really pull."""
    return {reference for reference in references if _may_pull(centre.central.url, auth, reference)}


def _may_pull(url: str, auth: tuple[str, str], reference: str) -> bool:
    with HttpRegistry(url, credentials=Credentials(auth[0], SecretStr(auth[1]))) as registry:
        try:
            artifacts.layers_of(registry, reference)
        except RemoteError as error:
            if error.status != 401:
                raise
            return False
        return True


def _wait_for_projects(centre: Centre, satellite: str, *projects: str) -> None:
    wait_until(
        lambda: centre.central.robots(satellite),
        lambda robots: robots == {f"robot${satellite}": set(projects)},
        f"{satellite} to be let into {projects}",
    )
