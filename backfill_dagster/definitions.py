"""The code location: `defs` is the only name that workspace.yaml knows.

Which folder of YAML files becomes jobs says `BACKFILL_CONFIG_DIR` (default `configs`). How is in `orchestration`.
"""

from __future__ import annotations

import os

from backfill_dagster.orchestration.build import build_definitions

# Dagster shows a sensor of failed runs five of them a tick: in an outage the last alert would come an hour late.
os.environ.setdefault("DAGSTER_RUN_STATUS_SENSOR_PROCESS_LIMIT", "100")

defs = build_definitions()
