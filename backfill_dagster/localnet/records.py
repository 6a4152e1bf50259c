"""Made-up records with the shape of real ones: what each collection's records say.

Only content lives here; `generate.py` decides how many there are and when, `repo_writer.py` makes blocks a repo.
Lexicons: https://github.com/bluesky-social/atproto/tree/main/lexicons
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import libipld

from backfill_dagster.localnet.blocks import BLOB_CID_PREFIX, CID_PREFIX
from backfill_dagster.localnet.phrases import HASHTAGS, LANGUAGES, LINKS, SENTENCES
from backfill_dagster.localnet.tids import EPOCH_START_US, clock_text, tid

Record = dict[str, Any]

ODD_DATE_SHARE = 0.015
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


class Author:
    """One account's hand: makes its records, rolling its own dice.

    Args:
        rolls: the account's dice.
        did: the account.
        others: DIDs that it follows, likes, answers to.
    """

    def __init__(self, rolls: random.Random, did: str, others: Sequence[str]) -> None:
        self._roll = rolls.random
        self._bytes = rolls.randbytes
        self._did = did
        self._others = others

    def record(self, kind: str, at_us: int) -> Record:
        """A record of this type (`design/data.md`), created at this moment (us since the epoch)."""
        maker = _MAKERS[kind]
        record = maker(self, at_us)
        created_at = self._created_at(at_us)
        if created_at is not None:
            record["createdAt"] = created_at
        return record

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._roll() * len(choices))]

    def _created_at(self, at_us: int) -> str | None:
        """Mostly the plain form; a few as odd as real ones, None for missing."""
        chance = self._roll()
        if chance >= ODD_DATE_SHARE:
            return clock_text(at_us) + "Z"
        odd = int(chance / ODD_DATE_SHARE * 10)
        forms: list[str | None] = [
            clock_text(at_us + 2 * _HOUR_US) + "+02:00",
            clock_text(at_us - 7 * _HOUR_US) + "-07:00",
            clock_text(at_us)[:-4] + "Z",
            clock_text(at_us) + "417Z",
            clock_text(at_us) + "+00:00",
            clock_text(at_us - 1500 * _DAY_US) + "Z",
            clock_text(at_us + 9 * _HOUR_US) + "Z",
            None,
            "2024-13-45T99:99:99Z",
            "yesterday",
        ]
        return forms[odd]

    def _cid(self) -> str:
        """The text of a CID that nothing has."""
        cid: str = libipld.encode_cid(CID_PREFIX + self._bytes(32))
        return cid

    def _strong_ref(self, collection: str, before_us: int) -> Record:
        span = before_us - EPOCH_START_US
        rkey = tid(before_us - int(self._roll() * span * self._roll()), 7)
        return {"uri": f"at://{self._pick(self._others)}/{collection}/{rkey}", "cid": self._cid()}

    def _blob(self, mime_type: str) -> Record:
        ref = BLOB_CID_PREFIX + self._bytes(32)
        return {"$type": "blob", "ref": ref, "mimeType": mime_type, "size": int(self._roll() * 900_000) + 1}

    def _text(self) -> str:
        first = self._pick(SENTENCES)
        chance = self._roll()
        if chance < 0.5:
            return first
        if chance < 0.85:
            return f"{first}. {self._pick(SENTENCES)}"
        return "\n\n".join((first, self._pick(SENTENCES), self._pick(SENTENCES), self._pick(SENTENCES)))

    def _post(self, at_us: int) -> Record:
        record: Record = {"$type": "app.bsky.feed.post", "text": self._text(), "langs": [self._pick(LANGUAGES)]}
        chance = self._roll()
        if chance < 0.25:
            record["embed"] = self._embed(at_us)
        elif chance < 0.35:
            self._add_hashtag(record)
        elif chance < 0.37:
            record["tags"] = [self._pick(HASHTAGS), self._pick(HASHTAGS)]
        elif chance < 0.38:
            record["labels"] = {"$type": "com.atproto.label.defs#selfLabels", "values": [{"val": "graphic-media"}]}
        elif chance < 0.42:
            del record["langs"]
        return record

    def _reply(self, at_us: int) -> Record:
        record = self._post(at_us)
        parent = self._strong_ref("app.bsky.feed.post", at_us)
        root = parent if self._roll() < 0.5 else self._strong_ref("app.bsky.feed.post", at_us)
        record["reply"] = {"root": root, "parent": parent}
        return record

    def _add_hashtag(self, record: Record) -> None:
        tag = self._pick(HASHTAGS)
        start = len(record["text"].encode()) + 1
        record["text"] += f" #{tag}"
        feature = {"$type": "app.bsky.richtext.facet#tag", "tag": tag}
        record["facets"] = [
            {"index": {"byteStart": start, "byteEnd": start + 1 + len(tag.encode())}, "features": [feature]}
        ]

    def _embed(self, at_us: int) -> Record:
        chance = self._roll()
        if chance < 0.5:
            image = {"alt": self._pick(SENTENCES), "image": self._blob("image/jpeg")}
            image["aspectRatio"] = {"width": 1200, "height": 900}
            return {"$type": "app.bsky.embed.images", "images": [image]}
        if chance < 0.75:
            external = {"uri": self._pick(LINKS), "title": self._pick(SENTENCES), "description": ""}
            return {"$type": "app.bsky.embed.external", "external": external}
        if chance < 0.95:
            return {"$type": "app.bsky.embed.record", "record": self._strong_ref("app.bsky.feed.post", at_us)}
        return {"$type": "app.bsky.embed.video", "video": self._blob("video/mp4")}

    def _like(self, at_us: int) -> Record:
        record = {"$type": "app.bsky.feed.like", "subject": self._strong_ref("app.bsky.feed.post", at_us)}
        if self._roll() < 0.05:
            record["via"] = self._strong_ref("app.bsky.feed.repost", at_us)
        return record

    def _repost(self, at_us: int) -> Record:
        return {"$type": "app.bsky.feed.repost", "subject": self._strong_ref("app.bsky.feed.post", at_us)}

    def _follow(self, at_us: int) -> Record:
        return {"$type": "app.bsky.graph.follow", "subject": self._pick(self._others)}

    def _block(self, at_us: int) -> Record:
        return {"$type": "app.bsky.graph.block", "subject": self._pick(self._others)}

    def _own(self, collection: str, at_us: int) -> str:
        return f"at://{self._did}/{collection}/{tid(at_us, 7)}"

    def _list(self, at_us: int) -> Record:
        purpose = "app.bsky.graph.defs#modlist" if self._roll() < 0.5 else "app.bsky.graph.defs#curatelist"
        return {"$type": "app.bsky.graph.list", "name": self._pick(HASHTAGS), "purpose": purpose}

    def _list_item(self, at_us: int) -> Record:
        owned = self._own("app.bsky.graph.list", at_us - int(self._roll() * _DAY_US))
        return {"$type": "app.bsky.graph.listitem", "list": owned, "subject": self._pick(self._others)}

    def _list_block(self, at_us: int) -> Record:
        subject = f"at://{self._pick(self._others)}/app.bsky.graph.list/{tid(at_us, 7)}"
        return {"$type": "app.bsky.graph.listblock", "subject": subject}

    def _threadgate(self, at_us: int) -> Record:
        rules = [{"$type": "app.bsky.feed.threadgate#mentionRule"}] if self._roll() < 0.7 else []
        return {"$type": "app.bsky.feed.threadgate", "post": self._own("app.bsky.feed.post", at_us), "allow": rules}

    def _postgate(self, at_us: int) -> Record:
        rules = [{"$type": "app.bsky.feed.postgate#disableRule"}]
        return {
            "$type": "app.bsky.feed.postgate",
            "post": self._own("app.bsky.feed.post", at_us),
            "embeddingRules": rules,
        }

    def _generator(self, at_us: int) -> Record:
        return {
            "$type": "app.bsky.feed.generator",
            "did": "did:web:feeds.example.com",
            "displayName": self._pick(HASHTAGS),
            "avatar": self._blob("image/png"),
        }

    def _starter_pack(self, at_us: int) -> Record:
        name, owned = self._pick(SENTENCES)[:50], self._own("app.bsky.graph.list", at_us)
        return {"$type": "app.bsky.graph.starterpack", "name": name, "list": owned}

    def _profile(self, at_us: int) -> Record:
        record: Record = {"$type": "app.bsky.actor.profile", "displayName": self._pick(SENTENCES)[:30]}
        if self._roll() < 0.8:
            record["description"] = self._text()
            record["avatar"] = self._blob("image/jpeg")
        return record

    def _chat(self, at_us: int) -> Record:
        return {"$type": "chat.bsky.actor.declaration", "allowIncoming": "following"}

    def _blog(self, at_us: int) -> Record:
        content = "\n\n".join(self._text() for _ in range(int(self._roll() * 20) + 1))
        return {
            "$type": "com.whtwnd.blog.entry",
            "title": self._pick(SENTENCES),
            "content": content,
            "visibility": "public",
        }

    def _star(self, at_us: int) -> Record:
        subject = f"at://{self._pick(self._others)}/sh.tangled.repo/{tid(at_us, 7)}"
        return {"$type": "sh.tangled.feed.star", "subject": subject}

    def _note(self, at_us: int) -> Record:
        # The first byte keeps libipld from taking these bytes for a CID.
        return {
            "$type": "com.example-notes.note",
            "body": self._text(),
            "seal": b"\xff" + self._bytes(15),
            "pages": [int(self._roll() * 2**40), -1, 0],
            "draft": self._roll() < 0.5,
            "next": None,
        }


_MAKERS: dict[str, Callable[[Author, int], Record]] = {
    "post": Author._post,
    "reply": Author._reply,
    "repost": Author._repost,
    "like": Author._like,
    "follow": Author._follow,
    "block": Author._block,
    "app.bsky.graph.listitem": Author._list_item,
    "app.bsky.graph.list": Author._list,
    "app.bsky.graph.listblock": Author._list_block,
    "app.bsky.graph.starterpack": Author._starter_pack,
    "app.bsky.feed.threadgate": Author._threadgate,
    "app.bsky.feed.postgate": Author._postgate,
    "app.bsky.feed.generator": Author._generator,
    "app.bsky.actor.profile": Author._profile,
    "chat.bsky.actor.declaration": Author._chat,
    "com.whtwnd.blog.entry": Author._blog,
    "sh.tangled.feed.star": Author._star,
    "com.example-notes.note": Author._note,
}
