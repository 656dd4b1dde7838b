"""Tokens, names and satellites: who gets in, who does not, and nobody is stranded."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.errors import RemoteError
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance import artifacts
from tests.acceptance.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.acceptance.centre import Centre, HarborCentre

    Join = Callable[..., Site]

CLAIMS = 20
BAD_NAMES = ("../../etc", "a/../b", "..", "a/b", "UPPER", "a b", "", "-a", "a" * 300, "a%2fb")


@pytest.mark.acceptance("A15")
@pytest.mark.parametrize("form", ["path", "body"])
def test_of_twenty_concurrent_claims_exactly_one_wins(
    centre: Centre, name: str, anybody: httpx.Client, form: str
) -> None:
    token = centre.add_satellite(name, [])
    together = Barrier(CLAIMS)

    def claim(number: int) -> int:
        together.wait()
        if form == "path":
            return anybody.get(f"/satellites/ztr/{token}").status_code
        return anybody.post("/satellites/ztr", json={"token": token, "claim_key": f"site-{number}"}).status_code

    with ThreadPoolExecutor(CLAIMS) as pool:
        answers = sorted(pool.map(claim, range(CLAIMS)))

    assert answers == [200] + [401] * (CLAIMS - 1)


@pytest.mark.acceptance("A15")
def test_token_that_was_used_is_refused(centre: Centre, name: str, anybody: httpx.Client, join: Join) -> None:
    token = centre.add_satellite(name, [])

    first, again = (anybody.get(f"/satellites/ztr/{token}") for _ in range(2))

    assert first.status_code == 200
    assert first.json()["auth"].keys() >= {"url", "username", "password"}
    assert first.json()["state"] == f"{centre.central.url}/satellite/satellite-state/{name}/state:latest"
    assert (again.status_code, again.json()["code"]) == (401, 401)


@pytest.mark.acceptance("A16")
def test_token_that_has_expired_is_refused(harbor_centre: HarborCentre, expiring_token: dict[str, str]) -> None:
    left = datetime.fromisoformat(expiring_token["expires_at"]) - datetime.now(UTC)
    time.sleep(max(0.0, left.total_seconds() + 0.5))

    answer = httpx.get(f"{harbor_centre.url}/satellites/ztr/{expiring_token['token']}", trust_env=False)

    assert answer.status_code == 401
    assert harbor_centre.api.get("/api/satellites/too-late/status").status_code == 404


@pytest.mark.acceptance("A17")
def test_site_whose_answer_was_lost_registers_with_the_same_token(centre: Centre, name: str, tmp_path: Path) -> None:
    token = centre.add_satellite(name, [])

    with Site(name, tmp_path / "site", centre) as site:
        with _losing_answers(centre.url) as (url, lost):
            unanswered = site.register(token, ground_control=url)
        registered = site.register(token)

        assert (unanswered.returncode, lost) == (1, [200])
        assert registered.returncode == 0, registered.stderr
        assert name in registered.stdout
        run = site.follow({})
        assert run.returncode == 0


@pytest.mark.acceptance("A17")
def test_site_that_lost_its_disk_gets_a_new_token_and_keeps_its_images(centre: Centre, name: str, join: Join) -> None:
    reference = f"{name}/app:v1"
    digest = artifacts.push_simple_image(centre.central.client, reference, name)
    centre.put_group(name, {reference: digest})
    site = join(name, name)
    site.follow({name: {reference: digest}})

    shutil.rmtree(site.data_dir)
    reissued = centre.api.post(f"/api/satellites/{name}/token")
    registered = site.register(reissued.json()["token"])
    run = site.sync()

    assert (reissued.status_code, registered.returncode) == (200, 0)
    assert (run.returncode, run.references("kept"), run.references("copied")) == (0, [reference], [])
    assert site.holds(reference) == {reference: digest}


@pytest.mark.acceptance("A17")
def test_reissued_token_ends_the_one_before_it(centre: Centre, name: str, anybody: httpx.Client) -> None:
    first = centre.add_satellite(name, [])

    second = centre.api.post(f"/api/satellites/{name}/token").json()["token"]

    assert anybody.get(f"/satellites/ztr/{first}").status_code == 401
    assert anybody.get(f"/satellites/ztr/{second}").status_code == 200


@pytest.mark.acceptance("A20")
def test_satellite_without_groups_is_deleted_with_its_credential(
    centre: Centre, name: str, anybody: httpx.Client
) -> None:
    auth = anybody.get(f"/satellites/ztr/{centre.add_satellite(name, [])}").json()["auth"]
    could_read_before = _may_read(auth)

    answer = centre.api.delete(f"/api/satellites/{name}")

    assert answer.status_code == 200
    assert centre.api.get(f"/api/satellites/{name}").status_code == 404
    assert centre.api.delete(f"/api/satellites/{name}").status_code == 404
    assert (could_read_before, _may_read(auth)) == (True, False)
    assert centre.add_satellite(name, [])  # the name is free again


def test_name_that_is_taken_conflicts(centre: Centre, name: str) -> None:
    centre.add_satellite(name, [])

    answer = centre.api.post("/api/satellites", json={"name": name, "groups": []})

    assert (answer.status_code, answer.json()["code"]) == (409, 409)


@pytest.mark.parametrize("bad", BAD_NAMES, ids=lambda bad: repr(bad[:12]))
def test_names_that_could_leave_their_folder_are_refused(centre: Centre, name: str, bad: str) -> None:
    group = {"group": bad, "registry": centre.central.url, "artifacts": []}
    repository = {"repository": bad, "tag": ["v1"], "digest": "", "type": "IMAGE", "deleted": False}
    config = {"name": name, "groups": [], "config_name": bad}
    requests = [("/api/satellites", {"name": bad, "groups": []}), ("/api/groups/sync", group)]
    # The original's clients send an empty config name for none; a repository may have several parts.
    requests += [("/api/satellites", config)] if bad else []
    if bad != "a/b":
        requests.append(("/api/groups/sync", {"group": name, "registry": "", "artifacts": [repository]}))

    answers = {path + str(list(body)): centre.api.post(path, json=body).status_code for path, body in requests}

    assert set(answers.values()) == {400}, answers
    assert name not in [item["Name"] for item in centre.api.get("/api/satellites").json()]
    assert name not in [item["GroupName"] for item in centre.api.get("/api/groups").json()]


def _may_read(auth: dict[str, Any]) -> bool:
    credentials = Credentials(auth["username"], SecretStr(auth["password"]))
    with HttpRegistry(auth["url"], credentials=credentials) as registry:
        try:
            registry.tag_list("satellite/any")
        except RemoteError:
            return False
        return True


@contextmanager
def _losing_answers(url: str) -> Iterator[tuple[str, list[int]]]:
    """Pass requests on to ``url`` and hang up instead of answering; gives its address and the answers that got lost."""
    lost: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": self.headers["Content-Type"]}
            lost.append(httpx.post(url + self.path, content=body, headers=headers, trust_env=False).status_code)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", lost
        finally:
            server.shutdown()
            thread.join()
