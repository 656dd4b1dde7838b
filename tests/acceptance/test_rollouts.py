"""A new generation goes to a few sites first: what is bad stops there, what is good reaches everybody."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import artifacts
from tests.acceptance.centre import wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.centre import Centre


@dataclass(frozen=True)
class Staged:
    """A staged group with two sites at work, both on its first generation."""

    centre: Centre
    group: str
    canary: Site
    other: Site
    first: str
    """The digest of that generation."""

    @property
    def reference(self) -> str:
        return f"{self.group}/app:v1"

    def publish(self, content: str, *, is_bad: bool = False) -> tuple[int, str]:
        """Publish a new image, whose layer the source has lost if it is bad; gives generation and digest."""
        before = self._generation()
        digest = artifacts.push_simple_image(self.centre.central.client, self.reference, f"{self.group}-{content}")
        if is_bad:
            for layer in artifacts.layers_of(self.centre.central.client, self.reference):
                for path in artifacts.blob_files(self.centre.central.root, layer):
                    path.unlink()
        self.centre.put_group(self.group, {self.reference: digest})
        return wait_until(self._generation, lambda found: found > before, "the next generation"), digest

    def roll_out(self, generation: int) -> int:
        """Start a rollout, the canary first; gives its id."""
        canary = {"name": "canary", "satellites": [self.canary.name], "soak_seconds": 3}
        body = {"group": self.group, "generation": generation, "waves": [canary, {"percent": 100}]}
        planned = self.centre.api.post("/api/rollouts", json=body)
        assert planned.status_code == 201, planned.text
        number = int(planned.json()["id"])
        self.do(number, "start")
        return number

    def do(self, rollout: int, verb: str) -> None:
        answer = self.centre.api.post(f"/api/rollouts/{rollout}/{verb}")
        assert answer.status_code == 200, answer.text

    def show(self, rollout: int) -> dict[str, Any]:
        """Have the rollout looked at, as happens every minute, and return it."""
        self.centre.run_flow("roll-out/central")
        found: dict[str, Any] = self.centre.api.get(f"/api/rollouts/{rollout}").json()
        return found

    def wait_for(self, rollout: int, state: str) -> None:
        wait_until(lambda: self.show(rollout), lambda found: found["state"] == state, f"the rollout to be {state}")

    def held(self) -> tuple[str | None, str | None]:
        """Return what the canary and the other site hold."""
        canary, other = (site.holds(self.reference)[self.reference] for site in (self.canary, self.other))
        return canary, other

    def _generation(self) -> int:
        return int(self.centre.api.get(f"/api/groups/{self.group}").json()["generation"] or 0)


@pytest.fixture(scope="module")
def staged(centre: Centre, tmp_path_factory: pytest.TempPathFactory, unique: Callable[[str], str]) -> Iterator[Staged]:
    group = unique("staged")
    reference, folder = f"{group}/app:v1", tmp_path_factory.mktemp(group)
    first = artifacts.push_simple_image(centre.central.client, reference, f"{group}-first")
    centre.put_group(group, {reference: first})
    with ExitStack() as stack:
        sites = []
        for name in (f"{group}-canary", f"{group}-other"):
            token = centre.add_satellite(name, [group])
            sites.append(stack.enter_context(Site(name, folder / name, centre)))
            stack.enter_context(sites[-1].worker(token))
        for site in sites:
            centre.wait_status(site.name, lambda status: status["in_step"] and status["image_count"] == 1, "in step")
        staged = centre.api.patch(f"/api/groups/{group}", json={"is_staged": True})
        assert staged.status_code == 200, staged.text
        yield Staged(centre, group, sites[0], sites[1], first)


@pytest.mark.acceptance("A8")
def test_bad_generation_stops_at_the_canary_goes_back_and_a_good_one_reaches_everybody(staged: Staged) -> None:
    before = staged.held()
    bad, _ = staged.publish("bad", is_bad=True)

    rollout = staged.roll_out(bad)
    staged.wait_for(rollout, "aborted")
    held_after_abort = staged.held()
    other = staged.centre.api.get(f"/api/rollouts/{rollout}/satellites", params={"wave": 1}).json()
    staged.do(rollout, "rollback")
    _wait_in_step(staged.centre, staged.canary)
    held_after_rollback = staged.held()
    good, digest = staged.publish("good")
    second = staged.roll_out(good)
    staged.wait_for(second, "completed")

    assert before == held_after_abort == held_after_rollback == (staged.first, staged.first)
    assert [(item["satellite"], item["state"]) for item in other] == [(staged.other.name, "waiting")]
    assert staged.held() == (digest, digest)


@pytest.mark.slow
@pytest.mark.acceptance("A8")
def test_paused_rollout_reaches_nobody_else_until_it_is_resumed(staged: Staged) -> None:
    _, before = staged.held()
    generation, digest = staged.publish("paused")

    rollout = staged.roll_out(generation)
    wait_until(lambda: staged.show(rollout), lambda found: not found["waves"][0]["waiting"], "the canary to be let go")
    staged.do(rollout, "pause")
    wait_until(staged.held, lambda held: held[0] == digest, "the canary to follow")
    paused = [staged.show(rollout)["state"] for _ in range(2)]
    held = staged.held()
    staged.do(rollout, "resume")
    staged.wait_for(rollout, "completed")

    assert paused == ["paused", "paused"]
    assert held == (digest, before)
    assert staged.held() == (digest, digest)


def _wait_in_step(centre: Centre, site: Site) -> None:
    centre.wait_status(site.name, lambda status: status["in_step"] and not status["failures"], f"{site.name} in step")
