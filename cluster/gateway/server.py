"""The process of a gateway: gevent's WSGI server with limits, and an end that lets requests finish.

with Server("sqlite:///work.db", port=0) as server: print(server.url)
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any, Final

import gevent
from gevent import socket
from gevent.event import Event as Flag
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from cluster.errors import ClusterError, StoreUnavailable
from cluster.gateway.app import make_app
from cluster.gateway.options import PORT, Options
from cluster.gateway.service import Service
from cluster.gateway.submitting import origin_of
from cluster.gateway.uploads import Uploads
from cluster.gateway.webhooks import Webhooks
from net.addresses import TcpAddress, parse_address

log = logging.getLogger("cluster.gateway")

SKIP_BYTES: Final = 8 << 20
SKIP_SECONDS: Final = 2.0


class CannotServe(ClusterError):
    """The address cannot be used; the message says why and what to do."""


class Server:
    """One gateway. `run` blocks until it is told to stop; or use it as a context manager."""

    def __init__(
        self,
        store: str,
        group: str = "default",
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        options: Options | None = None,
        tls: tuple[str, str] | None = None,  # paths of the certificate and its key
    ) -> None:
        options = options or Options()
        where = parse_address(f"tcp://{f'[{host}]' if ':' in host else host}:{port}")
        assert isinstance(where, TcpAddress)
        if not where.is_loopback and not options.tokens:
            raise CannotServe(
                f"{host} can be reached from other machines, and whoever reaches the gateway can run work; give it a "
                "token that clients have to know: --token-file FILE"
            )
        try:
            webhooks = tuple(map(origin_of, options.webhooks))
        except ValueError as error:
            raise CannotServe(
                f"{error}; an origin is its beginning, such as https://ci.example.com"
            ) from None
        options = replace(options, local=where.is_loopback, webhooks=webhooks)
        self._host = host
        self.service = Service(store, group, options)
        self._uploads = Uploads(self.service)
        self._running = 0
        self._idle = Flag()
        self._stop = Flag()
        self._webhooks = Webhooks(self.service) if options.webhooks else None
        self._running_on: list[gevent.Greenlet[..., None]] = []  # beside requests
        self._where = (host, port)
        self._tls = _encrypted(tls)
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = self._server.server_port if self._server is not None else self._where[1]
        return f"http{'s' if self._tls else ''}://{host}:{port}"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request while it runs."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running <= 0:
                self._idle.set()

    def start(self) -> None:
        """Listen, and serve while tasklets run. Raises CannotServe."""
        listener = _listen(*self._where)
        self._server = _Server(
            listener,
            make_app(self.service, self._uploads),
            log=None,
            error_log=log,
            handler_class=_Handler,
            spawn=Pool(self.service.options.max_connections),
            **self._tls,
        )
        self._server.gateway = self
        self._server.start()
        try:
            self.service.check_store()
        except StoreUnavailable as error:
            log.warning("the store is away, and requests are answered 503 until it is there: %s", error)
        except ClusterError:  # it will never be there, or is none for us
            self.close()
            raise
        self._running_on.append(gevent.spawn(self._uploads.sweep_for_ever))
        if self._webhooks is not None:
            self._running_on.append(gevent.spawn(self._webhooks.run))

    def run(self, *, signals: bool = False) -> None:
        """Serve until `stop`. Blocks. With `signals`, SIGTERM and SIGINT stop it, and a second one at once."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                gevent.signal_handler(number, self._signalled)
        if self._server is None:
            self.start()
        self._stop.wait()
        self.close()

    def stop(self) -> None:
        """Let `run` return, when the requests that run have ended."""
        self._stop.set()

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._idle.set()
            self._running = 0
        self.stop()

    def close(self) -> None:
        """Take no more connections, let what runs finish within the grace, end. Blocks."""
        self.service.draining = True  # long polls and streams end, healthz says so, connections are not kept
        server = self._server
        if server is None:
            return
        server.stop_accepting()
        server.close()
        deadline = monotonic() + self.service.options.grace
        while self._running and monotonic() < deadline:
            self._idle.clear()
            self._idle.wait(deadline - monotonic())
        if self._running:
            log.warning("%d requests did not end within %g s", self._running, self.service.options.grace)
        server.stop(timeout=0)
        gevent.killall(self._running_on)
        self._running_on.clear()
        if self._webhooks is not None:
            self._webhooks.close()
        self.service.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listen(host: str, port: int) -> Any:
    """A socket that listens. Raises CannotServe."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotServe(f"there is no host {host!r}: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise CannotServe(
            f"cannot listen at {host}:{port} ({error.strerror}); is another gateway there? Give another port: --port, "
            "0 takes a free one"
        ) from error
    return listener


def _encrypted(tls: tuple[str, str] | None) -> dict[str, Any]:
    if tls is None:
        return {}
    from gevent import ssl

    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
    except (OSError, ValueError) as error:
        raise CannotServe(f"the certificate {tls[0]} with key {tls[1]} cannot be used: {error}") from error
    return {"ssl_context": context}


class _Server(WSGIServer):
    gateway: Server

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        client_socket.settimeout(self.gateway.service.options.idle)  # for the handshake, too
        try:
            return super().wrap_socket_and_handle(client_socket, address)
        except OSError as error:  # no TLS came, or it was cut
            log.info("%s: %s", address, error)
        finally:
            client_socket.close()


class _Handler(WSGIHandler):
    """One connection."""

    def __init__(self, sock: Any, address: Any, server: Any, rfile: Any = None) -> None:
        self._gateway: Server = server.gateway
        # Who says nothing, or takes nothing, for so long is gone.
        sock.settimeout(self._gateway.service.options.idle)
        # Head and body are two sends: without this, the second waits 40 ms for the client to acknowledge the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, address, server, rfile)  # type: ignore[call-arg]  # the stubs know it as another class

    def run_application(self) -> None:
        if self._gateway.service.draining:
            self.close_connection = True
        with self._gateway.answering():
            try:
                super().run_application()
            finally:
                self._skip_body()

    def _skip_body(self) -> None:
        """Read what was not read of a body, or the client would lose the answer; but not all of a refused upload."""
        body: Any = self.wsgi_input
        with gevent.Timeout(SKIP_SECONDS, False):  # type: ignore[arg-type]  # False: end the block silently
            try:
                for _ in range(SKIP_BYTES >> 16):
                    if not body.read(1 << 16):
                        return
            except OSError:
                pass
        self.close_connection = True
        body._chunked_input_error = True  # gevent's way to say that there is nothing to be read any more
