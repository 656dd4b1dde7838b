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


def test_render_own_server_stays_without_fallback_and_is_told() -> None:
    files = {CONFIG: READY, HUB: 'server = "https://hub.corp"\n'}
    mirrors = MirrorSettings("http://127.0.0.1:8585", is_fallback=False)

    rendering = render_containerd(TextFiles(files), mirrors)

    assert tomllib.loads(rendering.files[0].text)["server"] == "https://hub.corp"
    assert "https://hub.corp: the fallback to it stays" in rendering.notes[0]


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


def test_render_other_hosts_without_a_server_get_none_but_without_fallback() -> None:
    files = {CONFIG: READY, HUB: 'capabilities = ["pull"]\n[host."https://m"]\n'}

    by_default = tomllib.loads(rendered(files)[HUB])
    alone = tomllib.loads(rendered(files, MirrorSettings("http://127.0.0.1:8585", is_fallback=False))[HUB])

    assert "server" not in by_default
    assert (alone["server"], alone["capabilities"]) == ("http://127.0.0.1:8585", ["pull"])


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
        ({CONFIG: READY, HUB: "["}, "is not TOML"),
        ({CONFIG: READY, HUB: 'host = { "https://a" = { capabilities = ["pull"] } }\n'}, "no table of its own"),
        ({CONFIG: READY.replace("/etc/containerd/certs.d", "certs.d")}, "not absolute"),
        ({CONFIG: READY, f"{CERTS}/_default/hosts.toml": '[host."https://a"]\nca = "here.pem"\n'}, "relative paths"),
    ],
    ids=["old-mirrors", "old-tls", "broken-config", "broken-hosts", "inline-hosts", "relative-folder", "relative-ca"],
)
def test_render_what_cannot_be_kept_is_refused(files: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        render_containerd(TextFiles(files), LOCAL)


def test_render_empty_old_mirrors_of_a_dump_are_no_obstacle() -> None:
    dump = READY + '[plugins."io.containerd.grpc.v1.cri".registry.mirrors]\n'

    assert rendered({CONFIG: dump})[CONFIG] == dump


def test_render_missing_import_and_import_of_itself_do_no_harm() -> None:
    files = {CONFIG: f'imports = ["/no/such.toml", "{CONFIG}"]\n' + READY}

    assert rendered(files)[CONFIG] == files[CONFIG]
