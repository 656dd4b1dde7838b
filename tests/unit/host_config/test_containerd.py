from __future__ import annotations

import tomllib

import pytest

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.containerd import CERTS, CONFIG, RESTART, render_containerd
from harbor_satellite.host_config.containerd_hosts import BEGIN
from harbor_satellite.host_config.rendered import MirrorSettings, TextFiles
from tests.unit.host_config.pem import PEM

LOCAL = MirrorSettings("http://127.0.0.1:8585")
HUB = f"{CERTS}/docker.io/hosts.toml"
OWN = f"{CERTS}/satellite.zot/hosts.toml"
READY = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n'


def rendered(files: dict[str, str], mirrors: MirrorSettings = LOCAL) -> dict[str, str]:
    return {file.path: file.text for file in render_containerd(TextFiles(files), mirrors).files}


def test_render_only_a_change_of_the_main_file_restarts() -> None:
    files = render_containerd(TextFiles({}), LOCAL).files

    assert {file.path: file.reload for file in files} == {HUB: None, OWN: None, CONFIG: RESTART}
    assert files[-1].path == CONFIG


def test_render_without_fallback_asks_nobody_else() -> None:
    texts = rendered({CONFIG: READY}, MirrorSettings("http://127.0.0.1:8585", is_fallback=False))

    assert tomllib.loads(texts[HUB])["server"] == tomllib.loads(texts[OWN])["server"] == "http://127.0.0.1:8585"


def test_render_without_fallback_asks_none_of_those_that_stood_there_and_says_so() -> None:
    files = {CONFIG: READY, HUB: 'server = "https://hub.corp"\n[host."https://m.corp"]\n'}
    mirrors = MirrorSettings("http://127.0.0.1:8585", is_fallback=False)

    rendering = render_containerd(TextFiles(files), mirrors)

    assert ".corp" not in rendering.files[0].text
    assert "are not asked" in rendering.notes[0]


def test_render_without_fallback_leaves_the_default_of_others_out() -> None:
    files = {CONFIG: READY, f"{CERTS}/_default/hosts.toml": 'server = "https://everything.corp"\n'}

    texts = rendered(files, MirrorSettings("http://127.0.0.1:8585", is_fallback=False))

    assert "corp" not in texts[HUB]


def test_render_without_fallback_keeps_what_our_host_was_given() -> None:
    given = (
        '[host."https://10.0.0.1"]\nskip_verify = true\n[host."https://10.0.0.1".header]\nauthorization = "Basic x"\n'
    )

    texts = rendered({CONFIG: READY, HUB: given}, MirrorSettings("https://10.0.0.1", is_fallback=False, ca=PEM))

    found = tomllib.loads(texts[HUB])
    own = {
        "capabilities": ["pull", "resolve"],
        "dial_timeout": "2s",
        "ca": f"{CERTS}/satellite.zot/harbor-satellite-ca.pem",
        "skip_verify": True,
        "header": {"authorization": "Basic x"},
    }
    assert found == {"server": "https://10.0.0.1", **own, "host": {"https://10.0.0.1": own}}


def test_render_what_a_later_folder_says_of_a_registry_still_holds() -> None:
    text = READY.replace("certs.d", "certs.d:/etc/docker/certs.d").replace("version = 2", "version = 3")
    files = {
        CONFIG: text.replace("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"),
        "/etc/docker/certs.d/a.corp:8443/ca.crt": "",
        "/etc/docker/certs.d/b.corp/hosts.toml": 'server = "https://c.corp"\n',
    }
    mirrors = MirrorSettings("http://127.0.0.1:8585", ("a.corp:8443", "b.corp"))

    rendering = render_containerd(TextFiles(files), mirrors)

    first, second = (tomllib.loads(file.text) for file in rendering.files[:2])
    assert first["ca"] == ["/etc/docker/certs.d/a.corp:8443/ca.crt"]
    assert second["server"] == "https://c.corp"
    assert "several folders" in rendering.notes[0]


def test_render_tls_names_the_authority_that_is_written_too() -> None:
    texts = rendered({CONFIG: READY}, MirrorSettings("https://10.0.0.1:8585", is_fallback=False, ca=PEM))

    hosts = tomllib.loads(texts[HUB])
    assert hosts["ca"] == hosts["host"]["https://10.0.0.1:8585"]["ca"]
    assert texts[hosts["ca"]] == PEM


def test_render_other_address_takes_the_place_of_the_old_one() -> None:
    before = rendered({CONFIG: READY})

    after = rendered({CONFIG: READY, **before}, MirrorSettings("http://127.0.0.1:8600"))

    assert list(tomllib.loads(after[HUB])["host"]) == ["http://127.0.0.1:8600"]
    assert after[HUB].count(BEGIN) == 1


def test_render_header_given_to_our_host_stays() -> None:
    header = '[host."http://127.0.0.1:8585".header]\nauthorization = "Basic eDp5"\n'

    texts = rendered({CONFIG: READY, HUB: f'server = "https://registry-1.docker.io"\n{header}'})

    ours = tomllib.loads(texts[HUB])["host"]["http://127.0.0.1:8585"]
    assert ours["header"] == {"authorization": "Basic eDp5"}
    assert ours["capabilities"] == ["pull", "resolve"]


def test_render_own_name_always_has_somebody_to_ask_last() -> None:
    by_hand = '[host."http://127.0.0.1:8585".header]\nauthorization = "Basic eDp5"\n'

    texts = rendered({CONFIG: READY, OWN: by_hand, HUB: by_hand})

    assert {tomllib.loads(texts[path])["server"] for path in (OWN, HUB)} == {"https://registry-1.docker.io"}


def test_render_other_hosts_without_a_server_get_none() -> None:
    found = tomllib.loads(rendered({CONFIG: READY, HUB: 'capabilities = ["pull"]\n[host."https://m"]\n'})[HUB])

    assert (found.get("server"), found["capabilities"]) == (None, ["pull"])


def test_render_same_host_by_hand_is_left_alone() -> None:
    text = '[host."http://127.0.0.1:8585"]\ncapabilities = ["pull"]\n'

    rendering = render_containerd(TextFiles({CONFIG: READY, HUB: text}), LOCAL)

    assert rendering.files[0].text == text
    assert "stands there already" in rendering.notes[0]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {CONFIG: READY + '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint=["x"]\n'},
            "mirrors",
        ),
        (
            {CONFIG: READY + '[plugins."io.containerd.grpc.v1.cri".registry.configs."a".tls]\nca_file="x"\n'},
            "configs.a.tls",
        ),
        ({CONFIG: "version = "}, "is not TOML"),
        ({CONFIG: "\ufeff" + READY}, "byte order mark"),
        ({CONFIG: "plugins = 5\n"}, "do not know how"),
        ({CONFIG: "version = 2\n[[plugins]]\nx = 1\n"}, "do not know how"),
        ({CONFIG: 'version = 2\n[plugins]\n"io.containerd.grpc.v1.cri" = "x"\n'}, "do not know how"),
        ({CONFIG: READY, HUB: "host = 5\n"}, "no table of its own"),
        ({CONFIG: READY, HUB: '[host."http://127.0.0.1:8585"]\nheader = 5\n'}, "do not know how"),
        ({CONFIG: READY, HUB: "["}, "is not TOML"),
        ({CONFIG: READY, HUB: 'host = { "https://a" = { capabilities = ["pull"] } }\n'}, "no table of its own"),
        ({CONFIG: READY.replace("/etc/containerd/certs.d", "certs.d")}, "not absolute"),
        ({CONFIG: READY, f"{CERTS}/_default/hosts.toml": '[host."https://a"]\nca = "here.pem"\n'}, "relative paths"),
    ],
    ids=[
        "old-mirrors",
        "old-tls",
        "broken-config",
        "mark",
        "number",
        "array",
        "text",
        "number-hosts",
        "twice",
        "broken-hosts",
        "inline-hosts",
        "relative-folder",
        "relative-ca",
    ],
)
def test_render_what_cannot_be_kept_is_refused(files: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        render_containerd(TextFiles(files), LOCAL)


def test_render_empty_old_mirrors_of_a_dump_are_no_obstacle() -> None:
    dump = READY + '[plugins."io.containerd.grpc.v1.cri".registry.mirrors]\n'

    assert rendered({CONFIG: dump})[CONFIG] == dump


@pytest.mark.parametrize("line", ["imports = 5", "version = [2]", "disabled_plugins = 5"])
def test_render_values_that_mean_nothing_are_no_obstacle(line: str) -> None:
    assert CERTS in rendered({CONFIG: f"{line}\n"})[CONFIG]


def test_render_default_of_odd_values_is_no_obstacle() -> None:
    assert rendered({CONFIG: READY, f"{CERTS}/_default/hosts.toml": "[host]\na = 5\n"})[HUB]


def test_render_missing_import_and_import_of_itself_do_no_harm() -> None:
    files = {CONFIG: f'imports = ["/no/such.toml", "{CONFIG}"]\n' + READY}

    assert rendered(files)[CONFIG] == files[CONFIG]
