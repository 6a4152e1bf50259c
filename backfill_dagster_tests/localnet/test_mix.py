"""Sizes and mixes known from the seed: plausible, bounded, and the same every time."""

from __future__ import annotations

from collections import Counter
from statistics import median

import libipld

from backfill_dagster.localnet.dice import dice, made_up_did
from backfill_dagster.localnet.generate import generate_repo
from backfill_dagster.localnet.mix import record_counts, record_type
from backfill_dagster.localnet.records import Author
from backfill_dagster.localnet.repo_writer import blocks_of, keys_of
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import EPOCH_END_US

KEY = SigningKey("k256", 5)


def test_sizes_lie_around_the_median_and_under_the_cap() -> None:
    totals = [sum(record_counts(1, n, median=1400, cap=3000).values()) for n in range(1000)]
    assert 1250 < median(totals) < 1500
    assert max(totals) == 3000
    assert 5 <= totals.count(0) <= 30
    assert 15 <= sum(0 < total < 10 for total in totals) <= 50


def test_counts_are_the_same_every_time_and_never_zero() -> None:
    for index in range(50):
        counts = record_counts(1, index, median=50, cap=100)
        assert counts == record_counts(1, index, median=50, cap=100)
        assert all(count > 0 for count in counts.values())
    assert record_counts(1, 1, median=50, cap=100) != record_counts(2, 1, median=50, cap=100)


def test_dids_of_a_seed_stay() -> None:
    assert made_up_did(1, 0) == "did:plc:nxjkcs6hx7zmj2mamy22o36q"
    assert len({made_up_did(1, n) for n in range(1000)} | {made_up_did(2, n) for n in range(1000)}) == 2000


def test_record_types_are_those_of_the_data_design() -> None:
    assert record_type("app.bsky.feed.post", is_reply=False) == "post"
    assert record_type("app.bsky.feed.post", is_reply=True) == "reply"
    assert record_type("app.bsky.feed.like", is_reply=True) == "like"
    assert record_type("com.example-notes.note", is_reply=False) == "com.example-notes.note"


def test_a_network_has_every_collection_and_every_odd_date() -> None:
    found: Counter[str] = Counter()
    dates = []
    for index in range(12):
        counts = record_counts(1, index, median=1400, cap=4000)
        repo = generate_repo(1, index, made_up_did(1, index), KEY, counts)
        blocks = blocks_of(repo)
        for path, cid in keys_of(repo.root, blocks).items():
            found[path.partition("/")[0]] += 1
            dates.append(libipld.decode_dag_cbor(blocks[cid].block).get("createdAt"))
    assert len(found) == 17
    assert found["app.bsky.feed.like"] > found["app.bsky.graph.follow"] > found["app.bsky.graph.block"]
    assert {"app.bsky.actor.profile", "com.whtwnd.blog.entry", "com.example-notes.note"} <= set(found)
    plain = sum(isinstance(date, str) and date.endswith("Z") and len(date) == 24 for date in dates)
    assert 0.97 < plain / len(dates) < 0.995
    ends = Counter("missing" if date is None else date[-6:] for date in dates)
    assert {"missing", "+02:00", "-07:00", "+00:00", "terday"} <= set(ends)
    assert "2024-13-45T99:99:99Z" in dates


def test_made_up_records_survive_encoding_and_decoding() -> None:
    author = Author(dice(1, "test"), "did:plc:me", ["did:plc:you"])
    for kind in ("post", "reply", "com.example-notes.note", "app.bsky.feed.generator", "app.bsky.actor.profile"):
        for _ in range(200):
            record = author.record(kind, EPOCH_END_US)
            assert libipld.decode_dag_cbor(libipld.encode_dag_cbor(record)) == record


def test_a_tag_facet_points_at_its_bytes() -> None:
    author = Author(dice(1, "facets"), "did:plc:me", ["did:plc:you"])
    posts = [author.record("post", EPOCH_END_US) for _ in range(500)]
    tagged = [post for post in posts if "facets" in post]
    assert len(tagged) > 20
    for post in tagged:
        (facet,) = post["facets"]
        span = post["text"].encode()[facet["index"]["byteStart"] : facet["index"]["byteEnd"]]
        assert span.decode() == "#" + facet["features"][0]["tag"]
