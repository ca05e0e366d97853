# "Base and mask": pages are cached by what matters to each URL. Nothing here names a segment, a group or a page, and nothing
# has to be loaded again because of one. Secrets come from the environment of varnishd, the gateway's address from backend.vcl
# (run.sh):
#   EDGE_ID, EDGE_KEY           what this edge proves with how it keys
#   CONTEXT_ID, CONTEXT_KEY     signs context cookies; CONTEXT_ID_OLD, CONTEXT_KEY_OLD did so before, and may be empty
#   FRONT_KEY                   vouches for the facts of a request      PURGE_KEY   opens PURGE
#
# The object of a URL fetched as a stranger is the base; it carries X-Aud-Mask, the codes and facts its answer depends on.
# Who differs from a stranger in none of them is answered with it. Anybody else is looked up a second time, under the values
# he has of that mask. The gateway shares only with who proves how it keys the request (X-Edge-Proof); all else is private.
vcl 4.1;
import std;
import cookie;
import digest;
import str;
import xkey;

include "backend.vcl";

sub vcl_init {
    if (std.getenv("EDGE_ID") !~ "^[a-z0-9]{1,16}$" || std.getenv("CONTEXT_ID") !~ "^[a-z0-9]{1,16}$"
        || std.getenv("EDGE_KEY") !~ "^.{32}" || std.getenv("CONTEXT_KEY") !~ "^.{32}"
        || std.getenv("FRONT_KEY") !~ "^.{32}" || std.getenv("PURGE_KEY") !~ "^.{32}"
        || std.getenv("CONTEXT_KEY_OLD") !~ "^(.{32}.*)?$") {
        return (fail("a key of the edge is missing, or shorter than 32 characters"));
    }
}

sub vcl_recv {
    if (req.restarts > 0) {
        if (req.http.X-Edge-Stale) { set req.grace = 1d; }  # as long as the copy may be shown
        if (req.http.X-Edge-Step == "own") { return (pass); }
        return (hash);
    }
    call forget;
    if (req.method == "PURGE") {
        if (req.http.X-Purge-Key != std.getenv("PURGE_KEY")) { return (synth(404)); }
        if (req.http.Xkey-Softpurge) { return (synth(200, "purged " + xkey.softpurge(req.http.Xkey-Softpurge))); }
        return (synth(200, "purged " + xkey.purge(req.http.Xkey-Purge)));
    }
    unset req.http.X-Purge-Key;
    unset req.http.Range;  # no answer has parts, and of one that is passed on they cannot be made
    std.collect(req.http.X-Api-Key);  # two of them are none
    call facts;
    if (req.method != "GET" && req.method != "HEAD") {
        if (!std.cache_req_body(1100KB)) { return (synth(413)); }  # who sends slowly holds no connection of the gateway
        return (pass);
    }
    if (req.url !~ "^/v1/decisions[?]" || req.http.Authorization) { return (pass); }
    if (req.url ~ "^.{4000}") { return (synth(414)); }  # the gateway takes 2,000, and more has no place in what follows
    call canonical;
    if (std.healthy(req.backend_hint)) { set req.grace = 30s; }  # while it is fetched anew; the rest is for when that fails
    set req.http.X-Edge-Step = "base";
    cookie.parse(req.http.Cookie);
    if (req.http.Cookie ~ "(^|;\s*)__Host-ff_vid=.*;\s*__Host-ff_vid=") { return (pass); }  # two readers, two persons
    if (cookie.isset("__Host-ff_vid")) {  # somebody: shared with only when in a genuine context of his own
        set req.http.X-Edge-Step = "own";
        call context;
        if (req.http.X-Edge-Step == "own") { return (pass); }
    }
    return (hash);
}

sub forget {  # what only an edge says
    unset req.http.X-Edge-Step;
    unset req.http.X-Edge-Codes;
    unset req.http.X-Edge-Mask;
    unset req.http.X-Edge-Aud;
    unset req.http.X-Edge-Key;
    unset req.http.X-Edge-Proof;
    unset req.http.X-Edge-Url;
    unset req.http.X-Edge-Stale;
    unset req.http.X-Edge-Version;
    unset req.http.X-Edge-Since;
}

sub facts {  # what is known of where and with what: by a front that has the key, never by a browser; the device we see ourselves
    if (req.http.X-Front-Key != std.getenv("FRONT_KEY")) {
        unset req.http.X-Fact-Country;
        unset req.http.X-Fact-Region;
        unset req.http.X-Fact-City;
        unset req.http.X-Fact-Device;
        unset req.http.X-Fact-Address;
    }
    unset req.http.X-Front-Key;
    if (req.http.X-Fact-Address !~ "^[0-9A-Fa-f:.]{2,45}$") { set req.http.X-Fact-Address = client.ip; }
    if (req.http.X-Fact-Country !~ "^[A-Za-z]{2}$") { unset req.http.X-Fact-Country; }
    if (req.http.X-Fact-Region !~ "^[A-Za-z0-9-]{1,10}$") { unset req.http.X-Fact-Region; }
    if (req.http.X-Fact-City !~ "^[A-Za-z0-9%_-]{1,100}$") { unset req.http.X-Fact-City; }
    if (req.http.X-Fact-Device !~ "^(mobile|tablet|desktop)$") {
        set req.http.X-Fact-Device = "desktop";
        if (req.http.User-Agent ~ "(?i)mobi") { set req.http.X-Fact-Device = "mobile"; }
    }
}

sub canonical {  # one URL for one question: what nobody looks at is dropped, and no order makes another object
    set req.http.X-Edge-Url = req.url;
    set req.http.X-Edge-Aud = regsub(req.url, "^[^?]*[?](.*&)?slots=([^&]*).*$", "\2");
    if (req.http.X-Edge-Aud == req.url) { set req.http.X-Edge-Aud = ""; }
    set req.http.X-Edge-Aud = regsuball(req.http.X-Edge-Aud, "(?i)%2c", ",");
    set req.http.X-Edge-Mask = std.querysort("/?" + regsuball(req.http.X-Edge-Aud, ",", "&"));
    set req.http.X-Edge-Mask = regsuball(regsub(req.http.X-Edge-Mask, "^/[?]?", ""), "&+", ",");
    set req.url = "/v1/decisions?slots=" + req.http.X-Edge-Mask;
    if (req.http.X-Edge-Url ~ "[?&]locale=[^&]") {
        set req.url = req.url + "&locale=" + regsub(req.http.X-Edge-Url, "^[^?]*[?](.*&)?locale=([^&]*).*$", "\2");
    }
    unset req.http.X-Edge-Aud;
    unset req.http.X-Edge-Mask;
}

sub context {  # .s3.g. | expiry | version of the definitions | key id | signature over these, the visitor cookie and the API key
    if (cookie.get("__Host-ff_ctx") ~ "^[.][.a-z0-9]*[|][0-9]{10}[|][0-9]{1,15}[|][a-z0-9]+[|][A-Za-z0-9_-]{43}$") {
        set req.http.X-Edge-Mask = regsub(cookie.get("__Host-ff_ctx"), "[|][A-Za-z0-9_-]{43}$", "");
        set req.http.X-Edge-Aud = regsub(cookie.get("__Host-ff_ctx"), "^.*[|]", "");
        set req.http.X-Edge-Key = regsub(req.http.X-Edge-Mask, "^.*[|]", "");
        if (std.time(regsub(req.http.X-Edge-Mask, "^[^|]*[|]([0-9]{10}).*$", "\1"), now - 1s) > now
            && ((req.http.X-Edge-Key == std.getenv("CONTEXT_ID") && req.http.X-Edge-Aud == digest.base64url_nopad_hex(
                    digest.hmac_sha256(std.getenv("CONTEXT_KEY"), req.http.X-Edge-Mask + "|" + cookie.get("__Host-ff_vid") + "|" + req.http.X-Api-Key)))
            || (std.getenv("CONTEXT_KEY_OLD") != "" && req.http.X-Edge-Key == std.getenv("CONTEXT_ID_OLD") && req.http.X-Edge-Aud == digest.base64url_nopad_hex(
                    digest.hmac_sha256(std.getenv("CONTEXT_KEY_OLD"), req.http.X-Edge-Mask + "|" + cookie.get("__Host-ff_vid") + "|" + req.http.X-Api-Key))))) {
            set req.http.X-Edge-Step = "base";
            set req.http.X-Edge-Codes = regsub(req.http.X-Edge-Mask, "[|].*$", "");
            set req.http.X-Edge-Version = regsub(req.http.X-Edge-Mask, "^[^|]*[|][^|]*[|]([0-9]+)[|].*$", "\1");
        }
        unset req.http.X-Edge-Mask;
        unset req.http.X-Edge-Aud;
        unset req.http.X-Edge-Key;
    }
}

sub narrow {  # the mask of the URL is known: which values of it has this request?
    if (req.http.X-Edge-Version && std.integer(req.http.X-Edge-Version, 0) < std.integer(req.http.X-Edge-Since, 0)) {
        set req.http.X-Edge-Step = "own";  # his context is of before a code of the mask was given out
        return;
    }
    if (req.http.X-Edge-Mask ~ "^[*]") {  # too much to key by: it is a stranger's, or nobody's
        if (req.http.X-Edge-Codes ~ "[a-z]" || req.http.X-Edge-Mask ~ "[.]device[.]"
            || (req.http.X-Edge-Mask ~ "[.]country[.]" && req.http.X-Fact-Country)
            || (req.http.X-Edge-Mask ~ "[.]region[.]" && req.http.X-Fact-Region)
            || (req.http.X-Edge-Mask ~ "[.]city[.]" && req.http.X-Fact-City)) {
            set req.http.X-Edge-Step = "own";
        }
        return;
    }
    if (req.http.X-Edge-Codes ~ "[a-z]") { call codes; }
    if (req.http.X-Edge-Mask ~ "[.]country[.]" && req.http.X-Fact-Country) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + "country=" + req.http.X-Fact-Country + "."; }
    if (req.http.X-Edge-Mask ~ "[.]region[.]" && req.http.X-Fact-Region) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + "region=" + req.http.X-Fact-Region + "."; }
    if (req.http.X-Edge-Mask ~ "[.]city[.]" && req.http.X-Fact-City) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + "city=" + req.http.X-Fact-City + "."; }
    if (req.http.X-Edge-Mask ~ "[.]device[.]") {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + "device=" + req.http.X-Fact-Device + "."; }
    if (req.http.X-Edge-Aud) { set req.http.X-Edge-Step = "aud"; }
}

sub codes {  # the mask, one after the other; the gateway names at most 24 codes, or "*"
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 1, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 1, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 2, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 2, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 2, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 3, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 3, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 3, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 4, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 4, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 4, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 5, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 5, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 5, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 6, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 6, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 6, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 7, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 7, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 7, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 8, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 8, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 8, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 9, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 9, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 9, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 10, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 10, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 10, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 11, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 11, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 11, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 12, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 12, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 12, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 13, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 13, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 13, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 14, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 14, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 14, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 15, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 15, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 15, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 16, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 16, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 16, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 17, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 17, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 17, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 18, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 18, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 18, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 19, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 19, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 19, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 20, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 20, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 20, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 21, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 21, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 21, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 22, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 22, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 22, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 23, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 23, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 23, ".") + "."; }
    if (!str.split(req.http.X-Edge-Mask, 24, ".")) { return; }
    if (std.strstr(req.http.X-Edge-Codes, "." + str.split(req.http.X-Edge-Mask, 24, ".") + ".")) {
        set req.http.X-Edge-Aud = req.http.X-Edge-Aud + str.split(req.http.X-Edge-Mask, 24, ".") + "."; }
}

sub vcl_hash {
    hash_data(req.url);
    hash_data(req.http.X-Api-Key);
    if (req.http.X-Edge-Step == "aud") {
        hash_data(req.http.X-Edge-Mask);
        hash_data(req.http.X-Edge-Aud);
    }
    return (lookup);
}

sub vcl_hit {
    if (req.http.X-Edge-Step == "base" && obj.http.X-Aud-Mask) {
        set req.http.X-Edge-Mask = obj.http.X-Aud-Mask;
        set req.http.X-Edge-Since = obj.http.X-Aud-Since;
        call narrow;
        if (req.http.X-Edge-Step != "base") { return (restart); }
    }
}

sub vcl_miss {
    if (req.http.X-Edge-Stale) { return (synth(503)); }  # there is none, and it was fetched in vain just now
    if (req.is_hitmiss && req.http.X-Edge-Step == "base") {  # known as nobody's to share: the gateway is asked for himself
        set req.http.X-Edge-Step = "own";
        return (pass);
    }
}

sub vcl_backend_fetch {
    set bereq.http.X-Edge-At = std.time2real(now, 0.0);
    unset bereq.http.X-Edge-Codes;
    unset bereq.http.X-Edge-Proof;
    set bereq.http.X-Front-Key = std.getenv("FRONT_KEY");
    if (bereq.http.X-Edge-Step == "base" && !bereq.uncacheable) {
        unset bereq.http.Cookie;
        unset bereq.http.X-Fact-Country;
        unset bereq.http.X-Fact-Region;
        unset bereq.http.X-Fact-City;
        unset bereq.http.X-Fact-Device;  # but not who is to be charged for it: X-Fact-Address
        set bereq.http.X-Edge-Mask = "base";
        unset bereq.http.X-Edge-Aud;
        call prove;
    } else if (bereq.http.X-Edge-Step == "aud" && !bereq.uncacheable) {
        call prove;
    } else if (bereq.http.X-Edge-Url) {
        set bereq.url = bereq.http.X-Edge-Url;
        unset bereq.http.X-Edge-Mask;
        unset bereq.http.X-Edge-Aud;
    }
    unset bereq.http.X-Edge-Url;
    unset bereq.http.X-Edge-Step;
    unset bereq.http.X-Edge-Stale;
    unset bereq.http.X-Edge-Version;
    unset bereq.http.X-Edge-Since;
}

sub prove {
    set bereq.http.X-Edge-Key = std.getenv("EDGE_ID");
    set bereq.http.X-Edge-Proof = digest.base64url_nopad_hex(digest.hmac_sha256(std.getenv("EDGE_KEY"), "mask1|" + bereq.http.X-Edge-Mask
        + "|" + bereq.http.X-Edge-Aud + "|" + bereq.http.X-Api-Key + "|" + bereq.url));
}

sub vcl_backend_response {
    if (beresp.status != 200 && bereq.is_bgfetch) { return (abandon); }  # a bad answer replaces no good copy
    if (beresp.status >= 500 && !bereq.uncacheable) { return (error(503)); }  # and stands before none
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    if (beresp.status != 200 || beresp.http.Set-Cookie || beresp.http.Cache-Control !~ "s-maxage"
        || beresp.http.Cache-Control ~ "private|no-store" || !beresp.http.X-Aud-Mask) {
        call unkept;
        if (beresp.status == 200 && bereq.http.X-Edge-Mask == "base") { set beresp.ttl = 5s; }  # nobody's to share, for a moment
        return (deliver);
    }
    if (now - std.time(bereq.http.X-Edge-At, now - 1h) > 0.75s) {  # of before what was purged meanwhile, perhaps
        call unkept;
        return (deliver);
    }
    if (beresp.http.Cache-Control ~ "stale-if-error=[0-9]+") {
        set beresp.grace = std.duration(
            regsub(beresp.http.Cache-Control, "^.*stale-if-error=([0-9]+).*$", "\1") + "s", 0s);
    }
    if (beresp.ttl <= 0s) { call unkept; }  # for a moment: the next one may be kept
    return (deliver);
}

sub unkept {  # known as such for a moment, or all who wait for it would fetch one after the other
    set beresp.uncacheable = true;
    set beresp.ttl = 1s;
    set beresp.grace = 0s;
}

sub vcl_backend_error {  # nobody answers
    if (bereq.is_bgfetch) { return (abandon); }
    set beresp.ttl = 0s;
    set beresp.grace = 0s;
    set beresp.http.Content-Type = "application/problem+json";
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.Retry-After = "2";
    set beresp.body = {"{"type":"urn:footfall:problem:service-unavailable","title":"The service cannot be reached","status":503}"};
    return (deliver);
}

sub vcl_synth {
    if (resp.status != 200) {
        set resp.http.Content-Type = "application/problem+json";
        set resp.http.Cache-Control = "no-store";
        if (resp.status == 414) {
            set resp.body = {"{"type":"urn:footfall:problem:query-too-long","title":"The query is too long","status":414}"};
        } else if (resp.status == 503) {
            set resp.http.Retry-After = "2";
            set resp.body = {"{"type":"urn:footfall:problem:service-unavailable","title":"The service cannot be reached","status":503}"};
        } else {
            set resp.body = {"{"type":"urn:footfall:problem:not-found","title":"Not found","status":404}"};
        }
        return (deliver);
    }
}

sub vcl_deliver {
    if (resp.status >= 500 && (req.http.X-Edge-Step == "base" || req.http.X-Edge-Step == "aud") && !req.http.X-Edge-Stale) {
        set req.http.X-Edge-Stale = "1";  # a copy that is over is better, where there is one that may be shown
        return (restart);
    }
    if (req.http.X-Edge-Step == "base" && !req.http.X-Edge-Mask) {  # fetched just now
        if (resp.http.X-Aud-Mask) {
            set req.http.X-Edge-Mask = resp.http.X-Aud-Mask;
            set req.http.X-Edge-Since = resp.http.X-Aud-Since;
            call narrow;
        } else if (resp.status == 200) {
            set req.http.X-Edge-Step = "own";
        }
        if (req.http.X-Edge-Step != "base") { return (restart); }
    }
    set resp.http.Cache-Status = "edge; fwd=miss";
    if (obj.hits > 0) { set resp.http.Cache-Status = "edge; hit"; }
    if (obj.hits > 0 && obj.ttl < 0s) { set resp.http.Cache-Status = "edge; hit; detail=stale"; }
    if (req.http.X-Edge-Step == "own" || !req.http.X-Edge-Step) { set resp.http.Cache-Status = "edge; fwd=bypass"; }
    if (resp.http.X-Origins) {  # whose pages may read it
        if (req.http.Origin && std.strstr(resp.http.X-Origins, "," + req.http.Origin + ",")) {
            set resp.http.Access-Control-Allow-Origin = req.http.Origin;
            set resp.http.Access-Control-Allow-Credentials = "true";
            set resp.http.Access-Control-Expose-Headers = "etag, retry-after";
        }
        unset resp.http.X-Origins;
    }
    unset resp.http.Xkey;
    unset resp.http.X-Aud-Mask;
    unset resp.http.X-Aud-Since;
    unset resp.http.X-Varnish;
    unset resp.http.Via;
    if (resp.http.Cache-Control ~ "s-maxage") {
        set resp.http.Cache-Control = "private, max-age=0, must-revalidate";
        set resp.http.Vary = "Accept-Encoding, Cookie, Origin";
    }
}
