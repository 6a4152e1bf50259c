"""A YAML file that can't become jobs, shown where people look: an asset with a failing check that says what is wrong.

The check's results are recorded by the sensor `config_folder` and, by hand, by the check itself.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from backfill_dagster.orchestration.config_folder import Stamp, folder_stamp, read_folder

GROUP = "broken_configs"
CHECK = "config_is_valid"


def broken_keys(errors: Mapping[Path, str]) -> dict[Path, dg.AssetKey]:
    """File -> key `<stem>__config_error` of the asset that stands for it."""
    taken: dict[Path, str] = {}
    for path in sorted(errors):
        key = free = f"{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}__config_error"
        number = 2
        while free in taken.values():
            free, number = f"{key}_{number}", number + 1
        taken[path] = free
    return {path: dg.AssetKey(key) for path, key in taken.items()}


def broken_assets(errors: Mapping[Path, str]) -> list[dg.AssetSpec]:
    """One external asset for each file.

    Args:
        errors: file -> what is wrong with it, one line per problem.
    """
    return [
        dg.AssetSpec(
            key,
            group_name=GROUP,
            description=f"{path.name} has no jobs, because it is not a valid config:\n\n```\n{errors[path]}\n```\n\n"
            "Mend the file (`backfill validate` checks it) and reload the code location.",
            metadata={"config": dg.MetadataValue.path(str(path))},
        )
        for path, key in broken_keys(errors).items()
    ]


@dataclass(frozen=True)
class BrokenFiles:
    """The broken files of a folder as they were when the code location was loaded.

    Attributes:
        folder: the config folder: two files can be wrong only together.
        stamp: of the folder at that time.
        errors: file -> what is wrong with it; also what only Dagster has found.
        environ: environment variables; default: the process's.
    """

    folder: Path
    stamp: Stamp
    errors: Mapping[Path, str]
    environ: Mapping[str, str] | None = None

    def verdicts(self) -> dict[Path, tuple[bool, str]]:
        """File -> whether its check passes now, and what it says."""
        # What is wrong only to Dagster stands as long as no file has changed.
        stands = self.errors if folder_stamp(self.folder) == self.stamp else {}
        wrong = {**stands, **read_folder(self.folder, self.environ).errors}
        fine = "is valid now, or gone: reload the code location"
        return {path: (False, wrong[path]) if path in wrong else (True, f"{path.name} {fine}") for path in self.errors}


def broken_checks(broken: BrokenFiles) -> list[dg.AssetChecksDefinition]:
    """The check `config_is_valid` of each broken file's asset."""
    return [_check(path, key, broken) for path, key in broken_keys(broken.errors).items()]


def _check(path: Path, key: dg.AssetKey, broken: BrokenFiles) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key, name=CHECK, description=f"Reads {path.name} again.")
    def config_is_valid(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        passed, said = broken.verdicts()[path]
        return dg.AssetCheckResult(passed=passed, description=said)

    return config_is_valid
