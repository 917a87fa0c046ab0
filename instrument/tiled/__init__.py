"""Runs over HTTP: our Tiled server, the questions that it answers, and how runs get in and out.

Needs the optional extra `tiled`; nothing here is imported before somebody asks for it.
"""
