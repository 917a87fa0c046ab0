"""A Channel Access repeater that lives and dies with the IOC.

Every CA client registers with the repeater of its $EPICS_CA_REPEATER_PORT, through which it hears the servers'
beacons. A client that finds none spawns the program ``caRepeater``, which then outlives everybody. With this one on the
beamline's own port no client does. (A stock client that runs with the beamline's environment *after* the beamline has
ended will spawn one, if the program is in its PATH.)
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_HEADER = struct.Struct(">HHHHII")
_REPEATER_CONFIRM, _REPEATER_REGISTER = 17, 24


class Repeater:
    """Answers registrations and passes what servers say to all clients; bound once constructed."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, port))
        self._host = host
        self._clients: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Serve on a thread of its own."""
        threading.Thread(target=self._serve, name="CA repeater", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                message, sender = self._socket.recvfrom(4096)
            except ConnectionError:  # an earlier reply could not be delivered
                continue
            is_registration = len(message) >= 2 and message[:2] == _REPEATER_REGISTER.to_bytes(2, "big")
            if not message or is_registration:
                self._clients.add(sender)
                address = int.from_bytes(socket.inet_aton(self._host), "big")
                self._send(_HEADER.pack(_REPEATER_CONFIRM, 0, 0, 0, 0, address), sender)
                continue
            for client in list(self._clients):
                if client != sender and not self._is_gone(client):
                    self._send(message, client)

    def _send(self, message: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(message, client)

    def _is_gone(self, client: tuple[str, int]) -> bool:
        """Whether the client's port is free again: then nobody listens there."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(client)
            except OSError:
                return False
        self._clients.discard(client)
        return True
