"""Requests to a DynamoDB table: every query paged, every batch until nothing of it is left, conditions as yes or no.

boto3 tries a refused request again by itself; what it gives up on, and what a batch leaves unprocessed, is tried again
here. What the items mean is the business of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from backfill_dagster.aws import AwsBounds, AwsError, aws_errors
from backfill_dagster.errors import StateError
from backfill_dagster.ledger.dynamodb_patience import Patience
from backfill_dagster.ledger.dynamodb_table import PARTITION_KEY, SORT_KEY, DynamodbTable

WireItem: TypeAlias = dict[str, Any]
"""Attribute -> `{"S": "text"}` and the like."""

Key: TypeAlias = tuple[str, str]
"""Partition key and sort key."""

T = TypeVar("T")

BATCH_WRITES = 25
BATCH_READS = 100
"""DynamoDB's own bounds."""

BATCHES_AT_ONCE = 4
"""Batches in flight: four were seen to take 1.6 times the items of one, and keep a core busy."""

_SINGLES_AT_ONCE = 16

_CONDITION_FAILED = "ConditionalCheckFailedException"

_PASSING = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "InternalServerError",
        "ServiceUnavailable",
        "500",
        "502",
        "503",
        "504",
        "ConnectionClosedError",
    }
)
"""What may pass. A server that can't be reached at all isn't among them: boto3 has tried that for a minute."""


class Requests:
    """What the parts of a ledger ask of its table."""

    def __init__(
        self, table: DynamodbTable, *, bounds: AwsBounds | None = None, patience: Patience | None = None
    ) -> None:
        """Asks no server.

        Args:
            table: what is asked.
            bounds: of a client of one's own; None: the table's client.
            patience: one's own; None: the table's.
        """
        self.table = table
        self.patience = patience or table.patience
        self._bounds = bounds
        self._own_client: Any = None

    @property
    def client(self) -> Any:
        """boto3's client. AwsError as the table's."""
        if self._bounds is None:
            return self.table.client
        if self._own_client is None:
            self._own_client = self.table.client_within(self._bounds)
        return self._own_client

    def ask(self, doing: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request on the table.

        Args:
            doing: reads on from "can't": `read retry marks in`.
            operation: the client's method.
            parameters: all but the table's name.
        """
        call = getattr(self.client, operation)
        trying = self.patience.trying()
        while True:
            try:
                with aws_errors(f"{doing} the {self.table}"):
                    answer: dict[str, Any] = call(TableName=self.table.name, **parameters)
                    return answer
            except AwsError as error:
                if error.code not in _PASSING or not trying.again():
                    raise

    def ask_if(self, doing: str, operation: str, **parameters: Any) -> bool:
        """One conditional request; False when the condition wasn't met.

        After a lost reply that may be one's own success: whoever calls has to look, or not to care.
        """
        try:
            self.ask(doing, operation, **parameters)
        except AwsError as error:
            if error.code == _CONDITION_FAILED:
                return False
            raise
        return True

    def get(self, doing: str, key: Key) -> WireItem | None:
        """One item as it is now."""
        found: WireItem | None = self.ask(doing, "get_item", Key=wire_key(key), ConsistentRead=True).get("Item")
        return found

    def query(self, doing: str, **parameters: Any) -> Iterator[WireItem]:
        """The items of a query, page by page."""
        page: dict[str, Any] = {}
        while True:
            page = self.ask(doing, "query", **parameters, **page)
            yield from page["Items"]
            if not page.get("LastEvaluatedKey"):
                return
            page = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def partition(self, doing: str, pk: str, *names: str, **parameters: Any) -> Iterator[WireItem]:
        """The items under a partition key as they are now, by sort key; only these attributes, if any are named."""
        expression_names = {"#pk": PARTITION_KEY} | {f"#n{number}": name for number, name in enumerate(names)}
        if names:
            parameters["ProjectionExpression"] = ", ".join(f"#n{number}" for number in range(len(names)))
        parameters.setdefault("KeyConditionExpression", "#pk = :pk")
        values = {":pk": {"S": pk}} | parameters.pop("ExpressionAttributeValues", {})
        return self.query(
            doing,
            ConsistentRead=True,
            ExpressionAttributeNames=expression_names | parameters.pop("ExpressionAttributeNames", {}),
            ExpressionAttributeValues=values,
            **parameters,
        )

    def write(self, items: Sequence[T], typed: Callable[[T], WireItem]) -> None:
        """Put items, several batches at a time, in any order.

        Args:
            items: no two of one key.
            typed: an item as DynamoDB takes it; made while other batches wait for their answers.

        Raises:
            StateError: the table left some unprocessed until patience ended; how many of all is not known then.
        """
        side_by_side(partial(self._write_batch, typed), _batches_of(items, BATCH_WRITES), at_once=BATCHES_AT_ONCE)

    def _write_batch(self, typed: Callable[[T], WireItem], items: Sequence[T]) -> None:
        puts = [{"PutRequest": {"Item": typed(item)}} for item in items]
        for _ in self._answers("write items to", "batch_write_item", puts, "UnprocessedItems"):
            pass

    def get_many(self, keys: Sequence[Key], *names: str) -> Iterator[WireItem]:
        """The items under these keys that are there, as they are now, in any order; only these attributes, if named."""
        options: dict[str, Any] = {"ConsistentRead": True}
        if names:
            options["ExpressionAttributeNames"] = {f"#n{number}": name for number, name in enumerate(names)}
            options["ProjectionExpression"] = ", ".join(f"#n{number}" for number in range(len(names)))
        for some in _batches_of(keys, BATCH_READS):
            asked = [wire_key(key) for key in some]
            for answer in self._answers("read items of", "batch_get_item", asked, "UnprocessedKeys", options):
                yield from answer["Responses"].get(self.table.name, ())

    def _answers(
        self, doing: str, operation: str, asked: list[Any], unprocessed: str, options: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The answers to a batch and to what each leaves, until nothing is left."""
        table, left = self.table, asked
        call = getattr(self.client, operation)
        trying = self.patience.trying()
        while left:
            try:
                with aws_errors(f"{doing} the {table}"):
                    request = left if options is None else {**options, "Keys": left}
                    answer = call(RequestItems={table.name: request})
            except AwsError as error:
                if error.code not in _PASSING or not trying.again():
                    raise
                continue
            again = answer.get(unprocessed, {}).get(table.name, [])
            now_left = again if options is None or not again else again["Keys"]
            progress = len(now_left) < len(left)
            left = now_left
            yield answer
            if left and not trying.again(progress=progress):
                raise StateError(
                    f"can't {doing} the {table}: {len(left)} of {len(asked)} were left unprocessed for "
                    f"{trying.seconds:.0f} s; give the table more capacity or bill it by request, then start again"
                )


def side_by_side(work: Callable[[T], object], some: Iterable[T], *, at_once: int = _SINGLES_AT_ONCE) -> None:
    """Do the work for each, several at a time; the first error is raised when what had begun is done."""
    pieces = list(some)
    if len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(min(at_once, len(pieces)), thread_name_prefix="dynamodb") as pool:
        done = [pool.submit(work, piece) for piece in pieces]
        try:
            for one in done:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def wire_key(key: Key) -> WireItem:
    """A key as DynamoDB takes it."""
    return {PARTITION_KEY: {"S": key[0]}, SORT_KEY: {"S": key[1]}}


def _batches_of(some: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (some[start : start + size] for start in range(0, len(some), size))
