"""The gateway: a group's work by HTTP, for programs in any language, for curl, and for a browser.

    tasklets cluster gateway --store redis://10.0.0.5/0             http://127.0.0.1:30000, with a page to look at
    curl -d '{"operation": "myops:fib", "inputs": [20, 21]}' -H 'Content-Type: application/json' localhost:30000/jobs

Stateless: whatever it is asked it asks the store, so any number of gateways serve one group, and one that is killed
costs the requests that it had. `openapi` has the document that describes it, `app` the WSGI application, `server` the
process.
"""

from __future__ import annotations

from cluster.gateway.options import PORT, Options
from cluster.gateway.server import Server

__all__ = ["PORT", "Options", "Server"]
