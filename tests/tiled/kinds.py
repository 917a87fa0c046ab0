"""All kinds of runs in a journal, images of an area detector included."""

import time
from pathlib import Path

import h5py
import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from event_model import ComposeStreamResource, compose_run
from PIL import Image

from instrument.callbacks.journal import Journal
from instrument.devices.pvs import Completion
from instrument.framework.index import RunIndex
from instrument.framework.runfiles import DataDirectory

EPOCH = 1795000000.0  # s; runs begin 1000 s apart, in the order in which they are made
HEIGHT, WIDTH = 12, 16
NUMBER = {"source": "PV:gp:m1", "dtype": "number", "shape": [], "precision": 5, "units": "mm"}


def frames(count, seed=0):
    """Images that are all different."""
    return (np.arange(count * HEIGHT * WIDTH).reshape(count, HEIGHT, WIDTH) * 7 + seed).astype(np.uint16)


def finished():
    """A status of what is done at once."""
    done = Completion()
    done.finish()
    return done


class Flyer:
    """Collects a table of events while it flies; the RunEngine asks for it afterwards, and makes a page of it."""

    name = "flyer"
    parent = None

    def kickoff(self):
        return finished()

    def complete(self):
        return finished()

    def describe_collect(self):
        return {"flown": {"m1": NUMBER, "counts": {"source": "PV:gp:scaler1", "dtype": "integer", "shape": []}}}

    def collect(self):
        for n in range(5):
            when = EPOCH + n / 8
            yield {"time": when, "data": {"m1": n / 4, "counts": n**2}, "timestamps": {"m1": when, "counts": when}}


class StreamingCamera:
    """Writes images while it flies, and says how many there are by now, as detectors of ophyd-async do."""

    name = "camera"
    parent = None

    def __init__(self, path, count):
        resource = ComposeStreamResource()(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{path}",
            data_key="image",
            parameters={
                "dataset": "/entry/data/data",
                "swmr": False,
                "multiplier": 1,
                "chunk_shape": (1, HEIGHT, WIDTH),
            },
        )
        self._resource, self._compose_datum = resource.stream_resource_doc, resource.compose_stream_datum
        self._count = count
        self._told = 0

    def kickoff(self):
        return finished()

    def complete(self):
        return finished()

    def describe_collect(self):
        shape = [1, HEIGHT, WIDTH]
        return {
            "image": {
                "source": "PV:ad:",
                "dtype": "array",
                "shape": shape,
                "dtype_numpy": "<u2",
                "external": "STREAM:",
            }
        }

    def get_index(self):
        return min(self._told + 2, self._count)  # two more each time

    def collect_asset_docs(self, index=None):
        if not self._told:
            yield "stream_resource", self._resource
        stop = self.get_index() if index is None else index
        yield "stream_datum", self._compose_datum(indices={"start": self._told, "stop": stop})
        self._told = stop


class Recorder:
    """Composes runs and records them through the real journal."""

    def __init__(self, root):
        self.data = DataDirectory(Path(root).resolve())
        self.index = RunIndex(self.data.index, self.data.runs)
        self.journal = Journal(self.data.runs, index=self.index)
        self.uids = {}
        self.images = {}

    def close(self):
        self.journal.close()
        self.index.close()

    def start(self, kind, **metadata):
        self._now = EPOCH + 1000 * len(self.uids)
        run = compose_run(
            time=self._now, metadata={"scan_id": len(self.uids) + 1, "plan_name": kind, "kind": kind, **metadata}
        )
        self.uids[kind] = run.start_doc["uid"]
        self.journal("start", run.start_doc)
        return run

    def stream(self, run, data_keys, name="primary", **more):
        stream = run.compose_descriptor(name=name, data_keys=data_keys, time=self.tick(), **more)
        self.journal("descriptor", stream.descriptor_doc)
        return stream

    def event(self, stream, **data):
        when = self.tick()
        event = stream.compose_event(data=data, timestamps=dict.fromkeys(data, when), time=when)
        self.journal("event", event)
        return event

    def stop(self, run, **more):
        self.journal("stop", run.compose_stop(time=self.tick(), **more))

    def tick(self):
        self._now += 0.5
        return self._now

    # -- kinds ------------------------------------------------------------------------------------------------------

    def scan(self, kind="scan", points=7, **metadata):
        run = self.start(kind, **metadata)
        baseline = self.stream(run, {"m2": NUMBER}, "baseline")
        self.event(baseline, m2=0.5)
        primary = self.stream(run, {"m1": NUMBER, "noisy": NUMBER}, object_keys={"m1": ["m1"], "noisy": ["noisy"]})
        for point in range(points):
            self.event(primary, m1=point, noisy=point / 3)  # the first is an integer, the others are not
        self.event(baseline, m2=0.5)
        self.stop(run)

    def nothing(self):
        self.stop(self.start("nothing"))

    def no_events(self):
        run = self.start("no_events")
        self.stream(run, {"m1": NUMBER})
        self.stop(run, exit_status="abort", reason="Ctrl-C")

    def values(self):
        run = self.start(
            "values", sample={"name": "Ag Behenate", "size": np.array([1.5, 2.5])}, note='ü "quoted" \\ %_'
        )
        keys = {
            "text": {"source": "s", "dtype": "string", "shape": []},
            "flag": {"source": "s", "dtype": "boolean", "shape": []},
            "whole": {"source": "s", "dtype": "integer", "shape": []},
            "gap": {"source": "s", "dtype": "number", "shape": []},
            "few": {"source": "s", "dtype": "array", "shape": [3]},
            "many": {"source": "s", "dtype": "array", "shape": [40]},
            "table": {"source": "s", "dtype": "array", "shape": [5, 6]},
        }
        stream = self.stream(run, keys)
        for n in range(4):
            few, many = np.arange(3.0) + n, np.arange(40.0) * n
            gap = float("nan") if n == 1 else n / 2
            self.event(
                stream, text=f"é {n}", flag=n == 2, whole=n, gap=gap, few=few, many=many, table=np.ones((5, 6)) * n
            )
        self.stop(run)

    def reserved(self):
        run = self.start("reserved")
        stream = self.stream(run, {"time": NUMBER, "m1": NUMBER})
        self.event(stream, time=3.0, m1=1.0)
        self.stop(run)

    def pages(self):
        run = self.start("pages")
        monitor = self.stream(run, {"temperature": NUMBER}, "temperature_monitor")
        primary = self.stream(run, {"m1": NUMBER})
        from event_model import pack_event_page

        for _ in range(3):
            events = []
            for n in range(4):
                when = self.tick()
                events.append(primary.compose_event(data={"m1": n / 3}, timestamps={"m1": when}, time=when))
            self.journal("event_page", pack_event_page(*events))
            self.event(monitor, temperature=21.5)
        self.stop(run)

    def configured_again(self):
        run = self.start("configured_again")
        for exposure in (0.1, 0.2):
            configuration = {
                "m1": {
                    "data": {"m1_velocity": exposure},
                    "timestamps": {"m1_velocity": self.tick()},
                    "data_keys": {"m1_velocity": NUMBER},
                }
            }
            stream = self.stream(run, {"m1": NUMBER}, configuration=configuration, object_keys={"m1": ["m1"]})
            self.event(stream, m1=exposure)
        self.stop(run)

    def hdf5(self, kind, per_point, points=4):
        """An area detector's HDF5 file with so many frames a point, as ophyd's AD_HDF5 documents refer to it."""
        path = self.data.root / "images" / f"{kind}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.images[kind] = frames(points * per_point, seed=per_point)
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = self.images[kind]
        run = self.start(kind)
        resource, compose_datum, _ = run.compose_resource(
            spec="AD_HDF5", root="/", resource_path=str(path), resource_kwargs={"frame_per_point": per_point}
        ).__iter__()
        self.journal("resource", resource)
        keys = {
            "image": {
                "source": "PV:ad:",
                "dtype": "array",
                "shape": [per_point, HEIGHT, WIDTH],
                "dtype_str": "<u2",
                "external": "FILESTORE:",
                "dims": ["time", "dim_y", "dim_x"],
            },
            "m1": NUMBER,
        }
        stream = self.stream(run, keys, object_keys={"adsimdet": ["image"], "m1": ["m1"]})
        for point in range(points):
            datum = compose_datum(datum_kwargs={"point_number": point})
            self.journal("datum", datum)
            when = self.tick()
            event = stream.compose_event(
                data={"image": datum["datum_id"], "m1": point / 2},
                timestamps={"image": when, "m1": when},
                filled={"image": False},
                time=when,
            )
            self.journal("event", event)
        self.stop(run)

    def tiff(self, points=3):
        directory = self.data.root / "images" / "tiff"
        directory.mkdir(parents=True, exist_ok=True)
        self.images["tiff"] = frames(points, seed=9)
        for number, frame in enumerate(self.images["tiff"]):
            Image.fromarray(frame).save(directory / f"img_{number:03d}.tif")
        run = self.start("tiff")
        resource, compose_datum, _ = run.compose_resource(
            spec="AD_TIFF",
            root="/",
            resource_path=f"{directory}/",
            resource_kwargs={"template": "%s%s_%3.3d.tif", "filename": "img", "frame_per_point": 1},
        ).__iter__()
        self.journal("resource", resource)
        keys = {
            "image": {
                "source": "PV:ad:",
                "dtype": "array",
                "shape": [1, HEIGHT, WIDTH],
                "dtype_str": "<u2",
                "external": "FILESTORE:",
            }
        }
        stream = self.stream(run, keys, object_keys={"adsimdet": ["image"]})
        for point in range(points):
            datum = compose_datum(datum_kwargs={"point_number": point})
            self.journal("datum", datum)
            when = self.tick()
            self.journal(
                "event",
                stream.compose_event(
                    data={"image": datum["datum_id"]}, timestamps={"image": when}, filled={"image": False}, time=when
                ),
            )
        self.stop(run)

    def run(self, kind, plan):
        """A run of bluesky's own RunEngine."""
        engine = RunEngine({"scan_id": len(self.uids), "kind": kind}, context_managers=[])
        engine.subscribe(self.journal)
        (self.uids[kind],) = engine(plan)

    def flown(self):
        self.run("flown", bp.fly([Flyer()]))

    def streamed(self, points=5):
        path = self.data.root / "images" / "streamed.h5"
        self.images["streamed"] = frames(points, seed=5)
        with h5py.File(path, "w") as file:
            file["/entry/data/data"] = self.images["streamed"]
        camera = StreamingCamera(path, points)

        def plan():
            yield from bps.open_run()
            yield from bps.declare_stream(camera, name="primary", collect=True)
            yield from bps.kickoff(camera, wait=True)
            for _ in range(0, points, 2):
                yield from bps.collect(camera, name="primary")
            yield from bps.complete(camera, wait=True)
            yield from bps.close_run()

        self.run("streamed", plan())

    def all(self):
        self.scan(sample="silver behenate", operator="Ada", proposal={"id": 17, "title": "Strain in steel"})
        self.nothing()
        self.no_events()
        self.values()
        self.reserved()
        self.pages()
        self.configured_again()
        self.hdf5("images_one", 1)
        self.hdf5("images_many", 3)
        self.tiff()
        self.flown()
        self.streamed()


def wait_for(condition, what, deadline=60.0):
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)
