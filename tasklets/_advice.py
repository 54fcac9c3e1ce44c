"""What to do instead, for the errors of wrong calls. Compatibility mode keeps Stackless's bare texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasklets import _core
from tasklets._errors import DeadlockError, TaskletExit
from tasklets.debug import report

if TYPE_CHECKING:
    from tasklets._core import tasklet

ALREADY_BOUND = """
    one = tasklet(work)(1)
    one(2)                          # wrong: it has its arguments
    tasklet(work)(2)                # right: another tasklet"""

FINISHED = """
It was never given its arguments, or it has ended; an ended tasklet can be bound again, or a new one be made:
    one.run()                       # wrong: it has ended
    one.bind(work)(1, 2)            # right
    tasklet(work)(1, 2)             # right"""

SUICIDE = """a tasklet killed itself. To end a tasklet, let its function return:
    getcurrent().kill()             # wrong
    return                          # right"""

_ADVICE = {
    "tasklet function must be a callable or None": """
Probably you called the function yourself:
    tasklet(work(1, 2))             # wrong
    tasklet(work)(1, 2)             # right""",
    "tasklet is alive": ALREADY_BOUND,
    "the tasklet was not bound to a function": """
    tasklet()(1, 2)                 # wrong: which function?
    tasklet(work)(1, 2)             # right""",
    "tasklet is scheduled": """
    one.bind(work)                  # wrong: it is in line, or blocked
    one.remove(); one.bind(work)    # right, if it did not start; otherwise kill() it first""",
    "can't (re)bind the current tasklet": """
    getcurrent().bind(work)         # wrong: it is running
    tasklet(work)(1, 2)             # right: another tasklet""",
    "tasklet has C state on its stack": """
It has started, and what it has done so far cannot be moved or replaced:
    one.bind(work)                  # wrong
    one.kill(); one.bind(work)      # right""",
    "can't (re)bind a runnable tasklet": """
    one.bind_thread()               # wrong: it is in the line of its thread, or blocked
    one.remove(); one.bind_thread() # right, if it did not start""",
    "You cannot remove a blocked tasklet.": """
    one.remove()                    # wrong: it is in no line, but waits
    one.kill()                      # right, if it is to end; otherwise let its partner act""",
    "The current tasklet cannot be removed.": """
    getcurrent().remove()           # wrong: it is running
    schedule_remove()               # right: gives the turn away""",
    "You cannot run a blocked tasklet": """
    one.insert()                    # wrong: it waits, see one.waits_for
    orders.send(message)            # right: let its partner act; or one.throw(error)""",
    "You cannot run an unbound(dead) tasklet": FINISHED,
    "You cannot throw to a dead tasklet": """
    one.throw(KeyError)             # wrong: it has ended, or did not get its arguments yet
    if one.alive:                   # right
        one.throw(KeyError)""",
    "can't switch to a different thread.": """
    one.switch()                    # wrong: it belongs to another OS thread
    one.run()                       # right: it is the next to run there""",
    "Target thread isn't initialized": """
Its OS thread has ended, and all of its tasklets with it:
    one.insert()                    # wrong
    one.bind_thread(); one.insert() # right, if it did not start: it runs in this thread then""",
    "tasklet has no thread": """
Its OS thread has ended, and all of its tasklets with it:
    one.run()                       # wrong
    one.bind_thread(); one.run()    # right, if it did not start: it runs in this thread then""",
    "switch_trap": """
Nothing may switch here: in a callback (of set_schedule_callback, say), or while switch_trap() is not 0.
    def callback(previous, next):
        run()                       # wrong
        wishes.append(next)         # right: note it down, and act on it later, in a tasklet""",
    "a callback cannot use channels": """
    def callback(where, who, sending, will_block):
        log.send(who)               # wrong
        notes.append(who)           # right: note it down, and send it later, from a tasklet""",
    "this tasklet does not like to be blocked.": """
    one.block_trap = True           # or, in an atomic block: with atomic(): ...
    orders.receive()                # wrong: nobody is sending, so it would have to wait
    if orders.balance > 0:          # right
        orders.receive()""",
}


class Advice(_core.Wording):
    """Errors that begin with Stackless's texts, and go on with the wrong and the right call, or who waits on what."""

    atomic_refuses = True
    shares_contexts = False

    def deadlock(self, text: str, victim: tasklet | None, kind: type[Exception] = DeadlockError) -> Exception:
        return kind(report(text, victim))

    def block_trap(self, wish: str, victim: tasklet) -> Exception:
        why = "its block_trap is set" if victim.block_trap else "it is atomic"
        return self.misuse(_core.BLOCK_TRAP, f" ({why}, and it would have to wait: {wish})")

    def misuse(self, text: str, detail: str = "", kind: type[Exception] = RuntimeError) -> Exception:
        return kind(text + detail + _ADVICE.get(text, ""))

    def suicide(self) -> TaskletExit:
        return TaskletExit(SUICIDE)
