"""The command that serves a group by HTTP."""

from __future__ import annotations

import os

import click

from cluster.cli._common import cluster, common_options

_HELP = """Serve the group by HTTP until SIGTERM or Ctrl-C, which let requests finish.

\b
    tasklets cluster gateway                        http://127.0.0.1:30000: a page to look at, and:
    curl -H 'Content-Type: application/json' -d '{"operation": "myops:fib", "inputs": [20, 21]}' localhost:30000/jobs
    curl localhost:30000/jobs/ID?wait=5             its state, when it changes, or after 5 s
    curl localhost:30000/jobs/ID/results            what became of each input
    curl localhost:30000/openapi.json               everything else

A gateway keeps nothing, so any number of them serve one group, behind any balancer (GET /healthz), and one
that dies costs its requests only.

\b
Scripts instead of operations, one process for each input (also needs workers with --allow-shell):
    tasklets cluster gateway --allow-shell
    curl -H 'Content-Type: application/json' -d '{"template": "grep -c {{word}} \\"$1\\"",
         "variables": {"word": "foo"}, "inputs": ["/etc/hosts", "/etc/passwd"]}' localhost:30000/jobs

\b
For other machines it needs a token, and should have TLS, its own or that of a proxy before it:
    (umask 077; openssl rand -hex 32 > token)
    tasklets cluster gateway --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    curl -H "Authorization: Bearer $(cat token)" https://HOST:30000/jobs
"""


@cluster.command(help=_HELP)
@common_options
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=30000, show_default=True, help="0 takes a free one."
)
@click.option(
    "--token-file", type=click.Path(dir_okay=False), envvar="CLUSTER_TOKEN_FILE",
    help="A file with a token on each line, one of which every request has to bring. Also CLUSTER_TOKEN_FILE.",
)  # fmt: skip
@click.option(
    "--allow-shell",
    is_flag=True,
    help="Take templates: whoever reaches the gateway can run any program on the workers.",
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="A certificate, for https.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.option(
    "--max-body",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    metavar="MIB",
    help="Of a request of JSON.",
)
@click.option(
    "--max-upload", type=click.IntRange(1), default=4096, show_default=True, metavar="MIB",
    help="Of a list of inputs as lines (application/x-ndjson).",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0), default=200.0, show_default=True,
    help="Requests per second of one address; 0 is any.",
)  # fmt: skip
@click.option(
    "--webhook", "webhooks", multiple=True, metavar="ORIGIN",
    help="Tell addresses of https://HOST:PORT that a job has ended, if the job names one; several may be. Let all "
    "gateways of a group have the same.",
)  # fmt: skip
@click.option("--name", help="How it is called in the log.")
def gateway(
    store: str,
    group: str,
    host: str,
    port: int,
    token_file: str | None,
    allow_shell: bool,
    tls_cert: str | None,
    tls_key: str | None,
    max_body: int,
    max_upload: int,
    rate: float,
    webhooks: tuple[str, ...],
    name: str | None,
) -> None:
    try:
        from cluster.gateway.options import Options, read_tokens
        from cluster.gateway.server import Server
    except ImportError as error:
        raise click.ClickException(
            f'the gateway needs more packages: pip install "tasklets[gateway]" ({error})'
        ) from None
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    from cluster.settings import read_settings

    settings = read_settings()
    options = Options(
        allow_shell=allow_shell,
        tokens=read_tokens(token_file) if token_file else (),
        max_body=max_body << 20,
        max_upload=max_upload << 20,
        max_payload=settings.max_payload,
        rate=rate,
        grace=settings.grace,
        patience=min(2.0, settings.store_patience),
        webhooks=webhooks,
        webhook_lease=settings.coordinator_lease,
        upload_ttl=30 * settings.heartbeat,
    )
    server = Server(
        store,
        group,
        host=host,
        port=port,
        options=options,
        tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
    )
    server.start()
    called = f"gateway {name or os.getpid()} of group {group!r}"
    if store.startswith("sqlite:///"):  # of another folder it would be another store, with nobody in it
        called += f" in {os.path.abspath(store.removeprefix('sqlite:///'))}"
    click.echo(f"{called} listens at {server.url}{' (templates are allowed)' if allow_shell else ''}")
    server.run(signals=True)
