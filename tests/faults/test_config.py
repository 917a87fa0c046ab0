"""Mistakes in the configuration: each in one line at the start, exit code 2, nothing started."""

import pytest

from tests.faults.session import Session, masked, write_config

MISTAKES = {
    "a misspelt key": (
        "virtual_beamline: {strat: true}\nconection_timeout: 3.0\n",
        "",
        [
            "<directory>/iconfig.yml:2: virtual_beamline.strat: unknown key; did you mean 'start'?",
            "<directory>/iconfig.yml:3: conection_timeout: unknown key; did you mean 'connection_timeout'?",
        ],
    ),
    "a wrong value": (
        "connection_timeout: soon\n",
        "",
        ["<directory>/iconfig.yml:2: connection_timeout: input should be a valid number, not 'soon'"],
    ),
    "devices": (
        "",
        "instrument.devices.motors.Moter:\n  - {name: mx, prefix: 'gp:mx'}\n"
        "instrument.devices.motors.Motor:\n  - {name: my, prefx: 'gp:my'}\n  - {name: m1, prefix: 'gp:m1'}\n"
        "  - {name: RE, prefix: 'gp:m1'}\n",
        [
            "<directory>/more.yml:1: instrument.devices.motors.Moter: instrument.devices.motors has no class 'Moter'; "
            "did you mean 'instrument.devices.motors.Motor'?",
            "<directory>/more.yml:4: my.prefx: Motor takes no such keyword; did you mean 'prefix'?",
            "<directory>/more.yml:5: m1: the name is already used on line 6 of devices.yml",
            "<directory>/more.yml:6: RE.name: is the name of something else at the prompt; choose another",
        ],
    ),
    "no YAML": (
        "directories: {logs: [\n",
        "",
        ["<directory>/iconfig.yml:3: is not valid YAML: did not find expected node content"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_before_anything_starts(tmp_path, mistake):
    text, devices, lines = MISTAKES[mistake]
    config = write_config(tmp_path, text, devices)
    with Session(tmp_path, arguments=("--config", str(config)), wait=False) as session:
        assert masked(session.until_end(), tmp_path).splitlines() == lines
        assert session.process.exitstatus == 2
    assert not (tmp_path / ".logs").exists()
    assert not (tmp_path / ".data").exists()


def test_a_file_that_is_not_there(tmp_path):
    with Session(tmp_path, env={"INSTRUMENT_CONFIG": "nowhere.yml"}, wait=False) as session:
        assert session.until_end().strip() == "nowhere.yml: cannot be read: No such file or directory"
        assert session.process.exitstatus == 2
