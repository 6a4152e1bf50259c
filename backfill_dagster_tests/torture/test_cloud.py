"""Crash points on S3 and DynamoDB: the process may die, and the services may refuse, at every request.

Those count that change something. `make test` tries every kind of request in every scene, `make torture` every request
with every blow.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster_tests.torture import TORTURE
from backfill_dagster_tests.torture.cloud import BUCKET, REGION, CloudBlow, CloudLife, assert_clear, cloud_config
from backfill_dagster_tests.torture.picture import finished_picture
from backfill_dagster_tests.torture.scenes import Scene, is_entry, made_scenes
from backfill_dagster_tests.torture.trial import kinds

pytestmark = [pytest.mark.live, pytest.mark.timeout(3600 if TORTURE else 240)]

SCENES = {"first_run": 30, "refresh": 30, "retry": 25, "upkeep": 30, "recovery": 20}
"""Scene -> the least number of requests that it has to have."""

KINDS = {
    *("create", "put", "delete_object", "abort_multipart_upload"),
    *("batch_write_item", "put_item state", "put_item shards", "put_item retry", "delete_item", "lease"),
}


@pytest.fixture(scope="module")
def scenes(cloud: tuple[str, str], ground: Path) -> Iterator[Mapping[str, Scene]]:
    with made_scenes(ground / "cloud", CloudLife, lambda folder: cloud_config(folder, *cloud)) as made:
        yield made


@pytest.fixture(scope="module")
def cloud(moto: str, ministack: str, aws_module_environ: None) -> tuple[str, str]:
    """Addresses of an S3 with the bucket in it, and of a DynamoDB."""
    aws_client("s3", AwsPlace(REGION, moto)).create_bucket(Bucket=BUCKET)
    return moto, ministack


def struck(scene: Scene, blow: CloudBlow, name: str) -> list[int]:
    """The requests to strike at: all, or this blow's share of the kinds, one of each."""
    if TORTURE:
        return list(range(1, len(scene.calls) + 1))
    dice, blows = random.Random(f"{name} {blow}"), list(CloudBlow)
    turn = blows.index(blow) + list(SCENES).index(name)  # so that a kind meets another blow in each scene
    found = sorted({call.kind for call in scene.calls})
    mine = [kind for place, kind in enumerate(found) if (place + turn) % len(blows) == 0]
    return [dice.choice([n for n, call in enumerate(scene.calls, 1) if call.kind == kind]) for kind in mine]


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("blow", CloudBlow)
def test_the_same_commands_again_end_as_if_nothing_had_happened(
    scenes: Mapping[str, Scene], ground: Path, blow: CloudBlow, name: str
) -> None:
    numbers = struck(scenes[name], blow, name)
    failures = {}
    for number in numbers:
        try:
            trial(scenes[name], blow, number, ground / f"{name}-{blow}-{number}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            failures[f"{number} {scenes[name].calls[number - 1]}"] = f"{type(error).__name__}: {error}"
    assert failures == {}


def trial(scene: Scene, blow: CloudBlow, number: int, folder: Path) -> None:
    CloudLife.begin(scene.base, folder)
    life = CloudLife(folder, CloudLife.fate_of(blow, number))
    ended = life.run(scene.commands)
    assert life.fate.struck, "the life ended before its blow"
    if blow.kills:
        assert life.fate.is_over, "the blow did not kill"
        assert kinds(life.fate.calls) == kinds(scene.calls[:number]), "another life than the unbroken one"
    elif ended.why is not None:
        assert_clear(ended.why, life.config)
    again = CloudLife(folder, CloudLife.fate_of())
    healed = again.run(ended.left)
    if healed.why is not None:
        raise healed.why
    with again.opened() as state:
        other = finished_picture(state).differences(scene.end)
    assert not other, other


def test_each_kind_of_request_is_struck(scenes: Mapping[str, Scene]) -> None:
    for name, scene in scenes.items():
        met = {scene.calls[number - 1].kind for blow in CloudBlow for number in struck(scene, blow, name)}
        assert met == {call.kind for call in scene.calls}, name
        assert len(scene.calls) >= SCENES[name]
    assert {call.kind for scene in scenes.values() for call in scene.calls} == KINDS
    assert sum(map(is_entry, scenes["first_run"].calls)) == 1 + 2  # a seal, two batches
