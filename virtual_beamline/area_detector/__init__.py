'''The area detector's IOC `ad:`: a simulated camera and plugins, after the documentation of areaDetector (ADCore).

**Ports.** A :class:`~virtual_beamline.area_detector.port.Port` is a set of parameters with a behaviour. Each
parameter is one line (see :mod:`~virtual_beamline.area_detector.parameters`); the records that serve it, real ones of
EPICS base, are made from that line: a setpoint, a readback ``_RBV``, or one of both. ``self["Gain"]`` reads a value,
``self.set(Gain=2.0)`` sets it and tells clients at once, from any thread. What a client puts arrives in ``write(name,
value)``, whose default takes it; ``self.refuse(name, value, "why")`` raises, the readback stays. A command (Capture)
ends with ``self.set_back(Capture=0)``, which shows the value in the setpoint's record, too, and completes puts that
wait.

**Arrays.** A port that passes frames on is an :class:`~virtual_beamline.area_detector.plugin.ArrayPort`: the camera
(:class:`~virtual_beamline.area_detector.driver.Driver`) and all plugins. An
:class:`~virtual_beamline.area_detector.ndarray.NDArray` is shared by all that got it, so that nobody changes it:
``array.derived(pixels)`` is another one with the same number, time stamp and attributes. Its ``data`` has numpy's
order: ``(y, x)`` for Mono, ``(y, x, 3)``, ``(y, 3, x)``, ``(3, y, x)`` for RGB1 to RGB3; ADCore's dimension 0 is the
last of numpy.

**A plugin** subclasses :class:`~virtual_beamline.area_detector.plugin.Plugin`, which has the queue, EnableCallbacks,
BlockingCallbacks, MinCallbackTime, NDArrayPort (re-pluggable), the counters, the array's size, type, number and time,
and attributes. This is all that a plugin has to add::

    from virtual_beamline.area_detector import parameters as p
    from virtual_beamline.area_detector.ndarray import NDArray
    from virtual_beamline.area_detector.plugin import Plugin

    class Threshold(Plugin):
        """``Thresh1:``: pixels below Level become 0; counts them."""

        plugin_type = "NDPluginThreshold"          # stock clients check PluginType_RBV
        parameters = (                              # besides those of Plugin; a line of the same name replaces it
            p.number("Level", 10.0, "Least value that is kept", "counts"),     # ao Level, ai Level_RBV
            p.switch("Invert", ("No", "Yes"), 0, "Keep those below instead"),  # bo, bi; choice(): mbbo, mbbi
            p.integer("Below", 0, "Pixels below Level").readonly(),            # longin Below_RBV; readonly(""): Below
            p.array("Profile", "DOUBLE", 4096, "Mean of each column").readonly(),  # waveform; a list or a numpy array
        )

        def output_of(self, array: NDArray) -> NDArray | None:
            """What is passed on. No side effects: it is also asked before the first frame, with zeros."""
            keep = (array.data < self["Level"]) if self["Invert"] else (array.data >= self["Level"])
            return array.derived(np.where(keep, array.data, 0))

        def process(self, array: NDArray) -> NDArray | None:
            """Called for each frame, one at a time (under self.lock); what it returns is passed on, None is not."""
            self.set(Below=int((array.data < self["Level"]).sum()), Profile=array.data.mean(axis=0))
            return self.output_of(array)

        def write(self, name: str, value: Any) -> None:
            """Only if a value needs a check or changes what is passed on."""
            if name == "Level" and value < 0:
                self.refuse(name, value, "at least 0")
            super().write(name, value)
            self.expect_again()      # only if size, type or colors of what is passed on depend on a setting

Then one line in :func:`~virtual_beamline.area_detector.detector.make_ports`: ``Threshold(detector, "Thresh1:",
"THRESH1", "SIM1")``. A plugin of which there are many parts (the ROIs of ROIStat, overlays) makes its parameters in a
loop. What a plugin passes on only reaches others while its ArrayCallbacks is Enable. Records that are no parameters
(a calc) come from ``records()``. What raises in ``process`` is logged, and the plugin goes on with the next frame.
Array values of ``set`` must be lists of numbers or one-dimensional numpy arrays of exactly the waveform's type.

Values that change with each frame are set by ``self.set_soon(...)``: clients are told 20 times a second, and all of it
before the acquisition ends. ``write`` holds its record's lock and ``process`` the plugin's: what both change is changed
under a lock of its own with ``changed = self.take(...)`` and told without it, ``self.show(changed)``. A plugin that
passes on other arrays besides (the statistics of Stats, for its time series) declares ``addresses = 2`` and passes them
on with ``self.pass_on(array, address=1)``; others get them with NDArrayAddress 1.

A file writer subclasses :class:`~virtual_beamline.area_detector.file_plugin.FilePlugin` instead and implements
``open_file``, ``write_array`` and ``close_file``.

**Before the first frame** everything that is plugged in knows size, type and colors of what will come: the camera
announces them at boot and whenever they change, :meth:`~virtual_beamline.area_detector.plugin.Plugin.output_of` tells
what a plugin makes of them. So a file can be opened at once; no plugin must be "primed".

Tests use the fixture ``area_detector`` of :mod:`virtual_beamline.pytest_plugin`; what needs only `gp:` starts no `ad:`.
'''
