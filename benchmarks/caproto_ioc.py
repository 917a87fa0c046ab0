"""The same PVs as the virtual beamline's, served by caproto: what the benchmarks compare with.

`python -m benchmarks.caproto_ioc FILE` serves the PVs that FILE names, each an analog value, one a line; where and on
which port $EPICS_CAS_INTF_ADDR_LIST and $EPICS_CA_SERVER_PORT say.
"""

from __future__ import annotations

import sys
from pathlib import Path

from caproto import ChannelDouble
from caproto.server import run


def main() -> None:
    names = Path(sys.argv[1]).read_text().split()
    database = {name: ChannelDouble(value=0.0, precision=5) for name in names}
    run(database, interfaces=["127.0.0.1"], log_pv_names=False)


if __name__ == "__main__":
    main()
