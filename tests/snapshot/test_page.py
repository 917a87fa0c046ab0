"""The page that `--html` writes, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from instrument.framework.runfiles import RunFile

from .conftest import Shell

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DEADLINE = 120.0  # s, generous: the machine may be busy

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: chromium is missing")


@pytest.fixture
def browse(tmp_path):
    """The document that a browser makes of a page, when its scripts have run."""

    def run(page, *arguments, fragment=""):
        command = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            *arguments,
            f"{page.as_uri()}{fragment}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
        return done.stdout

    return lambda page, fragment="": run(page, "--dump-dom", fragment=fragment)


def rows(document):
    """The rows that are shown: their name and value."""
    body = document[document.index("<tbody>") : document.index("</tbody>")]
    cell = r'<td class="{}">(.*?)</td>'
    return {
        unescape(re.findall(cell.format("name"), row)[0]): unescape(re.findall(cell.format("value"), row, re.DOTALL)[0])
        for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)
        if not re.match(r"<tr[^>]*\bhidden", row)
    }


@pytest.fixture(scope="module")
def page(virtual_beamline, put, tmp_path_factory):
    put("gp:gp:text1", "<b>&copy; $run")
    directory = tmp_path_factory.mktemp("page")
    shell = Shell(directory, dict(virtual_beamline.environment.variables))
    pvs = ("gp:m1", "gp:m1.RBV", "gp:m2", "gp:gp:text1", "gp:ACCESS", "gp:nope")
    told = shell.run(*pvs, "--timeout", "4", "--html", "page.html", "-q", "-m", "note=<script>alert(1)</script>")
    assert told.returncode == 1, told.stderr
    return directory / "page.html"


@in_chromium
def test_a_browser_shows_every_row_and_text_as_text(page, browse):
    document = browse(page)
    shown = rows(document)
    assert set(shown) == {"gp:m1", "gp:m1.RBV", "gp:m2", "gp:gp:text1", "gp:ACCESS", "gp:nope"}
    assert shown["gp:gp:text1"] == "<b>&copy; $run"
    assert shown["gp:nope"] == "not read: no answer in 4 s"
    assert ">6 of 6</span>" in document
    assert "<dd>&lt;script&gt;alert(1)&lt;/script&gt;</dd>" in document


TYPED = {
    "gp:m1": {"gp:m1", "gp:m1.RBV"},
    "RBV gp": {"gp:m1.RBV"},  # all words, in any order
    "running": {"gp:ACCESS"},  # in values, too; capitals make no difference
    "nothing has this": set(),
}
TYPING = """<pre id="seen"></pre><script>
const seen = [];
for (const typed of %s) {
  search.value = typed;
  search.dispatchEvent(new Event("input"));
  const left = rows.filter(row => row.getClientRects().length).map(row => row.cells[2].textContent);
  seen.push([typed, left, document.getElementById("count").textContent, decodeURIComponent(location.hash)]);
}
document.getElementById("seen").textContent = JSON.stringify(seen);
</script></body>"""


@in_chromium
def test_what_is_typed_into_the_search_box_filters_the_rows(page, browse):
    typed_into = page.with_name("typed.html")
    typed_into.write_text(page.read_text().replace("</body>", TYPING % json.dumps(list(TYPED))))
    seen = json.loads(unescape(re.findall(r'<pre id="seen">(.*?)</pre>', browse(typed_into), re.DOTALL)[0]))
    assert {typed: set(left) for typed, left, _, _ in seen} == TYPED
    assert [count for *_, count, _ in seen] == [f"{len(left)} of 6" for left in TYPED.values()]
    assert [address for *_, address in seen] == [f"#{typed}" for typed in TYPED]  # to be sent to somebody


@in_chromium
def test_an_address_with_a_search_shows_what_it_searches_for(page, browse):
    assert set(rows(browse(page, "#RBV%20gp"))) == {"gp:m1.RBV"}


def test_the_link_leads_to_the_run(page):
    address, uid = re.findall(r'<p>Run <a href="(.*?)">(.*?)</a>', page.read_text())[0]
    documents = dict(RunFile(Path(unquote(urlparse(unescape(address)).path))))
    assert documents["start"]["uid"] == uid


def test_a_page_that_cannot_be_written_is_told_and_the_snapshot_is_there(snapshot, tmp_path):
    told = snapshot("gp:m1", "--html", str(tmp_path / "nowhere" / "page.html"))
    uid = snapshot("--show", "-q").out.strip()
    assert (told.code, told.err) == (
        2,
        f"bluesky_snapshot: the page {tmp_path}/nowhere/page.html can't be written (No such file or directory); "
        f"snapshot 1 ({uid[:7]}) is recorded all the same: bluesky_snapshot --show {uid[:7]} --html FILE writes it "
        "elsewhere\n",
    )


def test_the_page_of_an_earlier_snapshot_is_written_by_show(snapshot, tmp_path):
    snapshot("gp:m1", "-q")
    assert snapshot("--show", "--html", str(tmp_path / "page.html"), "-q").code == 0
    assert set(rows((tmp_path / "page.html").read_text())) == {"gp:m1"}
