"""python -m devstack.tour: plays the seven use cases against the running stack, and says why each changed."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from devstack.claim import running
from devstack.process import direct
from devstack.shop.seed import orders
from devstack.stack import Secrets, customer_token

STATE = Path(".run").resolve()
PATIENCE_S = 5.0


class Failed(Exception):
    """The stack did not answer as it should; the message says what was asked and what came."""


def _asked(answer: httpx.Response, wanted: int = 200) -> Any:
    if answer.status_code != wanted:
        where = f"{answer.request.method} {answer.request.url.path}"
        raise Failed(f"{where} answered {answer.status_code} instead of {wanted}: {answer.text[:300]}")
    return answer.json()


class Shopper:
    """Somebody with a browser, and a token once logged in. `region` is what a trusted front says of where they are."""

    def __init__(self, url: str, secrets: Secrets, *, customer: str = "", region: str = "") -> None:
        headers = {
            "x-api-key": secrets.publishable,
            **({"x-fact-region": region, "x-front-key": secrets.front} if region else {}),
        }
        if customer:
            headers["authorization"] = f"Bearer {customer_token(secrets.jwt, customer)}"
        self._client = httpx.Client(base_url=url, headers=headers)
        self._url, self._secrets, self._region = url, secrets, region
        context = self._client.get("/v1/context")
        _asked(context)
        cookies = context.headers.get_list("set-cookie")
        # Sent by hand: the cookies are Secure, and this is plain HTTP on loopback.
        self._client.headers["cookie"] = "; ".join(line.split(";")[0] for line in cookies)
        visitor = next(line for line in cookies if "ff_vid" in line).split("=", 1)[1].split(".")[0]
        self.profile = f"c:{customer}" if customer else f"v:{visitor}"

    def does(self, kind: str, data: dict[str, Any]) -> None:
        """Something a browser sees."""
        event = {"id": uuid.uuid4().hex, "type": kind, "data": data}
        _accepted(self._client.post("/v1/events", json={"events": [event]}))

    def told(self, kind: str, data: dict[str, Any]) -> None:
        """Something the shop's server says about this customer."""
        event = {
            "id": uuid.uuid4().hex,
            "source": "tour",
            "type": kind,
            "subject": f"customer:{self.profile[2:]}",
            "data": data,
        }
        event["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _tell(self._url, self._secrets, event)

    def sees(self, slot: str) -> str:
        """The title of what a slot shows."""
        found = _asked(self._client.get(f"/v1/decisions?slots={slot}"))["slots"][slot]["blocks"][0]
        return str(found["content"]["blocks"][0]["props"]["title"])

    def pays(self, price: int, quantity: int, category: str = "shoes/running") -> int:
        """Discount and shipping discount of a cart of one line, in cents."""
        line = {"id": "1", "sku": "RUN-1", "price": price, "quantity": quantity, "categories": [category]}
        found = _asked(self._client.post("/v1/cart", json={"lines": [line], "shipping": 490}))
        return int(found.get("discount", 0))

    def why(self, slot: str) -> dict[str, Any]:
        """The explain of a slot."""
        answer = httpx.get(
            f"{self._url}/v1/explain",
            params={"profile": self.profile, "slots": slot, "region": self._region},
            headers={"x-api-key": self._secrets.secret},
        )
        found: dict[str, Any] = _asked(answer)
        return found


def _accepted(answer: httpx.Response) -> None:
    if _asked(answer, 202)["accepted"] != 1:
        raise Failed(f"the collector refused an event: {answer.text[:300]}")


def _tell(url: str, secrets: Secrets, event: dict[str, Any]) -> None:
    """As the shop's server."""
    _accepted(httpx.post(f"{url}/v1/events", json={"events": [event]}, headers={"x-api-key": secrets.secret}))


def _money(amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


def _step(title: str, slot: str, shopper: Shopper, act: Callable[[], None], *, before: str | None = None) -> bool:
    """Act, wait for the slot to change, print what changed and why; False when it did not."""
    before = before or shopper.sees(slot)
    act()
    until = time.monotonic() + PATIENCE_S
    while (after := shopper.sees(slot)) == before and time.monotonic() < until:
        time.sleep(0.02)
    print(f"\n{title}\n  {slot}: {before!r} -> {after!r}")
    found = shopper.why(slot)
    print(f"  segments: {', '.join(found['segments']) or 'none'}")
    for reason in found["slots"][slot]:
        print(f"  block {reason['block']}: {reason['refused'] or 'shown'}")
    for key in found["segments"]:
        print(f"  why {key}: {json.dumps(found['why'][key]['why'])[:240]}")
    return after != before


def _order_long_ago(url: str, secrets: Secrets, customer: str) -> None:
    """Consumables, 45 days ago."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 45 * 86_400))
    items = [{"sku": "N1", "category": "consumables", "quantity": 1, "price": _money(900)}]
    data = {"order_id": f"order-{customer}", "grand_total": _money(900), "items": items}
    event = {"id": f"order-{customer}", "source": "tour", "type": "order_placed", "time": at, "data": data}
    _tell(url, secrets, {**event, "subject": f"customer:{customer}"})


def _views(shopper: Shopper) -> None:
    for n in range(4):
        shopper.does("product_view", {"sku": f"RUN-{n}", "category": "shoes/running"})


def _visits(shopper: Shopper) -> None:
    for _ in range(2):
        shopper.does("page_view", {"path": "/"})


def play(url: str, secrets: Secrets) -> bool:
    """All seven, then the cart offers that go with them; False when anything stayed as it was."""
    fresh = uuid.uuid4().hex[:8]
    cart = {"items": [{"sku": "RUN-1", "quantity": 2, "price": _money(6000)}], "subtotal": _money(12_000)}
    big, runner, home = Shopper(url, secrets), Shopper(url, secrets), Shopper(url, secrets)
    vip, late, trade = (Shopper(url, secrets, customer=f"{name}-{fresh}") for name in ("vip", "late", "trade"))
    local = Shopper(url, secrets, region="BY")
    order = {"order_id": f"vip-{fresh}", "grand_total": _money(60_000), "status": "placed"}
    elsewhere = home.sees("home.shipping")
    results = [
        _step("1. Cart over 100: free-shipping nudge", "cart.top", big, lambda: big.does("cart_update", cart)),
        _step(
            "2. More than 3 running shoes viewed, never bought: 10 %", "product.offer", runner, lambda: _views(runner)
        ),
        _step("3. Lifetime value over 500: VIP banner", "home.hero", vip, lambda: vip.told("order_placed", order)),
        _step(
            "4. Consumables 45 days ago: reorder",
            "home.hero",
            late,
            lambda: _order_long_ago(url, secrets, f"late-{fresh}"),
        ),
        _step(
            "5. Wholesale: volume prices",
            "home.hero",
            trade,
            lambda: trade.told("group_assigned", {"group": "Wholesale"}),
        ),
        _step(
            "6. From Bavaria: local cut-off, on the first view", "home.shipping", local, lambda: None, before=elsewhere
        ),
        _step("7. New against returning", "home.note", home, lambda: _visits(home)),
    ]
    offers = {
        "cart over 100": big.pays(6000, 2),
        "first-time runner": runner.pays(5000, 1),
        "wholesale": trade.pays(400, 10),
    }
    print("\nCart offers, in cents:", offers)
    buyer = next(o["subject"].split(":")[1] for o in orders() if o["data"]["grand_total"]["amount"] > 60_000)
    seen = Shopper(url, secrets, customer=buyer).sees("home.hero")
    print(f"A real customer of the demo data, {buyer}, sees: {seen!r}")
    print(f"\n{sum(results)} of {len(results)} use cases changed what the shop shows")
    return all(results) and all(offers.values())


def main() -> int:
    """Play the tour against what make run started; exit status 1 when something did not change."""
    direct()
    found = running(STATE)
    if found is None or "gateway" not in found:
        print(
            "Nothing is running" if found is None else "It is still starting",
            "(make run, in another terminal)",
            file=sys.stderr,
        )
        return 1
    try:
        return 0 if play(found["gateway"], Secrets.of(STATE)) else 1
    except Failed as error:
        print(f"The tour stopped: {error}", file=sys.stderr)
    except httpx.HTTPError as error:
        print(
            f"The tour stopped: {found['gateway']} did not answer ({type(error).__name__}); see .run/*.log",
            file=sys.stderr,
        )
    return 1


if __name__ == "__main__":
    sys.exit(main())
