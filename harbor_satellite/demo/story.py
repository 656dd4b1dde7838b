"""The story of the demo: publish, register, replicate, pull; then change the centre and watch the site follow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from harbor_satellite.demo import images
from harbor_satellite.demo.operator import Operator
from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, publish_tags
from harbor_satellite.registry.resolve import resolve_tag

if TYPE_CHECKING:
    from rich.console import Console

    from harbor_satellite.demo.stack import DemoStack
    from harbor_satellite.oci.reference import Reference
    from harbor_satellite.processes import Child
    from harbor_satellite.registry.closure import Closure

GROUP: Final = "shop-floor"
SATELLITE: Final = "shop-001"
_STEP_SECONDS: Final = 120.0
_BASE_BYTES: Final = 3_000_000
_APP_BYTES: Final = 400_000

Images = dict[tuple[str, str], Descriptor]


@dataclass
class Story:
    """Tells the demo in short lines, and keeps what its closing table shows."""

    stack: DemoStack
    console: Console
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    state_digest: str = ""

    def tell(self, extra: tuple[Reference, ...]) -> None:
        """Go through the whole story.

        Args:
            extra: images of the user's own to replicate as well.

        Raises:
            HarborSatelliteError: a step failed; the message names it.
        """
        stack, started = self.stack, time.monotonic()
        centre = stack.start_centre()
        stack.start_registry()
        self._say(f"centre's registry {stack.addresses.central_registry} ({stack.registry_kind})")
        central = stack.central()
        held = self._make_images(central)
        for reference in extra:
            name, image = self._import_image(central, reference)
            held[name] = image
        with self.console.status("starting Ground Control, the Prefect server and the central worker"):
            stack.wait_for_centre(centre)
        self._say(f"Ground Control {stack.addresses.ground_control}, Prefect {stack.addresses.prefect}")
        with Operator(stack.addresses.ground_control, stack.admin_password) as operator:
            self._act(operator, central, held)
        self.console.print(self._table())
        self._say(f"done in {time.monotonic() - started:.0f} s: the site followed the centre through every change")

    def _act(self, operator: Operator, central: HttpRegistry, held: Images) -> None:
        registry = self.stack.addresses.central_registry
        operator.sync_group(GROUP, registry, held)
        self._say(f"published group {GROUP}: {len(held)} artifacts")
        token = operator.register_satellite(SATELLITE, [GROUP])
        edge = self.stack.start_edge(token)
        self._say(f"registered satellite {SATELLITE}; its agent claims the one-time token by itself")
        addresses = self.stack.addresses
        self._say(f"site's registry {addresses.local_registry}, its status page {addresses.status_page}")
        self._follow(operator, edge, held, {}, "first replication")

        added = ("acme/scanner", "v1")
        held[added] = images.push_image(
            central, added[0], images.AMD64, [images.layer("base", _BASE_BYTES), images.layer("scanner", _APP_BYTES)]
        )
        images.tag_image(central, *added, held[added])
        operator.sync_group(GROUP, registry, held)
        self._say("added acme/scanner:v1 at the centre")
        self._follow(operator, edge, held, {}, "image added")

        moved = ("acme/till", "stable")
        held[moved] = _push_till(central, "stable", "till-2")
        operator.sync_group(GROUP, registry, held)
        self._say("moved the tag acme/till:stable at the centre")
        self._follow(operator, edge, held, {}, "tag moved")

        gone: tuple[str, str] = ("acme/kiosk", "v1")
        removed: Images = {gone: held.pop(gone)}
        operator.sync_group(GROUP, registry, held)
        self._say("removed acme/kiosk:v1 at the centre")
        self._follow(operator, edge, held, removed, "image removed")

    def _make_images(self, central: HttpRegistry) -> Images:
        base = images.layer("base", _BASE_BYTES)
        kiosk = images.push_image(central, "acme/kiosk", images.AMD64, [base, images.layer("kiosk", _APP_BYTES)])
        images.tag_image(central, "acme/kiosk", "v1", kiosk)
        chart, _ = images.push_artifact(central, "acme/chart", "1.0.0")
        held = {
            ("acme/till", "stable"): _push_till(central, "stable", "till-1"),
            ("acme/kiosk", "v1"): kiosk,
            ("acme/chart", "1.0.0"): chart,
        }
        self._say("made a two-platform image, one that shares its base layer, and a chart with an SBOM referring to it")
        return held

    def _import_image(self, central: HttpRegistry, reference: Reference) -> tuple[tuple[str, str], Descriptor]:
        """Bring an image of the user's own to the central registry, as it is."""
        tag = reference.tag or "pinned"
        with (
            self.console.status(f"bringing {reference} to the central registry"),
            HttpRegistry(reference.registry) as source,
        ):
            digest = reference.digest or resolve_tag(source, reference.repository, reference.tag)
            result = Copier(source, central).stage(reference.repository, digest, None)
            publish_tags(central, reference.repository, digest, (tag,))
        self._say(f"brought {reference} to the central registry: {result.bytes_copied} bytes")
        found = central.manifest_head(reference.repository, tag)
        if found is None:
            raise HarborSatelliteError(f"{reference} did not reach the central registry")
        return (reference.repository, tag), found

    def _follow(self, operator: Operator, edge: Child, held: Images, removed: Images, step: str) -> None:
        """Wait until the site is in step, then pull everything from it and compare."""
        started = time.monotonic()

        def is_alive() -> None:
            if edge.returncode is not None:
                raise HarborSatelliteError(f"{step}: the site ended with status {edge.returncode}; see {edge.log}")

        with self.console.status(f"{step}: waiting for the site"):
            status = operator.wait_in_step(SATELLITE, self.state_digest, _STEP_SECONDS, is_alive)
        self.state_digest = status["latest_state_digest"]
        size = self._pull_all(held, removed, step)
        seconds = time.monotonic() - started
        self.rows.append((step, _changes(status), f"{status['bytes_from_source']:,}", f"{seconds:.1f} s"))
        self._say(
            f"{step}: site in step after {seconds:.1f} s; "
            f"pulled {len(held)} artifacts ({size:,} bytes), every digest as at the centre"
        )

    def _pull_all(self, held: Images, removed: Images, step: str) -> int:
        local = self.stack.local()
        size = 0
        for (repository, tag), wanted in held.items():
            found = local.manifest_head(repository, tag)
            if found is None or found.digest != wanted.digest:
                raise DigestMismatchError(
                    f"{step}: {repository}:{tag} is {found and found.digest} at the site, {wanted.digest} at the centre"
                )
            size += _pull(local, repository, wanted)
        for repository, tag in removed:
            if local.manifest_head(repository, tag) is not None:
                raise HarborSatelliteError(f"{step}: {repository}:{tag} is still at the site")
        return size

    def _table(self) -> Table:
        table = Table("step", "at the site", "bytes over the WAN", "took", title=f"{SATELLITE} followed {GROUP}")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _say(self, line: str) -> None:
        self.console.print(f"[green]✓[/green] {line}", highlight=False)


def _push_till(central: HttpRegistry, tag: str, content: str) -> Descriptor:
    base = images.layer("base", _BASE_BYTES)
    children = [
        images.push_image(
            central, "acme/till", platform, [base, images.layer(f"{content}-{platform.architecture}", _APP_BYTES)]
        )
        for platform in (images.AMD64, images.ARM64)
    ]
    return images.push_index(central, "acme/till", tag, children)


def _pull(registry: HttpRegistry, repository: str, image: Descriptor) -> int:
    """Pull an artifact with its referrers as a client does: every byte, each verified against its digest."""
    closure: Closure = Copier(registry, registry).walk(repository, image.digest, None)
    for blob in closure.blobs:
        hasher = blob.digest.hasher()
        with registry.blob_get(repository, blob.digest) as chunks:
            for chunk in chunks:
                hasher.update(chunk)
        if hasher.hexdigest() != blob.digest.hex:
            raise DigestMismatchError(f"{repository}: blob {blob.digest} has other bytes at the site")
    return closure.size


def _changes(status: dict[str, Any]) -> str:
    return f"{status['copied_count']} copied, {status['deleted_count']} deleted, {status['image_count']} held"
