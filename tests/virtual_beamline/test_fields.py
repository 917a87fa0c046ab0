"""Every served field acts, or is declared read-only status: nothing is served that only looks like the record.

The record types are found, not listed, so that a new one is held to this at once.
"""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

from tests.virtual_beamline.conftest import wait_for
from virtual_beamline import records
from virtual_beamline.beamline import contents
from virtual_beamline.epics import Record


def _record_types():
    found = {}
    for module_info in pkgutil.iter_modules(records.__path__):
        module = importlib.import_module(f"{records.__name__}.{module_info.name}")
        for kind in vars(module).values():
            if (
                inspect.isclass(kind)
                and issubclass(kind, Record)
                and kind.record_type
                and kind.__module__ == module.__name__
            ):
                found[kind.record_type] = kind
    return found


TYPES = _record_types()
EXAMPLES = {name: next(r.name for r in contents("") if r.type == name) for name in TYPES}


def _writable(kind):
    return {field.name for field in kind.fields if not field.read_only}


@pytest.mark.parametrize("name", TYPES)
def test_status_fields_refuse_puts(gp, name):
    import epics

    fields = [field.name for field in TYPES[name].fields if field.read_only]
    channels = {  # {} for the same reason as in conftest.Client
        field: epics.ca.create_channel(f"{gp.prefix}{EXAMPLES[name]}.{field}{{}}", connect=False) for field in fields
    }
    wait_for(lambda: epics.ca.poll() or all(epics.ca.isConnected(c) for c in channels.values()), what="connection")
    for channel in channels.values():
        with pytest.raises(epics.ca.CASeverityException, match="Write access denied"):
            epics.ca.put(channel, epics.ca.get(channel, timeout=30), wait=True, timeout=30)


# -- swait and busy: what a put to each field does -----------------------------------------------------------------


def _operand(letter):
    def effect(x):
        x.put("CALC", f"{letter}*3")
        x.put(letter, 5)
        return x.get("VAL") == 15

    return effect


def _input(letter):
    def effect(x):
        x.put("CALC", letter)
        x.put(f"IN{letter}N", x.gp.prefix + "gp:float1")
        x.gp.put("gp:float1", ord(letter))
        return wait_for(lambda: x.put("PROC", 1) and x.get("VAL") == ord(letter))

    return effect


def _input_processes(letter):
    def effect(x):
        x.put("CALC", "VAL+1")
        x.put(f"IN{letter}N", x.gp.prefix + "gp:float1")
        wait_for(lambda: x.put("PROC", 1) and x.get("SEVR") == 0)
        x.put("SCAN", "I/O Intr")
        x.put(f"IN{letter}P", "Yes")
        before = x.get("VAL")
        x.gp.put("gp:float1", x.gp.get("gp:float1") + 1)
        wait_for(lambda: x.get("VAL") > before)
        x.put(f"IN{letter}P", "No")
        before = x.get("VAL")
        x.gp.put("gp:float1", x.gp.get("gp:float1") + 1)
        return x.get("VAL") == before

    return effect


def _value(x):
    x.put("CALC", "VAL+1")
    x.put("VAL", 41)
    x.put("PROC", 1)
    return x.get("VAL") == 42


def _calc(x):
    x.put("CALC", "6*7")
    return x.get("VAL") == 42


def _output(x):
    x.put("CALC", "A")
    x.put("OUTN", x.gp.prefix + "gp:float2")
    x.gp.put("gp:float2", 0)
    wait_for(lambda: x.put("PROC", 1) and x.get("SEVR") == 0)
    x.put("A", 9)
    return x.gp.get("gp:float2") == 9


def _output_option(x):
    _output(x)
    x.put("OOPT", "Never")
    x.put("A", 10)
    return x.gp.get("gp:float2") == 9


def _output_delay(x):
    _output(x)
    x.put("ODLY", 1)
    x.get("PACT")  # connects
    done = x.start_put("A", 11)
    wait_for(lambda: x.get("PACT") == 1)
    not_yet = x.gp.get("gp:float2") == 9
    wait_for(lambda: done)
    return not_yet and x.gp.get("gp:float2") == 11


def _desired(x):
    x.put("DOPT", "Use DOL")
    x.put("DOLD", 3)
    _output_of_desired(x)
    return x.gp.get("gp:float2") == 3


def _output_of_desired(x):
    x.put("OUTN", x.gp.prefix + "gp:float2")
    wait_for(lambda: x.put("PROC", 1) and x.get("SEVR") == 0)


def _desired_link(x):
    x.gp.put("gp:float3", 8)
    x.put("DOPT", "Use DOL")
    x.put("DOLN", x.gp.prefix + "gp:float3")
    wait_for(lambda: x.get("DOLV") == 0)
    _output_of_desired(x)
    return x.gp.get("gp:float2") == 8


def _event(x):
    counter = "userCalcOut20"
    x.gp.put(f"{counter}.CALC", "VAL+1")
    x.gp.put(f"{counter}.EVNT", "19")
    x.gp.put(f"{counter}.SCAN", "Event")
    before = x.gp.get(counter)
    x.put("OEVT", 19)
    x.put("PROC", 1)
    wait_for(lambda: x.gp.get(counter) == before + 1)
    x.gp.put(f"{counter}.SCAN", "Passive")
    return True


def _metadata(field, key, value):
    def effect(x):
        x.put(field, value)
        return x.gp.pv(x.name).get_ctrlvars()[key] == value

    return effect


def _deadband(field, mask, last):
    def effect(x):
        import epics

        x.put("A", 0)
        x.put("CALC", "A")
        x.put(field, 5)
        heard = []
        pv = epics.PV(x.gp.prefix + x.name, auto_monitor=mask, callback=lambda value, **_: heard.append(value))
        wait_for(lambda: heard)
        for value in (1, 2, 30):
            x.put("A", value)
        wait_for(lambda: 30 in heard)
        pv.disconnect()
        assert not {1, 2} & set(heard)
        return x.get(last) == 30

    return effect


def _busy_until_high(x):
    x.put("HIGH", 0.1)
    return x.put("VAL", 1) and x.get("VAL") == 0


def _busy_value(x):
    done = x.start_put("VAL", 1)
    wait_for(lambda: x.get("VAL") == 1)
    waits = not done
    x.put("VAL", 0, wait=False)
    wait_for(lambda: done)
    return waits


def _busy_output(x):
    x.gp.put("gp:int2", 5)
    x.put("OUT", x.gp.prefix + "gp:int2")
    x.put("VAL", 0)
    return x.gp.get("gp:int2") == 0


def _busy_desired(x):
    x.gp.put("gp:int3", 1)
    x.put("DOL", x.gp.prefix + "gp:int3")
    x.put("OMSL", "closed_loop")
    x.put("HIGH", 0)
    x.start_put("PROC", 1)
    wait_for(lambda: x.get("VAL") == 1)
    x.gp.put("gp:int3", 0)
    x.put("OMSL", "supervisory", wait=False)
    x.put("VAL", 0, wait=False)
    return wait_for(lambda: x.get("VAL") == 0) is True


def _state_name(index, field):
    def effect(x):
        x.put(field, "Fine")
        return x.gp.pv(x.name).get_ctrlvars()["enum_strs"][index] == "Fine"

    return effect


def _state_severity(state, field):
    def effect(x):
        x.put(field, "MAJOR")
        x.put("HIGH", 1)
        x.get("SEVR")  # connects
        x.start_put("VAL", state)
        wait_for(lambda: x.get("SEVR") == 2)
        x.put(field, "NO_ALARM")
        return wait_for(lambda: x.put("VAL", 0) and x.get("SEVR") == 0)

    return effect


def _change_severity(x):
    x.put("COSV", "MINOR")
    x.put("HIGH", 0.3)
    x.start_put("VAL", 1)
    wait_for(lambda: x.get("SEVR") == 1)
    wait_for(lambda: x.get("VAL") == 0)
    x.put("COSV", "NO_ALARM")
    return x.put("VAL", 0) and x.get("SEVR") == 0


def _busy_invalid(action, written):
    def effect(x):
        x.gp.put("gp:int2", 5)
        x.put("OUT", x.gp.prefix + "gp:int2")
        x.put("ZSV", "INVALID")
        x.put("HIGH", 0.1)
        x.put("IVOV", 1)
        x.put("IVOA", action)
        x.start_put("VAL", 0)
        return wait_for(lambda: x.gp.get("gp:int2") == written)

    return effect


LETTERS = "ABCDEFGHIJKL"
EFFECTS = {
    "swait": {
        "VAL": _value,
        "CALC": _calc,
        **{letter: _operand(letter) for letter in LETTERS},
        **{f"IN{letter}N": _input(letter) for letter in LETTERS},
        **{f"IN{letter}P": _input_processes(letter) for letter in LETTERS},
        "OOPT": _output_option,
        "ODLY": _output_delay,
        "DOPT": _desired,
        "DOLD": _desired,
        "DOLN": _desired_link,
        "OUTN": _output,
        "OEVT": _event,
        "HOPR": _metadata("HOPR", "upper_disp_limit", 77),
        "LOPR": _metadata("LOPR", "lower_disp_limit", -77),
        "PREC": _metadata("PREC", "precision", 2),
        "MDEL": _deadband("MDEL", 1, "MLST"),
        "ADEL": _deadband("ADEL", 2, "ALST"),
    },
    "busy": {
        "VAL": _busy_value,
        "OMSL": _busy_desired,
        "DOL": _busy_desired,
        "OUT": _busy_output,
        "HIGH": _busy_until_high,
        "ZNAM": _state_name(0, "ZNAM"),
        "ONAM": _state_name(1, "ONAM"),
        "ZSV": _state_severity(0, "ZSV"),
        "OSV": _state_severity(1, "OSV"),
        "COSV": _change_severity,
        "IVOA": _busy_invalid("Don't drive outputs", 5),
        "IVOV": _busy_invalid("Set output to IVOV", 1),
    },
}


class RecordClient:
    """One record; every field that was put is put back at the end."""

    def __init__(self, gp, name):
        self.gp, self.name = gp, name
        self._before = {}

    def get(self, field):
        return self.gp.get(f"{self.name}.{field}")

    def put(self, field, value, wait=True):
        if field not in self._before and field not in {"PROC", "VAL"}:
            self._before[field] = self.get(field)
        return self.gp.put(f"{self.name}.{field}", value, wait)

    def start_put(self, field, value):
        return self.gp.start_put(f"{self.name}.{field}", value)

    def restore(self):
        for field, value in sorted(self._before.items(), key=lambda item: item[0] != "SCAN"):
            self.gp.put(f"{self.name}.{field}", value, wait=False)  # a busy record would let us wait
        self.gp.put(f"{self.name}.VAL", 0, wait=False)
        self.gp.put(f"{self.name}.PROC", 1, wait=False)


@pytest.fixture
def record(gp, request):
    client = RecordClient(gp, {"swait": "userCalc10", "busy": "mybusy3"}[request.node.callspec.params["name"]])
    yield client
    client.restore()


@pytest.mark.parametrize("name", EFFECTS)
def test_each_writable_field_is_listed_with_its_effect(name):
    assert set(EFFECTS[name]) == _writable(TYPES[name])


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in EFFECTS for field in EFFECTS[name]])
def test_each_writable_field_has_its_effect(record, name, field):
    assert EFFECTS[name][field](record)


# -- the other types have tests of their own: their behaviour uses each field, and a test writes it -----------------


def _family(field):
    """PR1..PR32 behave alike."""
    return re.sub(r"\d+$", "", field)


def _words(node):
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield from re.findall(r"[A-Z][A-Z0-9]*", part.value)
        elif isinstance(part, ast.keyword) and part.arg:
            yield part.arg


@pytest.mark.parametrize("name", [name for name in TYPES if name not in EFFECTS])
def test_the_behaviour_uses_each_writable_field(name):
    tree = ast.parse(Path(inspect.getfile(TYPES[name])).read_text())
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and not node.name.startswith("_field")
    ]
    used = {_family(word) for function in functions for word in _words(function)}
    constants = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    used |= {_family(word) for constant in constants for word in _words(constant)}
    used |= {"EGU", "PREC"}  # by Record.units and Record.precision
    assert {_family(field) for field in _writable(TYPES[name])} - used == set()


@pytest.mark.parametrize("name", [name for name in TYPES if name not in EFFECTS])
def test_a_test_writes_each_writable_field(name):
    source = "\n".join(path.read_text() for path in Path(__file__).parent.glob(f"test_{name}*.py"))
    written = {_family(word) for word in _words(ast.parse(source))}
    assert {_family(field) for field in _writable(TYPES[name])} - written == set()
