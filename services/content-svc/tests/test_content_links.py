"""A link of a block leads to the shop itself or, in plain sight, to a host over https; however a browser reads it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from content_svc.schemas import Link
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

LINK = TypeAdapter(Link)
PIECES = [
    "/",
    "\\",
    "\t",
    "\n",
    "\r",
    " ",
    "\0",
    "https:",
    "https://",
    "evil.example",
    "@",
    ":",
    "%09",
    "#",
    "?",
    ".",
    "ü",
]


def accepted(text: str) -> bool:
    try:
        LINK.validate_python(text)
    except ValidationError:
        return False
    return True


def read_by_a_browser(text: str) -> str:
    """What the URL standard makes of a text before it looks for a host: trimmed, without tabs and line ends, \\ as /."""
    trimmed = text.strip("".join(map(chr, range(0x21))))
    return "".join(c for c in trimmed if c not in "\t\n\r").replace("\\", "/")


@pytest.mark.parametrize(
    "text",
    [
        "/", "/a", "/a/b?c=d&e=%20#f", "/für/läufer", "/%09/x", "/.well-known", "https://a.example",
        "https://a.example:8443/x?y#z", "https://xn--bcher-kva.example/", "https://a.example?x",
    ],
)  # fmt: skip
def test_paths_of_the_shop_and_https_addresses_are_links(text: str) -> None:
    assert accepted(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "/ /evil",
        "/\r\\evil.example", "https:///evil.example", "https://", "https:/evil.example", "https:evil.example",
        "https:\\\\evil.example", "https://good.example\\@evil.example", "https://good.example@evil.example",
        "https://u:p@evil.example", "http://a.example", "javascript:alert(1)", "java\tscript:alert(1)", "data:text/html,x",
        " /a", "/a ", "/a\n", "https://a.example\n", "/a\u2028b", "/a\u202eb", "/\ufeff/evil.example", "/\0a", "/a\x7fb",
        "https://a .example", "https://.example", "https://%65vil.example", "evil.example", "/\u00a0/evil",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    assert not accepted(text)


@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join))
@example("/\\evil.example")
@example("https:///evil.example")
def test_no_accepted_link_leaves_for_a_host_it_does_not_show(text: str) -> None:
    if not accepted(text):
        return
    seen = read_by_a_browser(text)
    assert seen == text, "a browser reads what a reviewer reads"
    if text.startswith("/"):
        assert not seen.startswith("//")
    else:
        host = text.removeprefix("https://").split("/")[0].split("?")[0].split("#")[0]
        assert host
        assert urlsplit(seen).netloc == host
        assert "@" not in host
