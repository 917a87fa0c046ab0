"""Opens, searches and reads a catalog in a fresh process, and prints what it took (s) as JSON.

`python -m benchmarks.catalog_client embedded DIRECTORY` or `... stock FILE`, where FILE names the runs' files.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from databroker.queries import TimeRange

from benchmarks.catalog_runs import MATERIALS, OPERATORS, PLANS

READS = 9
MONTH = 30 * 86400.0


def searches(newest: float) -> dict[str, list[Any]]:
    """Queries of each kind, all different, so that none is answered from memory."""
    months = [(newest - (back + 1) * MONTH, newest - back * MONTH) for back in range(1, 6)]
    return {
        "plan": [{"plan_name": plan} for plan in PLANS],
        "time": [TimeRange(since=since, until=until) for since, until in months],
        "text": [{"$text": {"$search": material}} for material in MATERIALS[:5]],
        "key": [
            {"operator": OPERATORS[7]},
            {"sample.batch": 17},
            {"temperature_setpoint": {"$gt": 415.0}},
            {"sample.name": {"$regex": "^glass 10"}},
            {"proposal_id": "GUP-31", "motors": "m1"},
        ],
    }


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


def measure(open_it: Callable[[], Any], texts: bool) -> dict[str, Any]:
    """Open a catalog, search and read it."""

    def open_and_look() -> tuple[Any, int, Any]:
        catalog = open_it()
        return catalog, len(catalog), catalog[-1]

    opening, (catalog, count, last) = _timed(open_and_look)
    found: dict[str, Any] = {"open": opening, "runs": count, "search": {}, "matches": {}}
    for kind, queries in searches(last.metadata["start"]["time"]).items():
        if kind == "text" and not texts:
            continue

        def search(query: Any) -> list[str]:
            matching = catalog.search(query)
            return list(matching)

        taken = [_timed(lambda query=query: search(query)) for query in queries]
        found["search"][kind] = statistics.median(took for took, _ in taken)
        found["matches"][kind] = [len(uids) for _, uids in taken]
    taken = [_timed(lambda back=back: catalog[-back].primary.read()) for back in range(1, READS + 2)]
    found["read"] = statistics.median(took for took, _ in taken[1:])  # the first imports what arrays need
    found["points"] = [data.sizes["time"] for _, data in taken]
    return found


def main() -> None:
    kind, where = sys.argv[1:]
    if kind == "embedded":
        from instrument.framework.embedded import EmbeddedCatalog

        found = measure(lambda: EmbeddedCatalog(where), texts=True)
    else:
        import databroker  # noqa: F401  registers its drivers
        import intake

        driver = intake.registry["bluesky-msgpack-catalog"]
        files = Path(where).read_text().split("\n")
        found = measure(lambda: driver(files), texts=False)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
