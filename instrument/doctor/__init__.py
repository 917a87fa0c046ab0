"""`instrument doctor` and `instrument report-bug`: what is wrong on this machine, and how to tell somebody.

They look; nothing here starts, writes (but for the report's archive) or repairs anything. They have to work when the
configuration is broken or a package is missing, so the modules import only the standard library at their top.
"""
