"""containerd's ``hosts.toml``, one for each registry: ours is tried first, and what stands there already stays.

Text in, text out. Lines are put in front of the first ``[host…]`` table, since containerd asks the hosts in the order
of the file; everything else keeps its bytes.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final

import tomlkit

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.rendered import HUB_URL, OWN_NAME, MirrorSettings, RenderedFile, upstream_url
from harbor_satellite.host_config.toml_files import line_end, parse_toml, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harbor_satellite.host_config.rendered import HostFiles

BEGIN: Final = "# harbor-satellite: begin (written by `edge runtime apply`)"
END: Final = "# harbor-satellite: end"
CA_FILE: Final = "harbor-satellite-ca.pem"
_OURS: Final = re.compile(rf"{re.escape(BEGIN)}\r?\n.*?{re.escape(END)}(?:\r?\n)?", re.DOTALL)
_LOCAL_DIAL: Final = "2s"
_UPSTREAM_DIAL: Final = "10s"
"""A dead uplink ends an attempt after so long, not after 30 s; containerd before 2.1 passes over the key."""
_HOST_TABLE: Final = re.compile(r"^[ \t]*\[[ \t]*host\b", re.MULTILINE)
_ANY_TABLE: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)


def render_hosts(
    files: HostFiles, folders: Sequence[str], registry: str, mirrors: MirrorSettings
) -> tuple[RenderedFile, tuple[str, ...]]:
    """Render the file of one registry.

    Args:
        files: the host's.
        folders: containerd's ``config_path``; the file is in the first.
        registry: ``host[:port]``, or the local registry's own name.
        mirrors: what is wanted.

    Returns:
        The file, and notes on what was left alone.

    Raises:
        InvalidInputError: the file that is there is not TOML, or names hosts in a form that has no order.
    """
    folder = folders[0]
    place = _folder_of(files, folder, registry)
    path = f"{place}/hosts.toml"
    own = files.read(path)
    if not mirrors.is_fallback:
        return _alone(path, parse_toml(_OURS.sub("", own or ""), path), mirrors, folder)
    text, is_new = (own, False) if own and own.strip() else (_basis(files, folders, registry), True)
    text = _OURS.sub("", text)
    before = parse_toml(text, path)
    hosts = table(before, "host")
    others = [host for host in hosts if host != mirrors.local_url]
    if mirrors.local_url in hosts and set(table(hosts, mirrors.local_url)) - {"header"}:
        return RenderedFile(path, own or text), (f"{path}: {mirrors.local_url} stands there already: left as it is",)
    if "host" in before and not _HOST_TABLE.search(text):
        raise InvalidInputError(f'{path}: `host` is no table of its own: write [host."URL"] tables there')
    server = before.get("server")
    is_other = registry == OWN_NAME and server and server != HUB_URL
    # Without a `server` containerd asks the registry's own name, which is right for all but ours.
    if "server" not in before and (is_new or registry == OWN_NAME or not others):
        text = _server(registry, before, line_end(text)) + text
    text = _with_ours(text, _block(mirrors, folder))
    _check(path, before, text, mirrors)
    return RenderedFile(path, text), (f"{path} names its own server, {server}: it stays",) if is_other else ()


def _alone(
    path: str, before: dict[str, Any], mirrors: MirrorSettings, folder: str
) -> tuple[RenderedFile, tuple[str, ...]]:
    """Return a file by which nobody but the local registry is asked, and a note if it takes the place of another."""
    given = table(before, "host", mirrors.local_url)  # such as a header with a user
    # First what is no table: the keys of a host mean the same at the top, where they belong to the server.
    local = dict(sorted((_host(mirrors, folder) | given).items(), key=lambda item: isinstance(item[1], dict)))
    document = {"server": mirrors.local_url, **local, "host": {mirrors.local_url: local}}
    text = "\n".join([BEGIN, tomlkit.dumps(document).rstrip("\n"), END, ""])
    others = {before.get("server"), *table(before, "host")} - {None, mirrors.local_url}
    note = f"{path} names other registries: without fallback they are not asked, and `undo` brings them back"
    return RenderedFile(path, text), (note,) if others else ()


def ca_path(folder: str) -> str:
    """Return where the local registry's CA is kept for containerd."""
    return f"{folder}/{OWN_NAME}/{CA_FILE}"


def _folder_of(files: HostFiles, folder: str, registry: str) -> str:
    """Return the folder that containerd looks into for a registry: ``host_port_`` before ``host:port``."""
    host, _, port = registry.rpartition(":")
    escaped = f"{folder}/{host}_{port}_" if host else ""
    return escaped if escaped and files.match(f"{escaped}/*") else f"{folder}/{registry}"


def _basis(files: HostFiles, folders: Sequence[str], registry: str) -> str:
    """Return what held for a registry without a file of its own: certificates beside it, else the default's file.

    What stands in a later folder held where an earlier one had neither.
    """
    found = ""
    for folder in folders:
        place = _folder_of(files, folder, registry)
        found = _certificates(files, place, is_here=folder == folders[0])
        if folder != folders[0]:
            found = _absolute(files.read(f"{place}/hosts.toml") or "", f"{place}/hosts.toml") or found
        if found or registry == OWN_NAME:
            break
        path = f"{folder}/_default/hosts.toml"
        if found := _absolute(files.read(path) or "", path):
            break
    return found


def _certificates(files: HostFiles, place: str, *, is_here: bool) -> str:
    """Write down the certificates that containerd finds in a folder by their names."""
    names = [posixpath.basename(path) for path in files.match(f"{place}/*")]
    # containerd reads these only where there is no hosts.toml.
    here = "" if is_here else f"{place}/"
    authorities = [f"{here}{name}" for name in names if name.endswith(".crt")]
    clients = [[f"{here}{name}", f"{here}{name.removesuffix('cert')}key"] for name in names if name.endswith(".cert")]
    lines = [f"ca = {_strings(authorities)}\n"] if authorities else []
    lines += [f"client = [{', '.join(_strings(pair) for pair in clients)}]\n"] if clients else []
    return "".join(lines)


def _absolute(text: str, path: str) -> str:
    """Return the text of a file, if it means the same elsewhere."""
    document = parse_toml(text, path)
    for one in (document, *(host for host in table(document, "host").values() if isinstance(host, dict))):
        if any(not posixpath.isabs(file) for file in _paths(one.get("ca")) + _paths(one.get("client"))):
            raise InvalidInputError(f"{path} names files by relative paths, which hold there only: write absolute ones")
    return text


def _paths(value: Any) -> list[str]:
    if isinstance(value, list):
        return [path for one in value for path in _paths(one)]
    return [value] if isinstance(value, str) and value else []


def _strings(values: Sequence[str]) -> str:
    return f"[{', '.join(_quoted(value) for value in values)}]"


def _quoted(value: str) -> str:
    if not value.isprintable() or '"' in value or "\\" in value:
        raise InvalidInputError(f"a certificate's file has an odd name: {value[:100]!r}")
    return f'"{value}"'


def _server(registry: str, base: dict[str, Any], end: str) -> str:
    """Write who is asked last."""
    server = HUB_URL if registry == OWN_NAME else upstream_url(registry)
    lines = [f'server = "{server}"']
    if registry == OWN_NAME and "capabilities" not in base:
        lines.append('capabilities = ["pull", "resolve"]')  # nobody pushes to Docker Hub by that name
    if "dial_timeout" not in base:
        lines.append(f'dial_timeout = "{_UPSTREAM_DIAL}"')
    return end.join([*lines, ""])


def _host(mirrors: MirrorSettings, folder: str) -> dict[str, Any]:
    """Return how the local registry is asked."""
    found = {"capabilities": ["pull", "resolve"], "dial_timeout": _LOCAL_DIAL}
    return found | ({"ca": ca_path(folder)} if mirrors.ca else {})


def _block(mirrors: MirrorSettings, folder: str) -> list[str]:
    values = [f"  {key} = {json.dumps(value)}" for key, value in _host(mirrors, folder).items()]
    return [BEGIN, f'[host."{mirrors.local_url}"]', *values, END]


def _with_ours(text: str, block: list[str]) -> str:
    """Put our table in front of the first of the hosts, and of the comment that belongs to it."""
    end = line_end(text)
    found = _HOST_TABLE.search(text) or _ANY_TABLE.search(text)
    ours = end.join([*block, ""])
    if found is None:
        gap = "" if not text or text.endswith(end * 2) else end if text.endswith("\n") else end * 2
        return text + gap + ours
    lines = text[: found.start()].splitlines(keepends=True)
    while lines and lines[-1].lstrip().startswith("#"):
        lines.pop()
    head = "".join(lines)
    return head + ours + text[len(head) :]


def _check(path: str, before: dict[str, Any], text: str, mirrors: MirrorSettings) -> None:
    """Do nothing if all that was said is still said, and ours comes first.

    Raises:
        InvalidInputError: it would not be so; a form of TOML that was not thought of.
    """
    unknown = f"{path}: do not know how to add the local registry without changing what is there"
    try:
        after = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(unknown) from error
    hosts = dict(table(after, "host"))
    first = next(iter(hosts), None)
    ours = hosts.pop(mirrors.local_url, {})
    if header := table(before, "host", mirrors.local_url):
        ours = {key: value for key, value in ours.items() if key in header}
        hosts[mirrors.local_url] = ours
    rest = {key: value for key, value in after.items() if key == "host" or key in before}
    if rest | {"host": hosts} != before | {"host": table(before, "host")} or first != mirrors.local_url:
        raise InvalidInputError(unknown)
