"""Devices that refuse to be used by anything but the RunEngine."""

import threading

HARDWARE = ("read", "get", "put", "set", "move", "trigger", "stop", "stage", "unstage", "describe", "locate", "wait")


class DirectCallError(AssertionError):
    """A plan touched a device instead of yielding a message."""


class Guard:
    """Knows whether the RunEngine is executing a message, or plan code runs."""

    def __init__(self):
        self.executing = 0
        self.thread = None
        self.armed = False

    def check(self, what):
        if self.armed and not self.executing and threading.get_ident() == self.thread:
            raise DirectCallError(what)

    def watch(self, engine):
        """Have `engine` say when it executes a message, and on which thread plan code runs."""
        for command, execute in list(engine._command_registry.items()):
            engine.register_command(command, self._marked(execute))
        engine._stop_movable_objects = self._marked(engine._stop_movable_objects)  # its own, at the end
        self.thread = engine._th.ident
        self.armed = True

    def _marked(self, execute):
        async def marked(*args, **kwargs):
            self.executing += 1
            try:
                return await execute(*args, **kwargs)
            finally:
                self.executing -= 1

        return marked


def guarded(cls, guard):
    """A subclass of `cls` whose hardware methods ask `guard` first."""

    def method(name):
        def call(self, *args, **kwargs):
            guard.check(f"{self.name}.{name}")
            return getattr(cls, name)(self, *args, **kwargs)

        return call

    members = {name: method(name) for name in HARDWARE if hasattr(cls, name)}
    if hasattr(cls, "position"):
        members["position"] = property(lambda self: guard.check(f"{self.name}.position") or cls.position.fget(self))
    return type(f"Guarded{cls.__name__}", (cls,), members)
