# %% the beamline
from instrument.collection import *

# %% look for the peak
plotselect(noisy)
RE(bp.scan([noisy], m1, -1, 1, 21))

# %% and read what was recorded
points = cat[-1].primary.read()
print(len(points["noisy"]), "points, the highest at", float(points["m1"][points["noisy"].argmax()]))
