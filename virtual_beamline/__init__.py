"""EPICS IOCs of a simulated beamline, in Python on real EPICS base."""
