"""The layout of a program of your own: what can be done, who wants it, and workers; see README.md beside this file."""
