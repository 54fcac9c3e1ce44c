"""See what tasklets do: who sent what to whom, and when.

    from tasklets import trace

    with trace.record() as recording:
        run()
    print(recording)                 # a table
    recording.save("run.svg")        # a space-time diagram; in a notebook just: recording
    recording.save("run.html")       # the diagram and the table
    recording.save("run.json")       # for https://ui.perfetto.dev or chrome://tracing, and to be merged
    trace.merge(["a.json", "b.json"]).save("all.svg")   # several processes in one picture

While nothing is recorded it costs nothing. What is and is not seen: docs/design.md, "trace".
"""

from tasklets.trace._events import Event as Event
from tasklets.trace._merging import merge as merge
from tasklets.trace._recording import Recording as Recording
from tasklets.trace._watcher import record as record

__all__ = ["Event", "Recording", "merge", "record"]

for _public in __all__:
    globals()[_public].__module__ = "tasklets.trace"
del _public
