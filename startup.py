"""A console session: `ipython -i startup.py`. A queue worker, a notebook or a script imports the same collection."""

from instrument.collection import *  # noqa: F403
