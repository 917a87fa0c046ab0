"""Makes docs/how-to/cheat-sheet.md: each command typed once in a real session in tmux, with what it showed.

    python -m tests.session.cheat_sheet

The test beside it types them all again.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.faults.session import until, write_config
from tests.terminal import ROOT
from tests.tmux import Tmux

PAGE = ROOT / "docs" / "how-to" / "cheat-sheet.md"
LONGEST = 12  # lines of what is shown; of longer ones the middle is left out
NO_EQUAL = "-"
PLOT_BEGINS = re.compile(r" *\w+, scan \d+(:|;|$)")
IN_PLOT = re.compile(r"[│┤└]|^ *\w+, scan \d+(:|;|$)|^ [-\d. ]+  (m\d|time \(s\))$")

HEAD = """\
# Cheat sheet

Made by `python -m tests.session.cheat_sheet` from a session on the virtual beamline; a test types each command again.

A statement that is a plan is run; anywhere else a plan is a value: `yield from mv(m1, 3)` in a plan of yours,
`RE(mv(m1, 3))` in a script. `mv m1 3` is `mv(m1, 3)`; words that name nothing are text. Devices by object or by name.
Scans take intervals (one less than points) and the count time, as in SPEC. `ascan?` tells more. Ctrl-C ends what runs,
in good order.

The columns are those of spec 6 (its `lup` is `dscan`: it goes back), BLISS 2.2 and bluesky 1.15.
"""


PLOT = """
## The plot

One window for each set of signals, used again by the next scan; the centre is marked. `bec.save_plot("scan.png")` saves
it, also without a display. At a terminal without one (ssh) the curve is shown as text when a scan ends or pauses; after
`bec.disable_table()` it grows while the scan runs. In a notebook the plot grows below the cell.
`python -m tests.session.pictures` made these.

![Two scans of a peak, its centre marked](../images/ascan.png)
![A grid](../images/mesh.png)"""


@dataclass(frozen=True)
class Row:
    """One thing to do, in four languages.

    Attributes:
        what: What it is.
        here: What is typed here; what is recorded.
        spec: In SPEC.
        bliss: In BLISS.
        bluesky: With bluesky alone.
        keys: What is typed when it asks.
        plot: The page shows its plot, which is text where there is no display.
    """

    what: str
    here: str
    spec: str = NO_EQUAL
    bliss: str = NO_EQUAL
    bluesky: str = NO_EQUAL
    keys: tuple[str, ...] = ()
    plot: bool = False


SECTIONS = {
    "Motors": [
        Row("move", "mv m1 0.5", "mv m1 0.5", "mv(m1, 0.5)", "RE(bps.mv(m1, 0.5))"),
        Row("save positions", "save_position aligned m1 m2"),
        Row("list them", "positions"),
        Row("move by", "mvr m1 -0.2", "mvr m1 -0.2", "mvr(m1, -0.2)", "RE(bps.mvr(m1, -0.2))"),
        Row("move, showing", "umv m1 0 m2 1", "umv m1 0 m2 1", "umv(m1, 0, m2, 1)", "%mov m1 0 m2 1"),
        Row("move by, showing", "umvr m2 -1", "umvr m2 -1", "umvr(m2, -1)", "%movr m2 -1"),
        Row("tweak", "tw m1 0.1", "tw m1 0.1", "tweak_cli(m1)", keys=("+", "-", "q")),
        Row("where some are", "wm m1 m2", "wm m1 m2", "wm(m1, m2)", "m1.position"),
        Row("where all are", "wa", "wa", "wa()", "%wa"),
        Row("limits", "set_lm m2 -10 10", "set_lm m2 -10 10", "m2.limits = -10, 10", "m2.set_lim(-10, 10)"),
        Row("redefine, user", "set_user m2 1", "set m2 1", "m2.position = 1", "m2.set_current_position(1)"),
        Row("redefine, dial", "set_dial m2 -1", "set_dial m2 -1", "m2.dial = -1"),
        Row("go back", "goto_position aligned"),
    ],
    "Counting": [
        Row("count", "ct 0.5", "ct 0.5", "ct(0.5)", "RE(bp.count([scaler1]))"),
        Row("what counts", "counters scaler1 noisy", "counters", "ACTIVE_MG.enable(...)"),
        Row("again and again", "timescan 0.1 0 3", "timescan 0.1", "loopscan(3, 0.1)", "RE(bp.count(dets, 3))"),
    ],
    "Scans": [
        Row("what would it do?", "estimate ascan(m1,-1,1,40,0.1)", bluesky="check_limits(plan)"),
        Row("step by step", "summarize(ascan(m1, 0, 1, 1, 0.1))", bluesky="summarize_plan(plan)"),
        Row(
            "one motor",
            "ascan m1 -1 1 40 0.1",
            "ascan m1 -1 1 40 0.1",
            "ascan(m1, -1, 1, 40, 0.1)",
            "RE(bp.scan(dets, m1, -1, 1, 41))",
            plot=True,
        ),
        Row("centre", "cen", "p CEN", "cen()", 'bec.peaks["cen"]'),
        Row("centre of mass", "com", NO_EQUAL, "com()", 'bec.peaks["com"]'),
        Row("highest", "peak", "p pl_xMAX", "peak()", 'bec.peaks["max"]'),
        Row("highest, by its other name", "pic"),
        Row("width", "fwhm", "p pl_FWHM", "fwhm()", 'bec.peaks["fwhm"]'),
        Row("fit", "fit lorentzian"),
        Row("go to the centre", "goto_cen", "umv m1 CEN", "goto_cen()", "RE(bps.mv(m1, ...))"),
        Row("to the centre of mass", "goto_com", bliss="goto_com()"),
        Row("to the highest", "goto_peak", "umv m1 pl_xMAX", "goto_peak()"),
        Row(
            "about where it is",
            "dscan m1 -0.1 0.1 20 0.1",
            "dscan m1 -0.1 0.1 20 0.1",
            "dscan(m1, -0.1, 0.1, 20, 0.1)",
            "RE(bp.rel_scan(dets, m1, -0.1, 0.1, 21))",
        ),
        Row(
            "scan and go to the peak",
            "lup m1 -0.2 0.2 20 0.1",
            "lup m1 -0.2 0.2 20 0.1; umv m1 CEN",
            "lineup(m1, -0.2, 0.2, 20, 0.1, noisy)",
        ),
        Row("until it is stable", "lineup2 noisy m1 -0.2 0.2 21"),
        Row(
            "two motors together",
            "a2scan m1 0 0.2 m2 0 1 2 0.1",
            "a2scan m1 0 0.2 m2 0 1 2 0.1",
            "a2scan(m1, 0, 0.2, m2, 0, 1, 2, 0.1)",
            "RE(bp.scan(dets, m1, 0, 0.2, m2, 0, 1, num=3))",
        ),
        Row(
            "together, relative",
            "d2scan m1 0 0.2 m2 0 0.1 2 0.1",
            "d2scan m1 0 0.2 m2 0 0.1 2 0.1",
            "d2scan(m1, 0, 0.2, m2, 0, 0.1, 2, 0.1)",
            "RE(bp.rel_scan(dets, m1, 0, 0.2, m2, 0, 0.1, num=3))",
        ),
        Row(
            "a grid",
            "mesh m1 0 0.1 1 m2 0 0.1 1 0.1",
            "mesh m1 0 0.1 1 m2 0 0.1 1 0.1",
            "amesh(m1, 0, 0.1, 1, m2, 0, 0.1, 1, 0.1)",
            "RE(bp.grid_scan(dets, m2, 0, 0.1, 2, m1, 0, 0.1, 2))",
        ),
        Row(
            "a grid, relative",
            "dmesh m1 0 0.1 1 m2 0 0.1 1 0.1",
            bliss="dmesh(m1, 0, 0.1, 1, m2, 0, 0.1, 1, 0.1)",
            bluesky="RE(bp.rel_grid_scan(...))",
        ),
        Row(
            "a list",
            "lookupscan m1 [0,0.3] 0.1",
            bliss="lookupscan([(m1, [0, 0.3])], 0.1)",
            bluesky="RE(bp.list_scan(dets, m1, [0, 0.3]))",
        ),
        Row("what is plotted", "plotselect noisy", "plotselect noisy", "plotselect(noisy)"),
    ],
    "The experiment": [
        Row("file", "newfile iron.dat", "newfile iron.dat", 'newcollection("iron")', "specwriter.newfile(...)"),
        Row("sample", "newsample iron", bliss='newsample("iron")', bluesky='RE.md["sample"] = "iron"'),
        Row("proposal", "newproposal 1234", bliss='newproposal("1234")', bluesky='RE.md["proposal_id"] = "1234"'),
        Row("comment", "comment the sample is wet", "comment ...", 'elog_print("...")'),
        Row("scans so far", "showscans 3", "showscans", "SCANS"),
        Row("suspenders", "suspenders beam on", bluesky="RE.install_suspender(...)"),
        Row("and off", "suspenders beam off", bluesky="RE.remove_suspender(...)"),
        Row("the last error", "last_error", bliss="last_error()"),
    ],
    "Devices, runs and files": [
        Row("devices", "devices"),
        Row("their classes and PVs", "listobjects"),
        Row("what one has", "listdevice m1"),
        Row("runs so far", "listruns 3"),
        Row("their files: are they written?", "outbox"),
        Row("wait for them", "wait_for_files"),
        Row("a run as another file", "export -1 last.csv"),
    ],
}

# What takes longer, or makes sense together with Python only: docs/reference/prompt.md shows it, and is typed, too.
SHOWN_WITH_ALL_NAMES = {
    *("ad_lit_by", "ad_vs_motor", "change_ad_simulated_image_parameters", "darks_flats", "dither_ad_off"),
    *("dither_ad_on", "dither_ad_peak_position", "image_peak", "locate_image_peak", "show_image"),
    *("change_noisy_parameters", "findpeak_multipass", "repeat_findpeak", "two_pass_scan"),
    *("snapshot", "snapshot_diff", "snapshot_restore", "snapshot_undo"),
    *("nexus_tree", "start_beamline", "trace_messages"),
}


def record(tmux: Tmux) -> dict[str, str]:
    """Type each command; what each showed."""
    shown = {}
    for number, row in enumerate((row for rows in SECTIONS.values() for row in rows), 1):
        typed = f"In [{number}]: {row.here}"
        tmux.prompt(number)
        tmux.type(row.here)
        for asked, key in enumerate(row.keys, 1):
            until(lambda typed=typed, asked=asked: _asked(tmux, typed) == asked, "a question")
            tmux.type(key)
        tmux.prompt(number + 1)
        shown[row.here] = "\n".join(tmux.after(typed))
    return shown


def _asked(tmux: Tmux, typed: str) -> int:
    """How many questions were asked, if the last one waits for its answer."""
    lines = tmux.shown()
    if not any(line.endswith(typed) for line in lines) or not lines[-1].endswith("?"):
        return 0
    return sum(" step " in line and "?" in line for line in [*tmux.after(typed), lines[-1]])


def page(shown: dict[str, str]) -> str:
    """The page."""
    parts = [HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f"\n## {section}\n\n| | SPEC | BLISS | bluesky | here |\n| --- | --- | --- | --- | --- |")
        for row in rows:
            cells = (f"`{cell}`" if cell != NO_EQUAL else "" for cell in (row.spec, row.bliss, row.bluesky, row.here))
            parts.append(f"| {row.what} | {' | '.join(cells)} |")
        parts.append("\n```")
        for row in rows:
            parts.append(f">>> {row.here}")
            parts += _shortened(shown[row.here], row.plot)
        parts.append("```")
    return "\n".join([*parts, PLOT]) + "\n"


def _shortened(text: str, plot: bool) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if PLOT_BEGINS.match(line)), len(lines))
    curve = lines[first:] if plot else []
    # What comes behind the plot, of a plan that goes on.
    lines = lines[:first] + [line for line in lines[first:] if not IN_PLOT.search(line)]
    if len(lines) > LONGEST:
        lines = [*lines[: LONGEST // 2 + 2], "    ...", *lines[-(LONGEST // 2 - 3) :]]
    return lines + curve


def recorded(directory: Path) -> dict[str, str]:
    """Start a session in a directory, always in the same simulated world, and type each command; what each showed."""
    packaged = (ROOT / "instrument/config/iconfig.yml").read_text()
    rest = packaged.replace("seed: null", "seed: 7").replace("devices: [devices.yml]", "")
    tmux = Tmux(directory, INSTRUMENT_CONFIG=str(write_config(directory, rest)))
    try:
        shown = record(tmux)
        tmux.leave()
        return shown
    finally:
        tmux.close()


def main() -> int:
    """Record, and write the page."""
    with tempfile.TemporaryDirectory() as name:
        PAGE.write_text(page(recorded(Path(name))).replace(name, "~"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
