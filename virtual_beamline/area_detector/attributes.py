"""Attributes that a port adds to its arrays, as an XML file defines them (NDAttributesFile of ADCore).

``<Attributes>`` holds ``<Attribute name="..." type="..." source="..." description="..."/>``; types: PARAM (``source``
is a parameter of the port by the name of its PV), CONST, and EPICS_PV (a number, served anywhere that the IOC looks).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from virtual_beamline.area_detector.ndarray import Attribute, Scalar

if TYPE_CHECKING:
    from virtual_beamline.area_detector.port import Port
    from virtual_beamline.epics import PvNameLink

logger = logging.getLogger("virtual_beamline")

OK, NOT_FOUND, SYNTAX_ERROR, MACRO_ERROR = range(4)
"""The choices of NDAttributesStatus."""
_MACRO = re.compile(r"\$[({]([^)}=]+)(?:=([^)}]*))?[)}]")


class _MacroError(ValueError):
    """A macro has no value."""


class AttributeList:
    """The attributes of one port."""

    def __init__(self, port: Port) -> None:
        """Start without any."""
        self._port = port
        self._constants: dict[str, Attribute] = {}
        self._parameters: dict[str, Attribute] = {}
        self._pvs: dict[str, tuple[Attribute, PvNameLink]] = {}

    def load(self, file: str, macros: str) -> int:
        """Take the definitions of a file, or of the XML itself; "" removes all. Gives NDAttributesStatus."""
        self._clear()
        if not file:
            return OK
        try:
            text = file if file.lstrip().startswith("<") else Path(file).read_text()
            root = ElementTree.fromstring(_expand(text, macros))
        except OSError:
            return NOT_FOUND
        except _MacroError:
            return MACRO_ERROR
        except (ElementTree.ParseError, UnicodeDecodeError):
            return SYNTAX_ERROR
        try:
            for element in root.iter("Attribute"):
                self._add(element)
        except ValueError as error:
            logger.warning("%s: %s", self._port.name, error)
            self._clear()
            return SYNTAX_ERROR
        return OK

    def _clear(self) -> None:
        for _, link in self._pvs.values():
            with link.record.lock():
                link.close()
        self._constants, self._parameters, self._pvs = {}, {}, {}

    def _add(self, element: ElementTree.Element) -> None:
        name, source = element.get("name", ""), element.get("source", "")
        kind, description = element.get("type", "EPICS_PV"), element.get("description", "")
        match kind:
            case "CONST":
                value = _constant(name, source, element.get("datatype", ""))
                self._constants[name] = Attribute(value, description, source, "NDAttrSourceConst")
            case "PARAM" if isinstance(self._port[source] if source in self._port.by_name else None, Scalar):
                self._parameters[name] = Attribute("", description, source, "NDAttrSourceParam")
            case "EPICS_PV":
                link = self._port.detector.link_to(source)
                self._pvs[name] = (Attribute(float("nan"), description, source, "NDAttrSourceEPICSPV"), link)
            case _:
                logger.warning("%s: attribute %s of type %s, source %s is unknown", self._port.name, name, kind, source)

    def values(self) -> Mapping[str, Attribute]:
        """All attributes with their present values."""
        if not (self._constants or self._parameters or self._pvs):
            return {}
        found = dict(self._constants)
        for name, attribute in self._parameters.items():
            parameter, value = self._port.by_name[attribute.source], self._port[attribute.source]
            found[name] = _with_value(attribute, parameter.choices[value] if parameter.choices else value)
        for name, (attribute, link) in self._pvs.items():
            value = link.get()
            found[name] = attribute if value is None else _with_value(attribute, value)
        return found


def _with_value(attribute: Attribute, value: Scalar) -> Attribute:
    return Attribute(value, attribute.description, attribute.source, attribute.source_type)


def _constant(name: str, text: str, datatype: str) -> Scalar:
    kinds = {"INT": int, "DOUBLE": float}
    try:
        return kinds.get(datatype.upper(), str)(text)
    except ValueError:
        msg = f"attribute {name}: {text!r} is no {datatype.upper()}"
        raise ValueError(msg) from None


def _expand(text: str, macros: str) -> str:
    values = dict(part.split("=", 1) for part in macros.split(",") if "=" in part)

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1], match[2])
        if found is None:
            raise _MacroError(match[1])
        return found

    return _MACRO.sub(value, text)
