"""Heavy imports happen behind the prompt, in order, and first use joins them."""

import sys
import threading

import pytest

from instrument.framework.imports import Importer


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Two modules that note the thread which imports them; the first waits until it may go on."""
    (tmp_path / "heavy_one.py").write_text(
        "import threading, gate_for_test\ngate_for_test.wait()\nthread = threading.current_thread().name\n"
    )
    (tmp_path / "heavy_two.py").write_text("import threading\nthread = threading.current_thread().name\n")
    (tmp_path / "gate_for_test.py").write_text(
        "import threading\nevent = threading.Event()\ndef wait(): assert event.wait(20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_one", "heavy_two"
    for name in ("heavy_one", "heavy_two", "gate_for_test"):
        sys.modules.pop(name, None)


def test_first_use_joins_the_import_under_way(modules):
    import gate_for_test

    importer = Importer(modules)
    importer.start()
    threading.Timer(0.2, gate_for_test.event.set).start()
    assert importer.need("heavy_two").thread == "importer"
    importer.close()


def test_the_importer_rests_while_the_engine_is_busy_until_somebody_needs_it(modules):
    import gate_for_test

    gate_for_test.event.set()
    asked = threading.Event()

    def busy():
        asked.set()
        return True

    importer = Importer(modules, busy=busy)
    importer.start()
    assert asked.wait(20)
    assert "heavy_one" not in sys.modules
    assert importer.need("heavy_one").thread == "importer"
    importer.close()


def test_a_module_that_was_not_listed_is_imported_at_once():
    assert Importer(()).need("json").__name__ == "json"


def test_an_import_that_fails_is_told_to_whom_needs_it():
    importer = Importer(("no_such_module_here",))
    importer.start()
    with pytest.raises(ImportError):
        importer.need("no_such_module_here")
    importer.close()
