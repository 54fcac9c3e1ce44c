"""The prime search: a range cut into chunks, and workers that fetch the next one when they are ready.

The same files run in one process, in many processes and on many machines; see README.md beside this file.
"""
