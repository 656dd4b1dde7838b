from __future__ import annotations

import json

import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.docker import CONFIG, HOSTS, render_docker
from harbor_satellite.host_config.json_edit import put_first
from harbor_satellite.host_config.rendered import MirrorSettings, TextFiles

LOCAL = MirrorSettings("http://127.0.0.1:8585")


def texts(files: dict[str, str], mirrors: MirrorSettings = LOCAL) -> dict[str, str]:
    return {file.path: file.text for file in render_docker(TextFiles(files), mirrors).files}


def test_render_mirror_elsewhere_over_plain_http_is_insecure_by_name() -> None:
    found = json.loads(texts({}, MirrorSettings("http://registry.lan:5000"))[CONFIG])

    assert found["insecure-registries"] == ["registry.lan:5000", "satellite.zot"]


def test_render_hub_not_wanted_sets_no_mirror() -> None:
    rendering = render_docker(TextFiles({}), MirrorSettings("http://127.0.0.1:8585", ("quay.io",)))

    assert "registry-mirrors" not in json.loads(rendering.files[1].text)
    assert "quay.io cannot" in rendering.notes[0]


def test_render_mirror_that_is_there_with_a_slash_is_not_there_twice() -> None:
    text = '{"registry-mirrors": ["https://a", "http://127.0.0.1:8585/"], "insecure-registries": ["satellite.zot"]}'

    assert texts({CONFIG: text})[CONFIG] == text


def test_render_own_name_with_another_address_is_left_and_told() -> None:
    rendering = render_docker(TextFiles({HOSTS: "10.0.0.9 cache satellite.zot # by hand\n"}), LOCAL)

    assert rendering.files[0].text == "10.0.0.9 cache satellite.zot # by hand\n"
    assert "10.0.0.9" in rendering.notes[0]


def test_render_own_name_in_a_comment_is_no_address() -> None:
    assert texts({HOSTS: "# satellite.zot\n"})[HOSTS].splitlines()[-1].startswith("127.0.0.1 satellite.zot")


def test_render_fallback_that_cannot_be_turned_off_is_told() -> None:
    rendering = render_docker(TextFiles({}), MirrorSettings("http://127.0.0.1:8585", is_fallback=False))

    assert "cannot be turned off" in rendering.notes[0]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({CONFIG: "{"}, "is not JSON"),
        ({CONFIG: "[]"}, "is not a JSON object"),
        ({CONFIG: '{"registry-mirrors": "https://a"}'}, "no list of texts"),
        (
            {
                "/etc/systemd/system/docker.service.d/10.conf": "ExecStart=/usr/bin/dockerd --registry-mirror=https://a\n"
            },
            "as an option",
        ),
        (
            {"/usr/lib/systemd/system/docker.service.d/a.conf": "ExecStart=dockerd --insecure-registry=b\n"},
            "as an option",
        ),
        ({"/etc/default/docker": 'DOCKER_OPTS="--insecure-registry 10.0.0.0/8"\n'}, "as an option"),
    ],
    ids=["broken", "list", "text", "unit", "vendor-unit", "defaults"],
)
def test_render_what_cannot_be_added_to_is_refused(files: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        render_docker(TextFiles(files), LOCAL)


def test_render_option_in_a_comment_is_no_obstacle() -> None:
    files = {"/etc/default/docker": '#DOCKER_OPTS="--registry-mirror=https://a"\n'}

    assert CONFIG in texts(files)


def test_put_first_keeps_what_a_parser_would_lose() -> None:
    text = '{ "a" : 1.50,\n "s":"\\u00e9\\/",  "list":[ ] }'

    edited = put_first(text, "f", "list", "new")

    assert edited == '{ "a" : 1.50,\n "s":"\\u00e9\\/",  "list":["new"] }'
