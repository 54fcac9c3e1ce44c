"""A cash machine: sends orders, asks again when no answer comes, pays out only after Ok (ATM-04, ATM-05).

atm = Atm("atm-1", dial=dial("tcp://127.0.0.1:7000/bank"))
reply = atm.withdraw("alice", "1111", 2000)
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import net
from examples.atm.lanes import Lanes
from examples.atm.messages import (
    Attach,
    Declined,
    Deposit,
    Frozen,
    Ok,
    Order,
    Reason,
    Reply,
    Request,
    Reverse,
    Withdraw,
)
from net.errors import PeerLost, PeerUnreachable
from tasklets import ChannelClosed, NotSendable, Timeout, channel, freeze, sleep, tasklet, timeout
from tasklets.clock import monotonic

PATIENCE = 2.0  # seconds after which the customer hears that the bank is away (ATM-09)
ASK_AGAIN = 0.5  # seconds without an answer after which the same txn is sent once more
FIRST_PAUSE = 0.05  # seconds before dialling again, doubled each time
LONGEST_PAUSE = 2.0  # seconds; a machine is never further from a bank that is back


class BankAway(Exception):
    """The bank did not answer in time.

    When `sent`, it may have heard the order all the same; what became of it is settled before the next
    one. When not, nothing has happened and nothing will.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Jammed(Exception):
    """The notes did not come out."""


class Line(Protocol):
    """The way to the bank: its channel of requests, or a reference to it."""

    def send(self, request: Request | Attach, /) -> None:
        """Have the bank take a request. Raises PeerLost, ChannelClosed."""


def dial(url: str) -> Callable[[], Line]:
    """Return how a machine dials the bank at `url`. All machines of this process share one connection."""

    def connect() -> Line:
        with _dialling.hold(url):  # the first one connects, the others find it connected
            return net.connect(url)

    return connect


_dialling = Lanes()


def make_txn() -> str:
    """Make a transaction id that nobody else makes: 12 digits of time, in milliseconds, and 20 of chance.

    The bank's index of them grows at its end that way, where it is in memory, and not all over.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class Drawer:
    """Where the cash of one machine goes in and out; counts both, as the proof of the books."""

    def __init__(self) -> None:
        self.taken_in = 0
        self.paid_out = 0

    def __repr__(self) -> str:
        return f"<Drawer in={self.taken_in} out={self.paid_out}>"

    def take_in(self, amount: int) -> None:
        """Keep the notes that a customer put in."""
        self.taken_in += amount

    def pay_out(self, amount: int) -> None:
        """Hand notes to the customer. Raises Jammed, and then none came out."""
        self.paid_out += amount


class Atm:
    """One machine with its line to the bank. For one tasklet at a time, like the machine itself.

    `dial` returns the bank's channel of requests; it is called again after the line broke. `on_answer`
    hears of every order once, when its answer is there: what the roll of paper inside the machine is
    for. `on_frozen` hears of every account that the bank locks, wherever that happened, at once (ATM-10).
    """

    def __init__(
        self,
        name: str,
        dial: Callable[[], Line],
        drawer: Drawer | None = None,
        *,
        on_answer: Callable[[Order, Reply], None] = lambda order, reply: None,
        on_frozen: Callable[[str], None] | None = None,
        patience: float = PATIENCE,
        ask_again: float = ASK_AGAIN,
    ) -> None:
        self.name = name
        self.drawer = drawer or Drawer()
        self.asked_again = 0
        self._dial = dial
        self._on_answer = on_answer
        self._line: Line | None = None
        self.patience = patience
        self._ask_again = ask_again
        # Lives here, so it outlives the line. Room for answers that come twice or too late: the bank
        # never waits for us, and we skip what is not the answer to the present txn.
        self._replies = channel(16, f"replies to {name}", copy=True)
        self._unsettled: deque[Request] = deque()  # sent, or about to be, and not answered yet
        self._news: channel | None = None
        if on_frozen is not None:
            self._news = channel(16, f"news to {name}", copy=True)
            tasklet(_listen)(self._news, on_frozen)

    def __repr__(self) -> str:
        return f"<Atm {self.name!r} unsettled={len(self._unsettled)}>"

    @property
    def unsettled(self) -> tuple[Order, ...]:
        """The orders that the bank has not answered yet."""
        return tuple(request.order for request in self._unsettled)

    def ask(self, order: Order) -> Reply:
        """Have the bank do one order, once, and return its answer. Blocks.

        Settles first what an earlier failure left open. Raises BankAway.
        """
        return self._ask(self._request(order))

    def withdraw(self, account: str, pin: str, amount: int) -> Reply:
        """Withdraw cash; it comes out after Ok. Blocks.

        Raises BankAway or Jammed: nothing came out, and the withdrawal is booked back when it had been
        booked.
        """
        request = self._request(Withdraw(account, pin, amount))
        reply = self._ask(request)
        if isinstance(reply, Ok):
            try:
                self.drawer.pay_out(amount)
            except Jammed:
                self._unsettled.append(self._reversal(request))
                self.settle()
                raise
        return reply

    def deposit(self, account: str, amount: int) -> Reply:
        """Pay cash in. Blocks.

        Raises BankAway: the machine keeps the cash, and books it when the bank is back; or, when the
        order was not sent, gives it back.
        """
        reply = self.ask(Deposit(account, amount))
        if isinstance(reply, Ok):
            self.drawer.take_in(amount)
        return reply

    def connect(self) -> Line:
        """Dial the bank unless the line is up. Raises what dialling raises."""
        if self._line is None:
            line = self._dial()
            if self._news is not None:
                line.send(Attach(self.name, self._news))
            self._line = line
        return self._line

    def settle(self) -> None:
        """Find out what became of unanswered orders, and set it right. Blocks. Raises BankAway.

        Those customers were told: no cash came out, and everything else will be done. So a withdrawal
        that the bank had booked is booked back, and the rest is carried out.
        """
        while self._unsettled:
            request = self._unsettled[0]
            reply = self._finish(request)
            if isinstance(reply, Ok) and isinstance(request.order, Withdraw):
                self._unsettled.append(self._reversal(request))
            elif isinstance(reply, Ok) and isinstance(request.order, Deposit):
                self.drawer.take_in(request.order.amount)

    def _request(self, order: Order) -> Request:
        return Request(make_txn(), self.name, datetime.now(UTC), order, self._replies)

    def _reversal(self, request: Request) -> Request:
        assert isinstance(request.order, Withdraw)
        return self._request(Reverse(request.order.account, request.txn))

    def _ask(self, request: Request) -> Reply:
        try:
            self.settle()
        except BankAway as away:
            raise BankAway(str(away), sent=False) from away
        self._unsettled.append(request)
        try:
            return self._finish(request)
        except BankAway as away:
            if not away.sent:
                self._unsettled.pop()
            raise
        except NotSendable:  # what cannot travel is nothing to settle
            self._unsettled.pop()
            raise

    def _finish(self, request: Request) -> Reply:
        reply = self._deliver(request)
        self._unsettled.popleft()
        self._on_answer(request.order, reply)
        return reply

    def _deliver(self, request: Request) -> Reply:
        """Send until the answer to this txn is here; the bank does it once all the same (ATM-05)."""
        deadline = monotonic() + self.patience
        pause = FIRST_PAUSE
        why: Exception | None = None
        sent = False
        while (left := deadline - monotonic()) > 0:
            self.asked_again += why is not None
            limit = timeout(left)
            try:
                with limit:
                    line = self.connect()
                limit = timeout(min(self._ask_again, max(0.0, deadline - monotonic())))
                with limit:
                    sent = True
                    line.send(request)
                    reply = self._reply_to(request.txn)
                if not (isinstance(reply, Declined) and reply.reason is Reason.UNAVAILABLE):
                    return reply
                # No verdict on this txn: another copy of the request may still be done. So it is asked again.
                why = BankAway("it cannot write its books", sent=True)
                pause = self._pause(pause, deadline)
            except Timeout as silence:
                if not limit.expired:
                    raise  # a limit of our caller's
                why = why or silence
            except NotSendable as refused:
                # What is sent ahead may be refused late, and then the next to send over the line hears of it.
                freeze(request)  # raises when it is about this one
                why = refused
            except (PeerLost, PeerUnreachable, ChannelClosed) as broken:
                why = broken
                self._line = None
                pause = self._pause(pause, deadline)
        raise BankAway(f"the bank is away, no answer within {self.patience:g} s ({why})", sent=sent) from why

    def _pause(self, seconds: float, deadline: float) -> float:
        """Wait before the next try, and return how long to wait before the one after it."""
        # Jitter, so that a thousand machines do not come back in the same millisecond.
        sleep(min(seconds * random.uniform(0.5, 1.5), max(0.0, deadline - monotonic())))
        return min(seconds * 2, LONGEST_PAUSE)

    def _reply_to(self, txn: str) -> Reply:
        while True:
            reply: Reply = self._replies.receive()
            if reply.txn == txn:
                return reply


def _listen(news: channel, on_frozen: Callable[[str], None]) -> None:
    for message in news:
        if isinstance(message, Frozen):
            on_frozen(message.account)
