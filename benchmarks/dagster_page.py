"""What the Partitions page of a job of assets asks the webserver, as of dagster 1.13.27.

Read off the web application: the page looks its partition set up, then asks the health of each partitioned asset of
the job, one after the other, and beside that the first ten partition backfills. The documents are the application's
own, without the fields of time and multi partitions; the layout of the asset graph, which the application holds
for all pages, is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from backfill_dagster.orchestration.webserver import LOCATION, REPOSITORY, Webserver

PARTITION_SET = """
query AssetJobPartitionSetsQuery($pipelineName:String!,$repositoryName:String!,$repositoryLocationName:String!){
 partitionSetsOrError(pipelineName:$pipelineName,repositorySelector:{repositoryName:$repositoryName,
 repositoryLocationName:$repositoryLocationName}){__typename
 ...on PartitionSets{results{id name mode solidSelection}}}}
"""

HEALTH = """
query PartitionHealthQuery($assetKey:AssetKeyInput!){assetNodeOrError(assetKey:$assetKey){__typename
 ...on AssetNode{id partitionKeysByDimension{name type partitionKeys} assetPartitionStatuses{__typename
 ...on DefaultPartitionStatuses{materializedPartitions materializingPartitions failedPartitions}}}}}
"""

BACKFILLS = """
query JobBackfillsQuery($partitionSetName:String!,$repositorySelector:RepositorySelector!,$limit:Int){
 partitionSetOrError(repositorySelector:$repositorySelector,partitionSetName:$partitionSetName){__typename
 ...on PartitionSet{id pipelineName backfills(limit:$limit){id status isAssetBackfill isValidSerialization
 numPartitions timestamp partitionSetName hasCancelPermission hasResumePermission
 partitionSet{id name mode pipelineName repositoryOrigin{id repositoryName repositoryLocationName}}
 assetSelection{path} tags{key value} error{message stack}}}}}
"""


def ask_page(web: Webserver, job: str, assets: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Ask everything that the page asks.

    Args:
        web: the running webserver.
        job: the partitioned job.
        assets: asset keys of its partitioned assets.

    Returns:
        Seconds for all of it, and the partitions that the page counts.
    """
    started = time.perf_counter()
    repository = {"repositoryName": REPOSITORY, "repositoryLocationName": LOCATION}
    sets = web.query(PARTITION_SET, pipelineName=job, **repository)["partitionSetsOrError"]["results"]
    counts = {_count(web.query(HEALTH, assetKey={"path": list(path)})) for path in assets}
    web.query(BACKFILLS, partitionSetName=sets[0]["name"], repositorySelector=repository, limit=10)
    assert len(counts) == 1, "the assets of one job have the same partitions"
    return time.perf_counter() - started, counts.pop()


def _count(answer: dict[str, Any]) -> int:
    [dimension] = answer["assetNodeOrError"]["partitionKeysByDimension"]
    return len(dimension["partitionKeys"])
