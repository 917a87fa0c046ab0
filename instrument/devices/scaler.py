"""Scalers: pulse counters that count together for a preset time."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ophyd import Device, DynamicDeviceComponent, EpicsSignal, EpicsSignalRO, FormattedComponent, Kind
from ophyd import scaler as stock

from instrument.config.errors import UserError, nearest
from instrument.config.names import LOGGER_NAME
from instrument.devices import offline
from instrument.devices.statuses import ForgetsFirst, fail_waiting

logger = logging.getLogger(LOGGER_NAME)

CHANNELS = range(1, 33)
CHANNEL_LABELS = {"channel", "counter"}


class ScalerChannel(stock.ScalerChannel):
    """One counter of a scaler.

    Unlike ophyd's, it does not read its name over the network when it is made, and only its name is connected until
    the channel is used: most of the 32 never are.
    """

    lazy_wait_for_connection = False

    s = FormattedComponent(
        EpicsSignalRO, "{self.prefix}.S{self._ch_num}", kind=Kind.hinted, auto_monitor=False, lazy=True
    )
    preset = FormattedComponent(EpicsSignal, "{self.prefix}.PR{self._ch_num}", kind=Kind.config, lazy=True)
    gate = FormattedComponent(EpicsSignal, "{self.prefix}.G{self._ch_num}", string=True, kind=Kind.config, lazy=True)

    def __init__(self, prefix: str, ch_num: int, **kwargs: Any) -> None:
        self._ch_num = ch_num
        Device.__init__(self, prefix, **kwargs)

    def match_name(self) -> str:  # type: ignore[override]  # ophyd returns nothing
        """Take the name that the channel has in EPICS, and return it; a channel without one goes by its own."""
        epics_name = self.chname.get().strip()
        if epics_name or "s" in self._signals:
            self.s.name = epics_name or f"{self.name}_s"
        return epics_name


def _channels() -> OrderedDict[str, tuple[type, str, dict[str, Any]]]:
    return OrderedDict((f"chan{n:02d}", (ScalerChannel, "", {"ch_num": n, "kind": Kind.normal})) for n in CHANNELS)


class Scaler(ForgetsFirst, stock.ScalerCH):
    """An EPICS scaler whose channels go by the names that they have in EPICS.

    The names are read whenever the scaler (re)connects, nothing is ever written for that.

    Args:
        prefix: PV of the scaler record.
        channels: Names of the channels to be read; by default all that have a name.
        kwargs: What `ophyd.Device` takes.
    """

    channels = DynamicDeviceComponent(_channels())

    def __init__(self, prefix: str = "", *, channels: Iterable[str] | None = None, **kwargs: Any) -> None:
        self._selection = None if channels is None else tuple(channels)
        super().__init__(prefix, **kwargs)

    def after_connection(self) -> None:
        """Take the channel names from EPICS; called whenever the scaler came online."""
        named = self._match_names()
        wanted = self._selection
        if wanted is not None and (missing := [name for name in wanted if name not in named]):
            message = "%s: no channel is named %s; its channels are %s"
            logger.warning(message, self.name, ", ".join(missing), ", ".join(named) or "all unnamed")
            wanted = tuple(name for name in wanted if name in named)
        self._select(named, wanted)

    def select_channels(self, chan_names: Iterable[str] | None = None) -> None:
        """Choose the channels that are read.

        Args:
            chan_names: Names of channels; None for all that have one.

        Raises:
            UserError: A name that no channel has.
        """
        named = self._match_names()
        wanted = None if chan_names is None else tuple(chan_names)
        for name in wanted or ():
            if name not in named:
                near = nearest(name, named)
                hint = f"; did you mean {near!r}?" if near else f"; its channels are {', '.join(named)}"
                raise UserError(f"{self.name}: no channel is named {name!r}{hint}")
        self._selection = wanted
        self._select(named, wanted)

    def stop(self, *, success: bool = False) -> None:
        """End the count; the counts so far stay."""
        if self.count.get():
            self.count.put(0)
        super().stop(success=success)

    def _done_acquiring(self, **kwargs: Any) -> None:
        """The count has ended, if the scaler still answers: Channel Access tells a lost connection in the same way."""
        try:
            self.count.get()
        except Exception:
            fail_waiting(self, offline.error(self, self.count.pvname))
        else:
            super()._done_acquiring(**kwargs)

    def _match_names(self) -> dict[str, str]:
        """Attribute of each named channel, by its name; of channels that share one, the first."""
        named: dict[str, str] = {}
        for attr in self.channels.component_names:
            channel = getattr(self.channels, attr)
            epics_name = channel.match_name()
            if epics_name and named.setdefault(epics_name, attr) != attr:
                logger.warning("%s: %s and %s share the name %s", self.name, named[epics_name], attr, epics_name)
                channel.s.name = f"{channel.name}_s"
        return named

    def _select(self, named: dict[str, str], wanted: tuple[str, ...] | None) -> None:
        chosen = [named[name] for name in (named if wanted is None else wanted)]
        self.channels.kind = Kind.normal
        self.channels.read_attrs = chosen
        self.channels.configuration_attrs = chosen
        for attr in named.values():
            channel = getattr(self.channels, attr)
            channel.s._ophyd_labels_ = set(CHANNEL_LABELS) if attr in chosen else set()
            if attr in chosen:
                channel.s.kind = Kind.hinted
                _ = channel.preset, channel.gate  # connected from here on
