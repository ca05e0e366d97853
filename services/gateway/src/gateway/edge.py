"""VCL for the pattern "explode and Vary": the edge turns a verified cookie into one header per segment.

A page is then cached once per combination of the segments that matter to it, and of nothing else. The edge stores
nothing that the gateway made with another view of the visitor than the edge keyed it by.
"""

from __future__ import annotations

from collections.abc import Iterable
from string import Template

from gateway.domain.identity import CONTEXT

VCL = Template("""vcl 4.1;
import std;
import digest;
import xkey;

backend gateway { .host = "$host"; .port = "$port"; .first_byte_timeout = 5s; }

sub vcl_recv {
    if (req.method == "PURGE") {
        if (req.http.X-Edge-Secret != "$secret") { return (synth(404)); }
        set req.http.X-Purged = xkey.purge(req.http.Xkey-Purge);
        return (synth(200, "purged " + req.http.X-Purged));
    }
    unset req.http.X-Ctx;
    unset req.http.X-Group;
    unset req.http.X-Edge-Secret;
    $strip
    if (req.method != "GET" && req.method != "HEAD") { return (pass); }
    if (req.url !~ "^/v1/decisions(\\?|$$)") { return (pass); }
    if (req.http.Authorization) { return (pass); }
    set req.http.X-Ctx = "$empty";
    if (req.http.Cookie ~ "(^|; *)$cookie=[.0-9]+[|][0-9]+[|][0-9a-f]+") {
        set req.http.X-Raw = regsub(req.http.Cookie, "^(.*; *|)$cookie=([.0-9]+[|][0-9]+[|][0-9a-f]+).*$$", "\\2");
        set req.http.X-Text = regsub(req.http.X-Raw, "[|][0-9a-f]+$$", "");
        if ("0x" + regsub(req.http.X-Raw, "^.*[|]", "") == digest.hmac_sha256("$cookie_secret", req.http.X-Text)
            && std.time(regsub(req.http.X-Text, "^.*[|]", ""), now - 1s) > now) {
            set req.http.X-Ctx = regsub(req.http.X-Text, "[|].*$$", "");
        }
        unset req.http.X-Raw;
        unset req.http.X-Text;
    }
    $explode
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    hash_data(req.http.X-Api-Key);
    return (lookup);
}

sub vcl_backend_fetch {
    set bereq.http.X-Edge-Secret = "$secret";
}

sub vcl_backend_response {
    if (beresp.status != 200 || beresp.http.Set-Cookie || beresp.http.Cache-Control ~ "(private|no-store)"
        || (bereq.http.X-Ctx && beresp.http.X-Ctx != bereq.http.X-Ctx)) {
        set beresp.uncacheable = true;
        set beresp.ttl = 0s;
        return (deliver);
    }
    set beresp.grace = 0s;
    if (beresp.http.Cache-Control ~ "stale-while-revalidate=[0-9]+") {
        set beresp.grace = std.duration(
            regsub(beresp.http.Cache-Control, "^.*stale-while-revalidate=([0-9]+).*$$", "\\1") + "s", 0s);
    }
}

sub vcl_deliver {
    set resp.http.Cache-Status = "edge; fwd=miss";
    if (obj.hits > 0) { set resp.http.Cache-Status = "edge; hit"; }
    unset resp.http.Xkey;
    unset resp.http.X-Ctx;
    unset resp.http.X-Varnish;
    unset resp.http.Via;
    if (resp.http.Cache-Control ~ "s-maxage") {
        set resp.http.Cache-Control = "private, max-age=0, must-revalidate";
        set resp.http.Vary = "Accept-Encoding, Cookie";
    }
}
""")


def vcl(ids: Iterable[int], *, empty: str, host: str, port: int, cookie_secret: str, secret: str) -> str:
    """The whole configuration for edge-relevant segment ids; `empty` are those a stranger is in, as a context writes them."""
    names = [(i, f"req.http.X-Seg-{i}") for i in sorted(set(ids))]
    strip = "\n    ".join(f"unset {header};" for _, header in names)
    explode = "\n    ".join(f'if (req.http.X-Ctx ~ "[.]{i}[.]") {{ set {header} = "1"; }}' for i, header in names)
    named = {"cookie": CONTEXT, "strip": strip, "explode": explode, "empty": empty}
    return VCL.substitute(host=host, port=port, secret=secret, cookie_secret=cookie_secret, **named)
