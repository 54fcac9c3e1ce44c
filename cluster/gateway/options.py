"""What a gateway is told when it starts."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from cluster.errors import ClusterError

PORT: Final = 30000
MIN_TOKEN_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are bytes, times seconds."""

    allow_shell: bool = (
        False  # take templates; whoever reaches the gateway can then run programs on the workers
    )
    tokens: tuple[str, ...] = ()  # one of them has to come with each request; none: nobody is asked
    local: bool = True  # listens to this machine only
    max_body: int = 16 << 20  # of a request that is held in memory
    max_upload: int = 4 << 30  # of a list of inputs that is streamed
    max_line: int = 1 << 20  # of such a list
    max_payload: int = 1 << 20  # of a task's arguments
    max_inputs: int = 10_000_000  # of a job
    rate: float = 200.0  # requests per second of one address, for long; ten times as many at once. 0: any
    max_connections: int = 1000
    max_watchers: int = 100  # event streams
    max_wait: float = 60.0  # of a long poll
    idle: float = 60.0  # a connection that says, or takes, nothing for so long is closed
    patience: float = 2.0  # a store that is away is waited for so long before 503
    retry_after: int = 2  # what is said with 503
    grace: float = 10.0  # for requests that run when the gateway is to end
    poll: float = 0.5  # of the journal, for event streams, when no hint comes
    webhooks: tuple[str, ...] = ()  # origins at which jobs may have their ends told
    webhook_lease: float = 10.0  # a gateway that tells them, and was not heard of for so long, is gone
    upload_ttl: float = 60.0  # an upload that did not go on for so long has broken off


def read_tokens(path: str) -> tuple[str, ...]:
    """Read a file with a token on each line; several, so that one can be replaced without a moment without any.

    Raises ClusterError for a file that cannot be read, is open to everybody, or has a token that can be guessed.
    """
    try:
        with open(path, encoding="utf-8") as file:
            open_to_all = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"the tokens in {path} cannot be read: {error}") from error
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if open_to_all:
        raise ClusterError(f"everybody on this machine can read {path}; say: chmod 600 {path}")
    if not tokens:
        raise ClusterError(f"{path} has no token; make one: (umask 077; openssl rand -hex 32 > {path})")
    for token in tokens:
        if (
            len(token) < MIN_TOKEN_CHARACTERS
            or not token.isascii()
            or not token.isprintable()
            or " " in token
        ):
            raise ClusterError(
                f"{path} has a token of {len(token)} characters; it has to have at least {MIN_TOKEN_CHARACTERS}, of "
                f"printable ASCII without blanks: (umask 077; openssl rand -hex 32 > {path})"
            )
    return tokens
