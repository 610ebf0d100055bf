"""One request of one person, as it is to be made: what a case of the sample can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from lethe_sandbox.product import FEATURES, PDF
from lethe_sandbox.seed.shapes import NO_REFERENCE, OPTIONS, RESULTS_OF, Ref

Source = Literal[
    "upload",  # the person's own upload
    "reuse",  # an upload that an earlier request used as well
    "own_result",  # the result of an earlier request of the same person
    "template",  # a shared template
    "borrowed",  # another person's object
    "gone",  # an upload that is no longer there
    "forgotten",  # a URL of a host that nobody knows
    "nothing",  # a value that is empty where it cannot be
    "empty_fields",  # a known shape whose fields are empty
]
Output = Literal[
    "own",
    "sample",  # a shared sample
    "gone",
    "forgotten",
    "one_forgotten",  # the last of several is on a host that nobody knows
    "nothing",
    "empty_fields",
]
Prompt = Literal["short", "long", "none", "empty"]


@dataclass(frozen=True, slots=True)
class ImageCase:
    """A request to an AI feature."""

    person: str | None
    """None: nobody's, as no client row leads to it."""
    type: str
    option: str = OPTIONS[0]
    source: Source = "upload"
    files: int = 1
    """Inputs of an `inputFileList`."""
    result: str = RESULTS_OF[1][0]
    output: Output = "own"
    images: int = 1
    failures: int = 0
    """Failed tasks before the one that worked."""
    worked: bool = True
    """Whether a task worked in the end."""
    prompt: Prompt = "short"
    upload_key: str | None = None
    """The key of its upload, where another case speaks of it."""
    result_key: str | None = None
    borrowed: Ref | None = None
    empty: int = 0
    """Which of the empty values stands there."""
    feature_gone: bool = False
    task_gone: bool = False
    clients: tuple[str, ...] | None = None
    """The client tables that name it, one entry per row; None: as its time has it."""


@dataclass(frozen=True, slots=True)
class PdfCase:
    """A PDF extraction."""

    person: str | None
    files: int = 2
    stored: int = 2
    """How many of the files are still there."""
    manifest: Literal["there", "missing", "no_path"] = "there"
    form: Literal["key", "s3"] = "key"
    number: int | None = None
    """What its keys are named by, where another case speaks of them."""
    suffix: str = ""
    history: bool = False
    """Whether every object has older versions, and some files a delete marker on top."""
    clients: tuple[str, ...] | None = None

    @property
    def type(self) -> str:
        """The request type."""
        return PDF


@dataclass(frozen=True, slots=True)
class ClientCase:
    """A client row with nothing behind it."""

    person: str
    type: str
    names_request: bool = True
    """Whether the row holds a request id at all."""
    clients: tuple[str, ...] | None = None


Case = ImageCase | PdfCase | ClientCase

UNKNOWN_TYPE: Final = "video-upscale"
"""A request type that nobody knows any more."""

_OUTPUTS: Final = {
    # (own uploads, own result images) by how many objects the request is to leave
    1: ((0, 1), (0, 1), (1, 0)),
    2: ((1, 1), (1, 1), (1, 1), (0, 2)),
    3: ((1, 2), (1, 2), (2, 1), (0, 3)),
    4: ((1, 3), (0, 4), (2, 2)),
}
_PDF_SHARE: Final = 0.03
_LONG_SHARE: Final = 0.02
_FAILURE_SHARE: Final = 0.06


def ordinary(rng: Random, person: str, objects: int, borrowable: Sequence[Ref] = ()) -> Case:
    """Draw a request that leaves exactly `objects` (1 to 4) objects of the person's own."""
    if rng.random() < _PDF_SHARE:
        form: Literal["key", "s3"] = rng.choice(("key", "s3"))
        return PdfCase(person, files=objects, stored=objects, form=form)
    uploads, images = rng.choice(_OUTPUTS[objects])
    feature = rng.choice(FEATURES)
    source: Source = "upload"
    borrowed = None
    if not uploads:
        source = rng.choice(("template", "template", "reuse", "own_result", "gone"))
        if borrowable and rng.random() < _PDF_SHARE:
            source, borrowed = "borrowed", rng.choice(borrowable)
    shapes = OPTIONS if uploads < 2 else OPTIONS[-2:]  # noqa: PLR2004 - only lists name two
    option = rng.choice(shapes)
    if feature == "text-to-image" and not uploads:
        option = NO_REFERENCE
    sample = not images and rng.random() < _FAILURE_SHARE
    return ImageCase(
        person,
        feature,
        option=option,
        source=source,
        files=max(uploads, 1),
        result=rng.choice(RESULTS_OF[images or 1]),
        output="sample" if sample else "own",
        images=images or 1,
        failures=int(rng.random() < _FAILURE_SHARE),
        worked=bool(images) or sample,
        prompt="long" if rng.random() < _LONG_SHARE else "short",
        borrowed=borrowed,
    )
