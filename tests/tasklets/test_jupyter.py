"""A real kernel: what runs in a notebook, what an interrupt leaves, and what a dying kernel takes along."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = [
    pytest.mark.real,
    # jupyter_client's own business: how it asks for an event loop, and sockets that it closes with it.
    pytest.mark.filterwarnings("ignore"),
]


class Kernel:
    """A kernel and a client that runs cells in it, one after the other."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", extra_arguments=["--log-level=ERROR"]
        )

    def send(self, code: str) -> str:
        return self.client.execute(code)

    def outputs(self, cell: str, until: str = "") -> str:
        """All that was written under a cell until it is done, or until a text appears; what is under others is not."""
        text = ""
        while until not in text or not until:
            message = self.client.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                text += content["text"]
            elif message["msg_type"] == "error":
                text += f"{content['ename']}: {content['evalue']}\n"
            elif message["msg_type"] == "execute_result":
                text += content["data"]["text/plain"] + "\n"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        return text

    def run(self, code: str) -> str:
        return self.outputs(self.send(code))

    def interrupt_when(self, cell: str, text: str) -> str:
        """Interrupt the cell as soon as it has written a text, and return what it wrote after that."""
        assert text in self.outputs(cell, until=text)
        self.manager.interrupt_kernel()
        return self.outputs(cell)

    def pid(self) -> int:
        return int(self.run("import os; os.getpid()"))

    def end(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    one = Kernel()
    one.run("from tasklets import *")
    try:
        yield one
    finally:
        one.end()


TICKER = """
def tick():
    number = 0
    while True:
        sleep(0.02)
        number += 1
        print("tick", number)
ticker = tasklet(tick)()
"""


def test_a_cell_runs_tasklets_and_the_next_one_goes_on_with_them(kernel: Kernel) -> None:
    kernel.run("%load_ext tasklets.jupyter")
    first = kernel.run(
        "def show(messages):\n for one in messages: print('got', one)\n"
        "messages = channel(name='messages')\ntasklet(show)(messages)\nmessages.send(1)"
    )
    second = kernel.run("messages.send(2)")
    stuck = kernel.run("channel(name='nobody').receive()")

    assert first == "got 1\n"
    assert second == "got 2\n"  # under the cell that sent, not under the one that started the tasklet
    assert stuck.startswith("DeadlockError: Deadlock")
    assert "show waits: receive from <channel 'messages' balance=-1 open>, at cell 3:2 in show" in stuck


def test_an_interrupt_ends_the_cell_and_leaves_kernel_and_tasklets_usable(kernel: Kernel) -> None:
    kernel.run("%load_ext tasklets.jupyter")

    ended = kernel.interrupt_when(kernel.send(TICKER + "run()"), "tick 2")
    listed = kernel.run("%tasklets")
    went_on = kernel.run("sleep(0.1)")
    killed = kernel.run("%tasklets kill")

    assert ended.endswith("KeyboardInterrupt: \n")
    assert listed.startswith("tick waits: sleep(0.02), at cell 3:4 in tick")
    assert went_on.startswith("tick ")
    assert killed == "ended 1 tasklets\n"
    assert kernel.run("run(); ticker.alive, 1 + 1") == "(False, 2)\n"


@pytest.mark.parametrize(
    "waits",
    [
        "while True: pass",
        "while True: schedule()",
        "sleep(100)",
        "import gevent.event; gevent.event.Event().wait(100)",
    ],
)
def test_an_interrupt_ends_whatever_a_tasklet_does(kernel: Kernel, waits: str) -> None:
    cell = kernel.send(f"def work():\n print('begun')\n {waits}\none = tasklet(work)(); run()")

    assert kernel.interrupt_when(cell, "begun").endswith("KeyboardInterrupt: \n")
    assert kernel.run("one.kill(); run(); 1 + 1") == "2\n"


def test_in_the_background_tasklets_go_on_between_cells(kernel: Kernel) -> None:
    kernel.run("%load_ext tasklets.jupyter")
    cell = kernel.send(TICKER + "%tasklets background")
    kernel.outputs(cell)  # until the cell is done: what comes now comes while the kernel is idle

    assert "tick 3\n" in kernel.outputs(cell, until="tick 3\n")
    assert kernel.run("%tasklets foreground") == ""
    assert kernel.run("ticker.alive") == "True\n"


def test_a_failure_in_the_background_is_shown_and_the_others_go_on(kernel: Kernel) -> None:
    kernel.run("%load_ext tasklets.jupyter")
    cell = kernel.send(TICKER + "def fail():\n sleep(0.05)\n 1 / 0\ntasklet(fail)()\n%tasklets background")
    kernel.outputs(cell)

    assert "ZeroDivisionError" in kernel.outputs(cell, until="ZeroDivisionError")
    assert "tick 9" in kernel.outputs(cell, until="tick 9")


def test_a_background_tasklet_that_computes_for_ever_can_be_interrupted(kernel: Kernel) -> None:
    kernel.run("%load_ext tasklets.jupyter")
    cell = kernel.send(
        "def spin():\n print('spins')\n while True: pass\nspinner = tasklet(spin)()\n%tasklets background"
    )
    kernel.outputs(cell)
    kernel.outputs(cell, until="spins")

    kernel.manager.interrupt_kernel()

    assert "the tasklets stand still now" in kernel.outputs(cell, until="stand still")
    assert kernel.run("1 + 1") == "2\n"


CHILDREN = """
import os, subprocess, net
place = net.open_place("processes:2")
print(subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout)
"""


def children_of(kernel: Kernel) -> list[int]:
    rows = [row.split(None, 1) for row in kernel.run(CHILDREN).splitlines() if "net._child" in row]
    assert len(rows) == 2
    return [int(pid) for pid, _ in rows]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"processes {left} outlive their kernel"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_an_interrupt_ends_the_processes_of_a_place(kernel: Kernel) -> None:
    cell = kernel.send(
        "import net, time\nwith net.open_place('processes:2') as place:\n"
        " print('open'); place.spawn(time.sleep, 100).join()"
    )

    assert kernel.interrupt_when(cell, "open").endswith("KeyboardInterrupt: \n")
    assert "net._child" not in kernel.run(
        "import os, subprocess\n"
        "subprocess.run(['ps', '-o', 'args=', '--ppid', str(os.getpid())], capture_output=True, text=True).stdout"
    )


@pytest.mark.parametrize("end", ["restart", "shutdown", "kill"])
def test_no_process_outlives_its_kernel(kernel: Kernel, end: str) -> None:
    pids = children_of(kernel)
    kernel.run("import time; [place.spawn(time.sleep, 100) for _ in range(2)]")

    if end == "restart":
        kernel.manager.restart_kernel()
    elif end == "shutdown":
        kernel.manager.shutdown_kernel()
    else:
        os.kill(kernel.pid(), 9)

    wait_until_gone(pids)


def test_loading_it_patches_nothing_and_needs_no_jupyter() -> None:
    import tasklets.jupyter

    assert not [name for name in ("IPython", "ipykernel") if hasattr(tasklets.jupyter, name)]
    assert "gevent.monkey" not in sys.modules or not sys.modules["gevent.monkey"].saved
