"""Which state a backfill's items in a DynamoDB table belong to: one item under `<name>#state`."""

from __future__ import annotations

import threading

from backfill_dagster.errors import StateError
from backfill_dagster.ledger.dynamodb_requests import Requests, wire_key


class DynamodbBinding:
    """The binding of one backfill.

    What is written before it is bound leaves `has_items`: nobody could find the items of shards whose names he doesn't
    know, and they belong to a state of an unknown id.
    """

    def __init__(self, requests: Requests, backfill: str) -> None:
        self._requests = requests
        self._backfill = backfill
        self._key = (f"{backfill}#state", "state")
        self._is_said = False
        self._lock = threading.Lock()

    def state_id(self) -> str | None:
        """The state; None while there is none, or no table yet."""
        if not self._requests.table.is_there():
            return None
        found = (self._requests.get("read the state's id in", self._key) or {}).get("state_id")
        return None if found is None else str(found.get("S", ""))

    def note_items(self) -> None:
        """Items are about to be written: say so, once, unless a state is there to say it."""
        with self._lock:
            if not self._is_said:
                self._update("SET #has_items = :value", "attribute_not_exists(#state_id)", {"BOOL": True}, "has_items")
                self._is_said = True

    def bind(self, state_id: str) -> None:
        """Bind it, if it isn't; a conditional write, so that of two states only one can."""
        bound = self.state_id()
        if bound is None:
            self._requests.table.for_writing()
            unbound = "attribute_not_exists(#state_id) AND attribute_not_exists(#has_items)"
            self._update("SET #state_id = :value", unbound, {"S": state_id}, "state_id", "has_items")
            bound = self.state_id()
        if bound != state_id:
            raise StateError(
                f"the ledger in the {self._requests.table} belongs to the state {bound or 'of an unknown id'} of "
                f"{self._backfill}, not to {state_id}; bring that state folder back, or set another "
                "storage.table_name: the ledger is written again from the logs"
            )
        with self._lock:
            self._is_said = True

    def _update(self, change: str, condition: str, value: dict[str, object], *names: str) -> None:
        """Change the item if the condition holds; whoever has to know whether it did reads it."""
        used = {f"#{name}": name for name in {*names, "state_id"}}
        self._requests.ask_if(
            "write the state's id in",
            "update_item",
            Key=wire_key(self._key),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeNames=used,
            ExpressionAttributeValues={":value": value},
        )
