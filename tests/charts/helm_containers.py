"""The chart's pods as containers that can be started here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.charts.processes import Container
from tests.charts.rendering import CHART, Manifest, containers, of_kind, pods, render

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENTRYPOINT = ("harbor-satellite",)  # the image's
_PORTS = {"prefect": 4200, "ground-control": 8080, "worker": 8080}  # the chart's own


def chart_containers(sets: tuple[str, ...], ports: Mapping[str, int]) -> dict[str, Container]:
    """Return the chart's containers by component; those of Jobs as `job/container`.

    Args:
        sets: values, `name=value`.
        ports: component → port of this machine that is put in its own's place.
    """
    manifests = render(CHART / "ci/small.yaml", sets=sets)
    secrets = {each["metadata"]["name"]: each["stringData"] for each in of_kind(manifests, "Secret")}
    found = {}
    for owner, pod in pods(manifests):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for container in containers(pod):
            name = f"{component}/{container['name']}" if owner["kind"] == "Job" else component
            found[name] = _container(name.replace("/", "-"), pod, container, secrets, ports)
    return found


def _container(
    name: str,
    pod: Manifest,
    spec: Manifest,
    secrets: Mapping[str, Mapping[str, str]],
    ports: Mapping[str, int],
) -> Container:
    component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
    own = str(_PORTS.get(component, ""))
    argv = [*spec.get("command", _ENTRYPOINT), *spec["args"]]
    env = {each["name"]: _value(each, secrets) for each in spec["env"]}
    env = {
        key: value.replace("centre-harbor-satellite-prefect:4200", f"127.0.0.1:{ports['prefect']}")
        for key, value in env.items()
    }
    if component == "worker":
        env["PREFECT_WORKER_WEBSERVER_PORT"] = str(ports["worker"])
    files, scratch = _mounted(pod, spec, secrets)
    return Container(
        name,
        tuple(_here(part, own, str(ports.get(component, ""))) for part in argv),
        env,
        files,
        scratch,
        spec.get("readinessProbe", {}).get("httpGet", {}).get("path", ""),
        ports.get(component, 0),
    )


def _here(part: str, own: str, port: str) -> str:
    return {"0.0.0.0": "127.0.0.1", own: port}.get(part, part)  # noqa: S104 - the pod's address, put away here


def _value(variable: Manifest, secrets: Mapping[str, Mapping[str, str]]) -> str:
    if "value" in variable:
        return str(variable["value"])
    reference = variable["valueFrom"]["secretKeyRef"]
    return secrets[reference["name"]][reference["key"]]


def _mounted(
    pod: Manifest, spec: Manifest, secrets: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, str], tuple[str, ...]]:
    volumes: dict[str, dict[str, Any]] = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    files, scratch = {}, []
    for mount in spec["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "emptyDir" in volume:
            scratch.append(mount["mountPath"])
        sources = [each["secret"] for each in volume.get("projected", {}).get("sources", [])]
        sources += [{**volume["secret"], "name": volume["secret"]["secretName"]}] if "secret" in volume else []
        for source in sources:
            for item in source["items"]:
                content = secrets[source["name"]].get(item["key"])
                if content is not None:
                    files[f"{mount['mountPath']}/{item['path']}"] = content
    return files, tuple(scratch)
