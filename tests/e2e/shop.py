"""A shop in the hands of a test: what a merchant makes, who a person is, and what is seen through a cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from devstack import varnish as varnish_server
from devstack.stack import Secrets, Stack
from devstack.testing import need, until
from devstack.varnish import Varnish
from gateway.domain.debts import AGAIN_S

Services = Callable[..., AbstractContextManager[Stack]]
PATIENT = "5000"  # BUDGET_MS: a busy machine must not turn answers into degraded ones


class Shop:
    """Services behind one cache."""

    def __init__(self, stack: Stack, edge: Varnish) -> None:
        self.stack, self.edge = stack, edge
        self.key = {"x-api-key": stack.secrets.publishable}
        self.admin = httpx.Client(base_url=f"{stack.url}/admin/v1", headers={"x-api-key": stack.secrets.admin})

    def make(self, noun: str, key: str, **body: Any) -> None:
        assert (answer := self.admin.post(f"/{noun}", json={"key": key, **body})).status_code == 201, answer.text

    def slot(self, key: str) -> None:
        self.make("slots", key, title=key, default=words("default"))

    def segment(self, key: str, condition: Any = None, **more: Any) -> None:
        own = {"attribute": key, "op": "eq", "value": "yes"}
        self.make("segments", key, name=key, status="active", condition=condition or own, **more)
        self.serves(key)

    def serves(self, key: str) -> None:
        found = lambda: self.admin.get(f"/segments/{key}").json()  # noqa: E731
        until(lambda: (s := found())["live_version"] == s["version"])

    def block(
        self, key: str, slot: str, priority: int = 1, more: Mapping[str, Any] | None = None, **audience: list[str]
    ) -> None:
        body = {"title": key, "status": "live", "slots": [slot], "content": words(key), "priority": priority}
        self.make("blocks", key, **body, **(more or {}), audience=audience)

    def person(self, attribute: str) -> dict[str, str]:
        """Cookies of one who has an attribute, in a context made after that was known."""
        cookies = self.context({})
        name = cookies["__Host-ff_vid"].split(".")[0]
        event = {"id": name, "source": "t", "type": "identify", "subject": f"visitor:{name}"}
        event |= {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": {"attributes": {attribute: "yes"}},
        }  # type: ignore[dict-item]
        server = {"x-api-key": self.stack.secrets.secret}
        httpx.post(f"{self.stack.url}/v1/events", json={"events": [event]}, headers=server).raise_for_status()
        until(lambda: attribute in str(self.admin.get(f"/profiles/v:{name}").json().get("segments")))
        time.sleep(0.5)
        return self.context(cookies)

    def context(self, cookies: dict[str, str], **headers: str) -> dict[str, str]:
        answer = httpx.get(f"{self.stack.url}/v1/context", headers={**self.key, **header(cookies), **headers})
        return cookies | dict(line.split(";")[0].split("=", 1) for line in answer.headers.get_list("set-cookie"))

    def ask(self, query: str, **headers: str) -> httpx.Response:
        """For a decision, through the edge."""
        return httpx.get(f"{self.edge.url}/v1/decisions?{query}", headers={**self.key, **headers})

    def shown(self, slot: str, **headers: str) -> str:
        """The block shown, or a status."""
        answer = self.ask(f"slots={slot}", **headers)
        found = answer.json() if answer.status_code == 200 else {}
        return str(found["slots"][slot]["blocks"][0]["key"] if found else answer.status_code)

    def sees(self, slot: str, **headers: str) -> str:
        """The block shown the second time: from a copy if there is one."""
        self.shown(slot, **headers)
        return self.shown(slot, **headers)

    def hits(self, query: str, **headers: str) -> bool:
        """Whether there is a copy."""
        return "hit" in self.ask(query, **headers).headers["cache-status"]


def behind_edge(services: Services, home: Path, *parameters: str, **gateway: str) -> AbstractContextManager[Shop]:
    """A shop of its own behind an edge of its own, whose secrets are those of `home`; with settings of both."""
    return opened(services, home, _as_deployed, edge=True, parameters=parameters, **gateway)


def _as_deployed(edge: Varnish, stack: Stack) -> None:
    edge.use(stack.address)


@contextmanager
def opened(
    services: Services,
    home: Path,
    use: Callable[[Varnish, Stack], None],
    *,
    edge: bool,
    parameters: Sequence[str] = (),
    **gateway: str,
) -> Iterator[Shop]:
    """A shop of its own behind a cache that `use` sets up; `edge`: whether it is one of ours, to be purged."""
    need(varnish_server.available())
    home.mkdir(exist_ok=True)
    cache = Varnish(home, Secrets.of(home).edge_keys(), parameters)
    cache.start()
    try:
        gateway = {"BUDGET_MS": PATIENT, "CACHE_URLS": "" if edge else cache.url, **gateway}
        with services(home.name, edges=(cache.url,) if edge else (), extra={"gateway": gateway}) as stack:
            use(cache, stack)
            shop = Shop(stack, cache)
            yield shop
            shop.admin.close()
    finally:
        cache.stop()


def stays(hit: Callable[[], bool]) -> bool:
    """Whether there is a copy for longer than it takes until what was published is purged once more."""
    until_s = time.monotonic() + AGAIN_S + 0.25
    while time.monotonic() < until_s:
        if not hit():
            return False
        time.sleep(0.05)
    return True


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


def header(cookies: dict[str, str]) -> dict[str, str]:
    return {"cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())} if cookies else {}
