"""The base of all blocks of the YAML: frozen, unknown keys are errors, an empty block means its defaults."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Block(BaseModel):
    """One mapping of the YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        """A block with all its keys commented out is null to YAML."""
        return {} if data is None else data
