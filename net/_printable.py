"""Texts of strangers, without the power over a terminal or a log file that they may hold.

A node's name, a reason to end, an error message come from the other side. A line break in them would make a second line
of the log that nobody has written, an escape sequence change what a terminal shows.
"""


def printable(text: str) -> str:
    """Return a text with everything escaped that is not printed as a character: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
