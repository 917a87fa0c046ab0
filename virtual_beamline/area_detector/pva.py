"""``Pva1:``: the frames over pvAccess, as NTNDArray; ADCore: NDPluginPva.

Its server is p4p's: the QSRV of EPICS base, which serves the records, makes its structures of records and knows no
union of arrays.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from virtual_beamline.area_detector import parameters as p
from virtual_beamline.area_detector.ndarray import NDArray
from virtual_beamline.area_detector.plugin import Plugin
from virtual_beamline.area_detector.port import Detector

logger = logging.getLogger("virtual_beamline")

_FIELDS = ("byte", "ubyte", "short", "ushort", "int", "uint", "long", "ulong", "float", "double")
"""Of the union, in the order of DATA_TYPES."""
_DELAY = 2.0
"""s before it serves if nobody has enabled it: p4p takes a third of a second that the session's start needs more."""
_SOURCE_TYPES = {"NDAttrSourceDriver": 0, "NDAttrSourceParam": 1, "NDAttrSourceEPICSPV": 2, "NDAttrSourceConst": 4}


class Pva(Plugin):
    """See the module."""

    plugin_type = "NDPluginPva"
    passes_on = False
    parameters = (p.string("PvName", "", "Name of the PV of the frames").readonly(),)

    def __init__(
        self, detector: Detector, prefix: str, name: str, source: str, address: tuple[str, int] | None
    ) -> None:
        """Make the plugin.

        Args:
            detector: whose plugin it is.
            prefix: of its PVs, e.g. ``"Pva1:"``.
            name: of its port, e.g. ``"PVA1"``.
            source: name of the port whose arrays it gets at first.
            address: interface and port (TCP, and UDP of the searches) to serve on; None: it is only described.
        """
        super().__init__(detector, prefix, name, source)
        self._address = address
        self._server: Any = None
        self._shared: Any = None
        self._wanted, self._served = threading.Event(), threading.Event()
        if address is None:
            self._served.set()
        self.set(PvName=f"{self.prefix}Image")

    def started(self) -> None:
        """Serve soon; nobody waits for it."""
        super().started()
        if self._address is not None:
            threading.Thread(target=self._serve_soon, name="pvAccess start", daemon=True).start()

    def write(self, name: str, value: Any) -> None:
        """Take a value."""
        super().write(name, value)
        if name == "EnableCallbacks" and value:
            self._wanted.set()

    def _serve_soon(self) -> None:
        self._wanted.wait(_DELAY)
        try:
            self._serve(*(self._address or ("", 0)))
        finally:
            self._served.set()

    def _serve(self, host: str, port: int) -> None:
        from p4p.nt import NTNDArray
        from p4p.server import Server, StaticProvider
        from p4p.server.raw import SharedPV
        from p4p.wrapper import Value

        kind = NTNDArray.buildType(extra=[])
        shared = SharedPV(initial=Value(kind, {}))
        provider = StaticProvider("images")
        provider.add(self["PvName"], shared)
        try:
            self._server = Server(
                providers=[provider],
                conf={
                    "EPICS_PVAS_INTF_ADDR_LIST": host,
                    "EPICS_PVAS_SERVER_PORT": str(port),
                    "EPICS_PVAS_BROADCAST_PORT": str(port),
                    "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
                    "EPICS_PVAS_BEACON_ADDR_LIST": host,
                },
                useenv=False,
            )
        except RuntimeError as error:
            logger.error("%s is not served: %s", self["PvName"], error)
            self.set(PvName="")
            return
        self._shared, self._value, self._kind = shared, Value, kind

    def process(self, array: NDArray) -> NDArray:
        """Post the frame."""
        self._served.wait()
        if self._shared is not None:
            self._shared.post(self._value(self._kind, self._structure(array)))
        return array

    @staticmethod
    def _structure(array: NDArray) -> dict[str, Any]:
        seconds, nanoseconds = divmod(int(array.time_stamp * 1e9), 1_000_000_000)
        stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": 0}
        return {
            "value": (f"{_FIELDS[array.data_type]}Value", array.data.reshape(-1)),
            "codec": {"name": ""},
            "compressedSize": array.data.nbytes,
            "uncompressedSize": array.data.nbytes,
            "uniqueId": array.unique_id,
            "dataTimeStamp": stamp,
            "timeStamp": stamp,
            "dimension": [
                {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False}
                for size in array.dimensions
            ],
            "attribute": [
                {
                    "name": name,
                    "value": attribute.value,
                    "descriptor": attribute.description,
                    "sourceType": _SOURCE_TYPES.get(attribute.source_type, 0),
                    "source": attribute.source,
                }
                for name, attribute in array.attributes.items()
            ],
        }
