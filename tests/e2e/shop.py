"""A shop in the hands of a test: what a merchant makes, who a person is, and what is seen through a cache."""

from __future__ import annotations

import time
from typing import Any

import httpx
from devstack.stack import Stack
from devstack.testing import until
from devstack.varnish import Varnish


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

    def block(self, key: str, slot: str, priority: int = 1, **audience: list[str]) -> None:
        body = {"title": key, "status": "live", "slots": [slot], "content": words(key), "priority": priority}
        self.make("blocks", key, **body, audience=audience)

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

    def context(self, cookies: dict[str, str]) -> dict[str, str]:
        answer = httpx.get(f"{self.stack.url}/v1/context", headers={**self.key, **header(cookies)})
        return cookies | dict(line.split(";")[0].split("=", 1) for line in answer.headers.get_list("set-cookie"))

    def sees(self, slot: str, **headers: str) -> str:
        """What is shown, through the edge, the second time: from a copy if there is one."""
        for _ in range(2):
            answer = httpx.get(f"{self.edge.url}/v1/decisions?slots={slot}", headers={**self.key, **headers})
        return answer.json()["slots"][slot]["blocks"][0]["key"] if answer.status_code == 200 else answer.text


def words(text: str) -> dict[str, Any]:
    return {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": text}}]}}


def header(cookies: dict[str, str]) -> dict[str, str]:
    return {"cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())} if cookies else {}
