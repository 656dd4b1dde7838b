"""A container runtime pulls at the site all the time, whatever happens to the link, the agent and the centre."""

from __future__ import annotations

import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.pulling import Puller
from tests.acceptance.replicating import kill, local_registry, run_place, until_done, wait_for
from tests.fakes.link import link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.replicating import Place
    from tests.acceptance.site import Site

TILLS = ("tills/app:v1", "tills/db:v1", "tills/tool:v1")
KIOSKS = ("kiosks/web:v1", "kiosks/ads:v1")
LAYER_BYTES = 150_000
RUN_SECONDS = 60.0


def images_of(place: Place, generation: int) -> dict[str, dict[str, str]]:
    """Push other content under every tag but the tool's, which changes with every second generation only."""
    contents = {name: f"{name} {generation // 2 if 'tool' in name else generation}" for name in (*TILLS, *KIOSKS)}
    pushed = {name: place.push(name, content, LAYER_BYTES) for name, content in contents.items()}
    return {"kiosks": {name: pushed[name] for name in KIOSKS}, "tills": {name: pushed[name] for name in TILLS}}


def flat(groups: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: digest for images in groups.values() for name, digest in images.items()}


class Trouble:
    """Kills and cuts at moments that a seed chooses, spread over the time that a whole run takes."""

    def __init__(self, place: Place, site: Site, seed: int) -> None:
        self._place, self._site = place, site
        self._choose = random.Random(seed)  # noqa: S311 - moments, no secrets
        self._seconds = 1.0
        self.kills = 0

    def measure(self) -> None:
        """Replicate undisturbed, and take the time."""
        started = time.monotonic()
        until_done(self._site)
        self._seconds = time.monotonic() - started

    def make(self, count: int) -> Iterator[None]:
        """Start runs and kill them; give way after each."""
        for _ in range(count):
            run = self._site.start("sync")
            try:
                run.wait(self._choose.uniform(0.2, 0.8) * self._seconds)
            except subprocess.TimeoutExpired:
                self._choose.choice((self._place.wan.cut, lambda: None))()
                self.kills += run.returncode is None
            kill(run)
            yield


def assert_whole_or_waiting(site: Site, old: dict[str, str], new: dict[str, str]) -> None:
    """Nothing but what stood and what is wanted may stand under any tag."""
    for name, digest in site.holds(*new).items():
        assert digest in {old.get(name), new[name]}, name


_LONG = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("kind", "seed", "rounds", "kills"),
    [
        pytest.param("embedded", 1, 3, 4, id="a dozen kills"),
        pytest.param("embedded", 2, 6, 8, id="four dozen kills", marks=_LONG),
        pytest.param("zot", 3, 6, 8, id="four dozen kills beside zot", marks=[*_LONG, pytest.mark.zot]),
    ],
)
@pytest.mark.acceptance("A3")
def test_not_one_pull_fails_while_tags_move_links_are_cut_and_runs_are_killed(
    tmp_path: Path, kind: str, seed: int, rounds: int, kills: int
) -> None:
    with run_place(tmp_path) as (place, site), local_registry(site, tmp_path, kind) as url:
        trouble = Trouble(place, site, seed)
        stands = images_of(place, 0)
        place.decide(stands)
        place.wan.shape(rtt_seconds=0.01, bytes_per_second=3_000_000)
        trouble.measure()
        with Puller(url) as puller:
            puller.only(flat(stands))
            for generation in range(1, rounds + 1):
                wanted = images_of(place, generation)
                puller.promise(flat(stands))
                puller.allow(flat(wanted))
                place.decide(wanted)
                for _ in trouble.make(kills):
                    assert_whole_or_waiting(site, flat(stands), flat(wanted))
                until_done(site)
                assert site.holds(*flat(wanted)) == flat(wanted)
                puller.only(flat(wanted))
                puller.forget(set(flat(stands).values()) - set(flat(wanted).values()))
                stands = wanted
            last = puller.rounds
            wait_for_rounds(puller, last + 2)

        assert puller.failures == []
        assert trouble.kills  # how many runs are done before their kill comes is the machine's choice
        assert {name for (name, digest), _ in puller.given.items() if digest in flat(stands).values()} >= set(
            flat(stands)
        )


def wait_for_rounds(puller: Puller, rounds: int) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while puller.rounds < rounds:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pulls_go_on_while_an_image_is_taken_out_and_put_back_and_a_site_goes_back(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        stands = images_of(place, 0)
        place.decide(stands)
        until_done(site)
        without = {**stands, "tills": {name: stands["tills"][name] for name in TILLS[:2]}}
        moved = images_of(place, 1)
        with Puller(site.url) as puller:
            puller.only(flat(stands))
            puller.promise(flat(stands))
            puller.withdraw([TILLS[2]])
            place.decide(without)
            until_done(site)
            out = site.holds(TILLS[2])
            place.wan.reset()
            place.decide(stands)
            until_done(site)
            layers = [one for one in place.wan.requests() if "/blobs/" in one and "/satellite/" not in one]
            puller.only(flat(stands))
            puller.allow(flat(moved))
            place.decide(moved)
            until_done(site)
            puller.promise(flat(moved))
            place.wan.down()
            back = site.command("rollback")
            held = site.holds(*flat(stands))
            wait_for_rounds(puller, puller.rounds + 2)

        assert puller.failures == []
        assert (out, layers) == ({TILLS[2]: None}, [])
        assert (back.returncode, held) == (0, flat(stands))


def test_run_killed_in_the_middle_of_the_pass_is_completed_by_the_next(tmp_path: Path) -> None:
    names = [f"acme/app-{number}:v1" for number in range(10)]
    with run_place(tmp_path) as (place, site):
        old = {name: place.push(name, f"old {name}") for name in names}
        place.decide({"group": old})
        until_done(site)
        new = {name: place.push(name, f"new {name}") for name in names}
        place.decide({"group": new})
        with Puller(site.url) as puller:
            puller.only(old)
            puller.promise(old)
            puller.allow(new)
            killed_in_the_pass(site, "sync")
            between = set(site.holds(*names).values())
            until_done(site)
            held = site.holds(*names)
            puller.only(new)
            wait_for_rounds(puller, puller.rounds + 2)

        assert between & set(old.values())
        assert between & set(new.values())
        assert held == new
        assert puller.failures == []


@pytest.mark.slow
def test_rollback_killed_in_the_middle_of_the_pass_goes_on_when_it_is_asked_for_again(tmp_path: Path) -> None:
    names = [f"acme/app-{number}:v1" for number in range(10)]
    with run_place(tmp_path) as (place, site):
        old = {name: place.push(name, f"old {name}") for name in names}
        place.decide({"group": old})
        until_done(site)
        place.decide({"group": {name: place.push(name, f"new {name}") for name in names}})
        until_done(site)
        place.wan.down()

        killed_in_the_pass(site, "rollback")
        done = site.command("rollback")

        assert done.returncode == 0, done.stderr
        assert site.holds(*names) == old


@pytest.mark.slow
def test_rollback_killed_in_the_middle_of_the_pass_is_completed_by_the_next_run(tmp_path: Path) -> None:
    names = [f"acme/app-{number}:v1" for number in range(10)]
    with run_place(tmp_path) as (place, site):
        old = {name: place.push(name, f"old {name}") for name in names}
        place.decide({"group": old})
        until_done(site)
        place.decide({"group": {name: place.push(name, f"new {name}") for name in names}})
        until_done(site)

        killed_in_the_pass(site, "rollback")
        until_done(site)

        assert site.holds(*names) == old


def killed_in_the_pass(site: Site, command: str) -> None:
    """Kill a command when it has moved some of its tags, over a way to the local registry that is made slow."""
    with link(site.url, rtt_seconds=0.1) as local:
        site.settings["HARBOR_SATELLITE_LOCAL_REGISTRY_URL"] = local.url

        def moved() -> bool:
            return sum(one.startswith("PUT ") and one.endswith("/manifests/v1") for one in local.requests()) > 2

        run = site.start(command)
        wait_for(moved, run)
        kill(run)
        del site.settings["HARBOR_SATELLITE_LOCAL_REGISTRY_URL"]


def test_run_killed_in_the_middle_of_the_pass_is_completed_without_the_link(tmp_path: Path) -> None:
    names = [f"acme/app-{number}:v1" for number in range(10)]
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {name: place.push(name, f"old {name}") for name in names}})
        until_done(site)
        new = {name: place.push(name, f"new {name}") for name in names}
        place.decide({"group": new})
        killed_in_the_pass(site, "sync")
        place.wan.down()

        site.command("sync")

        assert site.holds(*names) == new
