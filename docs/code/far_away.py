"""Find a run on a server, and read it."""

import sys

from instrument import tiled_client

url, key = sys.argv[1:]
cat = tiled_client.connect(url, api_key=key)
cat.runs(plan="scan")
run = cat[-1]
print(run)
points = run.data()  # a pandas DataFrame
print(f"{len(points)} points of {', '.join(sorted(points.columns))}")
