"""What the centre's config does at a site: replays refused, settings kept and weighed, bounds lifted again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.edge.site import effective_settings
from harbor_satellite.errors import PausedError, StorageError, UntrustedDataError
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.options import WanLimits
from harbor_satellite.satellite.registration import register
from harbor_satellite.satellite.site_config import SiteConfig, forget_serial, load_site_config
from harbor_satellite.satellite.sync import sync_satellite
from harbor_satellite.satellite.wan import WanGate
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.config import SatelliteConfig
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.unit.satellite.site import HOST, OPTIONS, STATE_URL, Site, wanted

if TYPE_CHECKING:
    from typing import Any

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.satellite.ground_control_client import GroundControlClient

APP = "acme/app"


def publish(site: Site, serial: int = 0, config: SatelliteConfig | None = None, content: str = "1") -> Digest:
    image = site.image(APP, content)
    return site.publish({"g": [wanted(APP, image, "v1")]}, serial=serial, settings=config)


def test_state_with_a_lower_serial_is_a_replay(site: Site) -> None:
    old = publish(site, 4)
    site.sync()
    publish(site, 5, content="2")
    site.sync()
    before = site.local_tags(APP)
    site.replay(old)

    with pytest.raises(UntrustedDataError, match="went back from serial 5 to 4; keeping what is here"):
        site.sync()

    assert site.local_tags(APP) == before


def test_state_without_serial_is_refused_once_one_had_a_serial(site: Site) -> None:
    without = publish(site)
    site.sync()
    publish(site, 1, content="2")
    site.sync()
    site.replay(without)

    with pytest.raises(UntrustedDataError, match="from serial 1 to 0"):
        site.sync()


def test_states_without_serial_are_taken_in_any_order(site: Site) -> None:
    first = publish(site)
    site.sync()
    publish(site, content="2")
    site.sync()
    site.replay(first)

    assert site.sync().is_converged


class OneAnswer:
    """Ground Control as far as a claim goes."""

    def claim(self, *_: Any) -> Registration:
        return Registration(
            auth=RegistryAuth(url=f"https://{HOST}", username="u", password=SecretStr("p")), state=STATE_URL
        )


def test_registration_anew_forgets_the_serial_and_keeps_the_config(site: Site) -> None:
    publish(site, 9, SatelliteConfig(image_workers=2))
    site.sync()
    client: GroundControlClient = OneAnswer()  # type: ignore[assignment]  # all that a claim needs

    register(client, site.store, SecretStr("token"), is_again=True)

    assert load_site_config(site.store).serial == 0
    assert load_site_config(site.store).config == SatelliteConfig(image_workers=2)


def test_forget_serial_without_a_config_writes_nothing(site: Site) -> None:
    forget_serial(site.store)

    assert not (site.store.folder / "site-config.json").exists()


def test_config_of_the_last_state_is_kept_with_its_digest(site: Site) -> None:
    digest = publish(site, 3, SatelliteConfig(image_workers=2))

    site.sync()

    assert load_site_config(site.store) == SiteConfig(3, digest, SatelliteConfig(image_workers=2))
    assert load_site_config(site.store).digest.startswith("sha256:")


def test_state_that_says_nothing_any_more_ends_the_config(site: Site) -> None:
    publish(site, 1, SatelliteConfig(image_workers=2))
    site.sync()
    publish(site, 2)

    site.sync()

    assert load_site_config(site.store).config == SatelliteConfig()
    assert load_site_config(site.store).digest == ""


def test_refused_state_changes_no_config(site: Site) -> None:
    old = publish(site, 1, SatelliteConfig(image_workers=7))
    site.sync()
    publish(site, 2, SatelliteConfig(image_workers=2))
    site.sync()
    site.replay(old)

    with pytest.raises(UntrustedDataError):
        site.sync()

    assert load_site_config(site.store).config == SatelliteConfig(image_workers=2)


def test_damaged_config_is_reported(site: Site) -> None:
    site.store.write_document("site-config.json", {"serial": "x"})

    with pytest.raises(StorageError, match=r"site-config\.json is damaged"):
        load_site_config(site.store)


def test_effective_settings_take_the_config_above_defaults(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_BLOB_WORKERS", "3")
    publish(site, 1, SatelliteConfig(image_workers=2, blob_workers=5, sync_windows=("Sat",), timezone="Europe/Berlin"))
    site.sync()

    settings = effective_settings(SatelliteSettings(), site.store)

    assert settings.image_workers == 2
    assert settings.blob_workers == 3  # set at the site
    assert settings.replication_options().wan == WanLimits(windows=("Sat",), timezone="Europe/Berlin")


@pytest.mark.parametrize(("own", "said", "holds"), [("5G", 10**9, 10**9), ("1G", 5 * 10**9, 10**9), ("", 7, 7)])
def test_with_config_lower_cap_holds(monkeypatch: pytest.MonkeyPatch, own: str, said: int, holds: int) -> None:
    if own:
        monkeypatch.setenv("HARBOR_SATELLITE_DAILY_BYTES", own)

    assert SatelliteSettings().with_config(SatelliteConfig(daily_bytes=said)).daily_bytes == holds


def test_with_config_platforms_are_those_of_the_config() -> None:
    config = SatelliteConfig(platforms=OPTIONS.platforms or ())

    assert SatelliteSettings().with_config(config).platforms == ()


def test_with_config_of_nothing_changes_nothing() -> None:
    assert SatelliteSettings().with_config(SatelliteConfig()) == SatelliteSettings()


def engine(site: Site, gate: WanGate) -> Engine:
    def limits_of(config: SatelliteConfig) -> WanLimits:
        return SatelliteSettings().with_config(config).wan_limits()

    return Engine(site.connections, site.store, OPTIONS, gate, now=lambda: site.now, limits_of=limits_of)


def test_config_bounds_the_run_that_brings_it(site: Site) -> None:
    publish(site, 1, SatelliteConfig(daily_bytes=0))
    with WanGate(WanLimits(), site.store.folder / "ledger.json") as gate:
        outcome = sync_satellite(engine(site, gate), STATE_URL)

    assert [image.action for image in outcome.images] == ["paused"]


def test_bounds_of_the_centre_can_be_lifted_by_the_centre(site: Site) -> None:
    publish(site, 1, SatelliteConfig(daily_bytes=0))
    with WanGate(WanLimits(), site.store.folder / "ledger.json") as gate:
        sync_satellite(engine(site, gate), STATE_URL)
    publish(site, 2, SatelliteConfig())

    with WanGate(WanLimits(daily_bytes=0), site.store.folder / "ledger.json") as gate:
        outcome = sync_satellite(engine(site, gate), STATE_URL)

    assert outcome.is_converged


def test_bounds_of_the_centre_hold_as_long_as_it_says_so(site: Site) -> None:
    publish(site, 1, SatelliteConfig(daily_bytes=0))
    with WanGate(WanLimits(), site.store.folder / "ledger.json") as gate:
        sync_satellite(engine(site, gate), STATE_URL)

    with WanGate(WanLimits(daily_bytes=0), site.store.folder / "ledger.json") as gate, pytest.raises(PausedError):
        sync_satellite(engine(site, gate), STATE_URL)


def test_bounds_of_the_site_itself_are_not_asked_about(site: Site) -> None:
    publish(site, 1)
    with (
        WanGate(WanLimits(daily_bytes=0), site.store.folder / "ledger.json") as gate,
        pytest.raises(PausedError),
    ):
        sync_satellite(engine(site, gate), STATE_URL)

    assert site.home.requests == 0
