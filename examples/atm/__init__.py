"""A bank and its cash machines: typed messages, a ledger that survives crashes, each transaction once.

Start with `python -m examples.atm --help`; README.md beside this file says what to look at.
"""
