"""Which modules are compiled where that is possible: those that every message passes through. setup.py reads it.

They know each other's types, and those of the core: so all are used or none (tasklets._which_form).
"""

from typing import Final

HOT: Final = (
    "_apart",
    "_bulk",
    "_codec",
    "_entries",
    "_exports",
    "_grants",
    "_landing",
    "_large",
    "_link",
    "_protocol",
    "_references",
    "_runway",
    "_session",
    "_window",
)
TYPES: Final = (
    "_apart.pxd",
    "_bulk.pxd",
    "_codec.pxd",
    "_exports.pxd",
    "_grants.pxd",
    "_landing.pxd",
    "_link.pxd",
    "_protocol.pxd",
    "_references.pxd",
    "_runway.pxd",
    "_session.pxd",
    "_window.pxd",
    "../tasklets/_core.pxd",
)
SOURCES: Final = (*(f"{name}.py" for name in HOT), *TYPES)  # of what they are made
