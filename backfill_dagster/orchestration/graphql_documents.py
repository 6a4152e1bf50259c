"""The questions that `webserver` asks Dagster, in GraphQL (as of dagster 1.13.27)."""

from __future__ import annotations

_ERROR = "...on Error{message}"

LOCATION = """
query($name:String!){workspaceLocationEntryOrError(name:$name){__typename
 ...on WorkspaceLocationEntry{loadStatus locationOrLoadError{__typename ...on PythonError{message}}}}}
"""

RELOAD = "mutation($name:String!){reloadRepositoryLocation(repositoryLocationName:$name){__typename}}"

LAUNCH_RUN = f"""
mutation($params:ExecutionParams!){{launchRun(executionParams:$params){{__typename {_ERROR}
 ...on LaunchRunSuccess{{run{{runId}}}} ...on RunConfigValidationInvalid{{errors{{message}}}}}}}}
"""

LAUNCH_BACKFILL = f"""
mutation($params:LaunchBackfillParams!){{launchPartitionBackfill(backfillParams:$params){{__typename {_ERROR}
 ...on LaunchBackfillSuccess{{backfillId}}}}}}
"""

BACKFILL = f"""
query($id:String!){{partitionBackfillOrError(backfillId:$id){{__typename {_ERROR} ...on PartitionBackfill{{status}}}}}}
"""

PARTITION_STATUSES = f"""
query($repository:RepositorySelector!,$name:String!){{partitionSetOrError(repositorySelector:$repository,
 partitionSetName:$name){{__typename {_ERROR} ...on PartitionSet{{
 partitionsOrError{{__typename {_ERROR} ...on Partitions{{results{{name}}}}}}
 partitionStatusesOrError{{__typename {_ERROR} ...on PartitionStatuses{{results{{partitionName runStatus}}}}}}}}}}}}
"""

ASSET_PARTITIONS = f"""
query($key:AssetKeyInput!){{assetNodeOrError(assetKey:$key){{__typename {_ERROR} ...on AssetNode{{
 assetPartitionStatuses{{__typename ...on DefaultPartitionStatuses{{
 materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions}}}}}}}}}}
"""

RUNS = f"""
query($filter:RunsFilter!,$limit:Int){{runsOrError(filter:$filter,limit:$limit){{__typename {_ERROR}
 ...on Runs{{results{{runId jobName status startTime endTime tags{{key value}}}}}}}}}}
"""

TERMINATE = """
mutation($ids:[String!]!){terminateRuns(runIds:$ids,terminatePolicy:SAFE_TERMINATE){__typename}}
"""
