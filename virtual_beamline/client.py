"""What a client needs to reach a virtual beamline: its environment, and a look at one PV without a CA library.

Standard library only, and nothing here creates a Channel Access context.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import struct
import sys
import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from virtual_beamline.names import ENVIRONMENT_VARIABLE, LOOPBACK, MAX_ARRAY_BYTES


class CaContextExistsError(RuntimeError):
    """This process has a Channel Access context already, and it looks elsewhere."""


@dataclass(frozen=True)
class CaEnvironment:
    """The environment variables with which any stock client finds one beamline, and only that one."""

    variables: Mapping[str, str]

    @classmethod
    def of_ports(
        cls,
        beamline_id: str,
        *,
        ca_ports: Sequence[int],
        repeater_port: int,
        pva_port: int,
        pva_search_ports: Sequence[int],
        host: str = LOOPBACK,
    ) -> CaEnvironment:
        """The environment of the beamline whose IOCs serve on these ports of ``host``, `gp:` first."""
        return cls(
            {
                "EPICS_CA_ADDR_LIST": " ".join(f"{host}:{port}" for port in ca_ports),
                "EPICS_CA_AUTO_ADDR_LIST": "NO",
                "EPICS_CA_REPEATER_PORT": str(repeater_port),
                "EPICS_CA_MAX_ARRAY_BYTES": str(MAX_ARRAY_BYTES),
                "EPICS_PVA_ADDR_LIST": " ".join(f"{host}:{port}" for port in pva_search_ports),
                "EPICS_PVA_AUTO_ADDR_LIST": "NO",
                "EPICS_PVA_BROADCAST_PORT": str(pva_search_ports[0]),
                "EPICS_PVA_SERVER_PORT": str(pva_port),
                ENVIRONMENT_VARIABLE: beamline_id,
            }
        )

    @property
    def ca_address(self) -> tuple[str, int]:
        """Host and port of the CA server of `gp:`."""
        return self._ca_address(0)

    @property
    def area_detector_address(self) -> tuple[str, int]:
        """Host and port of the CA server of `ad:`, whether it runs or not."""
        return self._ca_address(-1)

    def _ca_address(self, index: int) -> tuple[str, int]:
        host, port = self.variables["EPICS_CA_ADDR_LIST"].split()[index].split(":")
        return host, int(port)

    def apply(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Make this process and its future children clients of the beamline; call it before ophyd is imported.

        Raises:
            CaContextExistsError: pyepics has made its CA context already, with other settings; they are read once.
        """
        changed = [name for name, value in self.variables.items() if environ.get(name) != value]
        epics_settings = [name for name in changed if name.startswith("EPICS_CA_")]
        if environ is os.environ and epics_settings and _ca_context_exists():
            msg = (
                f"this process already uses Channel Access with another {epics_settings[0]} "
                f"({environ.get(epics_settings[0], 'unset')}): restart it (in Jupyter: restart the kernel) and start "
                f"the session before anything else connects to PVs"
            )
            raise CaContextExistsError(msg)
        environ.update(self.variables)

    def exports(self) -> str:
        """``export NAME=value`` lines for a POSIX shell."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.variables.items())


def _ca_context_exists() -> bool:
    return getattr(sys.modules.get("epics.ca"), "libca", None) is not None


class PvNotAnsweringError(OSError):
    """Nothing that answers for the PV was found before the deadline."""


# Channel Access messages (CA protocol specification): a header of 16 bytes, then a payload padded to 8.
_HEADER = struct.Struct(">HHHHII")
_VERSION, _SEARCH, _READ_NOTIFY, _CREATE_CHANNEL, _CHANNEL_FAILED, _CLIENT_NAME, _HOST_NAME = 0, 6, 15, 18, 26, 20, 21
_MINOR_VERSION = 13
_DBR_STRING = 0
_DONT_REPLY = 5  # a server that does not have it is silent
_DATAGRAM = 1400  # bytes


def _message(command: int, payload: bytes = b"", data_type: int = 0, count: int = 0, p1: int = 0, p2: int = 0) -> bytes:
    padded = payload + bytes(-len(payload) % 8)
    return _HEADER.pack(command, len(padded), data_type, count, p1, p2) + padded


def _messages(connection: socket.socket) -> Iterator[tuple[int, bytes, int, int]]:
    buffer = b""
    while received := connection.recv(4096):
        buffer += received
        while len(buffer) >= _HEADER.size:
            command, size, _, _, p1, p2 = _HEADER.unpack_from(buffer)
            if len(buffer) < _HEADER.size + size:
                break
            yield command, buffer[_HEADER.size : _HEADER.size + size], p1, p2
            buffer = buffer[_HEADER.size + size :]


def search(pvs: Collection[str], addresses: Collection[tuple[str, int]], timeout: float) -> dict[str, str]:
    """Ask over UDP which servers have some PVs, as every client does, and connect to none.

    Args:
        pvs: their names.
        addresses: host and UDP port of each server to ask; a host may be a broadcast address.
        timeout: seconds until those that have not answered are given up.

    Returns:
        Of each PV that a server has: `host:port` of the first server that said so.
    """
    names = list(dict.fromkeys(pvs))
    found: dict[str, str] = {}
    began = time.monotonic()
    asked, pauses = -1.0, iter((0.05, 0.1, 0.2, 0.4, 0.8))  # s; UDP loses some, and a server may be busy
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as finder:
        finder.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        while len(found) < len(names) and (now := time.monotonic()) - began < timeout:
            if now >= asked:
                _ask(finder, {cid: name for cid, name in enumerate(names) if name not in found}, addresses)
                asked = now + next(pauses, timeout)
            finder.settimeout(max(0.001, min(asked, began + timeout) - now))
            try:
                answer, sender = finder.recvfrom(65536)
            except OSError:
                continue
            offset = 0
            while len(answer) - offset >= _HEADER.size:
                command, size, port, _, host, cid = _HEADER.unpack_from(answer, offset)
                offset += _HEADER.size + size
                if command == _SEARCH and cid < len(names):
                    elsewhere = host not in {0, 0xFFFFFFFF}
                    where = socket.inet_ntoa(host.to_bytes(4, "big")) if elsewhere else sender[0]
                    found.setdefault(names[cid], f"{where}:{port}")
    return found


def _ask(finder: socket.socket, names: Mapping[int, str], addresses: Collection[tuple[str, int]]) -> None:
    """Send searches of PVs by their numbers, as many to a datagram as fit in one Ethernet frame."""
    version = _message(_VERSION, count=_MINOR_VERSION)
    datagrams = [version]
    for cid, name in names.items():
        message = _message(_SEARCH, name.encode() + b"\0", data_type=_DONT_REPLY, count=_MINOR_VERSION, p1=cid, p2=cid)
        if len(datagrams[-1]) + len(message) > _DATAGRAM:
            datagrams.append(version)
        datagrams[-1] += message
    for address in addresses:
        for datagram in datagrams:
            with contextlib.suppress(OSError):  # no route to one of them
                finder.sendto(datagram, address)


def read_text(pv: str, address: tuple[str, int], timeout: float) -> str:
    """Search for a PV over UDP at ``address``, as every client does, and read it as text.

    Raises:
        PvNotAnsweringError: no answer within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    name = pv.encode() + b"\0"
    search = _message(_VERSION, count=_MINOR_VERSION) + _message(
        _SEARCH, name, data_type=5, count=_MINOR_VERSION, p1=1, p2=1
    )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as finder:
            finder.connect(address)
            finder.settimeout(timeout)
            finder.send(search)
            answer = finder.recv(1024)
        commands = [answer[offset : offset + 24] for offset in range(0, len(answer), 8)]
        found = [_HEADER.unpack(part[:16]) for part in commands if part[:2] == b"\0\x06" and len(part) == 24]
        port = found[0][2] if found else address[1]
        with socket.create_connection(
            (address[0], port), timeout=max(0.001, deadline - time.monotonic())
        ) as connection:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.sendall(
                _message(_VERSION, count=_MINOR_VERSION)
                + _message(_CLIENT_NAME, b"virtual-beamline\0")
                + _message(_HOST_NAME, b"localhost\0")
                + _message(_CREATE_CHANNEL, name, p1=1, p2=_MINOR_VERSION)
            )
            for command, payload, _, p2 in _messages(connection):
                if command == _CREATE_CHANNEL:
                    connection.sendall(_message(_READ_NOTIFY, data_type=_DBR_STRING, count=1, p1=p2, p2=1))
                elif command == _READ_NOTIFY:
                    return payload.split(b"\0")[0].decode("utf-8", "replace")
                elif command == _CHANNEL_FAILED:
                    break
    except (OSError, struct.error) as error:
        msg = f"{pv} does not answer at {address[0]}:{address[1]}: {error}"
        raise PvNotAnsweringError(msg) from error
    msg = f"{pv} is not served at {address[0]}:{address[1]}"
    raise PvNotAnsweringError(msg)
