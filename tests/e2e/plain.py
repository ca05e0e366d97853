"""Stands for a cache that can key by nothing but the URL: Varnish without a word of ours in it but the cache's secret."""

from __future__ import annotations

from pathlib import Path

from devstack.stack import Stack
from devstack.varnish import Varnish

SECRET = "cdn-" + "s" * 32
PLAIN = """vcl 4.1;
include "backend.vcl";
sub vcl_recv { set req.http.X-Cache-Key = "%s"; %s return (hash); }
sub vcl_backend_response { %s }
sub vcl_deliver { set resp.http.X-Hits = obj.hits; }
"""
RIGHT = ("", "")
WRONG = {
    "keys by the path alone": ('set req.url = regsub(req.url, "&aud=[^&]*", "");', ""),
    "keeps what is private": ("", "set beresp.ttl = 60s; set beresp.uncacheable = false; return (deliver);"),
}


def behind(cache: Varnish, stack: Stack, home: Path, how: tuple[str, str] = RIGHT) -> None:
    """Have a cache answer for the gateway of a stack, rightly or by one of WRONG."""
    file = home / "plain.vcl"
    file.write_text(PLAIN % (SECRET, *how))
    cache.use(stack.address, file)
