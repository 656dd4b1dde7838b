"""A whole centre with its flows: what a site's own going back means to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.centre import Centre
    from tests.acceptance.site import Site

    Join = Callable[..., Site]


@pytest.mark.acceptance("A7")
def test_site_that_went_back_stays_until_the_centre_publishes_its_next_generation(
    centre: Centre, name: str, join: Join
) -> None:
    reference = f"{name}/app:v1"
    digests = [artifacts.push_simple_image(centre.central.client, reference, f"{name}-{number}") for number in range(3)]
    centre.put_group(name, {reference: digests[0]})
    site = join(name, name)
    for digest in digests[:2]:
        centre.put_group(name, {reference: digest})
        assert site.follow({name: {reference: digest}}).returncode == 0

    back = site.command("rollback")
    stayed = site.sync()
    held = site.holds(reference)
    why = json.loads(site.command("why", reference, "--output", "json").stdout)
    centre.put_group(name, {reference: digests[2]})
    followed = site.follow({name: {reference: digests[2]}})

    assert (back.returncode, stayed.returncode, followed.returncode) == (0, 0, 0)
    assert held == {reference: digests[0]}
    assert [item["rule"] for item in why] == ["rollback"]
    assert site.holds(reference) == {reference: digests[2]}
