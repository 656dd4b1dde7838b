"""The centre changes its mind, content goes bad or missing: what the site does then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harbor_satellite.oci.digest import Digest
from tests.acceptance import artifacts
from tests.acceptance.centre import artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.centre import Centre
    from tests.acceptance.site import Site

    Join = Callable[..., Site]

NOWHERE = f"sha256:{'1' * 64}"


@pytest.mark.acceptance("A7")
def test_update_that_cannot_be_had_leaves_the_old_image_until_it_can(centre: Centre, name: str, join: Join) -> None:
    central, reference = centre.central.client, f"{name}/app:v1"
    old = artifacts.push_simple_image(central, reference, f"{name}-old")
    centre.put_group(name, {reference: old})
    site = join(name, name)
    site.follow({name: {reference: old}})
    new = artifacts.push_simple_image(central, reference, f"{name}-new")
    layer = artifacts.layers_of(central, reference)[0]
    content = artifacts.read_blob(central, f"{name}/app", layer)
    dropped = _drop_blob(centre.central.root, layer)
    centre.put_group(name, {reference: new})

    missing = [site.follow({name: {reference: new}}), site.sync()]
    held_meanwhile = site.holds(reference)
    for path in dropped:
        path.write_bytes(content)
    run = site.sync()

    assert [run.returncode for run in missing] == [1, 1]
    assert held_meanwhile == {reference: old}
    assert (run.returncode, site.holds(reference)) == (0, {reference: new}), run.log


@pytest.mark.acceptance("A8")
def test_bad_images_do_not_hold_up_the_good_ones_of_their_group(centre: Centre, name: str, join: Join) -> None:
    central = centre.central.client
    good = {
        reference: artifacts.push_simple_image(central, reference, reference)
        for reference in (f"{name}/a:v1", f"{name}/z:v1")
    }
    holed = f"{name}/holed:v1"
    bad = {f"{name}/missing:v1": NOWHERE, holed: artifacts.push_simple_image(central, holed, holed)}
    _drop_blob(centre.central.root, artifacts.layers_of(central, holed)[0])
    centre.put_group(name, good | bad)
    site = join(name, name)

    run = site.follow({name: good | bad})

    assert (run.returncode, run.references("copied")) == (1, sorted(good))
    assert sorted(run.reasons) == sorted(bad)
    assert all(run.reasons.values())
    assert site.holds(*good, *bad) == good | dict.fromkeys(bad)


@pytest.mark.acceptance("A9")
def test_image_of_two_groups_survives_its_removal_from_one(centre: Centre, name: str, join: Join) -> None:
    shared, own = f"{name}/shared:v1", f"{name}/own:v1"
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in (shared, own)}
    first, second = f"{name}-first", f"{name}-second"
    centre.put_group(first, digests)
    centre.put_group(second, {shared: digests[shared]})
    site = join(name, first, second)
    site.follow({first: digests, second: {shared: digests[shared]}})

    centre.put_group(first, {own: digests[own]})
    run = site.follow({first: {own: digests[own]}, second: {shared: digests[shared]}})

    assert (run.returncode, run.references("deleted")) == (0, [])
    assert site.holds(shared, own) == digests


@pytest.mark.acceptance("A10")
def test_leaving_a_group_takes_away_its_images_and_no_others(centre: Centre, name: str, join: Join) -> None:
    kept, left, foreign = f"{name}/kept:v1", f"{name}/left:v1", f"{name}/left:by-hand"
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in (kept, left)}
    stays, leaves = f"{name}-stays", f"{name}-leaves"
    centre.put_group(stays, {kept: digests[kept]})
    centre.put_group(leaves, {left: digests[left]})
    site = join(name, stays, leaves)
    site.follow({stays: {kept: digests[kept]}, leaves: {left: digests[left]}})
    by_hand = artifacts.push_simple_image(site.writable, foreign, "somebody at the site pushed this")

    centre.change_membership("DELETE", name, leaves)
    run = site.follow({stays: {kept: digests[kept]}})

    assert (run.returncode, run.references("deleted")) == (0, [left])
    assert site.holds(kept, left, foreign) == {kept: digests[kept], left: None, foreign: by_hand}


@pytest.mark.acceptance("A11")
def test_wiped_local_store_heals_although_the_centre_has_not_changed(centre: Centre, name: str, join: Join) -> None:
    references = [f"{name}/{item}:v1" for item in ("app", "tool")]
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in references}
    centre.put_group(name, digests)
    site = join(name, name)
    site.follow({name: digests})

    site.wipe_registry()
    run = site.sync()

    assert (run.returncode, run.references("copied")) == (0, references)
    for reference, digest in digests.items():
        repository = reference.partition(":")[0]
        artifacts.assert_arrived_identical(centre.central.client, site.registry, repository, digest)


@pytest.mark.acceptance("A12")
def test_same_name_in_two_projects_is_two_images_that_come_to_rest(centre: Centre, name: str, join: Join) -> None:
    references = [f"{name}-{project}/app:v1" for project in ("bakery", "brewery")]
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in references}
    centre.put_group(name, digests)
    site = join(name, name)

    first = site.follow({name: digests})
    second = site.sync()

    assert first.references("copied") == references
    assert site.holds(*references) == digests
    assert (second.references("copied"), second.references("deleted")) == ([], [])
    # One request for the state's digest, after two that log in.
    assert second.said["requests"] <= 3
    assert second.said["bytes_from_source"] < 600


@pytest.mark.acceptance("A13")
def test_tag_whose_digest_is_not_the_one_of_the_state_is_not_served(centre: Centre, name: str, join: Join) -> None:
    reference = f"{name}/app:v1"
    real = artifacts.push_simple_image(centre.central.client, reference, name)
    centre.put_group(name, {reference: NOWHERE})
    site = join(name, name)

    run = site.follow({name: {reference: NOWHERE}})

    assert run.returncode == 1
    assert NOWHERE in run.reasons[reference]
    assert site.holds(reference) == {reference: None}
    assert site.registry.manifest_head(f"{name}/app", real) is None


@pytest.mark.acceptance("A13")
def test_layer_with_other_bytes_than_its_digest_promises_is_refused(centre: Centre, name: str, join: Join) -> None:
    reference = f"{name}/app:v1"
    digest = artifacts.push_simple_image(centre.central.client, reference, name)
    layer = artifacts.layers_of(centre.central.client, reference)[0]
    _tamper(centre.central.root, layer)
    centre.put_group(name, {reference: digest})
    site = join(name, name)

    run = site.follow({name: {reference: digest}})

    assert run.returncode == 1
    assert layer in run.reasons[reference]
    assert "mismatch" in run.reasons[reference].lower()
    assert site.holds(reference) == {reference: None}
    assert site.registry.blob_head(f"{name}/app", Digest.parse(layer)) is None


@pytest.mark.acceptance("A13")
def test_state_with_other_bytes_than_its_digest_promises_changes_nothing(centre: Centre, name: str, join: Join) -> None:
    reference, more = f"{name}/app:v1", f"{name}/more:v1"
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in (reference, more)}
    centre.put_group(name, {reference: digests[reference]})
    site = join(name, name)
    site.follow({name: {reference: digests[reference]}})
    centre.put_group(name, {more: digests[more]})
    centre.wait_published(name, {name: {more: digests[more]}})
    state = artifacts.layers_of(centre.central.client, f"satellite/group-state/{name}/state:latest")[0]
    _tamper(centre.central.root, state)

    said = site.refused_sync()

    assert state in said
    assert site.holds(reference, more) == {reference: digests[reference], more: None}


@pytest.mark.acceptance("A14")
def test_entry_marked_deleted_is_not_brought_and_is_taken_away(centre: Centre, name: str, join: Join) -> None:
    kept, gone, never = (f"{name}/{item}:v1" for item in ("kept", "gone", "never"))
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in (kept, gone, never)}
    both = {item: digests[item] for item in (kept, gone)}
    centre.put_group(name, both, artifact(never, digests[never], deleted=True))
    site = join(name, name)
    first = site.follow({name: both})

    centre.put_group(name, {kept: digests[kept]}, artifact(gone, digests[gone], deleted=True))
    second = site.follow({name: {kept: digests[kept]}})

    assert first.references("copied") == sorted(both)
    assert (second.returncode, second.references("deleted")) == (0, [gone])
    assert site.holds(kept, gone, never) == {kept: digests[kept], gone: None, never: None}


@pytest.mark.acceptance("A19")
def test_satellite_removed_from_its_last_group_holds_nothing_of_it(centre: Centre, name: str, join: Join) -> None:
    reference = f"{name}/app:v1"
    digest = artifacts.push_simple_image(centre.central.client, reference, name)
    centre.put_group(name, {reference: digest})
    site = join(name, name)
    site.follow({name: {reference: digest}})

    centre.change_membership("DELETE", name, name)
    centre.change_membership("DELETE", name, name)
    run = site.follow({})

    assert centre.api.get(f"/api/groups/{name}/satellites").json() == []
    assert (run.returncode, run.references("deleted")) == (0, [reference])
    assert site.holds(reference) == {reference: None}


def _blob_files(root: Path, digest: str) -> list[Path]:
    """Find a blob's bytes on the disk of CNCF distribution (a folder with ``data``) or of an OCI image layout."""
    found = [path / "data" if path.is_dir() else path for path in root.rglob(digest.partition(":")[2])]
    files = [path for path in found if path.is_file() and path.stat().st_size]
    assert files
    return files


def _drop_blob(root: Path, digest: str) -> list[Path]:
    files = _blob_files(root, digest)
    for path in files:
        path.unlink()
    return files


def _tamper(root: Path, digest: str) -> None:
    for path in _blob_files(root, digest):
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
