"""Starting nodes: as processes here, or on another host by the system's own ssh.

A template says how; it lies in the store, so that whoever notices that a node is missing can start one. A node
outlives whoever started it: it has a session of its own and a log, and its pid is in the list of members.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from gevent import subprocess

from cluster.errors import ClusterError, SpawnFailed

TAIL_BYTES = 2000  # of what a process that failed to start has printed


@dataclass(frozen=True, slots=True)
class NodeTemplate:
    """How to start a node of a role."""

    role: str
    store: str
    group: str
    options: tuple[str, ...] = ()  # of `tasklets cluster worker` or `coordinator`
    folder: str = ""  # the working folder, where modules are found too
    environ: Mapping[str, str] = field(default_factory=dict)
    host: str = ""  # "" is this machine; else a name that ssh knows
    python: str = ""

    def command(self, node: str, spawn_id: str) -> list[str]:
        """The command of one node. The store's url, which may hold a password, is in `variables`, not here."""
        return [
            self.python or sys.executable, "-m", "cluster", self.role, "--group", self.group, "--name", node,
            "--spawn-id", spawn_id, *self.options,
        ]  # fmt: skip

    def variables(self) -> dict[str, str]:
        """What the node's environment has to say."""
        return {**self.environ, "CLUSTER_STORE": self.store}

    def dumps(self) -> str:
        """Its text for the store."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> NodeTemplate:
        """The template of a text. Raises ClusterError."""
        try:
            row = json.loads(text)
            return cls(**{**known_fields(cls, row), "options": tuple(row["options"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ClusterError(f"this is no node template: {error}: {text[:200]}") from error


def known_fields(cls: type, row: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a row that a record has; a newer release may have written more."""
    return {name: value for name, value in row.items() if name in cls.__slots__}  # type: ignore[attr-defined]


class Started(Protocol):
    """A node on its way."""

    def poll(self) -> int | None:
        """The exit code if it has ended."""

    def tail(self) -> str:
        """The end of what it has printed."""

    def stop(self) -> None:
        """End it."""


class Provisioner(Protocol):
    """Something that can start nodes. An own one may ask a cloud for a machine."""

    def start(self, template: NodeTemplate, node: str, spawn_id: str) -> Started:
        """Start a node under this name. Raises SpawnFailed."""


class LocalProvisioner:
    """Starts processes of this machine."""

    def __init__(self, log_folder: str | None = None) -> None:
        self.log_folder = log_folder or os.path.join(tempfile.gettempdir(), f"tasklets-logs-{os.getuid()}")

    def start(self, template: NodeTemplate, node: str, spawn_id: str) -> Started:
        path = [template.folder] if template.folder else []
        environ = {**os.environ, **template.variables()}
        environ.pop("CLUSTER_FAIL", None)  # a test's, for one process
        environ["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])])
        return self._launch(template.command(node, spawn_id), node, environ, template.folder or None)

    def _launch(
        self, command: list[str], node: str, environ: Mapping[str, str], folder: str | None, told: str = ""
    ) -> Started:
        """Start a command with a log. `told` is its standard input, in a file that nobody else can open."""
        os.makedirs(self.log_folder, mode=0o700, exist_ok=True)
        log = os.path.join(self.log_folder, f"{node}.log")
        try:
            with open(log, "ab") as output, tempfile.TemporaryFile() as told_file:
                told_file.write(told.encode())
                told_file.seek(0)
                process = subprocess.Popen(
                    command,
                    stdin=told_file,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=dict(environ),
                    start_new_session=True,  # it outlives us, and Ctrl-C here is not its business
                )
        except OSError as error:
            raise SpawnFailed(
                f"{node} could not be started: {error}; the command was {shlex.join(command)}"
            ) from error
        return _StartedProcess(process, log)


class SshProvisioner(LocalProvisioner):
    """Starts processes of other machines with `ssh HOST`, which must log in without asking.

    The other machine needs the same package, and the program's modules in the template's folder. The local
    process is the ssh client: it lives as long as the node does. The node's variables go through its standard
    input: a command line can be listed by everybody on either machine, and the store's url may hold a password.
    """

    def start(self, template: NodeTemplate, node: str, spawn_id: str) -> Started:
        remote = f'eval "$(cat)" && exec {shlex.join(template.command(node, spawn_id))}'
        variables = dict(template.variables())
        if template.folder:
            quoted = shlex.quote(template.folder)
            remote = f"cd {quoted} && export PYTHONPATH={quoted}:$PYTHONPATH && {remote}"
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
        command = ["ssh", "-o", "BatchMode=yes", template.host, f"exec sh -c {shlex.quote(remote)}"]
        return self._launch(command, node, os.environ, None, told=exports)


class _StartedProcess:
    def __init__(self, process: Any, log: str) -> None:
        self._process = process
        self._log = log

    def poll(self) -> int | None:
        return self._process.poll()  # type: ignore[no-any-return]

    def tail(self) -> str:
        try:
            with open(self._log, "rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - TAIL_BYTES))
                return log.read().decode("utf-8", "replace").strip()
        except OSError as error:
            return f"(its log is not readable: {error})"

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()


def provisioner_for(template: NodeTemplate) -> Provisioner:
    """The one that starts what a template describes."""
    if template.host and template.host not in ("localhost", socket.gethostname()):
        return SshProvisioner()
    return LocalProvisioner()
