"""redis-py's connections on gevent's sockets: a tasklet that waits for the server holds up no other."""

from __future__ import annotations

from typing import Any, Final

import redis
from gevent import socket, ssl


class GeventConnection(redis.Connection):
    """redis-py's connection on gevent's socket."""

    def _connect(self) -> Any:
        connection = socket.create_connection((self.host, self.port), timeout=self.socket_connect_timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self.socket_timeout)
        return connection


class _TlsConnection(redis.SSLConnection, GeventConnection):
    """The same with TLS. The url says what to trust: `rediss://HOST:PORT/0?ssl_ca_certs=/etc/ca.pem`."""

    def _connect(self) -> Any:
        context = self._tls()
        plain = GeventConnection._connect(self)
        try:
            return context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLError as error:
            plain.close()
            raise redis.AuthenticationError(str(error)) from error  # to try again would not help
        except OSError:
            plain.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = bool(self.check_hostname)
        context.verify_mode = ssl.VerifyMode(self.cert_reqs)
        try:
            if self.ca_certs or self.ca_path or self.ca_data:
                context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
            else:
                context.load_default_certs()
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        except OSError as error:  # a file that is not there, or holds no certificate
            files = ", ".join(filter(None, [self.ca_certs, self.ca_path, self.certfile, self.keyfile]))
            raise redis.AuthenticationError(f"{files}: {error}") from error
        return context


class _UnixConnection(redis.UnixDomainSocketConnection):
    """The same for a Unix socket."""

    def _connect(self) -> Any:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.socket_connect_timeout)
        connection.connect(self.path)
        connection.settimeout(self.socket_timeout)
        return connection


CONNECTIONS: Final = {"redis": GeventConnection, "rediss": _TlsConnection, "unix": _UnixConnection}
