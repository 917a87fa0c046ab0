"""The session in bluesky-queueserver's worker: plans are submitted, kept in a queue, and run one after the other.

    from instrument.queueserver import connect

    queue = connect()                              # of the server that `instrument qserver` runs in this directory
    queue.add("ascan", "m1", -1, 1, 20, 0.5)
    queue.start()
    queue.wait()

The server, its protocol and its clients are bluesky's own; what is ours is that the worker is the same session, from
the same two YAML files, and that a server needs no Redis by hand, listens on loopback only, and answers to nobody
without its key.
"""

from instrument.queueserver.client import Queue, connect

__all__ = ["Queue", "connect"]
