"""`python -m examples.atm`; what it can do is in commands.py."""

import signal

# Loading the rest takes a quarter of a second, in which Ctrl-C would print a traceback; so it just ends the process
# until run_program() has an answer to it. (Where it was ignored from the start, it still is.)
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from examples.atm.commands import main
from examples.console import run_program

if __name__ == "__main__":
    run_program(main)
