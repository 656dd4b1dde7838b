"""The registry of a site, as its services and files: what is refused, what stays, what survives."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.edge.own_registry import load_current, save_current, wanted_place, writer
from harbor_satellite.edge.registry_root import MARK_FILE, KnownRoot
from harbor_satellite.edge.registry_service import make_services, refresh_plan, registry_problem
from harbor_satellite.edge.registry_switch import switch_if_needed
from harbor_satellite.edge.services import PLAN_FILE, Sighting, read_plan, write_sightings
from harbor_satellite.edge.site import effective_settings, site_settings, with_local_registry
from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator, set_password
from harbor_satellite.satellite.generations import Generations, SiteGeneration, Standing, save_generations
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.config import RegistrySettings, SatelliteConfig
from harbor_satellite.state.desired import LocalTag
from tests.ports import free_port
from tests.unit.edge.conftest import make_pair

if TYPE_CHECKING:
    from harbor_satellite.edge.services import Service

DIGEST = Digest.of(b"an image")
NO_ZOT = "/no/such/zot"


def site(folder: Path, **values: Any) -> SatelliteSettings:
    given = {"registry_kind": "embedded", "registry_listen": f"127.0.0.1:{free_port()}", "zot": NO_ZOT}
    return SatelliteSettings(data_dir=folder, _env_file=None, **{**given, **values})


def service(settings: SatelliteSettings, name: str = "registry") -> Service:
    return next(each for each in make_services(settings).services if each.name == name)


def apply_image(settings: SatelliteSettings) -> None:
    names = {LocalTag("acme/app", "v1"): Standing(DIGEST)}
    generation = SiteGeneration(Digest.of(b"state"), datetime(2026, 1, 1, tzinfo=UTC), names)
    save_generations(SatelliteStore(settings.data_dir), Generations(current=generation))


def test_make_services_external_runs_the_agent_alone(tmp_path: Path) -> None:
    settings = site(tmp_path, registry_kind="external", local_registry_url="http://registry.example:5000")

    assert [each.name for each in make_services(settings).services] == ["agent"]


def test_make_services_starts_the_registry_before_the_agent(tmp_path: Path) -> None:
    settings = site(tmp_path)

    plan = make_services(settings)

    assert [each.name for each in plan.services] == ["registry", "agent"]
    assert plan.services[0].argv[-12:] == (
        *("edge", "registry"),
        *("--root", str(tmp_path / "registry" / "embedded"), "--listen", settings.registry_listen),
        *("--htpasswd", str(tmp_path / "registry" / "htpasswd"), "--writer", "satellite"),
        *("--retention-seconds", "172800"),
    )
    assert plan.services[1].alive_file == str(tmp_path / "agent.alive")


def test_make_services_twice_is_the_same_plan(tmp_path: Path) -> None:
    settings = site(tmp_path)

    first = refresh_plan(settings)
    written = (tmp_path / PLAN_FILE).stat().st_mtime_ns

    assert refresh_plan(settings) == first == read_plan(tmp_path)
    assert (tmp_path / PLAN_FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize("listen", ["0.0.0.0:8585", "[::]:8585", "192.0.2.7:8585", "shop.example:8585"])
def test_make_services_beyond_the_loopback_without_tls_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(InvalidInputError, match="beyond the loopback a registry needs TLS"):
        make_services(site(tmp_path, registry_listen=listen))


def test_make_services_open_registry_listens_everywhere_and_is_reached_by_the_loopback(tmp_path: Path) -> None:
    port = free_port()
    settings = site(tmp_path, registry_listen=f"0.0.0.0:{port}", registry_is_open=True)

    assert f"0.0.0.0:{port}" in service(settings).argv
    assert with_local_registry(settings).local_registry_url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"registry_listen": "127.0.0.1:0"}, "a port that stays"),
        ({"registry_listen": "8585"}, "not an address"),
        ({"registry_tls_certificate": Path("/c.pem")}, "go together"),
        ({"registry_tls_certificate": Path("/c.pem"), "registry_tls_key": Path("/k.pem")}, "cannot be used"),
        ({"registry_kind": "zot"}, "no program '/no/such/zot'"),
    ],
    ids=["port 0", "no host", "half a pair", "no such pair", "no zot"],
)
def test_make_services_wrong_setting_says_which(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_services(site(tmp_path, **values))


def test_make_services_wrong_change_leaves_the_registry_as_it_was(tmp_path: Path) -> None:
    settings = site(tmp_path)
    before = refresh_plan(settings)

    after = refresh_plan(settings.model_copy(update={"registry_listen": "0.0.0.0:8585"}))

    assert after == before
    assert "beyond the loopback" in registry_problem(tmp_path)
    assert with_local_registry(settings).local_registry_url == f"http://{settings.registry_listen}"
    assert refresh_plan(settings) == before
    assert registry_problem(tmp_path) == ""


def test_make_services_secret_is_made_once_and_only_for_us(tmp_path: Path) -> None:
    settings = site(tmp_path)
    make_services(settings)
    first = with_local_registry(settings)
    make_services(settings)
    second = with_local_registry(settings)

    assert first.local_registry_username == "satellite"
    assert len(first.local_registry_password.get_secret_value()) >= 32
    assert second.local_registry_password == first.local_registry_password
    for name in ("writer.json", "htpasswd", "current.json"):
        assert (tmp_path / "registry" / name).stat().st_mode & 0o777 == 0o600
    assert first.local_registry_password.get_secret_value() not in " ".join(service(settings).argv)


def test_make_services_other_users_survive_and_the_writer_comes_back(tmp_path: Path) -> None:
    settings = site(tmp_path)
    make_services(settings)
    htpasswd = tmp_path / "registry" / "htpasswd"
    htpasswd.unlink()
    set_password(htpasswd, "technician", "made-up", is_random=True)

    make_services(settings)

    users = HtpasswdAuthenticator(htpasswd)
    assert users.verify("technician", "made-up")
    assert users.verify("satellite", writer(tmp_path).password.get_secret_value())


def test_wanted_place_auto_stays_with_the_kind_in_use(tmp_path: Path) -> None:
    settings = site(tmp_path, registry_kind="auto")
    make_services(settings)
    has_zot = settings.model_copy(update={"zot": sys.executable})

    assert wanted_place(has_zot, None).kind == "zot"
    assert wanted_place(has_zot, load_current(tmp_path)).kind == "embedded"


def test_probe_asks_for_an_image_that_the_site_put_there(tmp_path: Path) -> None:
    settings = site(tmp_path)
    url = f"http://{settings.registry_listen}/v2/"

    nothing_yet = service(settings).probe
    apply_image(settings)
    found = service(settings).probe

    assert nothing_yet is not None
    assert found is not None
    assert (nothing_yet.url, found.url) == (url, f"{url}acme/app/manifests/{DIGEST}")
    assert "Authorization" not in found.headers


def test_probe_logs_in_where_reading_needs_it_as_who_may_not_write(tmp_path: Path) -> None:
    settings = site(tmp_path, registry_anonymous_read=False)

    probe = service(settings).probe

    assert probe is not None
    name, _, password = base64.b64decode(probe.headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
    argv = service(settings).argv
    assert name == "watchdog"
    assert HtpasswdAuthenticator(tmp_path / "registry" / "htpasswd").verify(name, password)
    assert argv[argv.index("--writer") + 1] == "satellite"
    assert "--authenticated-read" in argv
    assert service(settings).probe == probe


def test_plan_holds_no_secret_of_the_writer(tmp_path: Path) -> None:
    settings = site(tmp_path, registry_anonymous_read=False)

    refresh_plan(settings)

    plan = (tmp_path / PLAN_FILE).read_text()
    assert writer(tmp_path).password.get_secret_value() not in plan
    assert writer(tmp_path).basic not in plan


def test_probe_of_a_certificate_for_a_name_goes_to_this_machine(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "DNS:shop.example")
    port = free_port()
    settings = site(
        tmp_path / "site",
        registry_listen=f"0.0.0.0:{port}",
        registry_tls_certificate=certificate,
        registry_tls_key=key,
        local_registry_url=f"https://shop.example:{port}",
    )

    probe = service(settings).probe

    assert probe is not None
    assert probe.url.startswith(f"https://shop.example:{port}/v2/")
    assert (probe.address, probe.certificate) == ("127.0.0.1", str(certificate))


def test_registry_whose_disk_is_away_does_not_run_until_somebody_says_that_it_is_right(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    settings = site(tmp_path / "site", registry_root=root)
    before = refresh_plan(settings)
    current = load_current(settings.data_dir)
    assert current
    elsewhere = KnownRoot(str(root), "mark-of-the-disk", root.stat().st_dev + 1)
    save_current(settings.data_dir, replace(current, known_root=elsewhere))

    away = refresh_plan(settings)
    reason = registry_problem(settings.data_dir)
    (root / MARK_FILE).touch()
    after = refresh_plan(settings)

    assert [each.name for each in away.services] == ["agent"]
    assert f"{root} is not the folder that held this site's images" in reason
    assert f"touch {root / MARK_FILE}" in reason
    assert after == before
    assert registry_problem(settings.data_dir) == ""


def test_registry_on_another_root_does_not_need_the_disk_that_is_away(tmp_path: Path) -> None:
    root, other = tmp_path / "disk", tmp_path / "other"
    settings = site(tmp_path / "site", registry_root=root)
    refresh_plan(settings)
    current = load_current(settings.data_dir)
    assert current
    elsewhere = KnownRoot(str(root), "mark-of-the-disk", root.stat().st_dev + 1)
    save_current(settings.data_dir, replace(current, known_root=elsewhere))

    plan = refresh_plan(settings.model_copy(update={"registry_root": other}))

    assert [each.name for each in plan.services] == ["registry", "agent"]
    assert str(other) in plan.services[0].argv


def test_with_local_registry_before_the_agent_ran_is_what_the_settings_say(tmp_path: Path) -> None:
    external = site(tmp_path, registry_kind="auto", local_registry_url="http://registry.example:5000")
    own = site(tmp_path, registry_listen="127.0.0.1:8599")
    everywhere = site(tmp_path, registry_listen="[::]:8599")

    assert with_local_registry(external) == external
    assert with_local_registry(own).local_registry_url == "http://127.0.0.1:8599"
    assert with_local_registry(everywhere).local_registry_url == "http://[::1]:8599"


def test_effective_settings_given_target_stays(tmp_path: Path) -> None:
    settings = site(tmp_path)
    make_services(settings)
    given = settings.model_copy(update={"local_registry_url": "http://other.example:5000"})

    assert effective_settings(given, is_target_given=True).local_registry_url == "http://other.example:5000"
    assert effective_settings(given).local_registry_url == f"http://{settings.registry_listen}"


def test_make_services_port_of_somebody_else_is_said(tmp_path: Path, occupied_port: int) -> None:
    with pytest.raises(InvalidInputError, match=f"127.0.0.1:{occupied_port} is in use by another process"):
        make_services(site(tmp_path, registry_listen=f"127.0.0.1:{occupied_port}"))


def test_make_services_other_kind_that_cannot_be_keeps_what_serves_up_to_date(tmp_path: Path) -> None:
    settings = site(tmp_path)
    refresh_plan(settings)
    (tmp_path / "registry" / "embedded" / "acme").mkdir()
    (tmp_path / "registry" / "embedded" / "acme" / "index.json").write_text("{}")
    centre_wants_zot = settings.model_copy(update={"registry_kind": "zot", "registry_anonymous_read": False})

    plan = refresh_plan(centre_wants_zot)

    assert [each.name for each in plan.services] == ["registry", "agent"]
    assert "--authenticated-read" in plan.services[0].argv
    assert "no program '/no/such/zot'" in registry_problem(tmp_path)
    assert not switch_if_needed(centre_wants_zot)


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "localhost"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.7")],  # noqa: S104
)
def test_make_services_external_that_is_our_own_is_refused(tmp_path: Path, listen: str, host: str) -> None:
    port = free_port()
    settings = site(tmp_path, registry_listen=f"{listen}:{port}", registry_is_open=True)
    before = refresh_plan(settings)
    own_url = f"http://{host}:{port}"

    plan = refresh_plan(settings.model_copy(update={"registry_kind": "external", "local_registry_url": own_url}))

    assert plan == before
    assert "must name another" in registry_problem(tmp_path)


def test_make_services_external_of_the_centre_without_a_url_of_the_site_is_refused(tmp_path: Path) -> None:
    settings = site(tmp_path)
    before = refresh_plan(settings)
    centre = SatelliteConfig(registry=RegistrySettings(kind="external"))
    auto = SatelliteSettings(
        data_dir=tmp_path, _env_file=None, registry_listen=settings.registry_listen, zot=NO_ZOT
    ).with_config(centre)

    assert refresh_plan(auto) == before
    assert "HARBOR_SATELLITE_LOCAL_REGISTRY_URL" in registry_problem(tmp_path)
    with pytest.raises(InvalidInputError):
        switch_if_needed(auto)


def test_make_services_zot_that_is_gone_leaves_what_it_held_to_the_embedded_registry(tmp_path: Path) -> None:
    zot = tmp_path / "zot"
    zot.write_text("#!/bin/sh\n")
    zot.chmod(0o700)
    settings = site(tmp_path, registry_kind="zot", zot=str(zot))
    before = refresh_plan(settings)
    zot.unlink()

    after = refresh_plan(settings)
    zot.touch(0o700)

    root = str(tmp_path / "registry" / "zot")
    assert ("--root", root) in zip(after.services[0].argv, after.services[0].argv[1:], strict=False)
    assert "no program" in registry_problem(tmp_path)
    assert refresh_plan(settings) == before
    assert registry_problem(tmp_path) == ""


def test_make_services_second_copy_that_has_no_room_is_refused_before_it_begins(tmp_path: Path) -> None:
    settings = site(tmp_path / "site")
    before = refresh_plan(settings)
    held = tmp_path / "site/registry/embedded/acme"
    held.mkdir()
    (held / "index.json").write_text("{}")
    moved = settings.model_copy(update={"registry_root": tmp_path / "other", "disk_reserve_bytes": 2**60})

    assert refresh_plan(moved) == before
    assert f"needs 2 bytes on the disk of {tmp_path}/other" in registry_problem(settings.data_dir)
    assert not switch_if_needed(moved)
    assert not (tmp_path / "other").exists()
    (tmp_path / "other/acme").mkdir(parents=True)
    (tmp_path / "other/acme/index.json").write_text("{}")
    assert refresh_plan(moved) == before
    assert registry_problem(settings.data_dir) == ""


def test_on_demand_zot_starts_without_what_a_killed_fetch_left(tmp_path: Path) -> None:
    zot = tmp_path / "zot"
    zot.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n')
    zot.chmod(0o700)
    settings = site(tmp_path, registry_kind="zot", zot=str(zot), on_demand_registries=("https://registry.example",))
    argv = service(settings).argv
    root = tmp_path / "registry" / "zot"
    (root / "library/alpine/.sync/1").mkdir(parents=True)

    subprocess.run(argv, check=True)

    assert not (root / "library/alpine/.sync").exists()
    assert (root / "library/alpine").exists()
    assert (tmp_path / "zot.log").read_text().splitlines()[-1] == f"serve {tmp_path}/registry/zot-registry.json"


@pytest.mark.parametrize(("target", "user"), [("own", "satellite"), ("http://other.example:5000", "")])
def test_site_settings_given_target_has_the_writer_only_at_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, user: str
) -> None:
    settings = site(tmp_path)
    make_services(settings)
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    url = f"http://{settings.registry_listen}" if target == "own" else target

    found = site_settings(tmp_path, url)

    assert (found.local_registry_url, found.local_registry_username) == (url, user)


def test_make_services_port_taken_while_the_registry_was_down_is_said(tmp_path: Path) -> None:
    settings = site(tmp_path)
    plan = refresh_plan(settings)
    host, _, port = settings.registry_listen.rpartition(":")
    with socket.create_server((host, int(port))):
        while_it_runs = refresh_plan(settings)
        was_told = registry_problem(tmp_path)
        write_sightings(tmp_path, (Sighting("registry", pid=0, restarts=3, last_end="exit 1"),))

        assert refresh_plan(settings) == while_it_runs == plan
        assert was_told == ""
        assert "in use by another process" in registry_problem(tmp_path)
