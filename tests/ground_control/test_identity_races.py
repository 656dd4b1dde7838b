"""Claims, renewals, reports, rotation, revocation and deletion of the same satellites at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.ground_control.api.throttle import RateLimits, TokenBuckets
from harbor_satellite.ground_control.models import Credential
from harbor_satellite.ground_control.people.audit_log import flow_actor
from harbor_satellite.ground_control.satellites import credentials, retirement, rotation

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl, HarborParts

ANSWERS = {200, 201, 204, 401, 404, 409}
ACTOR = flow_actor("test")


class Operations:
    """What happens to satellites, in any order and at once."""

    def __init__(self, running: GroundControl, names: list[str], seed: int) -> None:
        self.running = running
        self.random = random.Random(seed)  # noqa: S311 - not for secrets
        self.names = names
        self.known: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
        self.tokens: dict[str, str] = {}
        self.statuses: list[int] = []

    def run(self, _: int) -> None:
        name = self.random.choice(self.names)
        step = self.random.choice([self.claim, self.claim, self.renew, self.renew, self.report, self.report])
        rare = self.random.choice([self.rotate, self.grant, self.revoke, self.delete])
        (rare if self.random.random() < 0.3 else step)(name)

    def claim(self, name: str) -> None:
        admin = self.running.admin
        if name not in self.tokens or self.random.random() < 0.5:
            answer = admin.post(f"/api/satellites/{name}/token")
            if answer.status_code == 404:
                answer = admin.post("/api/satellites", json={"name": name, "groups": ["shop"]})
            self.statuses.append(answer.status_code)
            if answer.status_code != 200:
                return
            self.tokens[name] = answer.json()["token"]
        answer = self.running.claim(self.tokens[name], "key")
        self.statuses.append(answer.status_code)
        if answer.status_code == 200:
            auth = answer.json()["auth"]
            self.known[name].append((auth["username"], auth["password"]))

    def renew(self, name: str) -> None:
        if self.known[name]:
            auth = self.random.choice(self.known[name][-3:])
            body = {"renewal_key": "k" * 20}
            answer = self.running.anonymous.post("/satellites/credential", json=body, auth=auth)
            self.statuses.append(answer.status_code)
            if answer.status_code == 200:
                self.known[name].append((answer.json()["username"], answer.json()["password"]))

    def report(self, name: str) -> None:
        if self.known[name]:
            auth = self.random.choice(self.known[name][-3:])
            self.statuses.append(self.running.report(name, auth).status_code)

    def rotate(self, _: str) -> None:
        now = self.running.clock()
        with self.running.factory.begin() as session:
            rotation.mark_due(session, timedelta(days=60), ACTOR, now)
        rotation.delete_ended(self.running.factory, self.running.source, ACTOR, grace=timedelta(0), now=now)

    def grant(self, name: str) -> None:
        try:
            with self.running.factory.begin() as session:
                credentials.grant_projects(session, self.running.source, name)
        except HarborSatelliteError:
            pass  # the satellite is gone

    def revoke(self, name: str) -> None:
        self.statuses.append(self.running.admin.post(f"/api/satellites/{name}/revoke").status_code)

    def delete(self, name: str) -> None:
        self.statuses.append(self.running.admin.delete(f"/api/satellites/{name}").status_code)


def test_everything_at_once_breaks_nothing_and_leaves_no_account_behind(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app")
    free = TokenBuckets(burst=1e9, per_second=1e9)
    object.__setattr__(running.context, "limits", RateLimits(free, free, free, free))
    object.__setattr__(running.context, "note_secret_failure", lambda _key: None)
    operations = Operations(running, ["edge", "edge-r1", "edge-2"], seed=7)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(operations.run, range(150)))

    assert set(operations.statuses) <= ANSWERS
    now = running.clock()
    rotation.delete_ended(running.factory, running.source, ACTOR, grace=timedelta(0), now=now)
    for name in operations.names:
        with running.factory.begin() as session:
            retirement.delete_retired_accounts(session, running.source, name)
    with running.factory() as session:
        kept = set(session.scalars(select(Credential.source_credential_id)))
    assert {str(robot) for robot in fake.accounts.robots} == kept
