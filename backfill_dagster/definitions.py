"""The code location: `defs` is the only name that workspace.yaml knows.

Which folder of YAML files becomes jobs says `BACKFILL_CONFIG_DIR` (default `configs`). How is in `orchestration`.
"""

from __future__ import annotations

from backfill_dagster.orchestration.build import build_definitions

defs = build_definitions()
