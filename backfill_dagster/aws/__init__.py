"""AWS clients by its ordinary configuration, and what their errors mean for a person."""

from backfill_dagster.aws.arrow_problems import arrow_problem_text, read_problem_text
from backfill_dagster.aws.clients import AwsBounds, AwsPlace, AwsService, aws_client
from backfill_dagster.aws.head import head_object
from backfill_dagster.aws.problems import AwsError, aws_errors, error_code, problem_text

__all__ = [
    "AwsBounds",
    "AwsError",
    "AwsPlace",
    "AwsService",
    "arrow_problem_text",
    "aws_client",
    "aws_errors",
    "error_code",
    "head_object",
    "problem_text",
    "read_problem_text",
]
