"""What flows are given. Built once, by app.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chassis.bus import KafkaProducer
from chassis.clock import Clock
from chassis.turns import Turns
from contracts.codec import Codec

from gateway.adapters.keys import Keys
from gateway.adapters.limits import Limiter
from gateway.adapters.places import Places
from gateway.adapters.tokens import CustomerTokens
from gateway.adapters.upstreams import Upstreams
from gateway.domain.signing import Rings
from gateway.flows.decide import Decider
from gateway.flows.kill import Killer
from gateway.flows.purge import Purger
from gateway.lanes.request import Reader
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Deps:
    """The adapters of the gateway. `merchants` are the connections for what comes from them and from support; `places` bound how
    many of these what takes long may have; in `redeeming` the redemptions of a website take turns. `producer` is None where no
    Kafka is configured."""

    settings: Settings
    clock: Clock
    keys: Keys
    tokens: CustomerTokens
    upstreams: Upstreams
    merchants: Upstreams
    decider: Decider
    reader: Reader
    rings: Rings
    limiter: Limiter
    codec: Codec
    producer: KafkaProducer | None
    encode: Callable[[Any], bytes]
    killer: Killer
    purger: Purger
    places: Places = field(default_factory=Places)
    # Few of the connections: when promo-svc waits for a coupon that others keep, carts and merchants have the rest.
    redeeming: Turns = field(default_factory=lambda: Turns(4, waiting=250, patience_s=2.0))
