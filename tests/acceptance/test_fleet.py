"""A fleet behind one address, and what the centre says of it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance import artifacts, asking
from tests.acceptance.centre import CLI, administrator, run_second, wait_until
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.acceptance.centre import Centre
    from tests.ground_control.postgres import PostgresServer

SATELLITES = 50
ROUNDS = 4
AT_ONCE = 16
_NOBODY_LISTENS = "http://127.0.0.1:1/api"


@pytest.mark.acceptance("A21")
def test_fifty_satellites_behind_one_address_report_while_somebody_there_guesses_passwords(
    centre: Centre, name: str, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    postgres_server.execute("CREATE DATABASE behind_one_address")
    own = {"DATABASE_URL": postgres_server.url("behind_one_address"), "DATA_DIR": str(tmp_path / "data")}
    with run_second(centre, tmp_path, prefect_url=_NOBODY_LISTENS, **own) as url, administrator(url) as api:
        names = [f"{name}-{number}" for number in range(SATELLITES)]
        with ThreadPoolExecutor(AT_ONCE) as pool, _guessing(url, names[0]) as guesses:
            auths = dict(zip(names, pool.map(lambda each: _claimed(api, url, each), names), strict=True))
            jobs = [(each, auths[each]) for _ in range(ROUNDS) for each in names]
            answers = Counter(pool.map(lambda job: _report(url, *job), jobs))
            listed = api.get("/api/satellites/active")
            wait_until(lambda: set(guesses), lambda seen: len(seen) > 1, "the guessing to be slowed down")

    assert answers == {200: SATELLITES * ROUNDS}
    assert (listed.status_code, len(listed.json())) == (200, SATELLITES)
    assert set(guesses) == {401, 429}


@pytest.mark.acceptance("A28")
def test_fleet_tells_who_is_behind_and_why(centre: Centre, name: str, tmp_path: Path) -> None:
    good, bad = f"{name}/good:v1", f"{name}/bad:v1"
    digests = {item: artifacts.push_simple_image(centre.central.client, item, item) for item in (good, bad)}
    centre.put_group(name, {good: digests[good]})
    token = centre.add_satellite(name, [name])
    with Site(name, tmp_path / "site", centre) as site, site.worker(token):
        centre.wait_status(name, lambda status: status["in_step"] and status["image_count"] == 1, "the site in step")
        (in_step,) = _fleet(centre, name)
        (layer,) = artifacts.layers_of(centre.central.client, bad)
        for path in artifacts.blob_files(centre.central.root, layer):
            path.unlink()
        centre.put_group(name, digests)
        status = centre.wait_status(name, lambda status: bool(status["failures"]), "a report of the failure")
        (failing,) = _fleet(centre, name)

    assert (in_step["state"], in_step["reason"], in_step["lag_seconds"]) == ("in_step", "", 0)
    assert in_step["state_digest"] == in_step["applied_digest"]
    assert in_step["bytes_today"] > artifacts.LAYER_BYTES
    assert [(item["wanted_generation"], item["applied_generation"]) for item in in_step["groups"]] == [(1, 1)]
    assert (failing["state"], failing["failure_count"]) == ("failing", 1)
    assert failing["lag_seconds"] > 0
    assert bad in failing["reason"]
    assert [failure["reference"] for failure in status["failures"]] == [bad]
    said = _command(centre, "fleet", "status", "--name", name, "--output", "json")
    assert [(row["name"], row["state"], row["reason"]) for row in json.loads(said)] == [
        (name, "failing", failing["reason"])
    ]
    assert name in _command(centre, "fleet", "status", "--name", name)


def _claimed(api: httpx.Client, url: str, name: str) -> tuple[str, str]:
    token = api.post("/api/satellites", json={"name": name, "groups": []}).json()["token"]
    auth = asking.get(f"{url}/satellites/ztr/{token}", timeout=60.0).json()["auth"]
    return auth["username"], auth["password"]


def _report(url: str, name: str, auth: tuple[str, str]) -> int:
    body = {"name": name, "request_created_time": datetime.now(UTC).isoformat(), "state_report_interval": "30s"}
    return asking.post(f"{url}/satellites/sync", json=body, auth=auth, timeout=60.0).status_code


@contextmanager
def _guessing(url: str, satellite: str) -> Iterator[Counter[int]]:
    """Guess passwords of a person and of a satellite, as fast as answers come, in a thread of its own."""
    stop, answers = threading.Event(), Counter[int]()

    def guess() -> None:
        with asking.client(base_url=url, timeout=60.0) as client:
            while not stop.is_set():
                wrong = client.post("/satellites/sync", json={"name": satellite}, auth=(f"robot${satellite}", "guess"))
                login = client.post("/login", json={"username": "operator", "password": "Guess-1234"})
                answers.update([wrong.status_code, login.status_code])

    thread = threading.Thread(target=guess)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def _fleet(centre: Centre, name: str) -> list[dict[str, Any]]:
    answer = centre.api.get("/api/fleet", params={"name": name})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def _command(centre: Centre, *arguments: str) -> str:
    """Run a command as an operator does; return what it prints."""
    token = str(centre.api.headers["Authorization"]).removeprefix("Bearer ")
    environment = {
        **os.environ,
        "HARBOR_SATELLITE_GROUND_CONTROL_URL": centre.url,
        "HARBOR_SATELLITE_API_TOKEN": token,
        "COLUMNS": "200",
    }
    done = subprocess.run([*CLI, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
