"""The server's web page in a real browser: runs, a table, an image."""

import os

import pytest

from instrument import tiled_client
from instrument.framework.runfiles import RunFile
from instrument.tiled.connection import Server as Connection
from instrument.tiled.writing import TiledConsumer

from .browser import CHROMIUM, browsing
from .kinds import Recorder
from .servers import until

PICTURES = os.environ.get("TILED_PICTURES")  # a directory for the documentation's screenshots

DRAWN = """(() => {
    const canvas = document.querySelector("canvas");
    if (!canvas) return null;
    const values = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return `${canvas.width}x${canvas.height}, ${new Set(values).size} grey levels`;
})()"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")


@pytest.fixture(scope="module")
def shown(sqlite_server):
    recorder = Recorder(sqlite_server.directory / ".data" / "shown")
    recorder.scan(points=9)
    recorder.hdf5("images_one", 1)
    recorder.close()
    consumer = TiledConsumer(Connection(sqlite_server.files), "shown")
    for path in sorted(recorder.data.runs.glob("*/*/*.msgpack")):
        documents = list(RunFile(path))
        consumer.begin(documents[0][1]).take(documents)
    consumer.close()
    return tiled_client.connect(sqlite_server.url, api_key=sqlite_server.read_key, catalog="shown"), sqlite_server


def picture(browser, name):
    return browser.screenshot(PICTURES and f"{PICTURES}/{name}.png")


def test_it_lists_runs_and_shows_a_table_and_an_image(shown):
    cat, server = shown
    scan, images = cat[1], cat[2]
    with browsing() as browser:
        browser.open(f"{server.url}/ui/browse/shown?api_key={server.read_key}")
        browser.shows(scan.uid, images.uid, "1\u20132 of 2")
        picture(browser, "tiled-runs")
        browser.open(f"{server.url}/ui/browse/shown/{scan.uid}/primary/internal")  # the key is a cookie now
        browser.shows("seq_num", "m1", "noisy", "0.3333", "2.667", "1\u20139 of 9")
        picture(browser, "tiled-table")
        browser.open(f"{server.url}/ui/browse/shown/{images.uid}/primary/image")
        browser.shows("Choose a planar cut")
        until(lambda: browser.evaluate(DRAWN) == "16x12, 192 grey levels", "image")  # all 192 pixels differ
        picture(browser, "tiled-image")


def test_without_a_key_it_shows_nothing(shown):
    cat, server = shown
    with browsing() as browser:
        browser.open(f"{server.url}/ui/browse/shown")
        assert cat[1].uid not in browser.shows("TILED")
