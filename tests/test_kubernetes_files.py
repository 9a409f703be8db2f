"""config/kubernetes: valid by Kubernetes' own schemas, and by what Edge needs of them. No cluster has run them here."""

import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edge.config import load
from edge.settings import Settings

FOLDER = Path(__file__).parents[1] / "config" / "kubernetes"
FILES = sorted(path.name for path in FOLDER.iterdir())
DEPLOYMENTS = {"sidecar.yaml", "gateway.yaml"}
SERVICE_MONITOR = "servicemonitor.yaml"  # of the Prometheus Operator: Kubernetes has no schema for it
SECRETS = {"operator": "an-operators-key", "redis": "redis://redis:6379/0"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents(name) if document["kind"] == kind)
    return found


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(name, "Deployment")["spec"]["template"]["spec"]
    return spec


def edge(name: str) -> dict[str, Any]:
    (found,) = (container for container in pod(name)["containers"] if container["name"] == "edge")
    return found


def settings(name: str, folder: Path) -> Settings:
    """What Edge would run by, in the image and with the pod's variables and files."""
    given = {"EDGE_SERVER_LISTEN": "0.0.0.0:11435"}
    for variable in edge(name)["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key")
        given[variable["name"]] = SECRETS[secret] if secret else variable["value"]
    path = None
    if "args" in edge(name):
        command, option, where = edge(name)["args"]
        assert (command, option, Path(where).parent) == ("serve", "--config", Path("/etc/edge"))
        path = folder / Path(where).name
        path.write_text(one(name, "ConfigMap")["data"][path.name])
    loaded = load(path, given)
    assert loaded.warnings == []
    return loaded.settings


@pytest.mark.parametrize("name", [name for name in FILES if name != SERVICE_MONITOR])
def test_each_document_is_valid_for_kubernetes(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_every_file_is_tested() -> None:
    assert set(FILES) == {*DEPLOYMENTS, SERVICE_MONITOR}


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_streams_may_end_before_the_pod_does(name: str, tmp_path: Path) -> None:
    """preStop and the drain fit into the grace period, with room for the last words."""
    _, seconds = edge(name)["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = settings(name, tmp_path).server.drain_s
    assert drain_s == 600
    assert pod(name)["terminationGracePeriodSeconds"] >= int(seconds) + drain_s + 30


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_edge_needs_a_key_and_no_rights(name: str, tmp_path: Path) -> None:
    assert settings(name, tmp_path).auth.keys == [SECRETS["operator"]]
    context = edge(name)["securityContext"]
    assert context["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    user = next(
        line for line in (FOLDER.parents[1] / "Dockerfile").read_text().splitlines() if line.startswith("USER ")
    )
    assert user == f"USER {context['runAsUser']}:{context['runAsUser']}"


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_what_it_selects_and_names_is_there(name: str) -> None:
    labels = one(name, "Deployment")["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in edge(name)["ports"]}
    assert one(name, "Service")["spec"]["selector"].items() <= labels.items()
    assert {port["targetPort"] for port in one(name, "Service")["spec"]["ports"]} <= ports
    for probe in ("readinessProbe", "livenessProbe"):
        assert edge(name)[probe]["httpGet"]["port"] in ports
    assert edge(name)["livenessProbe"]["httpGet"]["path"] == "/health"
    policy = one(name, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": "http"}]}]


def test_a_sidecar_is_ready_with_its_server_and_a_gateway_by_itself() -> None:
    assert edge("sidecar.yaml")["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert edge("gateway.yaml")["readinessProbe"]["httpGet"]["path"] == "/ready?self"


def test_the_server_of_a_sidecar_listens_on_loopback_and_ends_last(tmp_path: Path) -> None:
    (server,) = pod("sidecar.yaml")["initContainers"]
    assert server["restartPolicy"] == "Always"
    assert server["args"][-2:] == ["--host", "127.0.0.1"]
    assert [upstream.url for upstream in settings("sidecar.yaml", tmp_path).upstream] == ["http://127.0.0.1:8000"]


def test_a_gateway_shares_its_store_and_keeps_one_running(tmp_path: Path) -> None:
    assert settings("gateway.yaml", tmp_path).store.url == SECRETS["redis"]
    assert one("gateway.yaml", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert tomllib.loads(one("gateway.yaml", "ConfigMap")["data"]["edge.toml"])["upstream"][0]["name"] == "gpu0"


def test_prometheus_scrapes_with_the_operators_key() -> None:
    (monitor,) = documents(SERVICE_MONITOR)
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "edge", "key": "operator"}
    assert endpoint["port"] in {port["name"] for port in one("gateway.yaml", "Service")["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"] == one("gateway.yaml", "Service")["metadata"]["labels"]
