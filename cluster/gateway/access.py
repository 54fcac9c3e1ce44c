"""Who may ask, and how often: checked before a byte of a body is read.

- With tokens, each request needs one, as `Authorization: Bearer TOKEN`; but for the page itself, which has no data.
- Without, the gateway listens to this machine only, and asks for its name in `Host`: a page elsewhere may give its
  own name our address, and a browser would then let it read what we answer.
- A page elsewhere must not change anything here either: what changes something is taken from our own page only.
- One address has so many requests per second.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from time import monotonic
from typing import Final

import falcon

from cluster.gateway.options import Options
from cluster.gateway.problems import Problem

LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
OPEN: Final = ("/", "/page.js", "/page.css", "/icon.svg")  # the page; what it shows it has to ask for
SAFE: Final = ("GET", "HEAD", "OPTIONS")
BURST: Final = 10.0  # seconds of the rate that may come at once
MOST_ADDRESSES: Final = 10_000  # remembered


class Access:
    """Falcon's middleware for what the module's text says."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._tokens = tuple(token.encode() for token in options.tokens)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> room, when

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Let it pass, or raise Problem."""
        self._limit(req)
        if self._tokens:
            if req.path not in OPEN:
                self._check_token(req)
        elif self._options.local and _host(req.get_header("Host") or "") not in LOCAL_NAMES:
            raise Problem(
                403, "wrong_host", "this gateway is for its own machine; ask for it as 127.0.0.1 or localhost"
            )
        if req.method not in SAFE:
            self._check_origin(req)

    def _check_token(self, req: falcon.Request) -> None:
        scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
        given = token.strip().encode()
        # Each one is compared, and each in full, so that the time says nothing.
        found = [hmac.compare_digest(given, known) for known in self._tokens]
        if scheme.lower() != "bearer" or not any(found):
            raise Problem(
                401,
                "token",
                "this gateway needs a token that it knows: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="tasklets"'},
            )

    def _check_origin(self, req: falcon.Request) -> None:
        origin = req.get_header("Origin")
        if origin is not None and origin.partition("://")[2] != (req.get_header("Host") or ""):
            raise Problem(403, "origin", f"a page of {origin} may change nothing here")

    def _limit(self, req: falcon.Request) -> None:
        rate = self._options.rate
        if not rate:
            return
        now = monotonic()
        address = req.remote_addr
        room, since = self._buckets.pop(address, (rate * BURST, now))
        room = min(rate * BURST, room + (now - since) * rate)
        self._buckets[address] = (max(0.0, room - 1.0), now)
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        if room < 1.0:
            wait = max(1, round((1.0 - room) / rate))
            raise Problem(
                429,
                "rate",
                f"{address} has asked more than {rate:g} times per second; ask again in {wait} s, and for what changes "
                "with ?wait= or GET /events",
                headers={"Retry-After": str(wait)},
            )


def _host(header: str) -> str:
    host, colon, port = header.rpartition(":")
    return (
        host.lower() if colon and (port.isdigit() or not port) and not port.endswith("]") else header.lower()
    )
