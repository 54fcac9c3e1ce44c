"""Which modules are compiled where that is possible: those that every message passes through. setup.py reads it."""

from typing import Final

HOT: Final = (
    "_apart",
    "_bulk",
    "_codec",
    "_entries",
    "_exports",
    "_link",
    "_protocol",
    "_references",
    "_session",
    "_window",
)
MODULES: Final = {name: (f"{name}.py",) for name in HOT}  # of what each is made, see tasklets._which_form
