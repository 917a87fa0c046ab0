"""A Bluesky beamline: configuration, framework, devices, callbacks, plans, session, commands."""
