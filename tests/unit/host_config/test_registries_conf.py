from __future__ import annotations

import tomllib
from typing import Any

import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.registries_conf import DROP_IN, DROP_INS, MAIN, RELOAD, render_crio, render_podman
from harbor_satellite.host_config.rendered import MirrorSettings, TextFiles
from tests.unit.host_config.pem import PEM

LOCAL = MirrorSettings("http://127.0.0.1:8585")


def tables(files: dict[str, str], mirrors: MirrorSettings = LOCAL) -> dict[str, dict[str, Any]]:
    rendered = {file.path: file.text for file in render_podman(TextFiles(files), mirrors).files}
    return {one["prefix"]: one for one in tomllib.loads(rendered[DROP_IN])["registry"]}


def test_render_own_name_falls_back_by_a_host_that_takes_one_word_images() -> None:
    # `docker.io/alpine` is no canonical name: with that location no image of one word could be pulled, mirrored or not.
    assert tables({})["satellite.zot"]["location"] == "registry-1.docker.io"


def test_render_without_fallback_names_the_local_registry_only() -> None:
    found = tables({}, MirrorSettings("http://127.0.0.1:8585", is_fallback=False))

    assert {one["location"] for one in found.values()} == {"127.0.0.1:8585"}
    assert all(one["insecure"] is True for one in found.values())


def test_render_tls_is_never_insecure_and_brings_its_authority() -> None:
    files = render_podman(TextFiles({}), MirrorSettings("https://10.0.0.1:8585", ca=PEM)).files

    assert files[0].path == "/etc/containers/certs.d/10.0.0.1:8585/harbor-satellite.crt"
    assert "insecure" not in files[1].text


def test_render_blocked_by_a_wildcard_stays_blocked() -> None:
    files = {MAIN: '[[registry]]\nprefix = "*.corp.example"\nblocked = true\n'}

    found = tables(files, MirrorSettings("http://127.0.0.1:8585", ("harbor.corp.example:8443",)))

    assert set(found) == {"satellite.zot"}


def test_render_blocked_by_the_host_without_its_port_stays_blocked() -> None:
    files = {MAIN: '[[registry]]\nprefix = "harbor.example.com"\nblocked = true\n'}

    found = tables(files, MirrorSettings("http://127.0.0.1:8585", ("harbor.example.com:8443",)))

    assert set(found) == {"satellite.zot"}


@pytest.mark.parametrize("prefix", ["harbor.example.com", "*.example.com"])
def test_render_what_a_shorter_prefix_says_still_holds(prefix: str) -> None:
    text = f'[[registry]]\nprefix = "{prefix}"\nlocation = "cache.corp"\n[[registry.mirror]]\nlocation = "m.corp"\n'

    found = tables({MAIN: text}, MirrorSettings("http://127.0.0.1:8585", ("harbor.example.com:8443",)))

    own = found["harbor.example.com:8443"]
    assert own["location"] == "cache.corp:8443"
    assert [one["location"] for one in own["mirror"]] == ["127.0.0.1:8585", "m.corp:8443"]


def test_render_longer_prefix_of_others_is_told() -> None:
    rendering = render_podman(
        TextFiles({MAIN: '[[registry]]\nprefix = "docker.io/library"\nlocation = "m.corp/hub"\n'}), LOCAL
    )

    assert rendering.notes == (
        f"{MAIN} has a table for docker.io/library: it holds, those images come from where it says",
    )


def test_render_without_fallback_asks_no_mirror_of_others() -> None:
    text = '[[registry]]\nprefix = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.gcr.io"\n'

    rendering = render_podman(TextFiles({MAIN: text}), MirrorSettings("http://127.0.0.1:8585", is_fallback=False))

    assert "gcr.io" not in rendering.files[0].text
    assert "are not asked" in rendering.notes[0]


@pytest.mark.parametrize(
    "line",
    ['"odd key" = true', "location = 5", 'location = "a\\u007fb"', "mirror = 5", "mirror = [{ location = 5 }]"],
)
def test_render_odd_values_of_others_leave_a_file_that_can_be_read(line: str) -> None:
    found = tables({MAIN: f'[[registry]]\nprefix = "docker.io"\n{line}\n'})

    assert found["docker.io"]["mirror"] == [{"location": "127.0.0.1:8585", "insecure": True}]


def test_render_empty_lists_of_the_old_format_are_no_obstacle() -> None:
    assert "docker.io" in tables({MAIN: "[registries.search]\nregistries = []\n"})


def test_render_own_table_in_an_earlier_file_holds_for_the_own_name() -> None:
    files = {f"{DROP_INS}/10-a.conf": '[[registry]]\nprefix = "satellite.zot"\nlocation = "harbor.corp.example/edge"\n'}

    own = tables(files)["satellite.zot"]

    assert own["location"] == "harbor.corp.example/edge"
    assert own["mirror"][0]["location"] == "127.0.0.1:8585"


def test_render_again_is_the_same_whatever_stands_in_ours() -> None:
    first = render_podman(TextFiles({}), LOCAL).files[0].text

    again = render_podman(TextFiles({DROP_IN: first + '[[registry]]\nlocation = "x"\n'}), LOCAL).files[0].text

    assert again == first


def test_render_crio_is_reloaded_and_podman_is_not() -> None:
    assert render_crio(TextFiles({}), LOCAL).files[0].reload == RELOAD
    assert render_podman(TextFiles({}), LOCAL).files[0].reload is None


@pytest.mark.parametrize(
    "text",
    ["[registries.search]\nregistries = ['docker.io']\n", "[registries.block]\nregistries = ['docker.io']\n", "[["],
    ids=["old-search", "old-block", "broken"],
)
def test_render_old_format_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=MAIN):
        render_podman(TextFiles({MAIN: text}), LOCAL)


def test_render_plain_http_across_the_network_is_told() -> None:
    rendering = render_podman(TextFiles({}), MirrorSettings("http://registry.lan:5000"))

    assert "plain HTTP" in rendering.notes[0]
