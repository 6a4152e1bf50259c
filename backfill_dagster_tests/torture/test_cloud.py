"""Crash points on S3 and DynamoDB: the process may die, and the services may refuse, at every request.

Those count that change something. `make test` tries every kind of request, `make torture` every request with
every blow.
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

SCENES = {"first_run": 25, "refresh": 25, "retry": 15, "upkeep": 20, "recovery": 15}
"""Scene -> the least number of requests that it has to have."""

KINDS = {
    *("create", "put", "delete_object", "abort_multipart_upload"),
    *("batch_write_item", "update_item", "put_item shards", "put_item retry", "delete_item", "lease"),
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


ALL = [(blow, name) for blow in CloudBlow for name in SCENES]

PAIRS = [(blow, name) for number, name in enumerate(SCENES) for blow in list(CloudBlow)[number % 2 :: 2]]
"""Every blow and every scene, in half of the ways to combine them."""


def struck(scenes: Mapping[str, Scene], blow: CloudBlow, name: str) -> list[int]:
    """The requests to strike at: all; or one, so that all pairs together have every kind."""
    calls = scenes[name].calls
    if TORTURE:
        return list(range(1, len(calls) + 1))
    kind = kinds_by_pair(scenes).get((blow, name))
    return [random.Random(f"{name} {blow}").choice([n for n, call in enumerate(calls, 1) if call.kind == kind])]


def kinds_by_pair(scenes: Mapping[str, Scene]) -> dict[tuple[CloudBlow, str], str]:
    """A kind for each pair: the rare ones are given away first, then again the frequent ones."""
    homes = {kind: [name for name in SCENES if kind in kinds(scenes[name].calls)] for kind in sorted(KINDS)}
    rare_first = sorted(homes, key=lambda kind: len(homes[kind]))
    found: dict[tuple[CloudBlow, str], str] = {}
    for kind in rare_first * len(PAIRS):
        free = [(blow, name) for blow, name in PAIRS if name in homes[kind] and (blow, name) not in found]
        if free:
            found[free[0]] = kind
    return found


@pytest.mark.parametrize(
    ("blow", "name"), [(blow, name) for blow in CloudBlow for name in SCENES] if TORTURE else PAIRS
)
def test_the_same_commands_again_end_as_if_nothing_had_happened(
    scenes: Mapping[str, Scene], ground: Path, blow: CloudBlow, name: str
) -> None:
    failures = []
    for number in struck(scenes, blow, name):
        try:
            trial(scenes[name], blow, number, ground / f"{name}-{blow}-{number}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            failures.append(f"{number} {scenes[name].calls[number - 1]}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


def trial(scene: Scene, blow: CloudBlow, number: int, folder: Path) -> None:
    CloudLife.begin(scene.base, folder)
    life = CloudLife(folder, CloudLife.fate_of(blow, number))
    ended = life.run(scene.commands)
    assert life.fate.struck, "the life ended before its blow"
    if blow.kills:
        assert life.fate.is_over, "the blow did not kill"
        assert kinds(life.fate.calls[:number]) == kinds(scene.calls[:number]), "another life than the unbroken one"
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
    for name, least in SCENES.items():
        assert len(scenes[name].calls) >= least
    assert {call.kind for scene in scenes.values() for call in scene.calls} == KINDS
    met = {scenes[name].calls[n - 1].kind for blow, name in PAIRS for n in struck(scenes, blow, name)}
    assert met == KINDS
    assert sum(map(is_entry, scenes["first_run"].calls)) == 1 + 2  # a seal, two batches
