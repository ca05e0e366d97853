"""What goes out over HTTP: status, headers and body; and the same as bytes, made once, for who writes to the connection."""

from __future__ import annotations

from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]
OF_A_BODY = (b"content-length", b"content-type")


class Reply:
    """A response, finished. Nobody changes it: it may have been said before, and be said again."""

    __slots__ = ("_lines", "body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self._lines: bytes | None = None

    def lines(self) -> bytes:
        """All that comes after the status line and the date."""
        if self._lines is None:
            self._lines = b"".join(b"%b: %b\r\n" % header for header in self.headers) + b"\r\n" + self.body
        return self._lines

    def unchanged(self) -> Reply:
        """What is said to who has it."""
        return Reply(304, [h for h in self.headers if h[0] not in OF_A_BODY], b"")

    def marked(self, headers: Headers) -> Reply:
        """With more headers."""
        return Reply(self.status, self.headers + headers, self.body)


def status_line(status: int) -> bytes:
    """As uvicorn writes it."""
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
