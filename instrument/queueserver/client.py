"""The client of a queue server: scripts' and the shell's side of it, over bluesky's own REManagerAPI."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from instrument.config import extras
from instrument.config.errors import UserError, nearest
from instrument.queueserver.places import Address, QueueDirectory

if TYPE_CHECKING:
    from bluesky_queueserver_api.zmq import REManagerAPI

OPENS_WITHIN = 120.0  # s; a session starts, and looks for its devices
POLL = 0.1  # s; between two looks at what the server does
ANSWERS_WITHIN = 5.0  # s
OUTPUT, STATUS = b"QS_Console", b"QS_Info"  # what a server publishes, as bluesky-queueserver names it
RUNS = {"starting_queue", "executing_queue"}  # manager_state while plans run; re_state is older, by half a second
START_IT = "start one with `instrument qserver`"


class QueueError(UserError):
    """The queue server did not do what it was asked to."""


def connect(data: Path | str | None = None, *, address: Address | None = None) -> Queue:
    """The queue of the server that `instrument qserver` runs for this directory, or that the environment names.

    Args:
        data: The data directory; None: that of the configuration in the working directory, unless
            $QSERVER_ZMQ_CONTROL_ADDRESS names a server.
        address: Where a server answers, if that is known otherwise.

    Raises:
        QueueError: There is no server, or it does not answer.
    """
    extras.need("queue")
    found = address or _address(data)
    queue = Queue(found)
    try:
        queue.status()
    except QueueError:
        queue.close()
        raise
    return queue


def _address(data: Path | str | None) -> Address:
    control = os.environ.get("QSERVER_ZMQ_CONTROL_ADDRESS")
    if data is None and control:  # as for bluesky's own clients
        info = os.environ.get("QSERVER_ZMQ_INFO_ADDRESS", "tcp://127.0.0.1:60625")
        return Address(control, info, os.environ.get("QSERVER_ZMQ_PUBLIC_KEY", ""), 0)
    if data is None:
        from instrument.config import load

        data = Path.cwd() / load(None).directories.data
    directory = QueueDirectory(Path(data) / "queue")
    found = directory.read_address()
    if found is None:
        raise QueueError(f"no queue server runs in {directory.root.parent}: {START_IT}")
    return found


class Queue:
    """A queue of plans, and what is done with it. `api` has the rest that bluesky's client can do.

    Args:
        address: Where the server answers.
    """

    def __init__(self, address: Address) -> None:
        from bluesky_queueserver_api.zmq import REManagerAPI

        self.address = address
        self.api: REManagerAPI = REManagerAPI(
            zmq_control_addr=address.control,
            zmq_info_addr=address.info,
            zmq_public_key=address.public_key or None,
            timeout_recv=ANSWERS_WITHIN,
            request_fail_exceptions=True,
        )
        self.api.set_user_name_to_login_name()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self.api.close()

    def ask(self, request: str, **parameters: Any) -> dict[str, Any]:
        """One request of the server's own protocol (see `REManagerAPI`); its answer.

        Raises:
            QueueError: It does not answer, or refuses; in one line.
        """
        from bluesky_queueserver_api.comm_base import RequestFailedError, RequestTimeoutError

        try:
            return getattr(self.api, request)(**parameters)
        except RequestTimeoutError as error:
            raise QueueError(f"the queue server at {self.address.control} does not answer: {START_IT}") from error
        except RequestFailedError as error:
            raise QueueError(f"the queue server refuses: {_one_line(str(error.response.get('msg') or ''))}") from error

    # --- what there is

    def status(self) -> dict[str, Any]:
        """The server's status, as bluesky's own clients have it: manager_state, re_state, items_in_queue, ..."""
        return self.ask("status", reload=True)

    def items(self) -> list[dict[str, Any]]:
        """What waits in the queue, the next first."""
        return self.ask("queue_get")["items"]

    def running(self) -> dict[str, Any] | None:
        """What runs now; None: nothing."""
        return self.ask("queue_get")["running_item"] or None

    def history(self) -> list[dict[str, Any]]:
        """What has run, the oldest first; each with its `result`: exit_status, run_uids, scan_ids, msg, ..."""
        return self.ask("history_get")["items"]

    def plans(self) -> dict[str, dict[str, Any]]:
        """The plans that may be submitted, with their parameters, as the server describes them."""
        return self.ask("plans_allowed", user_group="primary")["plans_allowed"]

    def devices(self) -> dict[str, dict[str, Any]]:
        """The devices that plans may use."""
        return self.ask("devices_allowed", user_group="primary")["devices_allowed"]

    # --- what is done

    def add(self, plan: str, *args: Any, front: bool = False, **options: Any) -> dict[str, Any]:
        """Put a plan in the queue.

        Args:
            plan: Its name, as at the prompt: "ascan", "count".
            args: Its arguments; devices by name.
            front: Before all others.
            options: Its keyword arguments.

        Returns:
            The item as the server has it, with its `item_uid`.

        Raises:
            QueueError: There is no such plan, or it takes no such arguments; nothing was added.
        """
        from bluesky_queueserver_api import BPlan

        try:
            answer = self.ask("item_add", item=BPlan(plan, *args, **options), pos="front" if front else "back")
        except QueueError as error:
            if f"{plan!r} is not in the list of allowed plans" not in str(error):
                raise
            known = self.plans()
            near = nearest(plan, known)
            hint = f"did you mean {near!r}?" if near else "`instrument queue plans` lists them"
            raise QueueError(f"there is no plan {plan!r} that the queue may run; {hint}") from None
        return answer["item"]

    def open(self, timeout: float = OPENS_WITHIN) -> None:
        """Start the session in the server's worker, unless it is open, and wait until it is ready.

        Raises:
            QueueError: It does not open; the server's output (`instrument queue console`) says why.
        """
        if self.status()["worker_environment_exists"]:
            return
        if self.status()["manager_state"] != "creating_environment":
            self.ask("environment_open")
        state = self._until("creating_environment", timeout)
        if not state["worker_environment_exists"]:
            raise QueueError("the session did not open in the queue server: its output says why")

    def shut(self, timeout: float = OPENS_WITHIN) -> None:
        """End the session in the server's worker, and wait until its files are written."""
        if self.status()["worker_environment_exists"]:
            self.ask("environment_close")
            self._until("closing_environment", timeout)

    def destroy(self, timeout: float = OPENS_WITHIN) -> None:
        """End the session's process at once, if there is one: its plan, its files and its motors stay as they are."""
        state = self.status()
        if state["worker_environment_exists"] or state["manager_state"] == "creating_environment":
            self.ask("environment_destroy")
            self._until("destroying_environment", timeout)

    def start(self) -> None:
        """Run what is in the queue, one after the other; opens the session if it is not open.

        Raises:
            QueueError: The queue is empty, runs already, or can't run.
        """
        if not self.items():
            raise QueueError("the queue is empty: add a plan first")
        self.open()
        self.ask("queue_start")

    def pause(self, *, at_once: bool = True) -> None:
        """Pause the plan that runs, at its last checkpoint or at the next one.

        Raises:
            QueueError: None runs, or it ended before it paused.
        """
        self.ask("re_pause", option="immediate" if at_once else "deferred")
        if self._until("executing_queue", OPENS_WITHIN)["manager_state"] != "paused":
            raise QueueError("the plan ended before it paused")

    def resume(self) -> None:
        """Go on with a paused plan."""
        self.ask("re_resume")

    def stand(self, timeout: float = OPENS_WITHIN) -> bool:
        """Start no other plan, and pause the one that runs; is one paused now?

        Raises:
            QueueError: It takes longer.
        """
        end = time.monotonic() + timeout
        while (state := self.status())["manager_state"] in RUNS:
            if time.monotonic() > end:
                raise QueueError(f"the plan did not pause in {timeout:g} s")
            with contextlib.suppress(QueueError):  # it has just ended: asked again, until nothing runs
                self.ask("queue_stop")
                if not state["pause_pending"]:
                    self.ask("re_pause", option="immediate")
            time.sleep(POLL)
        return state["manager_state"] == "paused"

    def abort(self, timeout: float | None = None) -> None:
        """End the plan that runs or is paused; its run is recorded as aborted, it is first in the queue again.

        Args:
            timeout: s, for what the plan does at its end; None: as long as it takes.

        Raises:
            QueueError: None runs, or it ended by itself before it was aborted (no other is started then), or it
                takes longer.
        """
        if self.status()["manager_state"] not in {*RUNS, "paused"}:
            raise QueueError("no plan runs")
        if not self.stand():
            raise QueueError("the plan ended before it was aborted; the queue has stopped")
        self.ask("re_abort")
        self.wait(timeout)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until nothing runs, or what runs is paused.

        Args:
            timeout: s; None: as long as it takes.

        Returns:
            The status.

        Raises:
            QueueError: It takes longer.
        """
        return self._until("executing_queue", timeout)

    def _until(self, busy: str, timeout: float | None) -> dict[str, Any]:
        """Wait while the manager is in a state."""
        end = None if timeout is None else time.monotonic() + timeout
        while (state := self.status())["manager_state"] in {busy, "starting_queue"}:
            if end is not None and time.monotonic() > end:
                raise QueueError(f"the queue server is still {busy.replace('_', ' ')} after {timeout:g} s")
            time.sleep(POLL)
        return state

    def console(
        self, ended: Callable[[], bool] = lambda: False, following: Callable[[], object] = lambda: None
    ) -> Iterator[str]:
        """What the server and its session print from now on, until `ended` says so.

        ZMQ drops what is published before a subscription has arrived, and says nowhere when it has. The server
        publishes its status once a second, too: that it comes tells, as it was subscribed to after the output.

        Args:
            ended: Asked every 0.1 s, and after each piece of output.
            following: Called when nothing of the output will be missed any more, and now and then afterwards.
        """
        import zmq

        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.connect(self.address.info)
            for topic in (OUTPUT, STATUS):
                socket.subscribe(topic)
            while not ended():
                if socket.poll(int(POLL * 1000)):
                    topic, said = socket.recv_multipart()
                    if topic == STATUS:
                        following()
                    else:
                        yield json.loads(said)["msg"]


def _one_line(said: str) -> str:
    """What a person needs of a message: without the plan that he has typed, and pydantic's own addresses."""
    said = re.sub(
        r"\[type=.*?\]$|For further information visit \S+", "", said.partition("\nPlan:")[0], flags=re.MULTILINE
    )
    return " ".join(said.split()) or "it did not say why"


# --- what is typed


def parse(words: Sequence[str]) -> tuple[str, list[Any], dict[str, Any]]:
    """A plan as it is typed in a shell: name, arguments, keyword arguments. Names of devices stay text.

        ascan m1 -1 1 20 0.5        count [scaler1] num=3        "count([scaler1], num=3)"

    Raises:
        QueueError: It is no plan.
    """
    text = " ".join(words)
    if not words:
        raise QueueError("which plan? write ascan m1 -1 1 20 0.5, or 'count([scaler1], num=3)'")
    if len(words) == 1 and "(" in text:
        try:
            call = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise QueueError(f"{text!r} is no plan: {error.msg}") from error
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise QueueError(f"{text!r} is no plan: write count([scaler1], num=3), or count [scaler1] num=3")
        unpacked = [f"**{ast.unparse(keyword.value)}" for keyword in call.keywords if keyword.arg is None]
        if unpacked:
            raise QueueError(f"{unpacked[0]!r} is neither a name nor a value")
        return call.func.id, [_value(arg) for arg in call.args], {str(k.arg): _value(k.value) for k in call.keywords}
    args, options = [], {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier():
            options[name] = _typed(value)
        else:
            args.append(_typed(word))
    return words[0], args, options


def _typed(word: str) -> Any:
    try:
        return _value(ast.parse(word, mode="eval").body)
    except (SyntaxError, QueueError):
        return word


def _value(node: ast.expr) -> Any:
    """What an expression of names and plain values stands for."""
    if isinstance(node, ast.Name | ast.Attribute):
        return ast.unparse(node)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(one) for one in node.elts]
    try:
        if isinstance(node, ast.Dict) and None not in node.keys:  # None: `**another`
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # also a list as a key
        raise QueueError(f"{ast.unparse(node)!r} is neither a name nor a value") from None
