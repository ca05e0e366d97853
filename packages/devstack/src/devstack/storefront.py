"""The example shop: one page, served with the gateway behind the same origin, so that its cookies are first-party."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).resolve().parents[4] / "web" / "storefront" / "index.html"
PASSED_ON = (
    "cookie",
    "content-type",
    "if-none-match",
    "user-agent",
    "accept-language",
    "x-geo-region",
    "authorization",
)


def serve(port: int, gateway: str, *, publishable: str, secret: str) -> ThreadingHTTPServer:
    """Start serving in a thread. /v1/explain goes with the secret key, which a real shop would keep to its server."""
    host = gateway.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: one line per request helps nobody here."""

        def do_GET(self) -> None:
            if self.path in ("/", "/index.html"):
                body = PAGE.read_bytes()
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.forward("GET", None)

        def do_POST(self) -> None:
            self.forward("POST", self.rfile.read(int(self.headers.get("content-length") or 0)))

        def forward(self, method: str, body: bytes | None) -> None:
            headers = {n: self.headers[n] for n in PASSED_ON if n in self.headers}
            headers["x-api-key"] = secret if self.path.startswith("/v1/explain") else publishable
            connection = http.client.HTTPConnection(host, timeout=10)
            connection.request(method, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name in ("content-type", "set-cookie", "etag", "vary", "cache-control"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
