"""What is taken for the centre's word: replayed states, states gone back, states past their time, signatures."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import SignatureError, UntrustedDataError
from harbor_satellite.satellite.rollback import roll_back
from harbor_satellite.satellite.state_input import load_states
from harbor_satellite.state.artifact import StateArtifact
from harbor_satellite.state.names import GroupName, group_state_repository
from harbor_satellite.state.plan import Rule
from harbor_satellite.state.policy import GroupPolicy
from tests.unit.satellite.site import HOST, OPTIONS, STATE_URL, Site, wanted

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest

APP = "acme/app"
KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
SIGNED = GroupPolicy(signature_keys=(KEY,))


def follow(site: Site, content: str, generation: int, *, is_rollback: bool = False) -> tuple[Digest, Digest]:
    """Publish one generation of one image and follow it; gives the satellite state's digest and the image's."""
    image = site.image(APP, content)
    state = site.publish({"g": [wanted(APP, image, "v1")]}, generation=generation, is_rollback=is_rollback)
    site.sync()
    return state, image


def test_sync_older_generation_replayed_is_refused(site: Site) -> None:
    first, _ = follow(site, "1", 1)
    _, second = follow(site, "2", 2)
    site.replay(first)

    with pytest.raises(UntrustedDataError, match="went back from generation 2 to 1"):
        site.sync()

    assert site.local_tags(APP) == {"v1": second}


def test_sync_older_generation_replayed_after_group_left_is_refused(site: Site) -> None:
    nothing = site.publish({})
    site.sync()
    first, _ = follow(site, "1", 1)
    follow(site, "2", 2)
    site.replay(nothing)
    site.sync()
    site.replay(first)

    with pytest.raises(UntrustedDataError, match="went back from generation 2 to 1"):
        site.sync()

    assert site.local_tags(APP) == {}


def test_sync_generation_zero_after_another_is_refused(site: Site) -> None:
    follow(site, "new", 5)

    with pytest.raises(UntrustedDataError, match="went back from generation 5 to 0"):
        follow(site, "old", 0)


def test_sync_going_back_at_the_site_lowers_no_mark(site: Site) -> None:
    follow(site, "1", 1)
    between = site.publish({"g": [wanted(APP, site.image(APP, "between"), "v1")]}, generation=4)
    follow(site, "2", 5)
    roll_back(site.local, site.store)
    site.replay(between)

    with pytest.raises(UntrustedDataError, match="went back from generation 5 to 4"):
        site.sync()


def test_sync_centre_goes_back_on_purpose_is_followed(site: Site) -> None:
    follow(site, "1", 1)
    follow(site, "2", 2)

    _, image = follow(site, "1", 1, is_rollback=True)

    assert site.local_tags(APP) == {"v1": image}


def test_sync_centre_goes_back_and_forth_is_followed(site: Site) -> None:
    follow(site, "1", 1)
    follow(site, "2", 2)
    follow(site, "1", 1, is_rollback=True)

    _, image = follow(site, "2", 2)

    assert site.local_tags(APP) == {"v1": image}


def test_sync_centre_goes_back_lowers_no_mark(site: Site) -> None:
    first, _ = follow(site, "1", 1)
    follow(site, "2", 2)
    follow(site, "1", 1, is_rollback=True)
    site.replay(first)

    with pytest.raises(UntrustedDataError, match="went back from generation 2 to 1"):
        site.sync()


def test_sync_applied_state_that_expired_costs_one_request(site: Site) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]}, expires_at=site.now + timedelta(hours=1))
    site.sync()
    site.pass_time(timedelta(hours=2))

    outcome = site.sync()

    assert (outcome.requests, outcome.is_converged) == (1, True)


def test_sync_applied_state_that_expired_still_heals(site: Site) -> None:
    digest = site.image(APP, "one")
    site.publish({"g": [wanted(APP, digest, "v1")]}, expires_at=site.now + timedelta(hours=1))
    site.sync()
    site.pass_time(timedelta(hours=2))
    site.local.manifest_delete(APP, "v1")

    site.sync()

    assert site.local_tags(APP) == {"v1": digest}


def test_sync_another_state_that_expired_is_refused_though_its_content_stood(site: Site) -> None:
    digest = site.image(APP, "one")
    site.follow({"g": [wanted(APP, digest, "v1")]})
    site.publish({"g": [wanted(APP, digest, "v1")]}, expires_at=site.now - timedelta(seconds=1))

    with pytest.raises(UntrustedDataError, match="expired"):
        site.sync()


def test_sync_replacement_that_cannot_be_verified_keeps_the_old_image(site: Site) -> None:
    old = site.image(APP, "one")
    site.sync_states([StateArtifact(GroupName("g"), "", (wanted(APP, old, "v1"),), 1)])
    new = wanted(APP, site.image(APP, "two"), "v2")

    images = site.sync_states([StateArtifact(GroupName("g"), "", (new,), 2, policy=SIGNED)])

    assert [image.rule for image in images if image.action == "failed"] == [Rule.SIGNATURE]
    assert site.local_tags(APP) == {"v1": old}


def test_sync_image_under_the_tag_of_a_signature_is_verified(site: Site) -> None:
    options = replace(OPTIONS, image_keys=(KEY,))
    signature = replace(wanted(APP, site.image(APP, "x"), f"sha256-{'a' * 64}.sig"), type="REFERRER")
    site.sync_states([StateArtifact(GroupName("g"), "", (signature,), 1, policy=SIGNED)], options)
    image = replace(signature, type="IMAGE")

    images = site.sync_states([StateArtifact(GroupName("g"), "", (image,), 2, policy=SIGNED)], options)

    assert [(image.action, image.rule) for image in images] == [("failed", Rule.SIGNATURE)]


@pytest.mark.parametrize("given", [STATE_URL, f"https://{HOST}/{group_state_repository(GroupName('g'))}:latest"])
def test_load_states_reference_that_nobody_signed_is_refused(site: Site, given: str) -> None:
    site.publish({"g": [wanted(APP, site.image(APP, "one"), "v1")]})

    def refuse(url: str, repository: str, digest: Digest) -> None:
        raise SignatureError(f"{url}/{repository}@{digest}: nobody signed it")

    with pytest.raises(SignatureError, match="nobody signed it"):
        load_states(site.connections, (given,), refuse)


def test_load_states_satellite_state_has_each_of_its_parts_verified(site: Site) -> None:
    site.publish({name: [] for name in ("g", "h")})
    verified = []

    load_states(site.connections, (STATE_URL,), lambda _, repository, __: verified.append(repository))

    assert verified == [
        "satellite/satellite-state/shop/state",
        "satellite/group-state/g/state",
        "satellite/group-state/h/state",
    ]
