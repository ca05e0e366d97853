"""Tokens of the shop's identity provider: whose customer is who."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from chassis.problems import Problem
from gateway.adapters.tokens import CustomerTokens

SECRET = b"s" * 32
JWKS = json.dumps(
    {"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}]}
)


def token(secret: bytes = SECRET, **claims: Any) -> bytes:
    said = {"sub": "ann", "iss": "shop", "aud": "storefront", "exp": int(time.time()) + 60, **claims}
    return b"Bearer " + jwt.encode(said, secret, algorithm="HS256", headers={"kid": "k"}).encode()


@pytest.fixture
def tokens() -> CustomerTokens:
    return CustomerTokens(JWKS, issuer="shop", audience="storefront")


def test_a_genuine_one_says_whose_it_is(tokens: CustomerTokens) -> None:
    assert [tokens.customer_of(token()) for _ in range(2)] == ["ann", "ann"]
    assert tokens.customer_of(token(sub="ü/x?%41")) == "ü/x?%41"
    assert tokens.customer_of(token(iat=int(time.time()) + 4)) == "ann", "by a clock that is a little ahead"


@pytest.mark.parametrize(
    "sent",
    [
        token(b"t" * 32), token(sub="\ud800"), token(sub=""), token(sub="x" * 201), token(sub=7), token(iss="other"),
        token(aud="other"), token(exp=1), token(iat=1 << 34), b"", b"Bearer", b"Bearer x.y.z", b"Basic " + token()[7:],
        b"\xff\xfe",
    ],
)  # fmt: skip
def test_any_other_is_nobodys(tokens: CustomerTokens, sent: bytes) -> None:
    for _ in range(2):
        with pytest.raises(Problem) as refused:
            tokens.customer_of(sent)
        assert refused.value.status == 401
