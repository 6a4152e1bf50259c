"""A generation of the plan carries its own sha256: a flipped bit that makes another good file is found."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.model import PlannedDid
from backfill_dagster.plan import PlanStore
from backfill_dagster.plan.generation import check_bytes
from backfill_dagster.store import LocalStore

PLANNED = [PlannedDid(did=f"did:plc:{'a' * 23}{n}", shard="a.example~0000", handle="a.example") for n in range(3)]


@pytest.fixture
def plans(tmp_path: Path) -> PlanStore:
    plans = PlanStore(LocalStore(tmp_path))
    assert plans.append(plans.read(), PLANNED, {"refresh": 0, "source": "backfill_sha256 " + "0" * 64}) is not None
    return plans


def test_what_was_written_is_what_is_read(plans: PlanStore) -> None:
    assert plans.damaged() == []
    plan = plans.read()
    assert list(plan.rows()) == PLANNED
    assert plan.metadata == {"refresh": 0, "source": "backfill_sha256 " + "0" * 64, "generation": 1}


def test_any_other_bit_is_named(plans: PlanStore, tmp_path: Path) -> None:
    path = tmp_path / "plan" / "000001.parquet"
    whole = path.read_bytes()
    *_, label = re.finditer(rb"backfill_sha256.{1,8}?(?=[0-9a-f]{64})", whole, re.DOTALL)
    dice = random.Random(6)
    unseen = 0
    for _ in range(300):
        place = dice.choice([at for at in range(len(whole)) if at not in range(*label.span())])
        changed = bytearray(whole)
        changed[place] ^= 1 << dice.randrange(8)
        path.write_bytes(changed)
        try:
            plans.read()
        except StateError:
            continue
        unseen += 1
        if problems := plans.damaged():
            assert f"{path} can't be read as a generation of the plan (its sha256 is not the one" in problems[0]
        else:
            assert place in range(label.end(), label.end() + 64), "the digest itself, and it is none any more"
    assert unseen > 100, "most of them make a file that can be read"


def test_those_of_the_first_version_have_none(plans: PlanStore, tmp_path: Path) -> None:
    whole = (tmp_path / "plan" / "000001.parquet").read_bytes()
    check_bytes(whole.replace(b"backfill_sha256", b"something__else"))
    with pytest.raises(ValueError, match="its sha256 is not the one it carries"):
        check_bytes(whole + whole)
