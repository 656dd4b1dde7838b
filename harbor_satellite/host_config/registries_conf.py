"""CRI-O, Podman and all else that reads ``registries.conf``: one drop-in of our own; foreign files stay untouched.

Pure. A registry's table in a later file takes the place of an earlier one's as a whole, so ours says again what the
earlier one said, with the local registry as first mirror; and where that would lift a ban or be overruled by a later
file, there is none.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.rendered import (
    OWN_NAME,
    Reload,
    RenderedFile,
    Rendering,
    common_notes,
)
from harbor_satellite.host_config.toml_files import parse_toml, table, tables
from harbor_satellite.oci.reference import DOCKER_HUB

if TYPE_CHECKING:
    from harbor_satellite.host_config.rendered import HostFiles, MirrorSettings

MAIN: Final = "/etc/containers/registries.conf"
DROP_INS: Final = "/etc/containers/registries.conf.d"
DROP_IN: Final = f"{DROP_INS}/50-harbor-satellite.conf"
CERTS: Final = "/etc/containers/certs.d"
RELOAD: Final = Reload("crio.service", "reload")
_HUB_HOST: Final = "registry-1.docker.io"
_KEYS: Final = ("prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "pull-from-mirror")
_HEAD: Final = """\
# Written by `harbor-satellite edge runtime apply`; `undo` removes it. Each table says again what an earlier file said
# of the same registry, with the local registry as first mirror.
"""


def render_podman(files: HostFiles, mirrors: MirrorSettings) -> Rendering:
    """Render the drop-in for Podman, Buildah and Skopeo, which read it at every pull.

    Raises:
        InvalidInputError: a file is not TOML, or of the old format, beside which no drop-in may stand.
    """
    return _render(files, mirrors, None)


def render_crio(files: HostFiles, mirrors: MirrorSettings) -> Rendering:
    """Render the drop-in for CRI-O: the same file, and a reload.

    Raises:
        InvalidInputError: a file is not TOML, or of the old format, beside which no drop-in may stand.
    """
    return _render(files, mirrors, RELOAD)


def _render(files: HostFiles, mirrors: MirrorSettings, reload: Reload | None) -> Rendering:
    said = _Said(files)
    notes: list[str] = []
    found = [_table_of(registry, said, mirrors, notes) for registry in (*mirrors.registries, OWN_NAME)]
    text = _HEAD + "".join("\n" + _toml(one, mirrors) for one in found if one is not None)
    rendered = [RenderedFile(DROP_IN, text, reload=reload)]
    if mirrors.ca:
        rendered.insert(0, RenderedFile(f"{CERTS}/{mirrors.local_host}/harbor-satellite.crt", mirrors.ca))
    if not mirrors.is_loopback and not mirrors.is_tls:
        notes.append(f"{mirrors.local_host} is asked over plain HTTP, across the network")
    return Rendering(tuple(rendered), (*notes, *common_notes(mirrors)))


class _Said:
    """What the files of others say of registries: those that are read before ours, and those after it."""

    def __init__(self, files: HostFiles) -> None:
        self.before: dict[str, dict[str, Any]] = {}
        self.after: dict[str, str] = {}
        """Prefix → the file that overrules ours."""
        self.where: dict[str, str] = {}
        for path in (MAIN, *files.match(f"{DROP_INS}/*.conf")):
            document = parse_toml(files.read(path) or "", path)
            if any(table(document, "registries", kind).get("registries") for kind in ("search", "insecure", "block")):
                raise InvalidInputError(
                    f"{path} is of the old format ([registries.search] …): rewrite it as [[registry]]"
                )
            is_before = path == MAIN or posixpath.basename(path) < posixpath.basename(DROP_IN)
            for one in () if path == DROP_IN else tables(document, "registry"):
                prefix = str(one.get("prefix") or one.get("location") or "").rstrip("/")
                self.where[prefix] = path
                if is_before:
                    self.before[prefix] = _known(one)
                else:
                    self.after[prefix] = path

    def prefix_of(self, registry: str) -> str:
        """Return the prefix whose table holds for a registry's images; empty: none."""
        host = _without_port(registry)
        wild = [prefix for prefix in self.where if prefix.startswith("*.") and host.endswith(prefix[1:])]
        # A table of `host` holds for `host:port`, too.
        return next((name for name in (registry, host) if name in self.where), max(wild, key=len, default=""))

    def below(self, registry: str) -> list[str]:
        """Return the longer prefixes, whose tables hold for some of a registry's images, if they are no bans."""
        found = (prefix for prefix in self.where if prefix.startswith(f"{registry}/"))
        return [prefix for prefix in found if self.before.get(prefix, {}).get("blocked") is not True]


def _table_of(registry: str, said: _Said, mirrors: MirrorSettings, notes: list[str]) -> dict[str, Any] | None:
    """Return the table of a registry as it shall be; None: what others say rules it out, and a note says so."""
    prefix = said.prefix_of(registry)
    held = dict(said.before.get(prefix, {}))
    if prefix and prefix in said.after:
        notes.append(
            f"{said.after[prefix]} is read after ours and speaks of {prefix}: it holds, {registry} stays as it is"
        )
        return None
    if held.get("blocked") is True:
        notes.append(f"{said.where[prefix]} blocks {prefix}: {registry} stays blocked")
        return None
    notes += [
        f"{said.where[one]} has a table for {one}: it holds, those images come from where it says"
        for one in said.below(registry)
    ]
    if held.get("mirror-by-digest-only") is True:
        notes.append(f"{said.where[prefix]}: mirrors of {prefix} serve pulls by digest only, and so does ours")
    held["prefix"] = registry
    if registry == OWN_NAME and not prefix:
        held |= _hub(said, mirrors, notes)
    else:
        rest = registry[len(_without_port(registry)) :] if prefix != registry else ""  # what a shorter prefix leaves
        held["location"] = f"{held['location']}{rest}" if held.get("location") else registry
        held["mirror"] = [one | {"location": f"{one['location']}{rest}"} for one in tables(held, "mirror")]
    if not mirrors.is_fallback:
        if held.pop("mirror", None):
            notes.append(f"{said.where[prefix]} names mirrors of {prefix}: without fallback they are not asked")
        held |= {"location": mirrors.local_host, "insecure": not mirrors.is_tls}
    return held


def _known(one: dict[str, Any]) -> dict[str, Any]:
    """Return of a table what means something; all else is passed over by the runtimes, too."""
    known = {key: one[key] for key in _KEYS if isinstance(one.get(key), bool | str)}
    mirrors = [_known(mirror) for mirror in tables(one, "mirror") if isinstance(mirror.get("location"), str)]
    return known | ({"mirror": mirrors} if mirrors else {})


def _without_port(registry: str) -> str:
    return re.sub(r":\d+$", "", registry)


def _hub(said: _Said, mirrors: MirrorSettings, notes: list[str]) -> dict[str, Any]:
    """Return where images of the local registry's name come from if it lacks them: as Docker Hub's do."""
    prefix = said.prefix_of(DOCKER_HUB)
    hub = said.before.get(prefix, {})
    if hub.get("blocked") is True:
        notes.append(f"{said.where[prefix]} blocks {prefix}: {OWN_NAME} does not fall back to it")
        return {"location": mirrors.local_host, "insecure": not mirrors.is_tls}
    location = str(hub.get("location") or DOCKER_HUB)
    # By that name one-word images stay one word: docker.io/alpine is no canonical name, and would fail all pulls of it.
    return {
        "location": _HUB_HOST if location == DOCKER_HUB else location,
        "insecure": hub.get("insecure") is True and location != DOCKER_HUB,
    }


def _toml(held: dict[str, Any], mirrors: MirrorSettings) -> str:
    ours = {"location": mirrors.local_host, "insecure": not mirrors.is_tls}
    others = [one for one in tables(held, "mirror") if one.get("location") != mirrors.local_host]
    lines = ["[[registry]]", *_pairs({"prefix": held.pop("prefix"), "location": held.pop("location"), **held})]
    if held.get("insecure") is False:
        lines.remove("insecure = false")
    if others or lines[2] != _pairs(ours)[0]:
        for one in (ours, *others):
            lines += ["", "[[registry.mirror]]", *(line for line in _pairs(one) if line != "insecure = false")]
    return "\n".join([*lines, ""])


def _pairs(values: dict[str, Any]) -> list[str]:
    """Write what a table says, but for tables within; JSON's texts are TOML's, too."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", r"\u007f")
        for key, value in values.items()
        if isinstance(value, bool | str)
    ]
