"""Live table and plot: what people see, drawn where and as often as it may be, and never in a run's way."""

import enum
import itertools
import logging
import threading
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import matplotlib as mpl
import numpy as np
import pytest
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.callbacks.core import LiveTable
from matplotlib.backend_bases import ResizeEvent
from ophyd import Component as Cpt
from ophyd import Device, Kind, Signal
from ophyd.sim import det, det2, det4, motor, motor1, motor2, noisy_det

from instrument.callbacks.live import BestEffort, Table
from instrument.config.errors import UserError
from instrument.config.names import LOGGER_NAME
from instrument.framework.engine import MainThread, RunEngine


@pytest.fixture(autouse=True)
def no_display():
    """Pictures without a screen, and none left over."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def bec():
    return BestEffort()


@pytest.fixture
def feed(bec):
    """Give a recorded run to `bec` as the RunEngine does, from another thread."""

    def feed_documents(documents, to=bec):
        def run():
            for name, doc in documents:
                to(name, doc)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)

    return feed_documents


class GuiCanvas:
    """Makes the figures of a test look as if they had a window, and notes who draws them."""

    def __init__(self, monkeypatch):
        self.draws = []  # of all of a figure
        self.shown = []  # those, and of new points onto what is there
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        def noted(way, *where):
            def draw(canvas, *arguments):
                begin = time.monotonic()
                way(canvas, *arguments)
                for notes in where:
                    notes.append((threading.current_thread(), begin, time.monotonic()))

            return draw

        monkeypatch.setattr(FigureCanvasAgg, "draw", noted(FigureCanvasAgg.draw, self.draws, self.shown))
        monkeypatch.setattr(FigureCanvasAgg, "restore_region", noted(FigureCanvasAgg.restore_region, self.shown))
        monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "test", raising=False)
        monkeypatch.setattr(Figure, "show", lambda _figure: None)


@pytest.fixture
def gui(monkeypatch):
    return GuiCanvas(monkeypatch)


def figures():
    import matplotlib.pyplot as plt

    return plt.get_figlabels()


def lines_of(label):
    import matplotlib.pyplot as plt

    return [[line for line in axes.lines if len(line.get_xdata()) > 2] for axes in plt.figure(label).axes]


# --- the table


def test_table_is_blueskys_without_its_pause(record, monkeypatch):
    documents = record(bp.scan([det, noisy_det], motor, -1, 1, 60))
    texts, pauses = [], []
    monkeypatch.setattr(time, "sleep", pauses.append)
    for table in (
        LiveTable(["motor", "det", "noisy_det"], separator_lines=False),
        Table(["motor", "det", "noisy_det"]),
    ):
        text = []
        table._out = text.append
        pauses.clear()
        for name, doc in documents:
            table(name, doc)
        texts.append((text, list(pauses)))
    (stock, stocks_pauses), (ours, our_pauses) = texts
    assert ours == stock
    assert (stocks_pauses, our_pauses) == ([0.1], [])


class Mode(enum.Enum):
    FAST = "fast"


class Mixed(Device):
    word = Cpt(Signal, value="word", kind=Kind.hinted)
    whole = Cpt(Signal, value=3, kind=Kind.hinted)
    yes = Cpt(Signal, value=True, kind=Kind.hinted)
    spectrum = Cpt(Signal, value=np.arange(4.0), kind=Kind.hinted)


def test_cells_that_are_no_numbers_are_shown(record):
    documents = record(bp.count([Mixed("", name="mixed")]))
    row = next(doc for name, doc in documents if name == "event")
    row["data"]["mixed_whole"] = 2.5  # in a column of whole numbers
    row["data"]["mixed_word"] = Mode.FAST
    table = Table(["mixed_word", "mixed_whole", "mixed_yes", "missing"])
    text = []
    table._out = text.append
    for name, doc in documents:
        table(name, doc)
    cells = [cell.strip() for cell in text[3].strip("|").split("|")]
    assert cells[2:] == ["fast", "2.5", "True"]


def test_output_of_a_run_is_blueskys(record, capsys, bec):
    plan = bpp.baseline_wrapper(bp.scan([det], motor, -1, 1, 3), [motor1, motor2])
    documents = record(plan)
    outputs = []
    for callback in (BestEffortCallback(), bec):
        for name, doc in documents:
            callback(name, doc)
        outputs.append(capsys.readouterr().out)
    assert outputs[1] == outputs[0]
    assert "Start-of-run baseline readings" in outputs[0]
    assert "generator scan" in outputs[0]


@pytest.mark.parametrize(
    ("method", "gone"),
    [("disable_table", "generator scan"), ("disable_baseline", "baseline readings"), ("disable_heading", "Transient")],
)
def test_parts_of_the_output_can_be_turned_off_and_on(record, capsys, bec, method, gone):
    documents = record(bpp.baseline_wrapper(bp.scan([det], motor, -1, 1, 3), [motor1]))
    for call in (method, method.replace("disable", "enable")):
        getattr(bec, call)()
        for name, doc in documents:
            bec(name, doc)
        assert (gone in capsys.readouterr().out) == call.startswith("enable")


def test_a_fault_in_the_table_stops_no_run_and_is_told_once(run_engine, bec, caplog, monkeypatch):
    monkeypatch.setattr(Table, "event", lambda *_: 1 / 0)
    run_engine.subscribe(bec)
    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        (uid,) = run_engine(bp.scan([det], motor, -1, 1, 5))
    assert uid
    assert [r.getMessage() for r in caplog.records if "live table" in r.getMessage()] == [
        "live table and plot of this run failed (ZeroDivisionError: division by zero); the run goes on"
    ]


# --- peaks


def test_peaks_by_statistic_and_signal(record, bec):
    for name, doc in record(bp.scan([det, noisy_det], motor, -5, 5, 41)):
        bec(name, doc)
    assert bec.peaks["cen"]["det"] == bec.peaks.cen["det"] == pytest.approx(0, abs=0.01)
    assert bec.peaks["fwhm"]["det"] == pytest.approx(2.355, rel=0.01)
    assert bec.peaks["max"]["det"] == (pytest.approx(0), pytest.approx(1))
    assert set(bec.peaks["com"]) == {"det", "noisy_det"}
    assert bec.peaks.x == "motor"
    assert set(eval(repr(bec.peaks))) == {"com", "cen", "max", "min", "fwhm"}
    with pytest.raises(KeyError, match="cen"):
        bec.peaks["center"]


def test_peaks_also_while_everything_is_off(record, bec, capsys):
    bec.disable_plots()
    bec.disable_table()
    bec.disable_baseline()
    for name, doc in record(bp.scan([det], motor, -5, 5, 21)):
        bec(name, doc)
    assert bec.peaks["cen"]["det"] == pytest.approx(0, abs=0.01)
    assert capsys.readouterr().out == ""
    bec.draw(force=True)
    assert figures() == []


def test_a_count_has_no_peak_and_forgets_the_last_one(record, bec):
    for plan in (bp.scan([det], motor, -5, 5, 21), bp.count([det], 12)):
        for name, doc in record(plan):
            bec(name, doc)
    assert bec.peaks["cen"] == {"det": None}


# --- the plot


def test_nothing_is_drawn_where_documents_come_from(record, bec, feed):
    feed(record(bp.scan([det], motor, -5, 5, 21)))
    assert figures() == []
    bec.draw()
    assert figures() == ["det vs motor"]


def test_a_draw_on_another_thread_does_nothing(record, bec, feed):
    feed(record(bp.scan([det], motor, -5, 5, 21)))
    thread = threading.Thread(target=bec.draw, args=(True,))
    thread.start()
    thread.join()
    assert figures() == []


def test_drawn_on_the_main_thread_while_the_plan_runs_and_not_too_often(bec, gui):
    RE = RunEngine({}, context_managers=[], during_task=MainThread(bec.draw))  # noqa: N806  the name people know
    RE.subscribe(bec)
    deadline = time.monotonic() + 60

    @bpp.run_decorator(md={"num_points": 1000})
    def until_drawn():
        while len(gui.shown) < 4 and time.monotonic() < deadline:
            yield from bps.trigger_and_read([det, motor])

    points = []
    RE.subscribe(lambda _name, doc: points.append(doc["num_events"]["primary"]), "stop")
    begin = time.monotonic()
    RE(until_drawn())
    spent = time.monotonic() - begin
    assert len(gui.shown) > 4  # before the end, and then once more
    assert {thread for thread, *_ in gui.shown} == {threading.main_thread()}
    *regular, _at_the_end = gui.shown
    assert len(regular) <= spent / 0.1 + 1
    gaps = [later[1] - earlier[2] for earlier, later in itertools.pairwise(regular)]
    assert min(gaps) >= 0.09
    (line,) = lines_of(figures()[0])[0]
    assert len(line.get_xdata()) == points[0]  # with all its points at the end


def test_a_plot_that_fails_is_told_once_and_the_next_run_has_one(record, bec, feed, caplog, monkeypatch):
    from instrument.callbacks import windows as live

    refresh = live._Line.refresh
    monkeypatch.setattr(live._Line, "refresh", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        feed(record(bp.scan([det], motor, -5, 5, 11)))
        bec.draw()
        bec.draw()
    assert caplog.messages == ["live plot failed (ZeroDivisionError: division by zero); the run goes on without it"]
    monkeypatch.setattr(live._Line, "refresh", refresh)
    feed(record(bp.scan([det], motor, -5, 5, 11)))
    bec.draw()
    assert len(lines_of("det vs motor")[0]) == 1


def test_a_run_without_a_point_does_not_hold_up_the_next(record, bec, feed):
    documents = record(bp.scan([det], motor, -5, 5, 11))
    feed([pair for pair in documents if pair[0] != "event"])
    feed(documents)
    bec.draw()
    assert len(lines_of("det vs motor")[0]) == 1


def test_windows_are_one_for_each_set_of_signals_and_used_again(record, bec, feed):
    for plan in (
        bp.scan([det], motor, -5, 5, 11),
        bp.scan([det, det2], motor, -5, 5, 11),
        bp.scan([det], motor, -4, 4, 11),
        bp.grid_scan([det4], motor1, -1, 1, 3, motor2, -1, 1, 4),
        bp.grid_scan([det4], motor1, -1, 1, 3, motor2, -1, 1, 4),
    ):
        feed(record(plan))
        bec.draw(force=True)
    assert figures() == ["det vs motor", "det det2 vs motor", "det4 vs motor1 motor2"]
    assert [len(lines) for lines in lines_of("det vs motor")] == [2]
    assert [len(lines) for lines in lines_of("det det2 vs motor")] == [1, 1]


def test_a_window_keeps_the_newest_scans_only(record, bec, feed):
    bec.most_curves = 3
    for _ in range(5):
        feed(record(bp.scan([det], motor, -5, 5, 11)))
        bec.draw(force=True)
    (lines,) = lines_of("det vs motor")
    assert [line.get_label().split(":")[0] for line in lines] == ["3", "4", "5"]
    bec.plot_prune_fifo(1, motor, det)
    (lines,) = lines_of("det vs motor")
    assert [line.get_label().split(":")[0] for line in lines] == ["5"]


def test_what_is_drawn_is_what_was_measured(record, bec, feed):
    feed(record(bp.scan([det], motor, -5, 5, 11)))
    bec.draw(force=True)
    ((line,),) = lines_of("det vs motor")
    assert list(line.get_xdata()) == pytest.approx(list(np.linspace(-5, 5, 11)))
    assert list(line.get_ydata()) == pytest.approx(list(np.exp(-(np.linspace(-5, 5, 11) ** 2) / 2)))


def test_the_same_signals_in_another_order_are_drawn_each_into_its_axes(record, bec, feed):
    import matplotlib.pyplot as plt

    for chosen in (("det2", "det"), ("det", "det2")):
        bec.selected = chosen
        feed(record(bp.scan([det, det2], motor, -5, 5, 11)))
        bec.draw(force=True)
    axes = plt.figure("det det2 vs motor").axes
    assert [one.get_ylabel() for one in axes] == ["det2", "det"]
    for lines in lines_of("det det2 vs motor"):
        first, second = (list(line.get_ydata()) for line in lines)
        assert first == second


def pixels(figure):
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_a_growing_line_is_drawn_alone_and_looks_as_if_all_were_drawn(record, bec, gui):
    import matplotlib.pyplot as plt

    documents = record(bp.scan([det], motor, -3, 3, 41))
    shown, events = [], 0
    for name, doc in documents:
        bec(name, doc)
        if name == "event":
            bec.draw(force=True)
            events += 1
            if events in (8, 20, 39):
                figure = plt.figure("det vs motor")
                drawn = len(gui.draws)
                (axes,), (line,) = figure.axes, lines_of("det vs motor")[0]
                assert axes.get_xlim()[0] < -3 < 3 < axes.get_xlim()[1]  # all of the scan, from its second point on
                assert len(line.get_xdata()) == events
                shown.append(pixels(figure))
                figure.canvas.draw()  # as a window does by itself when something lay over it
                np.testing.assert_array_equal(pixels(figure), shown[-1])
                line.set_visible(False)
                figure.canvas.draw()
                assert not np.array_equal(pixels(figure), shown[-1])
                line.set_visible(True)
                figure.canvas.draw()
                del gui.draws[drawn:]
    assert len(gui.draws) < events / 2
    bec.draw()  # the run has ended
    assert not line.get_animated()
    assert axes.get_xlim() == pytest.approx((-3.3, 3.3))


def test_a_picture_saved_in_the_midst_of_a_run_has_its_line(record, bec, gui, tmp_path):
    documents = record(bp.scan([det], motor, -3, 3, 21))
    with_line, without = tmp_path / "with.png", tmp_path / "without.png"
    for name, doc in documents[: len(documents) // 2]:
        bec(name, doc)
        bec.draw(force=True)
    bec.save_plot(with_line)
    (line,) = lines_of("det vs motor")[0]
    line.set_visible(False)
    bec.save_plot(without)
    assert with_line.read_bytes() != without.read_bytes()


def test_a_range_that_somebody_has_set_is_kept_while_the_run_goes_on(record, bec, gui):
    import matplotlib.pyplot as plt

    documents = record(bp.scan([det], motor, -3, 3, 21))
    for number, (name, doc) in enumerate(documents):
        bec(name, doc)
        bec.draw(force=True)
        if number == 8:
            plt.figure("det vs motor").axes[0].set_xlim(-1, 0)
    assert plt.figure("det vs motor").axes[0].get_xlim() == (-1, 0)


def assert_nothing_is_cut_off(label):
    import matplotlib.pyplot as plt

    figure = plt.figure(label)
    for axes in figure.axes:
        box = axes.get_tightbbox().transformed(figure.transFigure.inverted())
        assert min(box.x0, box.y0) >= 0
        assert max(box.x1, box.y1) <= 1


def test_labels_stay_in_the_picture_while_numbers_grow_and_windows_shrink(record, bec, gui):
    import matplotlib.pyplot as plt

    documents = record(bp.scan([det], motor, -5, 5, 21))
    events = [doc for name, doc in documents if name == "event"]
    for number, event in enumerate(events):
        event["data"]["det"] = 10.0**number / 1e9
    for name, doc in documents:
        bec(name, doc)
        bec.draw(force=True)
        bec.draw(force=True)  # what the first found too long is placed by the next, a tenth of a second later
        if name == "event":
            assert_nothing_is_cut_off("det vs motor")
    figure = plt.figure("det vs motor")
    figure.set_size_inches(3, 2)
    figure.canvas.callbacks.process("resize_event", ResizeEvent("resize_event", figure.canvas))
    figure.canvas.draw()  # as the window does by itself
    assert_nothing_is_cut_off("det vs motor")


def test_a_grid_is_an_image_with_each_value_at_its_place(record, bec, feed):
    import matplotlib.pyplot as plt

    documents = record(bp.grid_scan([det4], motor1, 0, 2, 3, motor2, 10, 13, 4, True))
    feed(documents)
    bec.draw(force=True)
    (image,) = plt.figure("det4 vs motor1 motor2").axes[0].images
    shown = image.get_array()
    for doc in (doc for name, doc in documents if name == "event"):
        row, column = round(doc["data"]["motor1"]), round(doc["data"]["motor2"] - 10)
        assert shown[row, column] == doc["data"]["det4"]
    assert shown[0, 0] != shown[2, 0]
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (9.5, 13.5, -0.5, 2.5)


def test_a_relative_grid_is_where_the_motors_were(record, bec, feed):
    import matplotlib.pyplot as plt

    motor1.set(5)
    motor2.set(0)
    documents = record(bp.rel_grid_scan([det4], motor1, -1, 1, 3, motor2, 10, 13, 4))
    motor1.set(0)
    feed(documents)
    bec.draw(force=True)
    (image,) = plt.figure("det4 vs motor1 motor2").axes[0].images
    assert image.get_extent() == pytest.approx([9.5, 13.5, 3.5, 6.5])
    for doc in (doc for name, doc in documents if name == "event"):
        row, column = round(doc["data"]["motor1"] - 4), round(doc["data"]["motor2"] - 10)
        assert image.get_array()[row, column] == doc["data"]["det4"]


def test_a_grid_of_a_signal_that_does_not_change_is_drawn(record, bec, gui, caplog):
    """Its colour bar has no labels."""
    import matplotlib.pyplot as plt

    documents = record(bp.grid_scan([det4, det], motor1, 0, 2, 3, motor2, 10, 13, 4))
    for name, doc in documents:
        if name == "event":
            doc["data"]["det4"] = 1e6
        bec(name, doc)
        bec.draw(force=True)
    assert not caplog.messages
    assert [axes.images[0].get_array().count() for axes in plt.figure(figures()[0]).axes if axes.images] == [12, 12]


@pytest.mark.parametrize(("peak", "corner"), [(4, 2), (-4, 1)])  # of the legend: 1 is the upper right, 2 the left
def test_the_legend_leaves_the_highest_point_of_all_scans_free(record, bec, feed, peak, corner):
    import matplotlib.pyplot as plt

    documents = record(bp.scan([det], motor, -5, 5, 21))
    for height in (10, 1):  # the second one's highest point is on the other side
        for name, doc in documents:
            if name == "event":
                place = peak if height == 10 else -peak
                doc["data"]["det"] = height * float(np.exp(-((doc["data"]["motor"] - place) ** 2)))
        feed(documents)
        bec.draw(force=True)
    assert plt.figure("det vs motor").axes[0].get_legend()._loc == corner


def test_a_flank_has_no_mark(record, bec, feed):
    import matplotlib.pyplot as plt

    feed(record(bp.scan([det], motor, 0.5, 4, 21)))
    bec.draw(force=True)
    assert len(plt.figure("det vs motor").axes[0].lines) == 1


def test_points_on_a_plane_are_coloured(record, bec, feed):
    import matplotlib.pyplot as plt

    feed(record(bp.spiral([det4], motor1, motor2, 0, 0, 1, 1, 0.3, 12)))
    bec.draw(force=True)
    (points,) = plt.figure("det4 vs motor1 motor2").axes[0].collections[:1]
    assert len(points.get_offsets()) == len(points.get_array()) > 5


def test_a_widget_gets_each_drawing(record, monkeypatch):
    """As in a notebook with `%matplotlib widget`, whose canvas is no window and sends what it shows to the browser."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_webagg_core import FigureCanvasWebAggCore, FigureManagerWebAgg
    from matplotlib.figure import Figure

    class Browser:
        def __init__(self):
            self.pictures = []

        def send_json(self, content):
            pass

        def send_binary(self, picture):
            self.pictures.append(picture)

    browser = Browser()

    def widget(name):
        figure = plt.figure(name, layout="constrained")
        if not isinstance(figure.canvas, FigureCanvasWebAggCore):
            manager = FigureManagerWebAgg(FigureCanvasWebAggCore(figure), figure.number)
            manager.add_web_socket(browser)
        return figure

    monkeypatch.setattr(Figure, "show", lambda _figure: None)
    bec = BestEffort(fig_factory=widget)
    counts = []
    for name, doc in record(bp.scan([det], motor, -5, 5, 11)):
        bec(name, doc)
        bec.windows._not_before = 0.0  # as if a tenth of a second had passed
        bec.draw()
        counts.append(len(browser.pictures))
    start, _descriptor, *points, _stop = counts
    assert start == 0
    assert points == sorted(set(points))
    assert browser.pictures[-1].startswith(b"\x89PNG")


def test_without_a_display_a_picture_can_be_saved(record, bec, feed, tmp_path):
    feed(record(bp.scan([det, noisy_det], motor, -5, 5, 21)))
    path = bec.save_plot(tmp_path / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(path.read_bytes()) > 10_000
    feed(record(bp.count([det], 5)))
    assert bec.save_plot(tmp_path / "noisy.png", "noisy_det").exists()


def test_a_picture_that_can_not_be_saved_is_one_line(record, bec, feed, tmp_path):
    with pytest.raises(UserError, match="there is no plot yet: run a scan first"):
        bec.save_plot(tmp_path / "a.png")
    feed(record(bp.scan([det], motor, -5, 5, 21)))
    with pytest.raises(UserError, match="there is no plot of 'dett'"):
        bec.save_plot(tmp_path / "a.png", "dett")
    with pytest.raises(UserError, match="can't save the plot as"):
        bec.save_plot(tmp_path / "gone" / "a.png")


def test_what_is_not_to_be_plotted_is_not(record, bec, feed):
    bec.noplot_streams.append("primary")
    feed(record(bp.scan([det], motor, -5, 5, 21)))
    bec.draw(force=True)
    assert figures() == []


def test_a_single_point_is_no_plot(record, bec, feed):
    feed(record(bp.count([det])))
    bec.draw(force=True)
    assert figures() == []


@pytest.mark.filterwarnings("error")
def test_words_and_arrays_are_not_plotted(record, bec, feed):
    feed(record(bp.count([Mixed("", name="mixed"), det], 3)))
    bec.draw(force=True)
    assert figures() == ["det mixed_whole mixed_yes vs time"]


def test_a_closed_window_is_opened_by_the_next_scan(record, bec, feed):
    import matplotlib.pyplot as plt

    feed(record(bp.scan([det], motor, -5, 5, 21)))
    bec.draw(force=True)
    plt.close("all")
    bec.draw(force=True)
    assert figures() == []
    feed(record(bp.scan([det], motor, -5, 5, 21)))
    bec.draw(force=True)
    assert figures() == ["det vs motor"]


def test_peak_is_marked_at_its_centre(record, bec, feed):
    import matplotlib.pyplot as plt

    feed(record(bp.scan([det], motor, -4, 5, 31)))
    bec.draw(force=True)
    axes = plt.figure("det vs motor").axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
    assert marks == [bec.peaks["cen"]["det"]]


def test_a_point_costs_a_fraction_of_blueskys(record, bec, gui, capsys):
    documents = record(bp.scan([det, noisy_det], motor, -5, 5, 15))
    costs = {}
    for callback, draw in ((BestEffortCallback(), lambda: None), (bec, bec.draw)):
        for _ in range(2):  # the first time makes the figure
            begin = time.thread_time()  # of this thread alone, whatever else the machine does
            for name, doc in documents:
                callback(name, doc)
                draw()
            costs[type(callback)] = time.thread_time() - begin
    capsys.readouterr()
    assert len(gui.draws) > 30  # it is really drawn here
    assert costs[BestEffort] < costs[BestEffortCallback] / 4
