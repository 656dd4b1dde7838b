"""containerd, 1.x and 2.x: ``config_path`` in ``config.toml``, and a ``hosts.toml`` for each registry below it.

Pure. Which file holds: containerd reads the main one, then those that ``imports`` names, and a later one's section of
a plugin takes the place of an earlier one's (1.x: all of it, 2.x: key by key).
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.host_config.containerd_hosts import ca_path, render_hosts
from harbor_satellite.host_config.rendered import OWN_NAME, Reload, RenderedFile, Rendering, common_notes
from harbor_satellite.host_config.toml_files import line_end, parse_toml, table

if TYPE_CHECKING:
    from harbor_satellite.host_config.rendered import HostFiles, MirrorSettings

CONFIG: Final = "/etc/containerd/config.toml"
CERTS: Final = "/etc/containerd/certs.d"
RESTART: Final = Reload("containerd.service", "restart")
_IMAGES: Final = "io.containerd.cri.v1.images"  # config version 3, containerd 2.x
_CRI: Final = "io.containerd.grpc.v1.cri"  # config version 2, which both read
_OLD_CRI: Final = "cri"  # config version 1, the default of a file that names none
_IMPORTS_MAX: Final = 100
_SEVERAL: Final = (
    "config_path names several folders ({value}): containerd from 2.1 on may take them for one and pass over all of "
    "them; `edge runtime verify` shows it, and naming the first alone mends it"
)


def render_containerd(files: HostFiles, mirrors: MirrorSettings) -> Rendering:
    """Render containerd's files.

    Raises:
        InvalidInputError: a file is not TOML, or mirrors stand in it in a form that rules out ``config_path``.
    """
    config, folders, notes = _config(files)
    folder = folders[0]
    rendered = []
    for registry in (*mirrors.registries, OWN_NAME):
        file, found = render_hosts(files, folders, registry, mirrors)
        rendered.append(file)
        notes += found
    if mirrors.ca:
        rendered.insert(0, RenderedFile(ca_path(folder), mirrors.ca))
    if config:  # last: once containerd starts again, all that it names is there
        rendered.append(config)
    return Rendering(tuple(rendered), notes + common_notes(mirrors))


def _config(files: HostFiles) -> tuple[RenderedFile | None, list[str], tuple[str, ...]]:
    """Return the file that must name the folders of the registries, those folders, and notes."""
    loaded = _load(files)
    if not loaded:
        text = f'version = 2\n\n[plugins."{_CRI}".registry]\n  config_path = "{CERTS}"\n'
        return RenderedFile(CONFIG, text, reload=RESTART), [CERTS], ()
    version = loaded[CONFIG].get("version", 1 if loaded[CONFIG] else 2)  # an empty file is given one
    known = [(path, document, _section(document, version)) for path, document in loaded.items()]
    for path, document, plugin in known:
        _refuse_old_mirrors(path, table(document, "plugins", plugin, "registry"))
    named = [table(document, "plugins", plugin, "registry").get("config_path") for _, document, plugin in known]
    value = next((str(name) for name in reversed(named) if name), "")
    folders = [one for one in value.split(":") if one] or [CERTS]
    if not all(posixpath.isabs(folder) for folder in folders):
        raise InvalidInputError(f"containerd's config_path is not absolute: {value[:200]!r}")
    if _is_disabled([document for _, document, _ in known]):
        note = f"{CONFIG}: the CRI plugin is disabled; {folders[0]} serves nerdctl, and `ctr` with --hosts-dir"
        return None, folders, (note,)
    notes = (_SEVERAL.format(value=value),) if len(folders) > 1 and known[0][2] == _IMAGES else ()
    holders = [number for number, (_, document, plugin) in enumerate(known) if table(document, "plugins", plugin)]
    path, document, plugin = known[holders[-1] if holders else 0]
    text = files.read(path) or ""
    if table(document, "plugins", plugin, "registry").get("config_path"):
        return RenderedFile(path, text, reload=RESTART), folders, notes
    edited = _with_config_path(path, text, plugin, value or CERTS)
    return RenderedFile(path, edited, reload=RESTART), folders, notes


def _load(files: HostFiles) -> dict[str, dict[str, Any]]:
    """Read the main file and all that it imports, in containerd's order."""
    loaded: dict[str, dict[str, Any]] = {}
    pending = [CONFIG]
    while pending:
        path = pending.pop(0)
        text = None if path in loaded else files.read(path)
        if text is None:
            continue
        if len(loaded) >= _IMPORTS_MAX:
            raise InvalidInputError(f"{CONFIG} imports more than {_IMPORTS_MAX} files")
        loaded[path] = parse_toml(text, path)
        for name in _list(loaded[path], "imports"):
            pattern = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(name)))
            pending += files.match(pattern) if "*" in pattern else [pattern]
    return loaded if CONFIG in loaded else {}


def _section(document: dict[str, Any], version: int) -> str:
    """Return the plugin whose section holds the registries; imported files need not say their version."""
    present = [name for name in (_IMAGES, _CRI, _OLD_CRI) if name in table(document, "plugins")]
    by_version = {"1": _OLD_CRI, "2": _CRI}.get(str(document.get("version", version)), _IMAGES)
    # A file of version 3 may still have the old section, which holds other things now.
    return present[0] if present and by_version not in present and by_version != _IMAGES else by_version


def _refuse_old_mirrors(path: str, registry: dict[str, Any]) -> None:
    old = [key for key in ("mirrors",) if registry.get(key)]
    old += [f"configs.{host}.tls" for host, one in table(registry, "configs").items() if table(one, "tls")]
    if old:
        raise InvalidInputError(
            f"{path}: registry.{old[0]} stands there, and containerd starts with either that or config_path: "
            "move it to a hosts.toml first (containerd's docs/hosts.md)"
        )


def _is_disabled(documents: list[dict[str, Any]]) -> bool:
    names = {str(name) for document in documents for name in _list(document, "disabled_plugins")}
    return not names.isdisjoint({_OLD_CRI, _CRI, _IMAGES})


def _with_config_path(path: str, text: str, plugin: str, folders: str) -> str:
    """Add the one key, and leave everything else as it is.

    Raises:
        InvalidInputError: TOML in a form that cannot be added to.
    """
    unknown = f"{path}: do not know how to set config_path there; set it to {CERTS} by hand"
    expected = parse_toml(text, path) or {"version": 2}
    section: Any = expected
    for key in ("plugins", plugin, "registry"):
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise InvalidInputError(unknown)
    section["config_path"] = folders
    for edit in (_edited, _appended):
        try:
            edited = edit(text, plugin, folders)
            if parse_toml(edited, path) == expected:
                return edited
        except (TOMLKitError, InvalidInputError, TypeError, AttributeError, KeyError):
            continue  # the other way
    raise InvalidInputError(unknown)


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    return found if isinstance(found, list) else []


def _edited(text: str, plugin: str, folders: str) -> str:
    """Set the key where its section stands."""
    document = tomlkit.parse(text)
    section: Any = document["plugins"]
    registry = section[plugin]["registry"]
    registry["config_path"] = folders
    return tomlkit.dumps(document)


def _appended(text: str, plugin: str, folders: str) -> str:
    """Add the section at the end."""
    end = line_end(text)
    head = text if not text or text.endswith("\n") else text + end
    if not parse_toml(text, CONFIG):
        head = f"version = 2{end}" + head
    name = plugin if plugin == _OLD_CRI else f'"{plugin}"'
    return f'{head}{end}[plugins.{name}.registry]{end}  config_path = "{folders}"{end}'
