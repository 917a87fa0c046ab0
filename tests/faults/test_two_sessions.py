"""Sessions that share their data: at the same time, and one after the other was killed."""

import re

import psutil
import pytest

from tests.faults.session import RETURNED, Session, masked, run_shown, until
from tests.faults_page import fault

OTHER = (
    "W <time> - another session is using <directory>/.data/state.json (pid <pid> on <host>, since <time>): "
    "scan numbers are shared, none is given twice"
)
ROWS = [["0.00000"], ["0.01000"], ["0.02000"]]


def warnings(session):
    """The lines of the start that say more than that it goes on."""
    return [line for line in masked(session.startup, session.directory).splitlines() if line.startswith("W ")]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@fault("Two sessions at two prompts write at once", "each is told of the other; shared numbers, one catalog")
def test_two_at_a_time(directory):
    with Session(directory) as one, Session(directory) as two:
        assert (warnings(one), warnings(two)) == ([], [OTHER])
        assert one.beamline.pid != two.beamline.pid
        for number, session in enumerate([one, two, two, one], 1):
            shown = session.shows("RE(bp.scan([noisy], m2, 0, 0.02, 3))")
            expected = run_shown(number, "scan", ["m2", "noisy"], ROWS, RETURNED)
            assert shown == (f"{OTHER}\n{expected}" if number == 1 else expected)  # the first session is told now
        # at the same moment
        one.process.sendline("for _ in range(5): RE(bp.count([noisy]))")
        two.process.sendline("for _ in range(5): RE(bp.count([noisy]))")
        shown = one.until_prompt() + two.until_prompt()
        numbers = sorted(int(number) for number in re.findall(r"\(scan num: (\d+)\)", shown))
        assert numbers == list(range(5, 15))
        for session in (one, two):
            assert session.value("sorted(cat[uid].metadata['start']['scan_id'] for uid in list(cat))") == list(
                range(1, 15)
            )
            table = masked(session.run("listruns()")).splitlines()
            listed = [int(line.split()[0]) for line in table[3:-1]]
            assert sorted(listed) == list(range(1, 15))
            assert listed[-4:] == [4, 3, 2, 1]  # the others began at the same moments
        assert two.exit() == 0
        one.check_next_scan(number=15)
        assert one.exit() == 0


@fault("kill -9 of a session at its prompt in a run", "the next one says so; catalog and SPEC file have its points")
def test_a_session_that_is_killed_in_a_run(directory):
    with Session(directory) as session:
        assert warnings(session) == []
        number = session.scan_id + 1
        ioc = psutil.Process(session.beamline.pid)
        session.type("RE(bp.scan([noisy], m2, 0, 10, 11))")
        session.wait_for(r"\|         3 \|[^\n]*\n")
        session.kill()
        until(lambda: not ioc.is_running() or ioc.status() == psutil.STATUS_ZOMBIE, "the end of the IOC")
    with Session(directory) as session:
        assert warnings(session) == [
            f"W <time> - run {number} (<uid>) was left open when its session ended: "
            "it is closed with exit status fail, its data are there"
        ]
        assert session.last_run() == (number, "fail", "session ended", 3)
        assert session.pv("gp:m2.DMOV") == "1"
        assert session.value("wait_for_files()") is True
        spec = "".join(path.read_text() for path in sorted(directory.glob("*.dat")))
        scan = next(part for part in spec.split("\n#S ") if part.startswith(f"{number} "))
        data = [line.split()[0] for line in scan.splitlines()[1:] if line and not line.startswith("#")]
        assert (data, scan.rstrip().endswith("exit_status = fail")) == (["0.0", "1.0", "2.0"], True)
        session.check_next_scan()
        assert session.exit() == 0
