"""The camera `cam1:` and its plugins, as any client sees them; each test begins with the settings of the boot."""

import numpy as np
import pytest

from tests.virtual_beamline.conftest import Client

# What tests change, and what it is at boot.
CAMERA = {
    "ImageMode": "Single",
    "NumImages": 1,
    "NumExposures": 1,
    "AcquireTime": 0.001,
    "AcquirePeriod": 0.005,
    "TriggerMode": "Internal",
    "ArrayCallbacks": 1,
    "WaitForPlugins": "Yes",
    "DataType": "UInt8",
    "ColorMode": "Mono",
    "BinX": 1,
    "BinY": 1,
    "MinX": 0,
    "MinY": 0,
    "SizeX": 1024,
    "SizeY": 1024,
    "ReverseX": 0,
    "ReverseY": 0,
    "SimMode": "Peaks",
    "FrameType": "Normal",
    "Gain": 100,
    "GainX": 1,
    "GainY": 1,
    "Noise": 10,
    "Offset": 0,
    "FixedPattern": 0,  # 1 at boot; the tests that need it put it
    "PeakStartX": 400,
    "PeakStartY": 300,
    "PeakWidthX": 20,
    "PeakWidthY": 10,
    "PeakNumX": 1,
    "PeakNumY": 1,
    "PeakVariation": 0,
    "ArrayCounter": 0,
    "ShutterMode": "None",
}
PLUGIN = {
    "EnableCallbacks": 0,
    "BlockingCallbacks": 0,
    "NDArrayPort": "SIM1",
    "MinCallbackTime": 0,
    "QueueSize": 20,
    "ArrayCounter": 0,
    "DroppedArrays": 0,
    "ArrayCallbacks": 0,
}
FILES = ("HDF1:", "TIFF1:", "JPEG1:")
FILE = {
    **PLUGIN,
    "Capture": 0,
    "AutoSave": 0,
    "AutoIncrement": 1,
    "FileWriteMode": "Single",
    "NumCapture": 1,
    "FileNumber": 1,
    "LazyOpen": 0,
    "CreateDirectory": 0,
    "TempSuffix": "",
}


class Camera(Client):
    """Puts, gets, and frames."""

    def set(self, port, **values):
        for name, value in values.items():
            assert self.put(f"{port}{name}", value), name

    def acquire(self, timeout=20):
        """Acquire until the acquisition, and with WaitForPlugins the plugins, are done."""
        assert self.put("cam1:Acquire", 1, timeout=timeout)

    def stop(self):
        """Stop an acquisition: not by a put with completion, which would wait for that which waits for its end."""
        self.put("cam1:Acquire", 0, wait=False)
        self.wait("cam1:AcquireBusy", 0)

    def text(self, name):
        return self.get(name, text=True)

    def frame(self, *shape):
        """What image1 shows; ``shape`` in numpy's order, of the whole sensor by default."""
        shape = shape or (1024, 1024)
        return np.asarray(self.get("image1:ArrayData"))[: np.prod(shape)].reshape(shape)


@pytest.fixture(scope="module")
def _camera(area_detector):
    """The camera of this process; left to the tests of other files as it was at boot."""
    camera = Camera(area_detector.prefix)
    yield camera
    camera.stop()
    camera.set("cam1:", **{**CAMERA, "FixedPattern": 1})
    for plugin in ("image1:", "Pva1:", "HDF1:", "TIFF1:", "JPEG1:", *COMPUTING):
        camera.set(plugin, **{**(FILE if plugin in FILES else PLUGIN), "ArrayCallbacks": 1})


@pytest.fixture
def ad(_camera):
    """The camera as it boots, but one frame at a time, and Acquire waits for plugins."""
    _camera.stop()
    _camera.set("cam1:", **CAMERA)
    for plugin in ("image1:", "Pva1:"):
        _camera.set(plugin, **PLUGIN)
    for plugin in FILES:
        _camera.set(plugin, **FILE)
    return _camera


@pytest.fixture
def images(ad, tmp_path):
    """The directory of all file writers."""
    for plugin in FILES:
        ad.set(plugin, FilePath=f"{tmp_path}/", FileName="image")
    return tmp_path


# Of each plugin that computes on pixels: what tests change, and what it is at boot.
COMPUTING = {
    "ROI1:": {
        **{f"Min{axis}": 0 for axis in "XYZ"},
        **{f"Size{axis}": 1_000_000 for axis in "XYZ"},
        **{f"Bin{axis}": 1 for axis in "XYZ"},
        **{f"Reverse{axis}": 0 for axis in "XYZ"},
        **{f"Enable{axis}": 1 for axis in "XYZ"},
        **{f"AutoSize{axis}": 0 for axis in "XYZ"},
        "EnableScale": 0,
        "Scale": 1,
        "DataTypeOut": "Automatic",
        "CollapseDims": 0,
    },
    "Stats1:": {
        "ComputeStatistics": 1,
        "ComputeCentroid": 1,
        "ComputeProfiles": 0,
        "ComputeHistogram": 0,
        "BgdWidth": 1,
        "CentroidThreshold": 1,
        "CursorX": 256,
        "CursorY": 256,
        "HistSize": 256,
        "HistMin": 0,
        "HistMax": 255,
    },
    "Proc1:": {
        "DataTypeOut": "Automatic",
        "EnableBackground": 0,
        "EnableFlatField": 0,
        "ScaleFlatField": 255,
        "EnableOffsetScale": 0,
        "Offset": 0,
        "Scale": 1,
        "EnableLowClip": 0,
        "EnableHighClip": 0,
        "EnableFilter": 0,
        "ResetFilter": 1,
        "AutoResetFilter": 0,
        "FilterCallbacks": 0,
        "NumFilter": 1,
        "FilterType": "RecursiveAve",
        "OOffset": 0,
        "OScale": 1,
    },
    "Trans1:": {"Type": "None"},
    "CC1:": {"ColorModeOut": "Mono", "FalseColor": "None"},
    "Over1:": {f"{number}:Use": 0 for number in (1, 2, 3, 8)},
    "Attr1:": {"TSControl": "Stop", "TSNumPoints": 2048, **{f"{number}:AttrName": "" for number in (1, 2, 3, 8)}},
}


@pytest.fixture
def pipe(ad):
    """A function that plugs plugins in a row behind the camera and image1 at the end, all enabled and blocking.

    So ``ad.frame()`` is what the last one makes of the frame, when the acquisition is done.
    """

    def connect(*prefixes, **settings):
        source = "SIM1"
        for prefix in prefixes:
            ad.set(
                prefix,
                NDArrayPort=source,
                EnableCallbacks=1,
                BlockingCallbacks=1,
                ArrayCallbacks=1,
                **{name: value for name, value in COMPUTING[prefix].items() if name not in settings},
                **settings,
            )
            source = ad.text(f"{prefix}PortName_RBV")
        ad.set("image1:", NDArrayPort=source, EnableCallbacks=1, BlockingCallbacks=1)

    for prefix in COMPUTING:
        ad.set(prefix, EnableCallbacks=0, BlockingCallbacks=0, NDArrayPort="SIM1", ArrayCallbacks=0)
    yield connect
    ad.set("image1:", NDArrayPort="SIM1", EnableCallbacks=0)
