"""Publishing against real databases: publishers take turns, and nothing out of date is published."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from harbor_satellite.demo import images
from harbor_satellite.errors import ConflictError, InvalidInputError, SignatureError
from harbor_satellite.ground_control.groups import group_states
from harbor_satellite.ground_control.groups.groups import group_entry, show_group, sync_group
from harbor_satellite.ground_control.groups.publishing import (
    ResolvedGroup,
    drop_generation,
    is_group_lost,
    publish_group,
    resolve_group,
    shown_generation,
)
from harbor_satellite.ground_control.groups.signing import SigningPusher, StateSigner
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.cosign import RegistryAccess
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.policy import GroupPolicy
from tests.unit.satellite.site import put_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.groups.group_states import GroupSpec
    from harbor_satellite.ground_control.groups.signing import Pusher

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESOLVED = ResolvedGroup((StateEntry("acme/app", ("v1",), Digest.of(b"one"), referrers=()),), ())


class Pushes:
    """Takes pushes instead of a registry."""

    def __init__(self) -> None:
        self.tags: list[tuple[str, ...]] = []

    def push(self, repository: str, tags: Iterable[str], raw: bytes) -> Digest:
        self.tags.append(tuple(tags))
        return Digest.of(raw)


def make_group(factory: SessionFactory, tag: str = "v1", policy: GroupPolicy | None = None) -> GroupSpec:
    with factory.begin() as session:
        sync_group(
            session,
            "shops",
            registry="http://source.test",
            entries=[group_entry("acme/app", [tag], "")],
            change_policy=lambda before: policy or before,
            now=NOW,
        )
    with factory.begin() as session:
        return group_states.group_spec(session, "shops")


def publish(factory: SessionFactory, pushes: Pusher, spec: GroupSpec, *, is_lost: bool = False) -> int | None:
    with factory.begin() as session:
        state = publish_group(session, pushes, spec, RESOLVED, registry="http://source.test", now=NOW, is_lost=is_lost)
    return state.generation if state else None


def test_publish_group_changed_while_it_was_resolved_is_not_published(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    read_before = make_group(session_factory)
    make_group(session_factory, tag="v2")

    with pytest.raises(ConflictError, match="changed while it was resolved"):
        publish(session_factory, pushes, read_before)

    assert pushes.tags == []


def test_publish_group_second_publisher_of_the_same_reading_conflicts(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    spec = make_group(session_factory)
    publish(session_factory, pushes, spec)

    with pytest.raises(ConflictError):
        publish(session_factory, pushes, spec)

    assert pushes.tags == [("1", "latest")]


def test_publish_group_same_content_is_published_again_only_if_lost(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    publish(session_factory, pushes, make_group(session_factory))
    with session_factory.begin() as session:
        spec = group_states.group_spec(session, "shops")

    unchanged = publish(session_factory, pushes, replace(spec))
    lost = publish(session_factory, pushes, spec, is_lost=True)

    assert (unchanged, lost) == (None, 2)


def test_publish_group_by_a_restored_database_is_ahead_of_what_sites_have(
    session_factory: SessionFactory, tmp_path: Path
) -> None:
    source = LayoutRegistry(tmp_path)
    spec = make_group(session_factory)
    publish(session_factory, Pushes(), spec)
    with session_factory.begin() as session:
        spec = group_states.group_spec(session, "shops")
    forgotten = StateArtifact(spec.name, "http://source.test", (), 7, NOW)
    put_state(source, "satellite/group-state/shops/state", state_artifact_json(forgotten))

    is_lost, shown = is_group_lost(source, spec), shown_generation(source, spec)
    with session_factory.begin() as session:
        state = publish_group(
            session,
            Pushes(),
            spec,
            RESOLVED,
            registry="http://source.test",
            now=NOW,
            is_lost=is_lost,
            shown=shown,
        )

    assert (is_lost, shown) == (True, 7)
    assert state is not None
    assert state.generation == 8


def test_shown_generation_of_a_source_without_the_group_is_none(
    session_factory: SessionFactory, tmp_path: Path
) -> None:
    source, spec = LayoutRegistry(tmp_path), make_group(session_factory)

    assert (is_group_lost(source, spec), shown_generation(source, spec)) == (False, 0)


def test_publish_group_change_of_policy_alone_is_a_new_generation(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    publish(session_factory, pushes, make_group(session_factory))
    spec = make_group(session_factory, policy=GroupPolicy(publish="each"))

    generation = publish(session_factory, pushes, spec)
    again = publish(session_factory, pushes, make_group(session_factory))

    with session_factory() as session:
        published = group_states.group_spec(session, "shops").published
    assert (generation, again) == (2, None)
    assert published is not None
    assert published.policy == GroupPolicy(publish="each")


def test_resolve_group_highest_priority_of_an_artifact_counts(tmp_path: Path, session_factory: SessionFactory) -> None:
    source = LayoutRegistry(tmp_path)
    image = images.push_image(source, "acme/app", images.AMD64, [images.layer("app", 100)])
    signature = images.push_image(source, "acme/app", images.AMD64, [images.layer("signature", 10)])
    for tag in ("v1", "v2"):
        images.tag_image(source, "acme/app", tag, image)
    images.tag_image(source, "acme/app", f"sha256-{image.digest.hex}.sig", signature)
    spec = replace(
        make_group(session_factory),
        entries=(
            group_entry("acme/app", ["v1"], "", priority=-5),
            group_entry("acme/app", ["v2"], "", priority=7),
            group_entry("acme/app", ["later"], str(Digest.of(b"not there")), priority=3),
        ),
    )

    entries = resolve_group(source, spec).entries

    assert {entry.tags: entry.priority for entry in entries} == {
        ("v1", "v2"): 7,
        ("later",): 3,
        (f"sha256-{image.digest.hex}.sig",): 7,  # no later than the image that it belongs to
    }


def test_resolve_group_signature_that_cannot_be_read_holds_up_no_image(
    tmp_path: Path, session_factory: SessionFactory
) -> None:
    source = LayoutRegistry(tmp_path)
    image = images.push_image(source, "acme/app", images.AMD64, [images.layer("app", 100)])
    images.tag_image(source, "acme/app", "v1", image)
    signature = images.push_image(source, "acme/app", images.AMD64, [images.layer("signature", 10)])
    images.tag_image(source, "acme/app", f"sha256-{image.digest.hex}.sig", signature)
    spec = make_group(session_factory)
    before = resolve_group(source, spec)
    with session_factory.begin() as session:
        publish_group(session, Pushes(), spec, before, registry="http://source.test", now=NOW)
    with session_factory() as session:
        published = group_states.group_spec(session, "shops")

    (tmp_path / "acme/app/blobs/sha256" / signature.digest.hex).unlink()

    at_first, later = resolve_group(source, spec), resolve_group(source, published)
    assert [entry.tags for entry in at_first.entries] == [("v1",)]
    assert [item.reference for item in at_first.unresolved] == [f"acme/app:sha256-{image.digest.hex}.sig"]
    assert (later.entries, later.unresolved) == (before.entries, at_first.unresolved)  # sites keep what they have


def test_resolve_group_entry_that_is_gone_gets_the_priority_asked_for_now(
    tmp_path: Path, session_factory: SessionFactory
) -> None:
    publish(session_factory, Pushes(), make_group(session_factory))
    with session_factory() as session:
        spec = group_states.group_spec(session, "shops")
    asked = replace(spec, entries=(group_entry("acme/app", ["v1"], "", priority=9),))

    entries = resolve_group(LayoutRegistry(tmp_path), asked).entries

    assert [(entry.digest, entry.priority) for entry in entries] == [(Digest.of(b"one"), 9)]


class Signatures:
    """Takes cosign's place: remembers which states were signed, and after which pushes."""

    def __init__(self, pushes: Pushes, refusal: SignatureError | None = None) -> None:
        self.pushes, self.refusal = pushes, refusal
        self.signed: dict[Digest, list[tuple[str, ...]]] = {}

    def public_key(self, key: Path, password: SecretStr) -> str:
        return "public"

    def verify(self, registry: RegistryAccess, repository: str, digest: Digest, keys: Sequence[str]) -> None:
        if digest not in self.signed:
            raise SignatureError("no signature found")

    def sign(
        self, registry: RegistryAccess, repository: str, digest: Digest, *, key: Path, password: SecretStr
    ) -> None:
        if self.refusal:
            raise self.refusal
        self.signed[digest] = list(self.pushes.tags)


def signing(pushes: Pushes, cosign: Any) -> SigningPusher:
    access = RegistryAccess("http://source.test")
    return SigningPusher(pushes, StateSigner(cosign, access, Path("cosign.key"), SecretStr("")))


def test_publish_group_is_signed_before_the_moving_tag_names_it(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    cosign = Signatures(pushes)

    publish(session_factory, signing(pushes, cosign), make_group(session_factory))

    assert list(cosign.signed.values()) == [[("1",)]]
    assert pushes.tags == [("1",), ("latest",)]


def test_publish_group_that_cannot_be_signed_is_not_recorded(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    spec = make_group(session_factory)

    with pytest.raises(SignatureError, match="wrong password"):
        publish(session_factory, signing(pushes, Signatures(pushes, SignatureError("wrong password"))), spec)

    with session_factory() as session:
        assert group_states.group_spec(session, "shops").published is None
    assert ("latest",) not in pushes.tags


def test_ensure_signed_signs_once_only() -> None:
    cosign = Signatures(Pushes())
    signer = signing(Pushes(), cosign).signer

    assert [signer.ensure_signed("state", Digest.of(b"one")) for _ in range(2)] == [True, False]


def test_ensure_signed_that_nobody_could_check_signs_nothing() -> None:
    class Unreachable(Signatures):
        def verify(self, registry: RegistryAccess, repository: str, digest: Digest, keys: Sequence[str]) -> None:
            error = SignatureError("could not be checked")
            error.retryable = True
            raise error

    cosign = Unreachable(Pushes())

    with pytest.raises(SignatureError, match="could not be checked"):
        signing(Pushes(), cosign).signer.ensure_signed("state", Digest.of(b"one"))

    assert cosign.signed == {}


def test_publish_group_of_more_than_a_state_can_hold_publishes_nothing(session_factory: SessionFactory) -> None:
    pushes = Pushes()
    spec = make_group(session_factory)
    entries = tuple(StateEntry(f"acme/{'a' * 200}-{number}", ("v1",), Digest.of(b"x")) for number in range(12_000))

    with pytest.raises(InvalidInputError, match="at most 4194304 can be published"), session_factory.begin() as session:
        publish_group(session, pushes, spec, ResolvedGroup(entries, ()), registry="http://source.test", now=NOW)

    assert pushes.tags == []


class Deletions(LayoutRegistry):
    """Takes deletions of tags, and deletes nothing."""

    deleted: tuple[str, ...] = ()

    def manifest_delete(self, repository: str, reference: str) -> bool:
        del repository
        self.deleted += (reference,)
        return True


def test_drop_generation_that_is_still_named_stays(tmp_path: Path, session_factory: SessionFactory) -> None:
    source = Deletions(tmp_path)
    make_group(session_factory)
    with session_factory.begin() as session:
        group = show_group(session, "shops")
        group.is_staged, group.released_generation = True, 2

    with session_factory() as session:
        for generation in (50, 51, 52, 53):
            drop_generation(session, source, "shops", generation)

    assert source.deleted == ("1", "3")
