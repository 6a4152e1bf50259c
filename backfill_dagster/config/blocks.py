"""The blocks about time, servers and the work itself: `time_range`, `identity`, `processing`, `schedule`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from backfill_dagster.config.addresses import Url
from backfill_dagster.config.block import Block
from backfill_dagster.config.cron import Cron
from backfill_dagster.config.explain import rule_broken
from backfill_dagster.config.moment import Moment, first_microsecond, last_microsecond
from backfill_dagster.config.values import Choice, Flag, Number, Text, WholeNumber

Seconds = Annotated[float, Number(0.001, 86_400)]


class TimeRange(Block):
    """Which records, by their createdAt; UTC, both ends included."""

    start_date: Annotated[str, Moment()] | None = Field(
        default=None, description="The first moment. Null: from the beginning.", examples=['"2025-01-02"']
    )
    end_date: Annotated[str, Moment()] | None = Field(
        default=None,
        description="The last moment; a plain date means the end of that day. Null: no end.",
        examples=['"2025-02-02"'],
    )

    @field_validator("end_date", mode="after")
    @classmethod
    def _ends_after_start(cls, value: str | None, info: ValidationInfo) -> str | None:
        start = info.data.get("start_date")
        if value is not None and start is not None and first_microsecond(start) > last_microsecond(value):
            raise rule_broken("end_date is before start_date")
        return value

    @property
    def start_us(self) -> int | None:
        """First wanted microsecond since 1970 UTC; None: no start."""
        return None if self.start_date is None else first_microsecond(self.start_date)

    @property
    def end_us(self) -> int | None:
        """Last wanted microsecond since 1970 UTC, itself included; None: no end."""
        return None if self.end_date is None else last_microsecond(self.end_date)


class Identity(Block):
    """How DIDs are resolved to their PDS."""

    plc_url: Annotated[str, Url()] = Field(
        default="https://plc.directory",
        description="The PLC directory that resolves did:plc.",
        examples=["http://127.0.0.1:2582"],
    )
    requests_per_second: Annotated[float, Number(0.01, 1000)] = Field(
        default=50, description="Requests per second to the PLC directory.", examples=["20"]
    )
    cache_days: Annotated[int, WholeNumber(0, 3650)] = Field(
        default=7, description="Days that resolved DID documents are kept in the state folder.", examples=["30"]
    )
    handle_resolver: Annotated[str, Url()] | None = Field(
        default="https://public.api.bsky.app",
        description="Resolves handles in the source. Null: a handle gets the outcome `invalid_did`.",
        examples=["null"],
    )


class Timeouts(Block):
    """Bounds of one request."""

    connect_seconds: Seconds = Field(default=10, description="Until the connection stands.", examples=["5"])
    first_byte_seconds: Seconds = Field(default=60, description="Until the first byte of the answer.", examples=["120"])
    idle_seconds: Seconds = Field(default=30, description="Longest silence within an answer.", examples=["60"])
    total_seconds: Seconds = Field(default=900, description="The whole request.", examples=["3600"])


class Quota(Block):
    """Bounds of one run; used up, it ends cleanly and the rest stays pending."""

    requests: Annotated[int, WholeNumber(1, 1_000_000_000)] | None = Field(
        default=None, description="Requests per run. Null: no bound.", examples=["50000"]
    )
    hours: Annotated[float, Number(0.001, 8760)] | None = Field(
        default=None, description="Hours per run. Null: no bound.", examples=["6"]
    )


class Processing(Block):
    """How the work is done, and how gently."""

    batch_size: Annotated[int, WholeNumber(1, 10_000)] = Field(
        default=100, description="DIDs per commit.", examples=["500"]
    )
    max_concurrent_pds: Annotated[int, WholeNumber(1, 1024)] = Field(
        default=32, description="Shard runs of this backfill at the same time.", examples=["8"]
    )
    requests_per_second: Annotated[float, Number(0.01, 1000)] = Field(
        default=10, description="Requests per second to one PDS host.", examples=["2.5"]
    )
    total_requests_per_second: Annotated[float, Number(0.01, 100_000)] | None = Field(
        default=None, description="Requests per second of one machine to all hosts. Null: no bound.", examples=["100"]
    )
    max_retries: Annotated[int, WholeNumber(0, 20)] = Field(
        default=3, description="Further tries per DID and run, after transient faults only.", examples=["5"]
    )
    shard_size: Annotated[int, WholeNumber(1, 1_000_000)] = Field(
        default=4000, description="DIDs per shard (Dagster partition), at most.", examples=["10000"]
    )
    concurrent_requests: Annotated[int, WholeNumber(1, 256)] = Field(
        default=8, description="Requests in flight to one host.", examples=["4"]
    )
    max_repo_mib: Annotated[int, WholeNumber(1, 65_536)] = Field(
        default=1024, description="A larger repo gets the outcome `too_large`. MiB.", examples=["4096"]
    )
    memory_mib: Annotated[int, WholeNumber(1, 1_048_576)] = Field(
        default=512, description="Repo bytes in flight and being decoded, per run. MiB.", examples=["2048"]
    )
    decode_processes: Annotated[int, WholeNumber(0, 256)] = Field(
        default=0, description="Processes that decode repos. 0: in the run's own process.", examples=["2"]
    )
    verify: Annotated[Literal["full", "structure", "off"], Choice(("full", "structure", "off"))] = Field(
        default="full",
        description="full: CIDs, tree structure and commit signature; structure: no signature; off: neither CIDs nor "
        "signature.",
        examples=["structure"],
    )
    fetch: Annotated[Literal["auto", "full"], Choice(("auto", "full"))] = Field(
        default="auto",
        description="auto: only what is new (`since`) where the time range or an earlier fetch allows; full: "
        "always the whole repo.",
        examples=["full"],
    )
    since_slack_days: Annotated[int, WholeNumber(0, 3650)] = Field(
        default=7,
        description="Days before `time_range.start_date` that are fetched too, as clocks of authors may be off.",
        examples=["30"],
    )
    allow_private_hosts: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether PDS hosts on loopback and private addresses are allowed; otherwise the outcome is "
        "`refused_host`.",
        examples=["true"],
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Bounds of one request.")
    quota: Quota = Field(default_factory=Quota, description="Bounds of one run.")
    lease_seconds: Annotated[float, Number(1, 3600)] = Field(
        default=60, description="After this long without a heartbeat a run's shard may be taken over.", examples=["120"]
    )
    user_agent_contact: (
        Annotated[
            str, Text("an address on one line, plain ASCII without brackets", pattern=r"[!-'*-:=?-~ ]+", max_length=200)
        ]
        | None
    ) = Field(
        default=None,
        description="An address that servers' operators can write to, sent in the User-Agent, as good crawlers do.",
        examples=["data-team@example.org"],
    )


class Schedule(Block):
    """When Dagster works by itself; off until someone turns the schedules on there."""

    resume_cron: Annotated[str, Cron()] | None = Field(
        default="0 * * * *",
        description="Launch the shards that have pending DIDs. UTC. Null: no such schedule.",
        examples=['"*/30 * * * *"'],
    )
    refresh_cron: Annotated[str, Cron()] | None = Field(
        default="0 3 * * *",
        description="Plan again and fetch what is new since each DID's last rev. UTC. Null: no such schedule.",
        examples=['"0 3 * * mon"'],
    )
