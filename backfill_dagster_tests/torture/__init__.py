"""Crash points, refusing disks, power cuts, zombies and twins: the breaking point is looked for, not waited for.

`BACKFILL_TORTURE=1` (`make torture`) tries everything; without it a share that takes a minute or two.
"""

import os

TORTURE = bool(os.environ.get("BACKFILL_TORTURE"))
