"""One running site whose settings change under it, from the centre and in its own file; nothing is started again."""

from __future__ import annotations

import contextlib
import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest

from harbor_satellite.edge.own_registry import known_writer
from harbor_satellite.processes import Child
from harbor_satellite.registry.htpasswd import set_password
from tests.acceptance import artifacts, asking
from tests.acceptance.centre import CLI, wait_until
from tests.acceptance.edge_site import EdgeSite
from tests.fakes.host import Host
from tests.fakes.runtimes import RuntimeHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.centre import Centre

_THEIR_PORT, _OWN_PORT, _OTHER_PORT = 8700, 8591, 8592
_THEIR_USER = ("shop", "made-up-by-the-shop")
_ZONE = "Asia/Kathmandu"  # 5:45 ahead of UTC: neither the hour nor the minute is that of UTC
_AHEAD = timedelta(seconds=20)  # a new setting has so long to reach Prefect before the minute that it names
_THEIRS = {
    "LOCAL_REGISTRY_URL": f"http://127.0.0.1:{_THEIR_PORT}",
    "LOCAL_REGISTRY_USERNAME": _THEIR_USER[0],
    "LOCAL_REGISTRY_PASSWORD": _THEIR_USER[1],
}


class SettledSite(EdgeSite):
    """A site that follows one group; whatever it is told reaches it by its centre's config or by its file."""

    group: dict[str, str]

    def put_env_file(self, **settings: str) -> None:
        """Replace the file as editors and configuration management do: a new one takes its name."""
        new = self.env_file.with_suffix(".new")
        new.write_text("".join(f"HARBOR_SATELLITE_{name}={value}\n" for name, value in settings.items()))
        new.replace(self.env_file)

    def configure(self, **fields: Any) -> None:
        """Change what the centre says; the first time its config is made and assigned."""
        api = self.centre.api
        changed = api.patch(f"/api/configs/{self.name}", json=fields)
        if changed.status_code == 404:
            made = api.post("/api/configs", json={"config_name": self.name, "config": fields})
            assert made.status_code == 201, made.text
            changed = api.post("/api/configs/satellite", json={"satellite": self.name, "config_name": self.name})
        assert changed.status_code == 200, changed.text

    def add_image(self, content: str) -> tuple[str, str]:
        """Put another image into the group; return its repository and its digest."""
        repository = f"{self.name}/{content}"
        digest = artifacts.push_oci_image(self.centre.central.client, f"{repository}:v1", content)
        self.group[f"{repository}:v1"] = digest
        self.centre.put_group(self.name, self.group)
        return repository, digest

    def ask(self, port: int, path: str, *, method: str = "GET", auth: tuple[str, str] | None = None) -> int:
        """Return how a registry on that host answers; 0 if nobody does."""
        url = f"http://127.0.0.1:{port}{path}"
        try:
            return self.there(lambda: asking.request(method, url, auth=auth, timeout=5.0)).status_code
        except httpx.HTTPError:
            return 0

    def wait_at(self, port: int, repository: str, auth: tuple[str, str] | None = None) -> None:
        """Wait until an image is in the registry at this port."""
        path = f"/v2/{repository}/manifests/{self.group[f'{repository}:v1']}"
        wait_until(lambda: self.ask(port, path, auth=auth), lambda status: status == 200, f"{repository} at {port}")

    def leaks(self, *secrets: str) -> list[str]:
        """Return the logs and the command lines that have a secret in them."""
        found = []
        for file in (*self.folder.rglob("*.log"), *Path("/proc").glob("[0-9]*/cmdline")):
            with contextlib.suppress(OSError):  # a process that has ended
                content = file.read_bytes()
                found += [str(file) for secret in secrets if secret.encode() in content]
        return found

    def seen(self, look: Callable[[dict[str, Any]], Any], wanted: Any, what: str) -> None:
        """Wait until the status page shows something."""

        def found() -> Any:
            try:
                return look(self.status())
            except httpx.HTTPError:
                return None

        wait_until(found, lambda value: value == wanted, what)


@pytest.fixture(scope="module")
def runtimes(logs: Path) -> RuntimeHost:
    """The files of a host with containerd and CRI-O on it, some written by others."""
    host = RuntimeHost(logs / "edge-settings" / "host")
    host.put(
        "etc/containers/registries.conf",
        '# the shop\'s own\nunqualified-search-registries = ["quay.io"]\n\n'
        '[[registry]]\nprefix = "*.evil.example"\nlocation = "evil.example"\nblocked = true\n',
    )
    host.put(
        "etc/containerd/certs.d/docker.io/hosts.toml",
        'server = "https://registry-1.docker.io"\n\n[host."https://cache.example"]\n'
        '  capabilities = ["pull", "resolve"]\n  ca = "/etc/ssl/cache.pem"\n  skip_verify = false\n',
    )
    host.put("etc/crio/crio.conf", '[crio.image]\npause_image = "registry.example/pause:3.9"\n')
    return host


@pytest.fixture(scope="module")
def host(centre: Centre) -> Iterator[Host]:
    ports = [urlsplit(url).port for url in (centre.url, centre.central.url)]
    with Host([port for port in ports if port]) as made:
        yield made


@pytest.fixture(scope="module")
def site(
    centre: Centre, host: Host, logs: Path, unique: Callable[[str], str], runtimes: RuntimeHost
) -> Iterator[SettledSite]:
    """A site that began with a registry of the operator's, as its file says."""
    name = unique("a22")
    folder = logs / "edge-settings" / "site"
    with SettledSite(name, folder, centre, host, HOST_ROOT=str(runtimes.root)) as site, _theirs(folder, host):
        for setting in ("REGISTRY_KIND", "REGISTRY_LISTEN"):  # what is set in the environment, nobody can change
            del site.settings[setting]
        site.group = {}
        site.put_env_file(**_THEIRS)
        repository, _ = site.add_image("first")
        site.start(centre.add_satellite(name, [name]))
        site.wait_at(_THEIR_PORT, repository)
        yield site


@contextlib.contextmanager
def _theirs(folder: Path, host: Host) -> Iterator[None]:
    """Run a registry of the operator's on that host: anybody may read, one user may write."""
    htpasswd = folder / "their-htpasswd"
    set_password(htpasswd, *_THEIR_USER)
    where = ("--root", str(folder / "theirs"), "--listen", f"127.0.0.1:{_THEIR_PORT}", "--htpasswd", str(htpasswd))
    child = Child("theirs", (*host.prefix, *CLI, "edge", "registry", *where), env={}, log=folder / "theirs.log")
    try:
        yield
    finally:
        child.stop()


@pytest.mark.acceptance("A2")
def test_registry_of_the_operators_stays_the_one_when_the_centres_config_changes(site: SettledSite) -> None:
    before = site.status()["state"]["config_digest"]
    registry = {"port": _OWN_PORT, "anonymous_read": False, "kind": "embedded"}  # of which no word is for this site
    site.configure(report_interval_seconds=6, registry=registry)
    site.seen(lambda seen: seen["state"]["config_digest"] not in {"", before}, True, "the config to be applied")

    repository, _ = site.add_image("second")

    site.wait_at(_THEIR_PORT, repository)
    assert site.status()["registry"]["kind"] == "external"
    assert [service["name"] for service in site.status()["services"]] == ["agent"]
    assert site.ask(_OWN_PORT, "/v2/") == site.ask(8585, "/v2/") == 0


@pytest.mark.acceptance("A22")
def test_port_and_access_that_the_centre_sets_hold_and_images_come_along(site: SettledSite) -> None:
    held = [reference.partition(":")[0] for reference in site.group]
    site.configure(registry={"port": _OWN_PORT, "anonymous_read": False, "kind": "embedded"})
    site.put_env_file()  # the shop gives its registry up

    site.seen(lambda seen: seen["registry"]["kind"], "embedded", "the site to have a registry of its own")
    wait_until(lambda: site.ask(_OWN_PORT, "/v2/"), lambda status: status == 401, "it to let nobody in")
    writer = known_writer(site.data_dir)
    assert writer is not None
    user = (writer.username, writer.password.get_secret_value())
    for repository in held:
        site.wait_at(_OWN_PORT, repository, user)
    site.configure(registry={"port": _OTHER_PORT, "anonymous_read": True, "kind": "embedded"})
    repository, _ = site.add_image("third")

    site.wait_at(_OTHER_PORT, repository)
    assert site.ask(_OTHER_PORT, f"/v2/{repository}/blobs/uploads/", method="POST") == 401
    assert site.ask(_OTHER_PORT, f"/v2/{repository}/blobs/uploads/", method="POST", auth=user) == 202
    assert site.ask(_OWN_PORT, "/v2/") == 0
    assert site.leaks(user[1], _THEIR_USER[1]) == []


@pytest.mark.acceptance("A23")
def test_schedule_of_the_centre_holds_in_the_zone_of_the_site(site: SettledSite) -> None:
    site.configure(schedule="17 3 * * *", timezone=_ZONE)

    site.seen(_schedule, ("17 3 * * *", _ZONE), "the centre's schedule")
    following = datetime.fromisoformat(site.status()["runs"]["next_at"]).astimezone(ZoneInfo(_ZONE))
    assert (following.hour, following.minute) == (3, 17)


@pytest.fixture(scope="module")
def due(site: SettledSite) -> datetime:
    """Return when a schedule that was put into the site's file is due; other tests use the time until then."""
    moment = (datetime.now(UTC) + _AHEAD).replace(second=0, microsecond=0) + timedelta(minutes=1)
    site.put_env_file(SCHEDULE=_cron(moment), TIMEZONE=_ZONE, BYTES_PER_SECOND="9M")
    site.seen(_schedule, (_cron(moment), _ZONE), "the file's schedule")
    return moment


@pytest.mark.acceptance("A24")
def test_file_that_is_replaced_or_written_over_is_taken_over_each_time(site: SettledSite, due: datetime) -> None:
    found = [_rate(site.status())]
    for rate in ("8M", "7M"):
        site.put_env_file(SCHEDULE=_cron(due), TIMEZONE=_ZONE, BYTES_PER_SECOND=rate)
        site.seen(_rate, int(rate[0]) * 1_000_000, "the next new file")
        found.append(_rate(site.status()))
    site.env_file.write_text(site.env_file.read_text().replace("=7M", "=6M"))
    site.seen(_rate, 6_000_000, "the same file, written over")

    assert found == [9_000_000, 8_000_000, 7_000_000]
    assert _schedule(site.status()) == (_cron(due), _ZONE)


@pytest.mark.acceptance("A25")
def test_runtimes_that_the_centre_names_pull_here_and_keep_all_that_others_wrote(
    site: SettledSite, runtimes: RuntimeHost
) -> None:
    before = runtimes.files()
    site.configure(runtimes={"names": ["containerd", "crio"], "registries": ["docker.io"]})
    site.seen(_runtimes, {"containerd": "", "crio": ""}, "both to be configured")

    files = runtimes.files()
    hosts = tomllib.loads(files[str(runtimes.root / "etc/containerd/certs.d/docker.io/hosts.toml")].decode())
    ours, theirs = hosts["host"]
    assert urlsplit(ours).hostname == "127.0.0.1"
    assert hosts["server"] == "https://registry-1.docker.io"
    assert hosts["host"][theirs]["ca"] == "/etc/ssl/cache.pem"
    config = tomllib.loads(files[str(runtimes.root / "etc/containerd/config.toml")].decode())
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"] == "registry.example/pause:3.9"
    assert b"blocked = true" in files[str(runtimes.root / "etc/containers/registries.conf")]

    changed_at = {path: Path(path).stat().st_mtime_ns for path in files}
    done = site.host.run(
        *("env", f"HARBOR_SATELLITE_DATA_DIR={site.data_dir}", f"HARBOR_SATELLITE_ENV_FILE={site.env_file}"),
        *(*CLI, "edge", "runtime", "apply", "--root", str(runtimes.root), "--output", "json"),
    )
    assert json.loads(done)
    assert {path: Path(path).stat().st_mtime_ns for path in runtimes.files()} == changed_at

    site.configure(runtimes={"names": []})
    wait_until(runtimes.files, lambda found: found == before, "everything to be as it was")


@pytest.mark.acceptance("A23")
def test_schedule_of_the_sites_own_file_starts_a_run_in_its_zone_without_a_restart(
    site: SettledSite, due: datetime
) -> None:
    is_done = lambda found: bool(found and found["state_type"] == "COMPLETED")  # noqa: E731
    run = wait_until(lambda: _run_at(site, due), is_done, f"the run of {due}")

    assert run is not None
    assert run["auto_scheduled"]
    assert site.service("agent")["restarts"] == 0


def _cron(due: datetime) -> str:
    return f"{due.astimezone(ZoneInfo(_ZONE)):%-M %-H} * * *"


def _rate(status: dict[str, Any]) -> Any:
    return status["link"]["limit_bytes_per_second"]


def _schedule(status: dict[str, Any]) -> tuple[str, str]:
    return status["runs"]["schedule"], status["runs"]["timezone"]


def _runtimes(status: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["problem"] for item in status["runtimes"] if item["applied_at"] or item["problem"]}


def _run_at(site: SettledSite, due: datetime) -> dict[str, Any] | None:
    """Return the flow run that Prefect has for a moment."""
    body = {
        "deployments": {"tags": {"all_": [f"satellite:{site.name}"]}},
        "flow_runs": {"expected_start_time": {"after_": due.isoformat(), "before_": due.isoformat()}},
    }
    found = asking.post(f"{site.centre.prefect_url}/flow_runs/filter", json=body)
    assert found.status_code == 200, found.text
    runs: list[dict[str, Any]] = found.json()
    return runs[0] if runs else None
