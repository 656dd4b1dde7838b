"""What does not hash to its digest, or is older than what the site follows, is refused by name; the others go on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts
from tests.acceptance.replicating import run_place, until_done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.acceptance.replicating import Place

BAD, GOOD = "acme/bad:v1", "acme/good:v1"


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _cut_short(content: bytes) -> bytes:
    return content[:-100]


def _too_long(content: bytes) -> bytes:
    return content + b"and more"


def _written_anew(content: bytes) -> bytes:
    return json.dumps(json.loads(content), indent=7).encode()


def _layer(place: Place) -> str:
    return artifacts.layers_of(place.central, BAD)[0]


def _config(place: Place) -> str:
    digest: str = json.loads(place.central.manifest_get("acme/bad", "v1").raw)["config"]["digest"]
    return digest


def _manifest(place: Place) -> str:
    return str(artifacts.digest_at(place.central, BAD))


@pytest.mark.acceptance("A13")
@pytest.mark.parametrize(
    ("part", "change", "kind"),
    [
        pytest.param(_layer, _flipped, "", id="layer with a flipped bit"),
        pytest.param(
            _layer, _flipped, "embedded", id="layer with a flipped bit at another registry", marks=pytest.mark.slow
        ),
        pytest.param(_layer, _cut_short, "", id="layer cut short"),
        pytest.param(_layer, _too_long, "", id="layer with more behind it", marks=pytest.mark.slow),
        pytest.param(_config, _flipped, "", id="config with a flipped bit"),
        pytest.param(_manifest, _written_anew, "", id="manifest written anew"),
        pytest.param(
            _manifest, _written_anew, "embedded", id="manifest written anew at another registry", marks=pytest.mark.slow
        ),
    ],
)
def test_image_with_other_bytes_is_refused_and_the_others_of_its_group_go_on(
    tmp_path: Path, part: Callable[[Place], str], change: Callable[[bytes], bytes], kind: str
) -> None:
    with run_place(tmp_path, kind=kind) as (place, site):
        old = {BAD: place.push(BAD, "old bad"), GOOD: place.push(GOOD, "old good")}
        place.decide({"group": old})
        until_done(site)
        new = {BAD: place.push(BAD, "new bad", 300_000), GOOD: place.push(GOOD, "new good")}
        place.decide({"group": new})
        artifacts.change_blob(place.source.root, part(place), change)

        run = site.sync()

        assert (run.returncode, run.references("failed"), run.references("copied")) == (1, [BAD], [GOOD])
        assert run.reasons[BAD]
        assert site.holds(BAD, GOOD) == {BAD: old[BAD], GOOD: new[GOOD]}
        assert site.registry.manifest_head("acme/bad", new[BAD]) is None


@pytest.mark.acceptance("A13")
def test_image_that_is_put_right_at_the_source_arrives(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, BAD, 2_000_000)
        place.decide({"group": {BAD: digest}})
        artifacts.change_blob(place.source.root, _layer(place), _flipped)
        refused = site.sync()
        artifacts.change_blob(place.source.root, _layer(place), _flipped)

        run = site.sync()

        assert refused.returncode == 1
        assert (run.returncode, site.holds(BAD)) == (0, {BAD: digest})


def test_state_of_an_older_generation_is_refused_unless_the_centre_went_back_on_purpose(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old, new = ({GOOD: place.push(GOOD, content)} for content in ("old", "new"))
        place.generations["group"] = 7
        place.decide({"group": new})
        until_done(site)

        place.generations["group"] = 3
        place.decide({"group": old})
        said = site.refused_sync()
        held = site.holds(GOOD)
        place.generations["group"] = 3
        place.decide({"group": old}, is_rollback=True)
        run = site.sync()

        assert "went back from generation 8 to 4" in said
        assert held == new
        assert (run.returncode, site.holds(GOOD)) == (0, old)


def test_state_that_has_expired_changes_nothing(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = {GOOD: place.push(GOOD, "old")}
        place.decide({"group": old})
        until_done(site)
        yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        place.decide({"group": {GOOD: place.push(GOOD, "new")}}, expires_at=yesterday)

        said = site.refused_sync()

        assert "expired" in said
        assert site.holds(GOOD) == old


@pytest.mark.parametrize("artifacts_key", ["nonsense", [{"repository": "../etc", "tag": ["v1"], "digest": "md5:1"}]])
def test_malformed_state_changes_nothing(tmp_path: Path, artifacts_key: object) -> None:
    with run_place(tmp_path) as (place, site):
        old = {GOOD: place.push(GOOD, "old")}
        place.decide({"group": old})
        until_done(site)
        place.decide({"group": {}}, artifacts=artifacts_key)

        said = site.refused_sync()

        assert "malformed state" in said
        assert site.holds(GOOD) == old
