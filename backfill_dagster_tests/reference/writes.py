"""What the test accounts write: every everyday kind of record, and the oddest ones that the reference PDS accepts."""

from __future__ import annotations

import base64
from typing import Any

from backfill_dagster_tests.reference.accounts import Account, Json

POST, LIKE, REPOST = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost"
FOLLOW, BLOCK = "app.bsky.graph.follow", "app.bsky.graph.block"
THING, SOMETHING = "com.example.thing", "net.example.some-Where.someThing"

DATE = "2024-05-06T07:08:09.123Z"
SOME_CID = "bafyreihffx5a2e7k5uwrmmgofbvzujc5cmw5h4espouwuxt3liqoflx3ee"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

ODD_DATES: tuple[Any, ...] = (
    "2024-05-06T07:08:09Z",
    "2024-05-06T07:08:09.123456789Z",
    "2024-05-06T07:08:09.1+05:30",
    "2024-05-06T07:08:09-00:00",
    "2024-05-06T07:08:09",
    "2024-05-06",
    "2024-02-30T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "1969-12-31T23:59:59.999Z",
    "yesterday",
    "",
    None,
)
"""createdAt values that a record may have without being quarantined."""

ODD_VALUES: tuple[Json, ...] = (
    {},
    {"nothing": None, "yes": True, "no": False, "zero": 0, "one": 1},
    {"large": 2**53 - 1, "small": 1 - 2**53, "negative": -1},
    {"": "an empty key", "é": 1, "日本": 2, "\U0001f600": 3, "aa": 4, "b": 5, "constructor": 6},
    {"text": 'quotes " and \\ and \n and \u0000 and \u2028 and \ufeff and \U0001f468\u200d\U0001f469\u200d\U0001f467'},
    {"deep": [[], {}, [None, [[[[[[[["down here"]]]]]]]]], {"a": {"b": {"c": [{"d": {}}]}}}]},
    {"link": {"$link": SOME_CID}, "links": [{"$link": SOME_CID}, {"at": {"$link": SOME_CID}}]},
    {"bytes": {"$bytes": base64.b64encode(bytes(range(256))).decode().rstrip("=")}, "none": {"$bytes": ""}},
    {"links as text": "$link", "bytes as text": "$bytes", "$foo": 1},
    {"reply": "not a reply", "subject": [1], "langs": "en"},
    {"long": "x" * 50_000},
)

ODD_KEYS = ("self", "a:b_c~d.e-f", "-", "~", "0", "3jui7kd54zh2y", "3jui7kd54zh2yx", "zzzzzzzzzzzzz", "k" * 512)


def write_everyday(account: Account, friend: Account) -> None:
    """Profile, posts of all kinds, replies, likes, reposts, follows, blocks, lists; some edited, some deleted."""
    avatar = account.xrpc.upload("com.atproto.repo.uploadBlob", PNG, "image/png")["blob"]
    account.put("app.bsky.actor.profile", "self", {"displayName": "before the edit"})
    account.put("app.bsky.actor.profile", "self", {"displayName": "Ä profile", "avatar": avatar, "createdAt": DATE})
    account.put("chat.bsky.actor.declaration", "self", {"allowIncoming": "following"})
    first = account.create(POST, {"text": "the first post", "createdAt": DATE})
    theirs = friend.create(POST, {"text": "a post of somebody else", "createdAt": DATE})
    _write_rich_posts(account, first, avatar)
    answered = {"root": first, "parent": first}
    reply = account.create(POST, {"text": "a reply", "createdAt": DATE, "reply": answered})
    friend.create(POST, {"text": "", "createdAt": DATE, "reply": {"root": first, "parent": reply}})
    account.create(LIKE, {"subject": theirs, "createdAt": DATE})
    repost = account.create(REPOST, {"subject": theirs, "createdAt": DATE})
    friend.create(LIKE, {"subject": theirs, "via": repost, "createdAt": DATE})
    account.create(FOLLOW, {"subject": friend.did, "createdAt": DATE})
    account.create(BLOCK, {"subject": "did:web:example.com", "createdAt": DATE})
    _write_lists(account, friend, first)
    for record in (POST, {"text": "gone", "createdAt": DATE}), (LIKE, {"subject": first, "createdAt": DATE}):
        account.delete(account.create(*record)["uri"])


def _write_rich_posts(account: Account, quoted: Json, image: Json) -> None:
    link = {"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com/?a=b&c=\U0001f600"}
    labels = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "porn"}]}
    rich: Json = {
        "text": "look \U0001f600 here",
        "langs": ["en", "pt-BR"],
        "tags": ["moss", "苔"],
        "facets": [{"index": {"byteStart": 0, "byteEnd": 4}, "features": [link]}],
        "labels": labels,
    }
    record = {"$type": "app.bsky.embed.record", "record": quoted}
    images = {"$type": "app.bsky.embed.images", "images": [{"image": image, "alt": "one pixel"}]}
    both = {"$type": "app.bsky.embed.recordWithMedia", "record": record, "media": images}
    external = {"uri": "https://example.com", "title": "t", "description": "", "thumb": image}
    for embed in (record, images, both, {"$type": "app.bsky.embed.external", "external": external}):
        account.create(POST, {**rich, "embed": embed, "createdAt": DATE})


def _write_lists(account: Account, friend: Account, post: Json) -> None:
    purpose = "app.bsky.graph.defs#curatelist"
    a_list = account.create("app.bsky.graph.list", {"purpose": purpose, "name": "people", "createdAt": DATE})
    item = {"subject": friend.did, "list": a_list["uri"], "createdAt": DATE}
    account.create("app.bsky.graph.listitem", item)
    gate = {"post": post["uri"], "allow": [], "createdAt": DATE}
    account.create("app.bsky.feed.threadgate", gate, post["uri"].rpartition("/")[2])


def write_oddities(account: Account) -> dict[str, str]:
    """Odd keys, values and dates; returns those that have to end in the quarantine: URI -> reason."""
    things = [(THING, value) for value in (*ODD_VALUES, {"createdAt": 12})]
    undated = [(SOMETHING, {"createdAt": date}) for date in ODD_DATES]
    posts = [(POST, {"text": f"written {date}", "createdAt": date}) for date in ODD_DATES]
    loose = [
        (POST, {"langs": "en", "embed": "x", "reply": [], "facets": {}, "createdAt": DATE}),
        (POST, {"text": "", "reply": {"root": 1}, "tags": [1], "createdAt": DATE}),
        (LIKE, {"createdAt": DATE, "via": "somewhere"}),
    ]
    creates: list[Json] = [
        {"$type": "create", "collection": collection, "value": value}
        for collection, value in [*things, *undated, *posts, *loose]
    ]
    creates += [{"$type": "create", "collection": THING, "rkey": rkey, "value": {"rkey": rkey}} for rkey in ODD_KEYS]
    account.apply(creates, validate=False)
    broken: tuple[tuple[str, Json, str], ...] = (
        (POST, {"text": 5, "createdAt": DATE}, "text is not a string"),
        (POST, {"text": "x", "createdAt": 5}, "createdAt is not a string"),
        (LIKE, {"subject": "at://x", "createdAt": DATE}, "subject is not an object"),
        (FOLLOW, {"subject": {"did": account.did}, "createdAt": DATE}, "subject is not a string"),
        (THING, {"a": {"$bytes": "AAAA", "b": 1}}, "a key is $link or $bytes"),
    )
    return {account.create(name, record, validate=False)["uri"]: reason for name, record, reason in broken}
