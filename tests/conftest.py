pytest_plugins = ["virtual_beamline.pytest_plugin"]
