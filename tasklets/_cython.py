"""Stands in for the module `cython` in `_core`, which Cython itself knows without importing it."""

compiled = False
