"""Asking nodes for their status, again and again: `tasklets top`."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live

from net import _status, _top
from net._sockets import CONNECT_SECONDS
from net._status import NodeStatus
from net.errors import NetError
from net.node import get_node
from tasklets import TaskletError, nursery, sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.addresses import Address
    from net.security import Security


class Watch:
    """Some nodes that are asked, and what they said."""

    def __init__(self, addresses: list[Address], security: Security | None) -> None:
        self._addresses = addresses
        self._security = security
        self._before: dict[Address, NodeStatus] = {}
        self._now: dict[Address, NodeStatus] = {}
        self._problems: dict[Address, str] = {}
        self._live: Live | None = None

    def run(self, show: Callable[[], None], every: float | None) -> int:
        """Ask and show, once (None) or until Ctrl-C. Returns the exit code."""
        try:
            self._ask_all()
            show()
            while every is not None:
                sleep(every)
                self._ask_all()
                show()
        except KeyboardInterrupt:
            pass  # the usual way to leave
        finally:
            if self._live is not None:
                self._live.stop()
        return 1 if self._problems else 0

    def _ask_all(self) -> None:
        """All at once, so that one that does not answer delays the others once only."""
        self._before, self._now, self._problems = self._now, {}, {}
        with nursery() as asking:
            for address in self._addresses:
                asking.start(self._ask, address)

    def _ask(self, address: Address) -> None:
        try:
            found = get_node().find(address, _status.NAME, CONNECT_SECONDS, self._security).receive()
            if isinstance(found, NodeStatus):
                self._now[address] = found
            else:
                self._problems[address] = f"it answers {type(found).__name__}; does it run another release?"
        except (NetError, TaskletError) as error:
            self._problems[address] = str(error)

    def print_tables(self) -> None:
        """Draw it on the terminal, over what was drawn before."""
        drawn = Group(
            *(
                _top.draw(
                    str(address),
                    self._now.get(address),
                    self._problems.get(address, ""),
                    _top.rates(self._before.get(address), self._now[address]) if address in self._now else {},
                )
                for address in self._addresses
            )
        )
        console = Console()
        if not console.is_terminal:
            console.print(drawn)
            return
        if self._live is None:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
        self._live.update(drawn, refresh=True)

    def print_json(self) -> None:
        """Print one line per node."""
        for address in self._addresses:
            found = self._now.get(address)
            record = {"address": str(address), "problem": self._problems.get(address)}
            print(json.dumps(record | (dataclasses.asdict(found) if found is not None else {})))
        sys.stdout.flush()
