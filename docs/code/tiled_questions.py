"""Questions to a server, and what to do with what it finds."""

from instrument import tiled_client

cat = tiled_client.connect()  # or connect("http://server:8000", api_key="...")
cat.tree()  # the catalogs of the server
cat.runs(since="2026-05-01", until="2026-11-01", tz="US/Central")
cat.runs(plan="scan", sample__name="silver behenate")
cat.runs(text="steel")  # whole words
cat.runs(like="behen SILV")  # parts of words, in any order, capital letters or not
cat.runs(regex=r"^lysozyme \d+", key="sample.name")
run = cat[-1]  # or cat[42], cat["1fbe8f7"]
run.summary(), run.start, run.streams, run.stream("primary")
run.data()  # a pandas DataFrame
run.image(0), run.arrays()["adsimdet_image"][1, 0, 100:200, 100:200], run.png(0)
cat[1].nexus()["entry/data/m1"][:5]  # its NeXus file, if the session wrote one
