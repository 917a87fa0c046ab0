"""`instrument qserver` and `instrument queue ...`: what the shell's commands do with their options."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instrument.config import Config, extras
from instrument.config.errors import UserError
from instrument.framework.runfiles import DataDirectory
from instrument.queueserver.client import Queue, QueueError, connect, parse
from instrument.queueserver.places import QueueDirectory

if TYPE_CHECKING:
    from pyRestTable import Table

_FIRST_WORDS = 10.0  # s; longest that a plan waits for who follows its output: a server's status comes once a second
_LAST_WORDS = 1.0  # s; the output of a plan comes a little later than its end


def serve(config: Config, options: argparse.Namespace) -> int:
    """`instrument qserver`."""
    extras.need("queue")
    from instrument.queueserver import server

    began = time.monotonic()
    wanted = config.queue
    settings = server.Settings(
        QueueDirectory(_data(config).queue),
        config=config.file,
        name=wanted.name,
        redis=options.redis or wanted.redis,
        host=options.host or wanted.host,
        port=wanted.port if options.port is None else options.port,
        info_port=wanted.info_port if options.info_port is None else options.info_port,
        open=not options.closed,
    )
    return server.serve(settings, tell=_tell, began=began)


def _tell(line: str) -> None:
    print(line, flush=True)


def status(queue: Queue, _options: argparse.Namespace) -> int:
    """What the server does."""
    state = queue.status()
    running = queue.running()
    rows = [
        ("queue server", queue.address.control),
        ("state", state["manager_state"].replace("_", " ")),
        ("session", (state["re_state"] or "") if state["worker_environment_exists"] else "closed"),
        ("runs now", typed(running) if running else ""),
        ("waiting", state["items_in_queue"]),
        ("have run", state["items_in_history"]),
    ]
    print("\n".join(f"{name:<14}{value}" for name, value in rows))
    return 0


def add(queue: Queue, options: argparse.Namespace) -> int:
    """Put a plan in the queue."""
    plan, args, keywords = parse(options.plan)
    item = queue.add(plan, *args, front=options.front, **keywords)
    print(f"{typed(item)} is number {_place(queue, item)} in the queue ({item['item_uid'][:8]})")
    return 0


def _place(queue: Queue, item: dict[str, Any]) -> int:
    uids = [one["item_uid"] for one in queue.items()]
    return uids.index(item["item_uid"]) + 1 if item["item_uid"] in uids else 0


def show(queue: Queue, _options: argparse.Namespace) -> int:
    """What waits in the queue."""
    table = _table("", "plan", "by", "uid")
    running = queue.running()
    if running:
        table.addRow(["now", typed(running), running.get("user", ""), running["item_uid"][:8]])
    for number, item in enumerate(queue.items(), 1):
        table.addRow([number, typed(item), item.get("user", ""), item["item_uid"][:8]])
    print(table.reST(fmt="simple") if table.rows else "the queue is empty")
    return 0


def history(queue: Queue, options: argparse.Namespace) -> int:
    """What has run."""
    table = _table("ended", "plan", "end", "scans", "why")
    for item in queue.history()[-options.num :]:
        result = item["result"]
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result["time_stop"]))
        why = (result.get("msg") or "").partition("\n")[0]
        table.addRow([ended, typed(item), result["exit_status"], " ".join(map(str, result["scan_ids"])), why])
    print(table.reST(fmt="simple") if table.rows else "nothing has run")
    return 0


def remove(queue: Queue, options: argparse.Namespace) -> int:
    """Take a plan out of the queue."""
    items = queue.items()
    found = [
        item
        for number, item in enumerate(items, 1)
        if str(number) == options.which or (len(options.which) > 3 and item["item_uid"].startswith(options.which))
    ]
    if len(found) != 1:
        raise QueueError(f"{options.which!r} is no number or uid of one of the {len(items)} plans in the queue")
    queue.ask("item_remove", uid=found[0]["item_uid"])
    print(f"removed {typed(found[0])}")
    return 0


def clear(queue: Queue, _options: argparse.Namespace) -> int:
    """Empty the queue."""
    number = len(queue.items())
    queue.ask("queue_clear")
    print(f"{number} plans removed")
    return 0


def start(queue: Queue, options: argparse.Namespace) -> int:
    """Run what is in the queue."""
    if not options.wait:
        queue.start()
        print("the queue runs; `instrument queue console` follows it")
        return 0
    before = len(queue.history())
    ended, following = threading.Event(), threading.Event()
    follower = threading.Thread(target=_follow, args=(queue, ended, following), daemon=True)
    follower.start()
    following.wait(_FIRST_WORDS)
    queue.start()
    state = queue.wait()
    time.sleep(_LAST_WORDS)
    ended.set()
    follower.join(_LAST_WORDS)
    ends = [item["result"]["exit_status"] for item in queue.history()[before:]]
    print(f"{len(ends)} plans have run: {', '.join(ends)}; the queue server is {state['manager_state']}")
    return 0 if state["manager_state"] == "idle" and set(ends) == {"completed"} else 1


def _follow(queue: Queue, ended: threading.Event, following: threading.Event) -> None:
    for text in queue.console(ended.is_set, following.set):
        print(text, end="", flush=True)


def console(queue: Queue, _options: argparse.Namespace) -> int:
    """Follow what the server and its session print."""
    try:
        for text in queue.console():
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        pass
    return 0


def plans(queue: Queue, options: argparse.Namespace) -> int:
    """The plans that may be put in the queue, with their parameters."""
    known = queue.plans()
    if options.name:
        if options.name not in known:
            raise QueueError(f"there is no plan {options.name!r} that the queue may run")
        plan = known[options.name]
        print(f"{signature(plan)}\n{plan.get('description', '')}".rstrip())
        for parameter in plan.get("parameters", ()):
            print(f"  {_parameter(parameter)}: {parameter.get('description', '')}".rstrip(": "))
        return 0
    for name in sorted(known):
        print(signature(known[name]))
    return 0


def devices(queue: Queue, _options: argparse.Namespace) -> int:
    """The devices that plans may use."""
    table = _table("name", "class", "can be")
    for name, device in sorted(queue.devices().items()):
        can = [word for word in ("readable", "movable", "flyable") if device.get(f"is_{word}")]
        table.addRow([name, device["classname"], " ".join(can)])
    print(table.reST(fmt="simple") if table.rows else "none: the session was never open")
    return 0


def _simple(action: Callable[[Queue], object], done: str) -> Callable[[Queue, argparse.Namespace], int]:
    def act(queue: Queue, _options: argparse.Namespace) -> int:
        action(queue)
        print(done)
        return 0

    return act


def _table(*labels: str) -> Table:
    from pyRestTable import Table

    table = Table()
    table.labels = list(labels)
    return table


# --- how plans are shown


def typed(item: dict[str, Any]) -> str:
    """A plan of the queue as it is typed."""
    words = [_shown(value) for value in item.get("args", ())]
    words += [f"{name}={_shown(value)}" for name, value in item.get("kwargs", {}).items()]
    return " ".join([item["name"], *words])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return value if isinstance(value, str) else repr(value).replace(" ", "")


def signature(plan: dict[str, Any]) -> str:
    """A plan as Python shows it: names, annotations and defaults of its parameters."""
    return f"{plan['name']}({', '.join(_parameter(one) for one in plan.get('parameters', ()))})"


def _parameter(parameter: dict[str, Any]) -> str:
    star = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter["kind"]["name"], "")
    annotation = parameter.get("annotation", {}).get("type", "").replace("typing.", "")
    default = f"={parameter['default']}" if "default" in parameter else ""
    return f"{star}{parameter['name']}{': ' + annotation if annotation not in ('', 'Any') else ''}{default}"


ACTIONS: dict[str, Callable[[Queue, argparse.Namespace], int]] = {
    "status": status,
    "add": add,
    "list": show,
    "remove": remove,
    "clear": clear,
    "start": start,
    "stop": _simple(lambda queue: queue.ask("queue_stop"), "the queue stops after this plan"),
    "pause": _simple(Queue.pause, "paused; `instrument queue resume` or `abort`"),
    "resume": _simple(Queue.resume, "it goes on"),
    "abort": _simple(Queue.abort, "aborted; it is first in the queue again"),
    "history": history,
    "plans": plans,
    "devices": devices,
    "console": console,
    "open": _simple(Queue.open, "the session is open"),
    "close": _simple(Queue.shut, "the session is closed"),
}


def act(config: Config, options: argparse.Namespace) -> int:
    """`instrument queue ...`."""
    action = ACTIONS[options.action]
    with connect(_data(config).root) as queue:
        try:
            return action(queue, options)
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise UserError("not waited for any longer; the queue server goes on") from None


def _data(config: Config) -> DataDirectory:
    return DataDirectory(Path.cwd() / config.directories.data)
