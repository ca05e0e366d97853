"""What is shipped to be deployed: parses strictly, runs as nobody, on a read-only root, within limits, with probes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chassis.settings import load
from content_svc.settings import Settings as Content
from gateway.domain.signing import Ring
from gateway.settings import Settings as Gateway
from promo_svc.settings import Settings as Promo
from segment_svc.settings import Settings as Segment

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "k8s" / "base"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {n: s for n, s in COMPOSE["services"].items() if s["image"].startswith("footfall/")}
CONFIGURED = [n for n in OURS if n not in ("varnish", "front")]
KINDS = {"SEGMENT_": Segment, "CONTENT_": Content, "PROMO_": Promo, "GATEWAY_": Gateway}


def objects() -> list[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert {p.name for p in BASE.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    return [o for name in listed for o in yaml.safe_load_all((BASE / name).read_text())]


PODS = [(o["metadata"]["name"], o["spec"]["template"]["spec"]) for o in objects() if o["kind"] in ("Deployment", "Job")]


class TestKubernetes:
    @pytest.mark.parametrize("item", objects(), ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
    def test_an_object_is_valid_to_the_letter(self, item: dict[str, Any]) -> None:
        kubernetes_validate.validate(item, "1.31", strict=True)

    @pytest.mark.parametrize(("name", "pod"), PODS, ids=[n for n, _ in PODS])
    def test_a_pod_may_do_nothing_it_need_not(self, name: str, pod: dict[str, Any]) -> None:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert pod["automountServiceAccountToken"] is False
        assert (
            pod["enableServiceLinks"] is False
        )  # its variables have our prefixes, and settings take none they do not know
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]

    def test_everything_that_serves_has_probes_a_budget_and_room_to_drain(self) -> None:
        budgets = {o["metadata"]["name"] for o in objects() if o["kind"] == "PodDisruptionBudget"}
        deployments = [o for o in objects() if o["kind"] == "Deployment"]
        assert budgets == {o["metadata"]["name"] for o in deployments}
        for item in deployments:
            pod = item["spec"]["template"]["spec"]
            assert {"livenessProbe", "readinessProbe", "startupProbe", "lifecycle"} <= set(pod["containers"][0])
            assert pod["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/healthz"

    def test_the_configuration_is_what_the_settings_read(self) -> None:
        for item in objects():
            if item["kind"] == "ConfigMap":
                prefix = item["metadata"]["name"].removeprefix("footfall-").upper() + "_"
                container = next(
                    c
                    for _, pod in PODS
                    for c in pod["containers"]
                    if c["envFrom"][0]["configMapRef"]["name"] == item["metadata"]["name"]
                )
                values = {**item["data"], **{e["name"]: "x" for e in container["env"]}}
                load(KINDS[prefix], prefix, values)


class TestCompose:
    @pytest.mark.parametrize("name", OURS)
    def test_a_service_is_read_only_limited_and_nobody(self, name: str) -> None:
        service = OURS[name]
        assert service["read_only"]
        assert service["user"] == "10001:10001"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["pids_limit"]

    @pytest.mark.parametrize("name", CONFIGURED)
    def test_its_environment_is_what_the_settings_read(self, name: str, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("x")
        environment = {k: str(secret) if k.endswith("_FILE") else v for k, v in OURS[name]["environment"].items()}
        prefix = next(p for p in KINDS if any(k.startswith(p) for k in environment))
        load(KINDS[prefix], prefix, environment)

    def test_everything_that_runs_comes_back_after_a_crash_or_a_restart_of_the_machine(self) -> None:
        once = {gate for s in COMPOSE["services"].values() for gate, how in s.get("depends_on", {}).items()
                if how["condition"] == "service_completed_successfully"}  # fmt: skip
        restarts = {name: service.get("restart") for name, service in COMPOSE["services"].items() if name not in once}
        assert restarts == dict.fromkeys(restarts, "unless-stopped")

    def test_start_is_gated_by_health_and_every_reference_exists(self) -> None:
        for service in COMPOSE["services"].values():
            for name, gate in service.get("depends_on", {}).items():
                healthy = gate["condition"] == "service_healthy"
                assert ("healthcheck" in COMPOSE["services"][name]) == healthy
            for secret in service.get("secrets", []):
                assert secret in COMPOSE["secrets"]

    def test_only_the_front_and_the_gateway_can_be_reached_and_only_from_this_machine(self) -> None:
        published = {n: s["ports"] for n, s in COMPOSE["services"].items() if "ports" in s}
        assert published == {"gateway": ["127.0.0.1:8100:8000"], "front": ["127.0.0.1:8180:8080"]}
        assert {n for n, s in COMPOSE["services"].items() if "outer" in s["networks"]} == published.keys()

    def test_the_edge_has_room_for_all_its_threads(self) -> None:
        (most,) = re.findall("thread_pool_max=([0-9]+)", (ROOT / "deploy" / "edge" / "run.sh").read_text())
        assert 2 * int(most) + 100 <= COMPOSE["services"]["varnish"]["pids_limit"]  # its own others are some 30

    def test_the_secrets_it_wants_are_those_that_are_made(self, tmp_path: Path) -> None:
        subprocess.run(
            [sys.executable, ROOT / "tools/make_secrets.py", tmp_path / "made"], check=True, capture_output=True
        )
        assert {p.name for p in (tmp_path / "made").iterdir()} == set(COMPOSE["secrets"])
        assert len({p.read_text() for p in (tmp_path / "made").iterdir()}) == len(COMPOSE["secrets"])
        for name in ("visitor", "context", "edge"):
            assert Ring((tmp_path / "made" / f"{name}_keys").read_text()).newest == "1"
