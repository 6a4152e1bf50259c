"""The starter that `backfill init` writes: valid as it is, every block in it, what is optional commented out."""

from __future__ import annotations

import re

from backfill_dagster.errors import UsageError

_STARTER = """\
# One backfill. `backfill validate` checks this file; docs/configuration.md explains every key.
# A key that is commented out shows its default, or an example where there is none.
# ${NAME} and ${NAME:-default} in a value are environment variables. Relative paths start at the folder of
# workspace.yaml (else at this file's own), or at BACKFILL_ROOT.

backfill:
  name: __NAME__                # a-z, 0-9 and _; names the Dagster jobs and assets
  version: "1.0"

  source:                       # where the DIDs come from; one of the four types
    type: sqlite
    path: data/dids.sqlite
    query: SELECT did FROM dids
    # keep_columns: [cohort]    # more columns for plan and reports; the query has to select them

    # type: file                # CSV, Parquet, or plain text with one DID a line
    # path: data/dids.csv
    # column: did

    # type: inline
    # dids: ["did:plc:z72i7hdynmk6r22z27h6tvur"]

    # type: s3
    # path: s3://my-bucket/dids/*.parquet
    # region: us-west-2

  record_types:                 # collections; a trailing .* takes a whole namespace
    - app.bsky.feed.post
    - app.bsky.feed.like
    - app.bsky.feed.repost
    - app.bsky.graph.follow
    - app.bsky.graph.block

  # time_range:                 # by the records' createdAt, UTC, both ends included
  #   start_date: "2025-01-02"
  #   end_date: "2025-02-02"    # to the end of that day

  # filters:                    # keep only records that a list of URIs names
  #   - record_type: app.bsky.feed.like
  #     match: subject_uri      # or uri, parent_uri, root_uri
  #     source: {type: file, path: data/uris.parquet, column: uri}

  # identity:                   # how DIDs are resolved
  #   plc_url: https://plc.directory
  #   requests_per_second: 50
  #   cache_days: 7
  #   handle_resolver: https://public.api.bsky.app

  processing:
    requests_per_second: 10     # to one PDS host
    max_concurrent_pds: 32      # shard runs at the same time
    # batch_size: 100           # DIDs per commit
    # total_requests_per_second: 100    # of this machine to all hosts; default: no bound
    # max_retries: 3
    # shard_size: 4000          # DIDs per Dagster partition
    # concurrent_requests: 8    # in flight to one host
    # max_repo_mib: 1024
    # memory_mib: 512
    # decode_processes: 0
    # verify: full              # or structure, off
    # fetch: auto               # or full
    # since_slack_days: 7
    # allow_private_hosts: false
    # timeouts: {connect_seconds: 10, first_byte_seconds: 60, idle_seconds: 30, total_seconds: 900}
    # quota: {requests: 50000, hours: 6}    # per run; default: no bound
    # lease_seconds: 60
    # user_agent_contact: you@example.org   # servers' operators can reach you; please set it

  # storage:                    # the ledger: one item per DID
  #   type: sqlite              # or dynamodb, with table_name and region

  # records:
  #   raw: json                 # the whole record beside the columns: json, cbor or none
  #   compression: zstd

  # state:                      # plan, records, log, reports
  #   path: data/__NAME__      # or s3://my-bucket/backfills/__NAME__

  # monitoring:
  #   prometheus_port: 8000
  #   log_level: INFO
  #   alert_on_failure: true
  #   alert_webhook_env: BACKFILL_ALERT_WEBHOOK
  #   max_error_rate: 0.05

  # auto_launch: false          # launch shards when a plan has found new ones

  # schedule:                   # off in Dagster until someone turns them on there
  #   resume_cron: "0 * * * *"
  #   refresh_cron: "0 3 * * *"
"""


def starter_yaml(name: str = "my_backfill") -> str:
    """The starter's text.

    Args:
        name: of the backfill.

    Raises:
        UsageError: the name is none.
    """
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) is None:
        raise UsageError(f"{name[:80]!r} can't name a backfill: use a lower-case letter, then a-z, 0-9 and _")
    return _STARTER.replace("__NAME__", name)
