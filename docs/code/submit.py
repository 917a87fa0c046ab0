"""Put a scan into the queue, and wait until it has run."""

from instrument.queueserver import connect

with connect() as queue:
    queue.add("ascan", "m1", -1, 1, 4, 0.1, md={"sample": "silver behenate"})
    queue.start()
    queue.wait()
    print(queue.history()[-1]["result"]["exit_status"])
