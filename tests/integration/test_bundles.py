"""`edge receipt`, `edge export`, `edge import` as programs, between real registries; and what other tools read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from pydantic import SecretStr

from harbor_satellite.demo import images
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.resolve import cosign_tags, describe
from harbor_satellite.registry.state_store import StatePusher
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import GroupName, SatelliteName, group_state_repository, satellite_state_repository
from harbor_satellite.state.policy import GroupPolicy
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.fixtures_registry import run_embedded
from tests.integration.test_embedded_registry_crash import small_disk
from tests.integration.test_signatures import OLDER, Signer, make_signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest
    from tests.fixtures_registry import RunningRegistry

__all__ = ["small_disk"]

EDGE: Final = (sys.executable, "-c", "from harbor_satellite.cli import main; main()", "edge")
SHOP: Final = SatelliteName("shop")
GROUP: Final = GroupName("g")
APP: Final = "acme/app"
STATE: Final = f"{satellite_state_repository(SHOP)}:latest"


@dataclass
class Done:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output)
        return found

    def references(self, action: str) -> list[str]:
        return [image["reference"] for image in self.document[action]]


def edge(*arguments: object, **settings: object) -> Done:
    environment = {f"HARBOR_SATELLITE_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"HARBOR_SATELLITE_DISK_RESERVE_BYTES": "0", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*EDGE, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Centre:
    """The centre's registry, and what it decided so far."""

    running: RunningRegistry
    registry: HttpRegistry
    entries: dict[str, StateEntry] = field(default_factory=dict)
    generation: int = 0
    policy: GroupPolicy = field(default_factory=GroupPolicy)

    @property
    def state(self) -> str:
        return f"{self.running.url}/{STATE}"

    def add(self, repository: str, image: Descriptor, *tags: str) -> None:
        for tag in tags:
            images.tag_image(self.registry, repository, tag, image)
        entry, closure = describe(self.registry, StateEntry(repository, tags, image.digest))
        self.entries[f"{repository}:{tags}"] = entry
        for tag in cosign_tags(self.registry, repository, [closure]):
            found = self.registry.manifest_head(repository, tag)
            assert found
            self.entries[f"{repository}:{tag}"] = StateEntry(
                repository, (tag,), found.digest, type="REFERRER", referrers=()
            )

    def publish(self) -> None:
        self.generation += 1
        pusher = StatePusher(self.running.host, plain_http=True)
        state = StateArtifact(
            GROUP, self.running.url, tuple(self.entries.values()), self.generation, policy=self.policy
        )
        repository = group_state_repository(GROUP)
        digest = pusher.push(repository, ["latest"], state_artifact_json(state))
        pin = StatePin(GROUP, Reference(self.running.host, repository, "latest", digest), self.generation)
        whole = SatelliteState(SHOP, (pin,), scheme="http")
        pusher.push(satellite_state_repository(SHOP), ["latest"], satellite_state_json(whole))


@dataclass
class Shop:
    """A site that has no link to the centre."""

    running: RunningRegistry
    registry: HttpRegistry
    folder: Path

    def settings(self) -> dict[str, object]:
        return {"data_dir": self.folder, "local_registry_url": self.running.url}

    def receipt(self, path: Path) -> Path:
        done = edge("receipt", **self.settings())
        assert done.code == 0, done.errors
        path.write_text(done.output)
        return path

    def bring(self, bundle: Path, **settings: object) -> Done:
        return edge("import", bundle, "--output", "json", **self.settings(), **settings)

    def digest(self, tag: str, repository: str = APP) -> Digest | None:
        found = self.registry.manifest_head(repository, tag)
        return found.digest if found else None


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    with run_embedded(tmp_path / "centre") as running, HttpRegistry(running.url) as registry:
        yield Centre(running, registry)


@pytest.fixture
def shop(tmp_path: Path, any_registry: RunningRegistry) -> Iterator[Shop]:
    with HttpRegistry(any_registry.url) as registry:
        yield Shop(any_registry, registry, tmp_path / "shop")


@pytest.fixture
def small_shop(tmp_path: Path, embedded_registry: RunningRegistry) -> Iterator[Shop]:
    with HttpRegistry(embedded_registry.url) as registry:
        yield Shop(embedded_registry, registry, tmp_path / "shop")


def register(shop: Shop, centre: Centre) -> None:
    """Make the shop one that was registered while it still had a link."""
    auth = RegistryAuth(url=centre.running.url, username="", password=SecretStr(""))
    SatelliteStore(shop.folder).save_registration(Registration(auth=auth, state=centre.state, satellite=SHOP))


def export(centre: Centre, output: Path, *arguments: object) -> Done:
    return edge("export", "--state", centre.state, "--output", output, "--report", "json", *arguments)


def push_app(centre: Centre, *layers: images.Blob) -> Descriptor:
    children = [
        images.push_image(centre.registry, APP, platform, [*layers, images.layer(str(platform), 20_000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    return images.push_index(centre.registry, APP, "v1", children)


def test_bundles_full_then_incremental_then_the_link_is_back(centre: Centre, shop: Shop, tmp_path: Path) -> None:
    register(shop, centre)
    base = images.layer("base", 2_000_000)
    first = push_app(centre, base)
    chart, sbom = images.push_artifact(centre.registry, "acme/chart", "stable")
    centre.add(APP, first, "v1")
    centre.add("acme/chart", chart, "stable")
    centre.publish()

    full = export(centre, tmp_path / "full.tar", "--since", shop.receipt(tmp_path / "empty.json"))
    brought = shop.bring(tmp_path / "full.tar")

    assert full.code == 0, full.errors
    assert full.references("copied") == ["acme/app:v1", "acme/chart:stable"]
    assert brought.code == 0, brought.errors
    assert shop.digest("v1") == first.digest
    assert [item.digest for item in shop.registry.referrer_list("acme/chart", chart.digest)] == [sbom.digest]

    second = push_app(centre, base, images.layer("change", 50_000))
    centre.add(APP, second, "v1")
    centre.publish()
    change = export(centre, tmp_path / "change.tar", "--since", shop.receipt(tmp_path / "shop.json"))
    brought = shop.bring(tmp_path / "change.tar")

    assert change.code == 0, change.errors
    assert change.references("kept") == ["acme/chart:stable"]
    assert 50_000 < (tmp_path / "change.tar").stat().st_size < 100_000
    assert (tmp_path / "full.tar").stat().st_size > 2_000_000
    assert brought.code == 0, brought.errors
    assert brought.references("copied") == ["acme/app:v1"]
    assert shop.digest("v1") == second.digest

    again = shop.bring(tmp_path / "change.tar")
    assert (again.code, again.references("copied")) == (0, [])
    linked = edge("sync", "--output", "json", **shop.settings())
    assert linked.code == 0, linked.errors
    assert (linked.references("copied"), linked.document["requests"]) == ([], 1)
    older = shop.bring(tmp_path / "full.tar")
    assert older.code == 1
    assert "went back from generation 2 to 1" in older.errors
    assert shop.digest("v1") == second.digest


def test_bundle_split_is_imported_unless_a_part_is_missing_or_damaged(
    centre: Centre, small_shop: Shop, tmp_path: Path
) -> None:
    shop = small_shop
    image = push_app(centre, images.layer("base", 1_000_000))
    centre.add(APP, image, "v1")
    centre.publish()

    done = export(centre, tmp_path / "b.tar", "--split", "200K")

    parts = sorted(tmp_path.glob("b.tar.*"))
    assert done.code == 0, done.errors
    assert done.document["files"] == [str(part) for part in parts]
    assert len(parts) >= 6
    assert all(part.stat().st_size <= 200_000 for part in parts)

    whole = parts[2].read_bytes()
    parts[2].write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    damaged = shop.bring(parts[0])
    assert damaged.code == 1
    assert f"{parts[2]} is not part 2 of this bundle: it is damaged" in damaged.errors
    parts[2].unlink()
    missing = shop.bring(parts[0])
    assert missing.code == 1
    assert f"part {parts[2]} is missing" in missing.errors
    assert shop.registry.repository_list() == ()

    parts[2].write_bytes(whole)
    assert shop.bring(parts[0]).code == 0
    assert shop.digest("v1") == image.digest


def test_group_state_by_hand_is_no_way_around_what_the_site_follows(
    centre: Centre, small_shop: Shop, tmp_path: Path
) -> None:
    register(small_shop, centre)
    centre.add(APP, push_app(centre), "v1")
    centre.publish()
    group = f"{centre.running.url}/{group_state_repository(GROUP)}:latest"
    assert edge("export", "--state", group, "--output", tmp_path / "older.tar").code == 0
    newer = push_app(centre, images.layer("newer", 1000))
    centre.add(APP, newer, "v1")
    centre.publish()
    assert export(centre, tmp_path / "b.tar").code == 0
    assert small_shop.bring(tmp_path / "b.tar").code == 0

    done = small_shop.bring(tmp_path / "older.tar")

    assert done.code == 1
    assert "went back from generation 2 to 1" in done.errors
    assert small_shop.digest("v1") == newer.digest


def test_bundle_for_another_satellite_is_wrong_use(centre: Centre, small_shop: Shop, tmp_path: Path) -> None:
    centre.add(APP, push_app(centre), "v1")
    centre.publish()
    assert export(centre, tmp_path / "b.tar").code == 0
    auth = RegistryAuth(url=centre.running.url, username="", password=SecretStr(""))
    state = f"{centre.running.url}/{satellite_state_repository(SatelliteName('van'))}:latest"
    SatelliteStore(small_shop.folder).save_registration(Registration(auth=auth, state=state, satellite="van"))

    done = small_shop.bring(tmp_path / "b.tar")

    assert done.code == 2
    assert "made for shop; this site follows" in done.errors
    assert small_shop.registry.repository_list() == ()


def test_export_killed_leaves_no_bundle_and_starts_over(centre: Centre, small_shop: Shop, tmp_path: Path) -> None:
    register(small_shop, centre)
    image = push_app(centre, images.layer("base", 2_000_000))
    centre.add(APP, image, "v1")
    centre.publish()
    output, unfinished = tmp_path / "out" / "b.tar", tmp_path / "out" / ".b.tar.unfinished"
    output.parent.mkdir()
    command = [*EDGE, "export", "--output", str(output)]
    environment = {
        "HARBOR_SATELLITE_DATA_DIR": str(small_shop.folder),
        "HARBOR_SATELLITE_BYTES_PER_SECOND": "200000",  # ten seconds, so that it is killed on its way
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size > 100_000 for part in unfinished.glob("part.*")):
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.kill()
    assert not output.exists()

    done = edge("export", "--output", output, **small_shop.settings())

    assert done.code == 0, done.errors
    assert list(output.parent.iterdir()) == [output]
    assert small_shop.bring(output).code == 0
    assert small_shop.digest("v1") == image.digest


def test_export_on_full_disk_says_so_and_leaves_nothing(centre: Centre, small_disk: Path) -> None:
    image = push_app(centre, images.layer("base", 9_000_000))
    centre.add(APP, image, "v1")
    centre.publish()

    done = export(centre, small_disk / "b.tar")

    assert done.code == 1
    assert "no space left" in done.errors
    assert list(small_disk.iterdir()) == []


def test_export_without_state_or_registration_is_wrong_use(tmp_path: Path) -> None:
    done = edge("export", "--output", tmp_path / "b.tar", data_dir=tmp_path / "nobody")

    assert done.code == 2
    assert "give --state" in done.errors


@pytest.mark.parametrize("name", ["skopeo", "oras"])
def test_full_bundle_is_read_by_other_tools(centre: Centre, small_shop: Shop, tmp_path: Path, name: str) -> None:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"NOT TESTED: there is no program {name!r} on PATH")
    image = push_app(centre, images.layer("base", 300_000))
    centre.add(APP, image, "v1")
    centre.publish()
    bundle = tmp_path / "b.tar"
    assert export(centre, bundle).code == 0
    target = f"{small_shop.running.host}/{APP}:v1"
    commands = {
        "skopeo": [
            *(program, "--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"),
            *(f"oci-archive:{bundle}:{APP}:v1", f"docker://{target}"),
        ],
        "oras": [program, "cp", "--from-oci-layout", f"{bundle}@{image.digest}", "--to-plain-http", target],
    }

    done = subprocess.run(commands[name], env=dict(os.environ), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert small_shop.digest("v1") == image.digest


@pytest.mark.slow
@pytest.mark.go_tool
@pytest.mark.parametrize("scheme", [(), (OLDER,)], ids=["bundle", "older"])
def test_signed_image_is_verified_at_the_site_without_a_link(
    centre: Centre, shop: Shop, tmp_path: Path, scheme: tuple[str, ...]
) -> None:
    signer = make_signer(tmp_path / "signer")
    image = push_app(centre, images.layer("base", 20_000))
    signer.sign(centre.registry, image.digest, *scheme)
    centre.add(APP, image, "v1")
    centre.policy = GroupPolicy(signature_keys=(signer.public,))
    centre.publish()
    assert export(centre, tmp_path / "b.tar").code == 0

    done = shop.bring(tmp_path / "b.tar")

    assert done.code == 0, done.errors + done.output
    assert shop.digest("v1") == image.digest


@pytest.mark.slow
@pytest.mark.go_tool
def test_unsigned_image_is_not_published_from_a_bundle(centre: Centre, shop: Shop, tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "signer")
    centre.add(APP, push_app(centre), "v1")
    centre.policy = replace(centre.policy, signature_keys=(signer.public,))
    centre.publish()
    assert export(centre, tmp_path / "b.tar").code == 0

    done = shop.bring(tmp_path / "b.tar")

    assert done.code == 1
    assert "no signature found" in done.document["failed"][0]["reason"]
    assert shop.digest("v1") is None


@pytest.mark.slow
@pytest.mark.go_tool
def test_signed_state_is_followed_and_unsigned_is_not(centre: Centre, shop: Shop, tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "signer")
    image = push_app(centre)
    centre.add(APP, image, "v1")
    centre.publish()
    keys = {"state_keys": signer.folder / "cosign.pub"}
    assert export(centre, tmp_path / "unsigned.tar").code == 0
    refused = shop.bring(tmp_path / "unsigned.tar", **keys)
    _sign_states(signer, centre)
    assert export(centre, tmp_path / "signed.tar").code == 0

    done = shop.bring(tmp_path / "signed.tar", **keys)

    assert refused.code == 1
    assert "no signature found" in refused.errors
    assert done.code == 0, done.errors
    assert shop.digest("v1") == image.digest


def _sign_states(signer: Signer, centre: Centre) -> None:
    offline = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry")
    for repository in (group_state_repository(GROUP), satellite_state_repository(SHOP)):
        found = centre.registry.manifest_head(repository, "latest")
        assert found
        reference = f"{centre.running.host}/{repository}@{found.digest}"
        signer.run("sign", "--yes", "--key", "cosign.key", *offline, reference)
