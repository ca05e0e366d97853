"""The four services as child processes over running servers: what `make run`, the tour and the end-to-end tests use."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from devstack.process import ATTEMPTS, LOOPBACK, Child, PortTaken, StartFailed, bindable, free_port, listens

SERVICES = ("segment_svc", "content_svc", "promo_svc", "gateway")
PREFIX = {"segment_svc": "SEGMENT_", "content_svc": "CONTENT_", "promo_svc": "PROMO_", "gateway": "GATEWAY_"}
READY_S = 30
ISSUER = "footfall-dev"


def customer_token(secret: str, customer: str) -> str:
    """What the shop's login would give a customer, for ten minutes."""
    claims = {"sub": customer, "iss": ISSUER, "aud": "storefront", "exp": int(time.time()) + 600}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": "dev"})


@dataclass(slots=True)
class Secrets:
    """Secrets and API keys of a development installation, made once and kept in its state folder."""

    service: str
    visitor: str
    context: str
    edge: str
    aud: str
    front: str
    purge: str
    publishable: str
    secret: str
    admin: str
    jwt: str
    session: str

    @classmethod
    def of(cls, state: Path) -> Secrets:
        """Read them, and make what is missing."""
        path = state / "secrets.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        made = {name: known.get(name) or secrets.token_urlsafe(32) for name in cls.__dataclass_fields__}
        if made != known:
            aside = path.with_suffix(".new")
            aside.touch(mode=0o600)
            aside.write_text(json.dumps(made))
            aside.rename(path)
        return cls(**made)

    def edge_keys(self) -> dict[str, str]:
        """What an edge has in its environment."""
        ids = {"EDGE_ID": "1", "CONTEXT_ID": "1"}
        return {**ids, **{f"{name.upper()}_KEY": getattr(self, name) for name in ("edge", "context", "front", "purge")}}

    def rings(self) -> dict[str, str]:
        """The gateway's keys per purpose."""
        rings = {f"{name.upper()}_KEYS": f"1:{getattr(self, name)}" for name in ("visitor", "context", "edge", "aud")}
        return {**rings, "FRONT_KEY": self.front, "PURGE_KEY": self.purge}

    def jwks(self) -> str:
        """The key set of customer tokens: one shared secret, for development only."""
        key = base64.urlsafe_b64encode(self.jwt.encode()).decode().rstrip("=")
        return json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "dev", "k": key}]})

    def keys(self) -> str:
        """The gateway's key list."""
        entries = (
            ("storefront", self.publishable, "publishable", "viewer"),
            ("server", self.secret, "secret", "viewer"),
            ("merchant", self.admin, "admin", "admin"),
        )
        return json.dumps(
            [
                {"id": i, "sha256": hashlib.sha256(t.encode()).hexdigest(), "kind": k, "role": r}
                for i, t, k, r in entries
            ]
        )


@dataclass(slots=True)
class Stack:
    """The services of one installation. `extra` adds settings per service; `database` is the URL of an empty database."""

    state: Path
    database: str
    redis: str
    kafka: str = ""
    edges: tuple[str, ...] = ()
    gateway_port: int = 0
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def secrets(self) -> Secrets:
        """See Secrets."""
        return Secrets.of(self.state)

    @property
    def address(self) -> str:
        """The gateway's, host:port."""
        return f"{LOOPBACK}:{self.ports['gateway']}"

    @property
    def url(self) -> str:
        """The gateway's."""
        return f"http://{self.address}"

    def env(self, service: str) -> dict[str, str]:
        """The settings of a service."""
        prefix, known = PREFIX[service], self.secrets
        values = {"REDIS_URL": self.redis, "SERVICE_SECRET": known.service, "KAFKA_BOOTSTRAP": self.kafka}
        values["PORT"] = str(self.ports[service])
        urls = {n: f"http://{LOOPBACK}:{self.ports[f'{n}_svc']}" for n in ("segment", "content", "promo")}
        if service == "gateway":
            values |= {f"{n.upper()}_URL": url for n, url in urls.items()}
            values |= {**known.rings(), "KEYS": known.keys()}
            values |= {"JWKS": known.jwks(), "JWT_ISSUER": ISSUER}
            values["EDGE_URLS"] = ",".join(self.edges)
        else:
            values["DATABASE_URL"] = self.database
        if service == "segment_svc":
            values |= {"CONTENT_URL": urls["content"], "PROMO_URL": urls["promo"]}
        return {prefix + name: value for name, value in {**values, **self.extra.get(service, {})}.items()}

    def start(self) -> None:
        """Bring the schemas up to date, start all services, wait until they are ready."""
        self.state.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(ATTEMPTS)):
            self.ports = {name: free_port() for name in SERVICES}
            self.ports["gateway"] = self.gateway_port or self.ports["gateway"]
            try:
                self._serve()
                return
            except PortTaken:  # services know each other's ports: all get new ones
                self.stop()
                if not left or not bindable(self.gateway_port):
                    raise

    def _serve(self) -> None:
        migrations = [self._child(name, "migrate") for name in SERVICES if name != "gateway"]
        for child in migrations:
            child.start()
        for child in migrations:
            if child.popen is None or child.popen.wait(60) != 0:
                raise StartFailed(f"{child.name} could not migrate:\n" + child.log.read_text()[-2000:])
        for name in SERVICES:
            self.children[name] = self._child(name)
            self.children[name].start()
        for name in SERVICES:
            self.children[name].wait_ready(self.ports[name], lambda name=name: self._ready(name), seconds=READY_S)  # type: ignore[misc]

    def _child(self, service: str, *arguments: str) -> Child:
        log = self.state / f"{service}.log"
        return Child(service, [sys.executable, "-m", service, *arguments], log, env=self.env(service))

    def _ready(self, service: str) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://{LOOPBACK}:{self.ports[service]}/readyz?exclude=edge&exclude=watch", timeout=1
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def serves(self, service: str) -> bool:
        """Whether it is our own process that listens where the service should."""
        child = self.children[service]
        return child.popen is not None and listens(child.popen.pid, self.ports[service])

    def mend(self) -> Iterator[Child]:
        """Start again what ended by itself; each is answered before it is started."""
        for child in self.children.values():
            if child.ended:
                yield child
                child.start()

    def stop(self) -> None:
        """Stop them, the gateway first."""
        for name in reversed(SERVICES):
            if name in self.children:
                self.children[name].stop()
