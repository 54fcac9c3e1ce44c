"""A chat: the room is a job, what people say are signals. One of the two workers is killed in the middle.

python -m examples.cluster.chat
"""

from __future__ import annotations

from typing import Any

from cluster import Finish, Job
from examples.cluster.group import open_group
from tasklets import message


@message(name="chat.Say")
class Say:
    """Somebody says something."""

    who: str
    text: str


class Room(Job):
    """Keeps what was said. It lives in the store: no process has to stay alive for it, and it loses nothing."""

    def start(self, params: Any) -> None:
        """Open the room with a greeting."""
        self.data["lines"] = (f"welcome to the {self.name}",)

    def on_signal_chat_Say(self, said: Say) -> int:
        """Add a line; the answer is its number. One signal is handled at a time, so all see the same order."""
        self.data["lines"] += (f"{said.who}: {said.text}",)
        return len(self.data["lines"]) - 1

    def on_finish(self, signal: Finish) -> None:
        """Close the room; its result is all that was said."""
        self.finish(self.data["lines"])


def main() -> None:
    """Let two people talk, kill a worker meanwhile, and read it all."""
    with open_group(__spec__.name, workers=2) as group:
        room = group.client.start(Room, name="lobby")
        for number in range(1, 9):
            said = Say("ann" if number % 2 else "bob", f"line {number}")
            line = room.signal(said, timeout=60).value
            if line == 4:
                group.workers[0].kill()
                print(f"after line {line} one of {len(group.workers)} workers was killed")
        print(*room.data["lines"], sep="\n")
        room.signal(Finish("good night"), timeout=60)
        print(f"the room is {room.state}, and {len(room.result())} lines are kept")


if __name__ == "__main__":
    main()
