"""Numbered messages both ways at once, through a proxy that cuts the connection in the middle of whatever passes.

    python -m tests.behaviour.soak_cuts                                     1 000 000 messages, 1000 cuts; a few minutes
    python -m tests.behaviour.soak_cuts --messages 20000 --cuts 50

Five flows: sent ahead to a channel with room, each way; rendezvous, each way; and received from afar. Every message has
to come once, in order.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from time import monotonic

import net
from net.node import get_node
from net.testing import cutting_proxy
from tasklets import channel, tasklet

ROOT = Path(__file__).parents[2]
# Of all messages, in each flow. A rendezvous costs a round trip.
SHARES = {"up ahead": 0.38, "down ahead": 0.38, "up meeting": 0.09, "down meeting": 0.09, "pulled": 0.06}
PATIENCE = 60.0


def count_up(where: channel, count: int) -> None:
    for number in range(count):
        where.send(number)
    where.close()


def check(where: channel, count: int, done: channel, flow: str) -> None:
    """Receive 0, 1, 2 ... to the end."""
    wrong = ""
    due = 0
    for number in where:
        if number != due and not wrong:
            wrong = f"{flow}: {number} came, but {due} was due"
        due += 1
    done.send(wrong or ("" if due == count else f"{flow}: {due} of {count} came"))


def shares(messages: int) -> dict[str, int]:
    return {flow: int(messages * share) for flow, share in SHARES.items()}


# ------------------------------------------------------------------------------------------------ the other process


def serve(messages: int) -> None:
    """Take what is sent up, send what goes down; ends when it is told to."""
    net.configure(patience=PATIENCE)
    counts = shares(messages)
    ahead, meeting, pulled, control = channel(256), channel(), channel(), channel()
    with net.serve(
        "tcp://127.0.0.1:0", ahead=ahead, meeting=meeting, pulled=pulled, control=control
    ) as server:
        print(server.address, flush=True)
        down_ahead, down_meeting, done = control.receive()
        tasklet(check)(ahead, counts["up ahead"], done, "up ahead")
        tasklet(check)(meeting, counts["up meeting"], done, "up meeting")
        tasklet(count_up)(down_ahead, counts["down ahead"])
        tasklet(count_up)(down_meeting, counts["down meeting"])
        tasklet(count_up)(pulled, counts["pulled"])
        control.receive()


# ------------------------------------------------------------------------------------------------------- this process


def soak(messages: int, cuts: int, seed: int = 0) -> tuple[list[str], int, float]:
    """What went wrong, how often the connection was cut, and how many seconds it took."""
    counts = shares(messages)
    # A message with what it is answered by is some 30 bytes ahead, 80 as a rendezvous, 110 pulled.
    bytes_per_cut = max(64, messages * 26 // cuts)
    before = net.configure()
    net.configure(patience=PATIENCE)
    command = [sys.executable, "-m", "tests.behaviour.soak_cuts", "--serve", "--messages", str(messages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            # Room for the two HELLOs, or nothing would ever come through.
            limits = (1000, 2 * bytes_per_cut + 1000)
            with cutting_proxy(address, seed=seed, cut_after=limits) as proxy:
                started = monotonic()
                failures = _exchange(proxy.address, counts)
                return failures, proxy.cuts, monotonic() - started
        finally:
            net.configure(patience=before.patience)
            process.kill()


def _exchange(address: str, counts: dict[str, int]) -> list[str]:
    ahead, meeting, pulled, control = (
        net.connect(f"{address}/{name}") for name in ("ahead", "meeting", "pulled", "control")
    )
    down_ahead, down_meeting, done = channel(256), channel(), channel(5)
    control.send((down_ahead, down_meeting, done))
    tasklet(count_up)(ahead, counts["up ahead"])
    tasklet(count_up)(meeting, counts["up meeting"])
    tasklet(check)(down_ahead, counts["down ahead"], done, "down ahead")
    tasklet(check)(down_meeting, counts["down meeting"], done, "down meeting")
    tasklet(check)(pulled, counts["pulled"], done, "pulled")
    failures = [failure for failure in (done.receive() for _ in SHARES) if failure]
    (link,) = {link for link in get_node().links if link.address is not None}
    link.close("done")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument(
        "--cuts", type=int, default=1000, help="how many there are to be, about (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.messages)
        return
    failures, cuts, seconds = soak(options.messages, options.cuts, options.seed)
    print(
        f"{options.messages} messages, {cuts} cuts, {seconds:.1f} s: {'; '.join(failures) or 'all came once, in order'}"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
