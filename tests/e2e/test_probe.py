"""An edge that holds the keys and is configured wrong is found from outside, and may not share any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.health import Health
from devstack.stack import Stack
from devstack.varnish import VCL, Varnish
from gateway.domain.signing import Ring, Rings
from gateway.flows.probe import Probes

from tests.e2e.plain import SECRET, behind
from tests.e2e.plain import WRONG as WRONGLY

pytestmark = [pytest.mark.servers, pytest.mark.slow]
FORGOTTEN = "".join(
    f"    unset req.http.X-Edge-{name};\n" for name in ("Step", "Codes", "Mask", "Aud", "Key", "Proof", "Url")
)
WRONG = {
    "keys by the mask without the values": ("        hash_data(req.http.X-Edge-Aud);\n", ""),
    "keys by the address alone": ('if (req.http.X-Edge-Step == "aud") {\n        hash_data', 'if (false) {\n        hash_data'),
    "believes whoever says where he is": ("        unset req.http.X-Fact-Country;\n", ""),
    "believes codes that nobody signed": (FORGOTTEN, ""),
    "takes a context for whoever brings it": (
        '        if (std.time(regsub(req.http.X-Edge-Mask, "^[^|]*[|]([0-9]{10}).*$", "\\1"), now - 1s) > now\n            && ((',
        '        if (true || ((',
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(services: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    with services("probe", extra={"gateway": {"CACHE_KEYS": f"1:{SECRET}"}}) as stack:
        yield stack


class Asked:
    """Probes of some edges, in a loop of their own."""

    def __init__(
        self, shop: Stack, running: asyncio.Runner, edges: tuple[str, ...], caches: tuple[str, ...] = ()
    ) -> None:
        known, self._running, self.health = shop.secrets.rings(), running, Health()
        edge, visitor, context, aud = (Ring(known[f"{name}_KEYS"]) for name in ("EDGE", "VISITOR", "CONTEXT", "AUD"))
        rings = Rings(visitor, context, edge, aud, b"", {})
        self.probes = Probes(edges, caches, rings, "localhost", SystemClock(), self.health)
        self.trusts = self.probes.trusts

    def look(self) -> bool:
        """Ask every edge; whether to do so again soon."""
        return self._running.run(self.probes.look())


@pytest.fixture
def asking(shop: Stack) -> Iterator[Callable[..., Asked]]:
    made: list[Asked] = []
    with asyncio.Runner() as running:

        def make(*edges: str, caches: tuple[str, ...] = ()) -> Asked:
            made.append(Asked(shop, running, edges, caches))
            return made[-1]

        yield make
        for asked in made:
            running.run(asked.probes.aclose())


def test_an_edge_that_keys_as_it_proves_is_trusted(
    shop: Stack, varnish: Callable[[Stack], Varnish], asking: Callable[..., Asked]
) -> None:
    asked = asking(varnish(shop).url)
    assert not asked.trusts("1")
    assert asked.look() is False
    assert (asked.trusts("1"), asked.trusts("2"), asked.health.troubles()) == (True, False, {})


@pytest.mark.parametrize("how", WRONG)
def test_an_edge_that_does_not_is_found(
    shop: Stack, varnish: Callable[[Stack], Varnish], asking: Callable[..., Asked], tmp_path: Path, how: str
) -> None:
    good, bad = varnish(shop), varnish(shop)
    asked = asking(good.url, bad.url)
    asked.look()
    assert asked.trusts("1")
    text, (old, new) = VCL.read_text(), WRONG[how]
    assert old in text
    (tmp_path / "wrong.vcl").write_text(text.replace(old, new))
    bad.use(shop.address, tmp_path / "wrong.vcl")
    asked.look()
    assert not asked.trusts("1")
    assert "may not share: it shows" in (cause := asked.health.troubles()["edge 1"]) or "it believes" in cause


@pytest.mark.parametrize("how", WRONGLY)
def test_a_cache_that_says_it_keys_by_the_url_and_does_not_is_found(
    shop: Stack, varnish: Callable[[Stack], Varnish], asking: Callable[..., Asked], tmp_path: Path, how: str
) -> None:
    cache = varnish(shop)
    behind(cache, shop, tmp_path)
    asked = asking(caches=(cache.url,))
    assert asked.look() is False
    assert (asked.trusts("cache 1"), asked.trusts("1"), asked.health.troubles()) == (True, False, {})
    behind(cache, shop, tmp_path, WRONGLY[how])
    asked.look()
    assert not asked.trusts("cache 1")
    assert "may not share: it shows" in asked.health.troubles()["edge cache 0"]


def test_a_cache_that_says_no_secret_is_trusted_with_nothing(
    shop: Stack, varnish: Callable[[Stack], Varnish], asking: Callable[..., Asked]
) -> None:
    asked = asking(caches=(shop.url, varnish(shop).url))
    assert asked.look() is False
    assert not any(map(asked.trusts, ("", "cache ", "cache 1")))


def test_one_that_does_not_answer_or_proves_nothing_is_not_trusted(
    shop: Stack, varnish: Callable[[Stack], Varnish], asking: Callable[..., Asked]
) -> None:
    away, foreign = varnish(shop), shop.url
    away.stop()
    asked = asking(away.url, foreign)
    assert asked.look() is True
    assert not asked.trusts("1")
    assert list(asked.health.troubles()) == ["edge 0"]


def test_without_a_probe_nothing_is_shared_and_no_page_of_it_is_anybodys(
    shop: Stack, varnish: Callable[[Stack], Varnish]
) -> None:
    edge, key = varnish(shop).url, {"x-api-key": shop.secrets.publishable}
    for _ in range(3):
        answer = httpx.get(f"{edge}/v1/decisions?slots=a", headers=key)
        assert (answer.status_code, answer.headers["cache-status"]) == (200, "edge; fwd=bypass")
    for name in ("~", "~1.0123456789abcdef." + "0" * 43, "~1.x.y"):
        assert httpx.get(f"{edge}/v1/decisions?slots={name}", headers=key).status_code == 400
