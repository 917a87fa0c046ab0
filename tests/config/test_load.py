"""The configuration: what is right loads, and every mistake is told at once, with file, line, key and nearest match."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from instrument import config
from instrument.config import ConfigError, documents, load

PACKAGED = Path(config.__file__).parent


def write(directory: Path, **files: str) -> Path:
    """Write files `name="content"` as name.yml; returns the iconfig.yml."""
    for name, content in files.items():
        (directory / f"{name}.yml").write_text(textwrap.dedent(content))
    return directory / "iconfig.yml"


def mistakes(path: Path, **kwargs) -> list[str]:
    """Each mistake as its line, without the directory."""
    with pytest.raises(ConfigError) as caught:
        load(path, **kwargs)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [line.removeprefix(f"{path.parent}/") for line in str(caught.value).splitlines()]


def test_the_packaged_configuration_is_the_virtual_beamline():
    loaded = load()
    names = [spec.name for spec in loaded.devices]
    assert names == [
        *(f"m{n}" for n in range(1, 17)),
        *"scaler1 temperature noisy shutter ring calcs calcouts gp_stats adsimdet".split(),
    ]
    assert loaded.shortcuts == {
        "timebase": "scaler1.channels.chan01.s",
        "I0": "scaler1.channels.chan02.s",
        "scint": "scaler1.channels.chan03.s",
        "diode": "scaler1.channels.chan04.s",
    }
    assert loaded.catalog == "embedded"
    assert loaded.virtual_beamline.prefix == "gp:"


def test_an_empty_file_means_what_the_packaged_one_writes_out(tmp_path):
    path = write(tmp_path, iconfig="devices: []\n")
    empty, packaged = load(path), load()
    for name in config.Config.model_fields:
        if name not in {"file", "device_files", "devices", "shortcuts", "suspenders"}:
            assert getattr(empty, name) == getattr(packaged, name), name


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("{name: beam, signal: ring.current}", "needs low, high or only"),
        ("{name: beam, signal: ring.current, low: 5, high: 4}", "low has to be below high"),
        ("{name: beam, signal: ring.current, lwo: 5}", "lwo"),
    ],
)
def test_a_suspender_that_can_not_work_is_told(tmp_path, wrong, why):
    with pytest.raises(ConfigError, match=why):
        load(write(tmp_path, iconfig=f"devices: []\nsuspenders: [{wrong}]\n"))


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError):
        load().connection_timeout = 1.0


def test_it_is_found_by_argument_then_environment_then_package(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
        write(directory, iconfig="devices: []\n")
    monkeypatch.delenv("INSTRUMENT_CONFIG", raising=False)
    assert load().file == PACKAGED / "iconfig.yml"
    monkeypatch.setenv("INSTRUMENT_CONFIG", str(one / "iconfig.yml"))
    assert load().file == one / "iconfig.yml"
    assert load(two).file == two / "iconfig.yml"  # a directory stands for the file in it


def test_every_mistake_is_told_at_once(tmp_path):
    path = write(
        tmp_path,
        iconfig="""\
            metadata: {beamline_id: 7, anything: goes}
            catalog: embedded
            catalog: class_2021_03
            conection_timeout: 3.0
            devices: [devces.yml, devices.yml, devices.yml]
            logging:
              console: INFOS
              backups: -1
            virtual_beamline: {strt: true, seed: 1.5}
            journal: 3
            shortcuts: {for: m1, m1: m1, I0: scaler.chan, 2x: m1.x}
            """,
        devices="""\
            ophyd.EpicsMotor:
              - {name: m1, prefix: "gp:m1", labels: motor}
              - {name: m1, prefix: "gp:m2"}
              - {name: 2theta, prefix: "gp:m3"}
              - {name: class, prefix: "gp:m4", baseline: 1}
              - {name: 5, prefix: "gp:m5"}
              - {name: m6, prefix: "gp:m6", prefix: "gp:m7"}
              - m7
            ophyd.Signal: {name: s1}
            Motor:
              - {name: m9}
            """,
    )
    assert mistakes(path) == [
        "devices.yml:2: m1.labels: must be a list such as [motor], not 'motor'",
        "devices.yml:3: m1: the name is already used on line 2",
        "devices.yml:4: 2theta.name: '2theta' is no Python name; use letters, digits and underscores",
        "devices.yml:5: class.name: 'class' is a word of the Python language; choose another name",
        "devices.yml:5: class.baseline: must be true or false, not 1",
        "devices.yml:6: ophyd.EpicsMotor.name: must be text, not 5; put it in quotes",
        "devices.yml:7: ophyd.EpicsMotor.5.prefix: is given twice; first on line 7",
        "devices.yml:8: ophyd.EpicsMotor: each device is `{name: ..., prefix: ...}`, not 'm7'",
        "devices.yml:9: ophyd.Signal: needs a list: each device begins with `- name:`",
        "devices.yml:10: Motor: is no dotted path of a class, such as ophyd.EpicsMotor",
        "iconfig.yml:1: metadata.beamline_id: input should be a valid string, not 7",
        "iconfig.yml:3: catalog: is given twice; first on line 2",
        "iconfig.yml:4: conection_timeout: unknown key; did you mean 'connection_timeout'?",
        "iconfig.yml:5: devices: there is no file 'devces.yml' beside it; did you mean 'devices.yml'?",
        "iconfig.yml:5: devices: 'devices.yml' is listed twice",
        "iconfig.yml:7: logging.console: 'INFOS' is none of DEBUG, INFO, WARNING, ERROR, CRITICAL; "
        "did you mean 'INFO'?",
        "iconfig.yml:8: logging.backups: input should be greater than or equal to 0, not -1",
        "iconfig.yml:9: virtual_beamline.seed: input should be a valid integer, not 1.5",
        "iconfig.yml:9: virtual_beamline.strt: unknown key; did you mean 'start'?",
        "iconfig.yml:10: journal: needs indented `key: value` lines, not 3",
        "iconfig.yml:11: shortcuts.for: 'for' is a word of the Python language; choose another name",
        "iconfig.yml:11: shortcuts.m1: is already the device on line 2 of devices.yml",
        "iconfig.yml:11: shortcuts.I0: there is no device 'scaler'",
        "iconfig.yml:11: shortcuts.2x: '2x' is no Python name; use letters, digits and underscores",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [1\nb: 2\n", "iconfig.yml:2: is not valid YAML: did not find expected ',' or ']'"),
        ("- a\n- b\n", "iconfig.yml:1: must hold `key: value` lines"),
        ("true: 1\ndevices: []\n", "iconfig.yml:1: the key true must be text"),
        ("a: b\n---\nc: d\n", "iconfig.yml:2: is not valid YAML: but found another document"),
        ("devices: []\nshortcuts: &a {x: *a}\n", "iconfig.yml:2: shortcuts.x: an alias that contains itself"),
        ("devices: []\ncatalog: 2026-02-30\n", "iconfig.yml:2: catalog: '2026-02-30' cannot be read: day is out of"),
    ],
)
def test_a_file_that_is_no_settings_file_is_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "iconfig.yml"
    path.write_text(content)
    assert mistakes(path)[0].startswith(told)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    assert mistakes(tmp_path / "none.yml") == ["none.yml: cannot be read: No such file or directory"]
    (tmp_path / "iconfig.yml").write_bytes(b"catalog: \xff\xfe\n")
    assert mistakes(tmp_path / "iconfig.yml") == ["iconfig.yml: cannot be read: it is not UTF-8 text"]


def test_a_name_used_in_two_files_is_told_with_both(tmp_path):
    path = write(
        tmp_path,
        iconfig="devices: [one.yml, two.yml]\n",
        one="ophyd.Signal:\n- {name: s1}\n",
        two="ophyd.Signal:\n- {name: s2}\n- {name: s1}\n",
    )
    assert mistakes(path) == ["two.yml:3: s1: the name is already used on line 2 of one.yml"]


def test_the_problems_of_a_device_check_are_told_with_the_rest(tmp_path):
    path = write(tmp_path, iconfig="catlog: a\n", devices="ophyd.Signal:\n- {name: s1}\n")

    def check(specs):
        return [config.Problem(spec.file, spec.line, spec.name, "is wrong") for spec in specs]

    assert mistakes(path, check_devices=check) == [
        "devices.yml:2: s1: is wrong",
        "iconfig.yml:1: catlog: unknown key; did you mean 'catalog'?",
    ]


def test_neither_device_nor_shortcut_may_hide_another_name(tmp_path):
    path = write(
        tmp_path,
        iconfig="shortcuts: {bp: s1}\n",
        devices="ophyd.Signal:\n- {name: RE}\n-\n  value: 1\n  name: sd\n- {name: s1}\n",
    )
    assert mistakes(path, exported_names={"RE", "sd", "bp"}) == [
        "devices.yml:2: RE.name: is the name of something else at the prompt; choose another",
        "devices.yml:5: sd.name: is the name of something else at the prompt; choose another",
        "iconfig.yml:1: shortcuts.bp: is the name of something else at the prompt; choose another",
    ]


def test_a_bits_device_file_loads_unchanged(tmp_path):
    """The shape of the APS BITS packages: labels say what is in the baseline, classes without entries, factories."""
    path = write(
        tmp_path,
        iconfig="",
        devices="""\
            # Guarneri-style device YAML configuration
            apsbits.utils.sim_creator.predefined_device:
            - {creator: ophyd.sim.motor, name: sim_motor}
            - {creator: ophyd.sim.noisy_det, name: sim_det}

            apstools.devices.SimulatedApsPssShutterWithStatus:
            - name: shutter
              labels: ["shutters", "baseline"]

            apsbits.utils.sim_creator.motors:
            - {prefix: "ioc:m", first: 1, last: 4, labels: ["motor"]}

            apstools.devices.motor_factory.mb_creator:
            - name: gantry
              prefix: "12idc:"
              class_name: Gantry
              motors: {hor: m6, ver: m4}

            ophyd.EpicsMotor:
            # - {name: LAXm1, prefix: "usxLAX:m58:c0:m1"}
            """,
    )
    specs = load(path).devices
    assert [(spec.name, spec.cls.rpartition(".")[2], spec.baseline) for spec in specs] == [
        ("sim_motor", "predefined_device", False),
        ("sim_det", "predefined_device", False),
        ("shutter", "SimulatedApsPssShutterWithStatus", True),
        ("", "motors", False),
        ("gantry", "mb_creator", False),
    ]
    assert specs[3].kwargs == {"prefix": "ioc:m", "first": 1, "last": 4, "labels": ["motor"]}
    assert specs[4].kwargs["motors"] == {"hor": "m6", "ver": "m4"}
    assert (specs[4].line, specs[4].key_lines["motors"], specs[4].class_line) == (14, 17, 13)


def test_our_own_keys_are_not_handed_to_the_class(tmp_path):
    path = write(
        tmp_path,
        iconfig="",
        devices="ophyd.Signal:\n- {name: s1, value: 1, baseline: true, enabled: false, core: false}\n",
    )
    (spec,) = load(path).devices
    assert spec.kwargs == {"name": "s1", "value": 1}
    assert (spec.baseline, spec.enabled, spec.core) == (True, False, False)


def test_another_prefix_of_the_virtual_beamline_reaches_the_devices(tmp_path):
    path = write(
        tmp_path,
        iconfig="virtual_beamline: {prefix: 'sky:'}\n",
        devices="""\
            ophyd.EpicsMotor:
            - {name: m1, prefix: "gp:m1"}
            - {name: m2, prefix: "ioc:gp:m2"}
            some.factory:
            - {name: x, pvs: ["gp:a", {b: "gp:b"}], text: "a gp: inside"}
            """,
    )
    m1, m2, x = load(path).devices
    assert m1.kwargs["prefix"] == "sky:m1"
    assert m2.kwargs["prefix"] == "ioc:gp:m2"
    assert x.kwargs == {"name": "x", "pvs": ["sky:a", {"b": "sky:b"}], "text": "a gp: inside"}


def test_merge_keys_and_anchors_work(tmp_path):
    path = write(
        tmp_path,
        iconfig="",
        devices="""\
            ophyd.EpicsMotor:
            - &stage {name: m1, prefix: "gp:m1", labels: [motor]}
            - {<<: *stage, name: m2, prefix: "gp:m2"}
            """,
    )
    _, m2 = load(path).devices
    assert (m2.name, m2.kwargs["prefix"], m2.labels) == ("m2", "gp:m2", ("motor",))


def test_loading_imports_nothing_heavy_and_is_quicker_than_yaml_alone():
    """Of the packaged files, by PyYAML's own parser; the best of some, in seconds of this process."""
    code = """
        import sys, time
        from pathlib import Path
        import yaml
        from instrument import config
        def best(function):
            took = []
            for _ in range(7):
                began = time.process_time()
                function()
                took.append(time.process_time() - began)
            return min(took)
        texts = [path.read_text() for path in Path(config.__file__).parent.glob("*.yml")]
        quicker = best(config.load) < best(lambda: [yaml.safe_load(text) for text in texts])
        heavy = {"ophyd", "bluesky", "epics", "numpy", "matplotlib", "apstools", "databroker"} & sys.modules.keys()
        print(sorted(heavy), quicker)
    """
    output = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True, timeout=60)
    assert output.strip() == "[] True"


keys = st.text(st.characters(categories=["Ll", "Lu", "Nd"], include_characters="_ :#"), min_size=1, max_size=12)
# Without control characters: libyaml takes some of them for line ends, PyYAML's own writer does not.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda child: st.lists(child, max_size=4) | st.dictionaries(keys, child, max_size=4),
    max_leaves=20,
)


@given(tree=st.dictionaries(keys, trees, max_size=4))
def test_a_document_reads_what_yaml_wrote(tmp_path_factory, tree):
    """Whatever PyYAML dumps comes back equal, each key with the line that it stands on."""
    path = tmp_path_factory.mktemp("yaml") / "any.yml"
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")
    document = documents.read(path)
    assert document.problems == []
    assert (document.content or {}) == tree
    for key in tree:
        assert document.line((key,)) is not None
    if all(not isinstance(value, str) for value in tree.values()):
        lines = text.splitlines()
        for key in tree:
            assert lines[document.lines[(key,)] - 1].lstrip("? '\"").startswith(key.lstrip(" '\"")[:1])


def test_a_large_device_file_is_as_much_work_as_its_devices(tmp_path):
    """Counted in calls, which another load of the machine does not change: ten times the devices, ten times as many."""
    path = write(tmp_path, iconfig="")

    def calls(number):
        entries = "\n".join(f'- {{name: x{n}, prefix: "ioc:m{n}", labels: [motor]}}' for n in range(number))
        (tmp_path / "devices.yml").write_text(f"ophyd.EpicsMotor:\n{entries}\n")
        counted = 0

        def count(_frame, event, _argument):
            nonlocal counted
            counted += event in {"call", "c_call"}

        assert len(load(path).devices) == number
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            load(path)
        finally:
            sys.setprofile(before)
        return counted

    assert calls(1000) < 11 * calls(100)
