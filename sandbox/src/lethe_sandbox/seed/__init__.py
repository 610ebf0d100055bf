"""Seeds the sample product: same seed and scale, same rows, objects and ground truth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Final

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from lethe_sandbox import product
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.seed.cast import HEAVY, Plan, plan
from lethe_sandbox.seed.generate import Generator
from lethe_sandbox.seed.load import Objects, PutError, Rows
from lethe_sandbox.seed.records import Made, SeedRow
from lethe_sandbox.seed.witness import Witness
from lethe_sandbox.stack import S3Address

__all__ = [
    "DEFAULT_SCALE",
    "DEFAULT_SEED",
    "HEAVY",
    "LARGEST_SCALE",
    "SMALLEST_SCALE",
    "Progress",
    "SeedError",
    "make",
    "seed_sample",
]

DEFAULT_SEED: Final = 20261120
DEFAULT_SCALE: Final = 0.03
"""What two cores seed in about ten seconds: 840 requests of the heavy person, 2,700 objects."""
SMALLEST_SCALE: Final = 0.001
"""At this scale every role and every shape is there, and little else."""
LARGEST_SCALE: Final = 10.0

_TOLD_EVERY: Final = 100
_REFUSALS: Final = (psycopg.Error, BotoCoreError, ClientError, PutError, OSError, HTTPException)


class SeedError(Exception):
    """The sample cannot be seeded; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the seeding is."""

    rows: int
    rows_total: int
    objects: int
    objects_total: int


def make(seed: int = DEFAULT_SEED, scale: float = DEFAULT_SCALE) -> tuple[Plan, Iterator[Made]]:
    """Make the sample without any server: who there is, and every row and object in their order.

    Raises:
        SeedError: the scale is out of range.
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise SeedError(f"a scale is from {SMALLEST_SCALE} to {LARGEST_SCALE:g}, not {scale:g}")
    rng = Random(seed)  # noqa: S311 - repeatable on purpose
    planned = plan(rng, scale)
    return planned, Generator(rng, planned).run()


def seed_sample(
    database_url: str,
    s3: S3Address,
    ground_truth: Path,
    *,
    seed: int = DEFAULT_SEED,
    scale: float = DEFAULT_SCALE,
    progress: Callable[[Progress], None] | None = None,
    bucket_folder: Path | None = None,
) -> GroundTruth:
    """Put the sample into PostgreSQL and S3 in place of an earlier one, and write its ground truth.

    `database_url` is a libpq or SQLAlchemy URL. `progress` is called in this thread.
    `bucket_folder` is where the S3 server keeps its buckets as folders, if it does. Until all is
    there, there is no ground-truth file and the tables are as they were.

    Raises:
        SeedError: the scale is out of range, or a server refuses or is away.
    """
    _, counted = make(seed, scale)
    rows_total = objects_total = 0
    for each in counted:
        if isinstance(each, SeedRow):
            rows_total += 1
        else:
            objects_total += 1
    ground_truth.unlink(missing_ok=True)
    planned, made = make(seed, scale)
    witness = Witness(seed, scale, planned)
    url = database_url.replace("postgresql+psycopg", "postgresql", 1)
    try:
        with psycopg.connect(url) as connection, Objects(s3, bucket_folder) as objects:
            product.create_tables(connection)
            product.create_buckets(s3)
            rows = Rows(connection)

            def tell() -> None:
                if progress is not None:
                    progress(Progress(rows.done, rows_total, objects.done, objects_total))

            _load(made, rows, objects, witness, tell)
            product.continue_identities(connection)
            product.analyze(connection)
    except _REFUSALS as error:
        raise SeedError(f"seeding the sample failed: {type(error).__name__}: {error}") from error
    truth = witness.tells()
    truth.write(ground_truth)
    return truth


def _load(
    made: Iterator[Made], rows: Rows, objects: Objects, witness: Witness, tell: Callable[[], None]
) -> None:
    for number, each in enumerate(made):
        witness.saw(each)
        if isinstance(each, SeedRow):
            rows.add(each)
        else:
            objects.add(each)
        if number % _TOLD_EVERY == 0:
            tell()
    rows.flush()
    tell()
    while objects.flush():
        tell()
    tell()
