"""The soak: a real centre, a site on a host of its own, scheduled runs every minute, random cuts and kills.

In the first half parts are killed as well; in the second the link alone is troubled, so that processes live long enough
to show whether they grow. At the end everything is left in peace, and then: no image is missing, no run is stuck, and
nothing has grown. Needs root (network namespaces).
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from harbor_satellite.state.names import SatelliteName, work_pool_name
from tests.acceptance import artifacts
from tests.acceptance.centre import run_centre, wait_until
from tests.acceptance.edge_site import EdgeSite, Puller
from tests.fakes.host import Host
from tests.ground_control.postgres import running_postgres
from tests.soak.processes import Watch

if TYPE_CHECKING:
    from tests.acceptance.centre import Centre

_NAME: Final = "soak"
_KEPT: Final = f"{_NAME}/kept"
_SAMPLE_SECONDS: Final = 15.0
_GROWTH_KILOBYTES: Final = 15_000
_GROWTH_DESCRIPTORS: Final = 8
_GROWTH_THREADS: Final = 6
_STUCK: Final = ["RUNNING", "PENDING", "CANCELLING"]


class Soak:
    """One soak.

    Args:
        centre: whose site it is.
        site: what is troubled.
        dice: decides what happens next.
    """

    def __init__(self, centre: Centre, site: EdgeSite, dice: random.Random) -> None:
        self.centre, self.site, self.dice = centre, site, dice
        self.watch = Watch()
        self.wanted: dict[str, str] = {}
        self.deeds: dict[str, int] = {}
        self._sampled_at = 0.0

    def publish(self) -> None:
        """Give the group one more image, or take one away."""
        number = sum(self.deeds.values())
        name = f"{_NAME}/app{number % 7}:v{number}"
        self.wanted[name] = artifacts.push_oci_image(self.centre.central.client, name, f"soak-{number}")
        for old in [each for each in self.wanted if each.startswith(f"{_NAME}/app{number % 7}:") and each != name]:
            del self.wanted[old]
        self.centre.put_group(_NAME, self.wanted)

    def trouble(self, *, may_kill: bool) -> None:
        """Do one thing that happens to sites."""
        deeds = [self.publish, self.cut, self.refuse, self.throttle, self.publish]
        deeds += [self.kill_agent, self.kill_registry, self.kill_all, self.silence_registry] if may_kill else []
        deed = self.dice.choice(deeds)
        self.deeds[deed.__name__] = self.deeds.get(deed.__name__, 0) + 1
        print(f"{time.strftime('%H:%M:%S')} {deed.__name__}", flush=True)
        deed()

    def cut(self) -> None:
        """Let the link be dead for up to a minute and a half."""
        self.site.host.cut()
        self.rest(self.dice.uniform(5, 90))
        self.site.host.restore()

    def refuse(self) -> None:
        """Have the centre turn connections away for a while."""
        self.site.host.refuse()
        self.rest(self.dice.uniform(5, 60))
        self.site.host.restore()

    def throttle(self) -> None:
        """Make the link as slow as it gets, then fast again."""
        self.site.host.throttle(self.dice.choice((20_000, 200_000)))
        self.rest(self.dice.uniform(10, 60))
        self.site.host.throttle(100_000_000)

    def kill_agent(self) -> None:
        """End the agent as the kernel does when memory is short."""
        self.site.kill("agent")

    def kill_registry(self) -> None:
        """End the local registry."""
        self.site.kill("registry")

    def kill_all(self) -> None:
        """Pull the plug, and put it in again."""
        self.site.kill()
        time.sleep(1)
        self.site.start()

    def silence_registry(self) -> None:
        """Have the registry accept and stay silent."""
        self.site.signal("registry", signal.SIGSTOP)

    def rest(self, seconds: float) -> None:
        """Wait, and look at the processes now and then."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            if now - self._sampled_at >= _SAMPLE_SECONDS:
                self._sampled_at = now
                for name in ("agent", "registry"):
                    self.watch.look(name, int(self.site.service(name)["pid"]), now)
                self.watch.look("supervisor", self.site.pid, now)
            time.sleep(min(1.0, until - now))

    def missing(self) -> dict[str, str]:
        """Return the images that the site should hold and does not."""
        return {name: digest for name, digest in self.wanted.items() if self.site.tag(*name.rsplit(":", 1)) != digest}

    def stuck_runs(self) -> list[str]:
        """Return the site's runs that have not ended at Prefect."""
        body = {
            "work_pools": {"name": {"any_": [work_pool_name(SatelliteName(_NAME))]}},
            "flow_runs": {"state": {"type": {"any_": _STUCK}}},
        }
        answer = httpx.post(f"{self.centre.prefect_url}/flow_runs/filter", json=body, trust_env=False)
        return [
            f"{run['name']} {run['state_type']} since {run['start_time']}" for run in answer.raise_for_status().json()
        ]

    def grown(self) -> list[str]:
        """Return what has grown beyond what a cache explains, by the longest life of each process."""
        found: list[str] = []
        for name in ("agent", "registry", "supervisor"):
            life = self.watch.longest(name)
            between = life.growth() if life else None
            if between is None:
                found.append(f"{name} did not live long enough to tell")
                continue
            first, last = between
            print(
                f"{name}: {last.seconds:.0f} s, RSS {first.rss_kilobytes} → {last.rss_kilobytes} kB, descriptors "
                f"{first.descriptors} → {last.descriptors}, threads {first.threads} → {last.threads}"
            )
            if last.rss_kilobytes - first.rss_kilobytes > _GROWTH_KILOBYTES:
                found.append(f"{name} grew by {last.rss_kilobytes - first.rss_kilobytes} kB")
            if last.descriptors - first.descriptors > _GROWTH_DESCRIPTORS:
                found.append(f"{name} has {last.descriptors - first.descriptors} descriptors more")
            if last.threads - first.threads > _GROWTH_THREADS:
                found.append(f"{name} has {last.threads - first.threads} threads more")
        return found


def soak(minutes: float, seed: int) -> list[str]:
    """Trouble a site for so long; return what is wrong in the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hs-soak-")))
        postgres = stack.enter_context(running_postgres())
        postgres.execute("CREATE DATABASE soak")
        centre = stack.enter_context(run_centre(folder / "centre", postgres.url("soak")))
        host = stack.enter_context(Host([urlsplit(url).port or 0 for url in (centre.url, centre.central.url)]))
        site = stack.enter_context(EdgeSite(_NAME, folder / "site", centre, host, POLL_INTERVAL_SECONDS="5"))
        work = Soak(centre, site, random.Random(seed))
        work.wanted[f"{_KEPT}:v1"] = artifacts.push_oci_image(centre.central.client, f"{_KEPT}:v1", "kept")
        centre.put_group(_NAME, work.wanted)
        assert centre.api.post(
            "/api/configs", json={"config_name": _NAME, "config": {"schedule": "* * * * *"}}
        ).is_success
        token = centre.add_satellite(_NAME, [_NAME])
        assert centre.api.post("/api/configs/satellite", json={"satellite": _NAME, "config_name": _NAME}).is_success
        site.start(token)
        wait_until(work.missing, lambda found: not found, "the first image")
        began, seconds = time.monotonic(), minutes * 60
        with Puller(site, _KEPT, "v1") as puller:
            while (gone := time.monotonic() - began) < seconds:
                work.trouble(may_kill=gone < seconds / 2)
                work.rest(work.dice.uniform(5, 30))
            host.restore()
            host.throttle(100_000_000)
            work.publish()
            wait_until(work.missing, lambda found: not found, "every image")
        work.rest(60)
        wrong = [f"missing: {name}" for name in work.missing()]
        # A scheduled run may be under way at any look; one that is there for two minutes is not.
        before = set(work.stuck_runs())
        work.rest(120 if before else 0)
        wrong += [f"stuck: {run}" for run in before & set(work.stuck_runs())]
        wrong += work.grown()
        left = sorted(str(path.relative_to(site.data_dir)) for path in site.data_dir.rglob(".*-*") if path.is_file())
        wrong += [f"left behind: {len(left)} files such as {left[0]}"] if len(left) > 10 else []
        kills = sum(work.deeds.get(deed, 0) for deed in ("kill_registry", "kill_all", "silence_registry"))
        print(
            f"{minutes:.0f} minutes, seed {seed}: {work.deeds}; {puller.pulls} pulls, {len(puller.failures)} failed, "
            f"longest {puller.longest_seconds:.1f} s; {kills} times the registry was ended"
        )
        wrong += (
            [f"pulls failed although nobody had ended the registry: {puller.failures[:3]}"]
            if (puller.failures and not kills)
            else []
        )
        assert site.stop() < 10
        return wrong


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    problems = soak(given[0] if given else 30.0, int(given[1]) if len(given) > 1 else random.randrange(10_000))
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if problems else 0)
