"""Entry point of `backfill`: the command group, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from backfill_dagster import __version__
from backfill_dagster.cli.compact import compact
from backfill_dagster.cli.demo import demo
from backfill_dagster.cli.init import init
from backfill_dagster.cli.ledger import ledger
from backfill_dagster.cli.localnet import localnet
from backfill_dagster.cli.plan import plan
from backfill_dagster.cli.purge import purge
from backfill_dagster.cli.query import query
from backfill_dagster.cli.repair import repair
from backfill_dagster.cli.report import report
from backfill_dagster.cli.retry import retry
from backfill_dagster.cli.run import run
from backfill_dagster.cli.status import status
from backfill_dagster.cli.stopping import EXIT_INTERRUPTED
from backfill_dagster.cli.validate import validate
from backfill_dagster.cli.verify import verify
from backfill_dagster.errors import BackfillError

EXIT_FAILED = 1

DEBUG_FLAG = "--debug"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="backfill")
@click.option(DEBUG_FLAG, is_flag=True, help="Show tracebacks of errors; goes anywhere on the line.")
def cli(debug: bool) -> None:
    """Fetch the past records of a list of AT Protocol accounts into verified Parquet.

    Exit codes: 0 all well, 1 failed, 2 bad usage or bad config, 3 finished but some DIDs are left to retry.
    """


COMMANDS = (
    *(init, validate, plan, run, status, report, query),
    *(retry, verify, repair, compact, purge),
    *(ledger, localnet, demo),
)

for command in COMMANDS:
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code, and lets no traceback through without --debug."""
    debug = DEBUG_FLAG in arguments
    try:
        code = cli.main(args=[a for a in arguments if a != DEBUG_FLAG], prog_name="backfill", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        return _say(_usage_text(error), error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        return _say("stopped; what was committed stays, run the same command to go on", EXIT_INTERRUPTED, debug)
    except BackfillError as error:
        return _say(str(error), error.exit_code, debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}; {DEBUG_FLAG} shows what needed it", EXIT_FAILED, debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line for a person, all of it with --debug
        text = f"unexpected {type(error).__name__}: {error} (a defect; {DEBUG_FLAG} shows where)"
        return _say(text, EXIT_FAILED, debug)
    return code if isinstance(code, int) else 0


def _usage_text(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "backfill"
    return f"{error.format_message().rstrip('.')}; `{command} --help` shows what there is"


def _say(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"backfill: {text}", err=True)
    return code
