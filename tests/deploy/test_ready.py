"""Who stays in service while a server is away, asked by the very probes that are shipped: who answers from what it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
import yaml
from devstack.process import LOOPBACK
from devstack.servers import Postgres, Valkey
from devstack.stack import Stack
from devstack.testing import until

pytestmark = pytest.mark.servers
BASE = Path(__file__).resolve().parents[2] / "deploy" / "k8s" / "base"
SERVICES = {"segment-svc": "segment_svc", "content-svc": "content_svc", "promo-svc": "promo_svc", "gateway": "gateway"}
FROM_MEMORY = {"content-svc", "promo-svc", "gateway"}


class Pods:
    """The four services beside servers of their own, and the probes of their manifests."""

    def __init__(self, state: Path) -> None:
        self.postgres, self.valkey = Postgres(state), Valkey(state)
        self.stack = Stack(state / "stack", "", "")

    def start(self) -> None:
        """All of it."""
        for server in (self.postgres, self.valkey):
            server.start()
        self.stack.database, self.stack.redis = self.postgres.url, self.valkey.url
        self.stack.start()

    def stop(self) -> None:
        """All of it, the services first."""
        for running in (self.stack, self.valkey, self.postgres):
            running.stop()

    def answer(self, service: str, path: str) -> httpx.Response:
        """What a service says."""
        return httpx.get(f"http://{LOOPBACK}:{self.stack.ports[SERVICES[service]]}{path}", timeout=30)

    def ready(self) -> set[str]:
        """Whom its probe keeps in service."""
        found = set()
        for service in SERVICES:
            with contextlib.suppress(httpx.TransportError):
                found |= {service} if self.answer(service, probe(service)).is_success else set()
        return found

    def in_trouble(self, service: str) -> set[str]:
        """The parts that are not well."""
        return {part for part, said in self.answer(service, "/readyz").json().items() if said != "ok"}


def probe(service: str) -> str:
    """The path that decides whether a pod is in service."""
    (pod,) = (o for o in yaml.safe_load_all((BASE / f"{service}.yaml").read_text()) if o["kind"] == "Deployment")
    path: str = pod["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
    return path


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("pods")
    for above in (folder, *folder.parents[:2]):  # PostgreSQL runs as nobody
        above.chmod(0o755)
    made = Pods(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_without_postgresql_those_stay_that_answer_from_memory(pods: Pods) -> None:
    until(lambda: pods.ready() == SERVICES.keys())
    pods.postgres.kill()
    try:
        leaning = {"postgres", "postgres snapshot", "postgres went back", "outbox facts", "outbox release"}
        until(lambda: all(leaning <= pods.in_trouble(service) for service in ("content-svc", "promo-svc")), 120)
        until(lambda: {"watch content-svc", "watch promo-svc"} <= pods.in_trouble("gateway"), 120)
        assert pods.ready() == FROM_MEMORY
    finally:
        pods.postgres.start()
    until(lambda: pods.ready() == SERVICES.keys(), 120)


def test_without_redis_all_stay(pods: Pods) -> None:
    until(lambda: pods.ready() == SERVICES.keys())
    pods.valkey.kill()
    try:
        until(lambda: "redis" in pods.in_trouble("segment-svc") and "redis kills" in pods.in_trouble("gateway"), 120)
        for service in ("content-svc", "promo-svc"):
            assert "redis" in pods.in_trouble(service)
        assert pods.ready() == SERVICES.keys()
    finally:
        pods.valkey.start()
    until(lambda: pods.ready() == SERVICES.keys(), 120)


def test_a_gateway_of_which_a_service_has_nothing_newer_stays(pods: Pods) -> None:
    pods.stack.children["content_svc"].kill()
    redis.from_url(pods.valkey.url).set("ver:content", 99)
    try:
        until(lambda: "watch release" in pods.in_trouble("gateway"), 120)
        assert pods.answer("gateway", probe("gateway")).status_code == 200
    finally:
        pods.stack.children["content_svc"].start()
    until(lambda: pods.ready() == SERVICES.keys(), 120)
