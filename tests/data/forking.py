"""A process that has imported what its scenarios need, before any thread or Channel Access, and forks on request.

Requests are lines of JSON on standard input: `{"scenario": name, ...}` is answered with the pid of a process that
plays that scenario, `{"wait": pid}` with its exit status. It tells what happens through a FIFO.
"""

import gc
import json
import os
import sys
import threading
import traceback


class Teller:
    """Writes lines to the FIFO, each in one system call."""

    def __init__(self, fifo):
        self._descriptor = os.open(fifo, os.O_WRONLY)

    def __call__(self, *words):
        os.write(self._descriptor, (json.dumps(words) + "\n").encode())


def serve(scenarios):
    """Fork on request until standard input ends."""
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # what is there now is never written to again, so that it stays shared
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    children = []
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            children.remove(request["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                _play(scenarios, request)
            children.append(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for child in children:
        os.kill(child, 9)


def _play(scenarios, request):
    """Be the forked process: what it shows goes to a file beside the FIFO."""
    code = 1
    shown = os.open(f"{request['fifo']}.shown", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(shown, descriptor)
    try:
        scenarios[request["scenario"]](**request)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
