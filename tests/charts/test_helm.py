"""What the chart renders, object by object: nothing here needs a cluster."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import prefect.settings
import pytest
import yaml

from harbor_satellite.central_service import prefect_environment
from harbor_satellite.settings import GroundControlSettings
from tests.charts.rendering import (
    CHART,
    VALUES,
    Manifest,
    containers,
    named,
    of_kind,
    pods,
    render,
    selects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL, LARGE, EXISTING = CHART / "ci/small.yaml", CHART / "ci/large.yaml", CHART / "ci/existing-secret.yaml"
_PREFIX = "HARBOR_SATELLITE_GROUND_CONTROL_"


@pytest.fixture(name="manifests", params=VALUES, ids=lambda path: path.stem)
def _manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


def _env(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


# -- every object -------------------------------------------------------------------------------------------------


def test_objects_have_different_names_and_the_labels_of_their_kind(manifests: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]

    assert len(names) == len(set(names))
    for each in manifests:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "centre"
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", each["metadata"]["name"])
        assert len(each["metadata"]["name"]) <= 63


def test_pods_have_no_rights(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (65532, 65532)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    assert all(each["automountServiceAccountToken"] is False for each in of_kind(manifests, "ServiceAccount"))


def test_containers_are_confined_and_bounded(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_containers_mount_volumes_that_are_there_and_write_to_scratch_only(manifests: list[Manifest]) -> None:
    for owner, pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounted = set()
        for container in containers(pod):
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                mounted.add(mount["name"])
                assert mount.get("readOnly") or {"emptyDir", "persistentVolumeClaim"} & set(volume), owner["metadata"]
                assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}
        assert mounted == set(volumes)


def test_selectors_take_their_own_pods_and_no_others(manifests: list[Manifest]) -> None:
    labels = {owner["metadata"]["name"]: pod["metadata"]["labels"] for owner, pod in pods(manifests)}
    for deployment in of_kind(manifests, "Deployment"):
        taken = [name for name, own in labels.items() if selects(deployment["spec"]["selector"], own)]
        assert taken == [deployment["metadata"]["name"]]
    for service in of_kind(manifests, "Service"):
        taken = [name for name, own in labels.items() if selects({"matchLabels": service["spec"]["selector"]}, own)]
        assert taken == [service["metadata"]["name"]]
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        (taken,) = [name for name, own in labels.items() if selects(budget["spec"]["selector"], own)]
        assert named(manifests, "Deployment", taken)["spec"]["replicas"] > 1


def test_ports_that_are_named_are_there(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        for container in containers(pod):
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container.get(probe, {"httpGet": {"port": None}})["httpGet"]["port"] in {*ports, None}
    by_name = {each["metadata"]["name"]: each for each in of_kind(manifests, "Service")}
    for service in by_name.values():
        deployment = named(manifests, "Deployment", service["metadata"]["name"])
        ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for ingress in of_kind(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["port"]["name"] in {port["name"] for port in by_name[backend["name"]]["spec"]["ports"]}
                assert backend["name"].endswith("-ground-control")


def _secret_references(pod: Manifest) -> Iterator[tuple[str, str, bool]]:
    """Yield each Secret and key that a pod needs, and whether it may be missing."""
    for container in containers(pod):
        for variable in container["env"]:
            if found := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield found["name"], found["key"], found.get("optional", False)
    for volume in pod["spec"]["volumes"]:
        sources = [each["secret"] for each in volume.get("projected", {}).get("sources", [])]
        sources += [{**volume["secret"], "name": volume["secret"]["secretName"]}] if "secret" in volume else []
        for source in sources:
            for item in source["items"]:
                yield source["name"], item["key"], source.get("optional", False)


def test_secrets_that_pods_need_are_there(manifests: list[Manifest]) -> None:
    made = {each["metadata"]["name"]: set(each["stringData"]) for each in of_kind(manifests, "Secret")}
    for owner, pod in pods(manifests):
        hook = owner["metadata"].get("annotations", {}).get("helm.sh/hook", "")
        for name, key, is_optional in _secret_references(pod):
            if not made:
                assert name == "centre-secrets"  # the user's
                continue
            assert is_optional or key in made[name]
            if "pre-install" in hook:  # nothing else of the release is there yet
                secret = named(manifests, "Secret", name)
                assert secret["metadata"]["annotations"]["helm.sh/hook"] == hook
        if "pre-install" in hook:
            assert "serviceAccountName" not in pod["spec"]


def test_secret_values_are_in_secrets_only(manifests: list[Manifest]) -> None:
    others = [each for each in manifests if each["kind"] != "Secret"]

    text = yaml.safe_dump_all(others)

    assert "made-up" not in text.lower()
    assert base64.b64encode(b"centre:made-up").decode() not in text


def test_variables_of_pods_are_settings_that_exist(manifests: list[Manifest]) -> None:
    known = {f"{_PREFIX}{name.upper()}" for name in GroundControlSettings.model_fields} | {f"{_PREFIX}SECRETS_DIR"}
    for _, pod in pods(manifests):
        for container in containers(pod):
            given = {each["name"] for each in container["env"]}
            assert len(given) == len(container["env"])
            assert {name for name in given if name.startswith(_PREFIX)} <= known
        for volume in pod["spec"]["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                files = {item["path"] for item in source["secret"]["items"]}
                assert {name for name in files if name != "signing-key"} <= known


def test_variables_of_pods_are_settings_that_prefect_knows(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        for container in containers(pod):
            given = {each["name"] for each in container["env"] if each["name"].startswith("PREFECT_")}
            unknown = {name for name in given if not hasattr(prefect.settings, name)}
            assert not {name for name in unknown if not name.startswith("PREFECT_REDIS_")}


def test_network_policies_let_only_the_centre_reach_prefect() -> None:
    manifests = render(SMALL)
    policy = named(manifests, "NetworkPolicy", "-prefect")["spec"]
    labels = {owner["metadata"]["name"]: pod["metadata"]["labels"] for owner, pod in pods(manifests)}

    (rule,) = policy["ingress"]
    allowed = {name for name, own in labels.items() for peer in rule["from"] if selects(peer["podSelector"], own)}

    assert policy["policyTypes"] == ["Ingress"]
    assert selects(policy["podSelector"], labels["centre-harbor-satellite-prefect"])
    assert all(set(peer) == {"podSelector"} for peer in rule["from"])  # of this namespace
    assert {name.removeprefix("centre-harbor-satellite-") for name in allowed} == {
        "ground-control",
        "worker",
        "deploy",
    }


def test_network_policies_cover_every_pod() -> None:
    manifests = render(LARGE)
    policies = of_kind(manifests, "NetworkPolicy")

    for owner, pod in pods(manifests):
        covering = [each for each in policies if selects(each["spec"]["podSelector"], pod["metadata"]["labels"])]
        assert len(covering) == 1, owner["metadata"]["name"]


# -- what the components are told ---------------------------------------------------------------------------------


def test_prefect_server_is_set_up_as_ground_control_sets_up_its_own() -> None:
    deployment = named(render(SMALL), "Deployment", "-prefect")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    own = prefect_environment(CHART, retention_days=7)
    del own["PREFECT_HOME"]

    assert own.items() <= _env(container).items()
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert "--no-services" not in container["args"]


def test_prefect_over_redis_is_split_into_api_and_services() -> None:
    manifests = render(LARGE)
    api, services = named(manifests, "Deployment", "-prefect"), named(manifests, "Deployment", "-prefect-services")

    for deployment in (api, services):
        env = _env(deployment["spec"]["template"]["spec"]["containers"][0])
        assert env["PREFECT_SERVER_EVENTS_MESSAGING_BROKER"] == "prefect_redis.messaging"
        assert env["PREFECT_SERVER_DOCKET_URL"]["secretKeyRef"]["key"] == "prefect-redis-url"
        assert env["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
        assert "strategy" not in deployment["spec"]
    assert "--no-services" in api["spec"]["template"]["spec"]["containers"][0]["args"]
    assert services["spec"]["template"]["spec"]["containers"][0]["args"] == ["server", "services", "start"]
    assert (api["spec"]["replicas"], services["spec"]["replicas"]) == (3, 2)


def test_ground_control_rolls_over_without_a_gap() -> None:
    deployment = named(render(SMALL), "Deployment", "-ground-control")

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert deployment["spec"]["replicas"] == 2


def test_signing_key_is_the_workers_alone() -> None:
    manifests = render(LARGE)
    needing = {
        owner["metadata"]["name"]
        for owner, pod in pods(manifests)
        for _, key, _ in _secret_references(pod)
        if key.startswith("signing-key")
    }

    assert needing == {"centre-harbor-satellite-worker"}
    (container,) = named(manifests, "Deployment", "-worker")["spec"]["template"]["spec"]["containers"]
    assert _env(container)[f"{_PREFIX}SIGNING_KEY"] == "/run/secrets/harbor-satellite/signing-key"


def test_ingress_has_tls_for_its_host() -> None:
    (ingress,) = of_kind(render(SMALL), "Ingress")

    assert ingress["spec"]["tls"] == [{"hosts": ["ground-control.example.com"], "secretName": "harbor-satellite-tls"}]
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "3600"


def test_created_secret_that_changes_restarts_pods() -> None:
    def checksums(*sets: str) -> set[str]:
        found = [pod["metadata"].get("annotations", {}) for _, pod in pods(render(SMALL, sets=sets))]
        return {each["checksum/secret"] for each in found if each}

    (before,), (after,) = checksums(), checksums("secrets.sourcePassword=another")

    assert before != after


def test_existing_secret_nothing_is_created() -> None:
    manifests = render(EXISTING)

    assert {each["kind"] for each in manifests} == {"Deployment", "Job", "Service"}
    (container,) = named(manifests, "Deployment", "-ground-control")["spec"]["template"]["spec"]["containers"]
    assert _env(container)[f"{_PREFIX}SOURCE_CA"] == "/etc/harbor-satellite/ca.crt"
    assert _env(container)[f"{_PREFIX}SOURCE_HTPASSWD"] == "/var/lib/source/htpasswd"
    assert _env(container)[f"{_PREFIX}TOKEN_TTL_SECONDS"] == "3600"


def test_service_monitor_brings_the_metrics_token() -> None:
    manifests = render(LARGE)
    (monitor,) = of_kind(manifests, "ServiceMonitor")

    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "centre-harbor-satellite", "key": "metrics-token"}
    service = named(manifests, "Service", "-ground-control")
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
