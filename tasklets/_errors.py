"""Every exception of the package: one class per reaction a caller could have.

Shared meanings also inherit the builtin (`TimeoutError`, `ValueError` ...), so code that knows nothing of
tasklets can catch them. Never compiled, so that tracebacks and `isinstance` mean the same with both cores.
"""


class TaskletError(Exception):
    """The root of what this package raises, `TaskletExit` apart."""


class TaskletExit(SystemExit):
    """Ends the tasklet it is raised in, silently.

    It is a `SystemExit`, as in Stackless, so that `except Exception` does not stop a kill. Catch it only to
    clean up, then let it go on.
    """


class DeadlockError(TaskletError, RuntimeError):
    """Nothing can ever run again: the message lists who waits on what, and where."""


class ChannelClosed(TaskletError, ValueError):
    """The channel was closed, and this operation would have had to wait.

    `channel` is that channel; None for an error that another process has sent as a message.
    """

    def __init__(self, message: str = "", channel: object = None) -> None:
        super().__init__(message)
        self.channel = channel


class Timeout(TaskletError, TimeoutError):
    """The time given to `timeout`, `select` or an operation is over."""


class NotSendable(TaskletError, TypeError):
    """A value, or a part of it, cannot travel over a channel.

    `path` leads to the offending part, for example `value.items[3]['owner']`.
    """

    def __init__(self, message: str, path: str = "value") -> None:
        super().__init__(message)
        self.path = path


class RemoteError(TaskletError):
    """A failure that happened in another process, as data.

    `kind` is the name of the exception's class there, `message` its text, `traceback_text` the formatted
    traceback there (may be empty).
    """

    def __init__(self, kind: str, message: str, traceback_text: str = "") -> None:
        super().__init__(kind, message, traceback_text)
        self.kind = kind
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class InternalError(TaskletError):
    """A state that should be impossible. Please report it, with what the program did."""
