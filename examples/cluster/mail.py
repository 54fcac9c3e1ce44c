"""E-mail, batched per topic: news that come within a second become one mail, which has all of them.

python -m examples.cluster.mail
"""

from __future__ import annotations

from cluster import Context, operation
from examples.cluster.group import open_group

NEWS = [
    ("football", "the match begins"),
    ("weather", "it rains"),
    ("football", "one to nil"),
    ("football", "the match is over"),
    ("weather", "it still rains"),
    ("opera", "the tickets are sold out"),
    ("weather", "sun!"),
]


@operation(coalesce=1.0)  # seconds that the first one waits for others with the same coalesce key
def send_mail(ctx: Context, topic: str, _news: str) -> str:
    """Send one mail about everything that came for its topic; `ctx.batch` has the arguments of each."""
    lines = [news for _, news in ctx.batch]
    return f"To: readers of {topic}\nSubject: {len(lines)} news\n  " + "\n  ".join(lines)


def main() -> None:
    """Submit one task for each of the news, and show the mails that are sent."""
    with open_group(__spec__.name, workers=2) as group:
        handles = [
            group.client.with_options(coalesce_key=topic).submit(send_mail, topic, news)
            for topic, news in NEWS
        ]
        mails = dict.fromkeys(handle.result(timeout=60) for handle in handles)  # merged ones have one result
        print(*mails, sep="\n")
        print(f"{len(NEWS)} news in {len(mails)} mails")


if __name__ == "__main__":
    main()
