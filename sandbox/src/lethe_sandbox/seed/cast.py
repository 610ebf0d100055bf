"""Who is in the sample: a heavy person, a cast that plays every special case, ordinary persons."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from lethe_sandbox.product import FEATURES, RESULTS, UPLOADS
from lethe_sandbox.seed.cases import UNKNOWN_TYPE, Case, ClientCase, ImageCase, PdfCase, ordinary
from lethe_sandbox.seed.shapes import (
    EMPTY,
    EMPTY_OPTIONS,
    EMPTY_RESULTS,
    NO_REFERENCE,
    OPTIONS,
    RESULTS_OF,
    Ref,
)

HEAVY: Final = "acct-000001"
"""The heavy person's client key."""

CAME_BACK: Final = "came back"
"""The role of who opened an account again after having asked to be erased."""

_HEAVY_REQUESTS: Final = 28_000
_HEAVY_IMAGES: Final = 50_000
_ORDINARY_PERSONS: Final = 200
_FEWEST_REQUESTS: Final = 40
_LARGEST_MANIFEST: Final = 1000
_FEWEST_STORED: Final = 8
_REQUESTS_OF_OTHERS: Final = (3, 20)


@dataclass(frozen=True, slots=True)
class Member:
    """A person of the sample, before anything is made of them."""

    key: str
    role: str
    requested: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Who there is, and what happened in the order in which it happened."""

    members: tuple[Member, ...]
    cases: tuple[Case, ...]


def plan(rng: Random, scale: float) -> Plan:
    """Draw everybody and everything; every role and every shape is there at any scale."""
    members = [Member(HEAVY, "heavy", requested=True)]
    cases = list(_heavy_cases(rng, scale))
    for member, theirs in _cast(scale):
        members.append(member)
        cases.extend(theirs)
        if theirs and member.role not in _PLAIN_ROLES:
            cases.extend(ordinary(rng, member.key, rng.randint(1, 3)) for _ in range(3))
    wanted = 1 + round(_ORDINARY_PERSONS * math.sqrt(scale))
    for number in range(len(members), wanted):
        member = Member(f"acct-{number + 101:06}", "ordinary", requested=number % 3 != 0)
        members.append(member)
        cases.extend(
            ordinary(rng, member.key, rng.choice((1, 1, 2, 2, 3)), _LENT)
            for _ in range(rng.randint(*_REQUESTS_OF_OTHERS))
        )
    cases.extend(_nobodys())
    rng.shuffle(cases)
    return Plan(tuple(members), tuple(cases))


def _heavy_cases(rng: Random, scale: float) -> Iterator[Case]:
    """Draw exactly the requests and images that the scale asks for."""
    requests = max(_FEWEST_REQUESTS, round(_HEAVY_REQUESTS * scale))
    images = round(requests * _HEAVY_IMAGES / _HEAVY_REQUESTS)
    mean = images / requests
    for left in range(requests - 1, -1, -1):
        few = images / (left + 1) < mean
        objects = rng.choices((1, 2, 3, 4), (48, 37, 9, 6) if few else (42, 37, 13, 8))[0]
        objects = min(max(objects, images - 4 * left), images - left)
        images -= objects
        yield ordinary(rng, HEAVY, objects, _LENT)


# What people lend each other: results and uploads whose keys two cases speak of.
_LENT_RESULTS: Final = {
    name: Ref(RESULTS, f"public/2023/05/5f0c1e9a7b{number:02}.png")
    for number, name in enumerate(("erased", "stays", "first", "second"))
}
_LENT_UPLOADS: Final = {
    "erased": Ref(UPLOADS, "uploads/acct-000013/2023/c0ffee0001.png"),
    "stays": Ref(UPLOADS, "uploads/acct-000015/2023/c0ffee0002.png"),
}
_LENT: Final = tuple(_LENT_RESULTS.values())
_LOOKALIKE: Final = "public/2024/01/abc.png"
_LOOKALIKE_DOCUMENT: Final = 900_000_001

_PLAIN_ROLES: Final = frozenset({"empties", "every shape", "only client_old", "only client_temp"})


def _cast(scale: float) -> Iterator[tuple[Member, list[Case]]]:
    for (key, role, requested), make in _ROLES:
        yield Member(key, role, requested), make(key)
    for key, role, requested in _EXOTIC:
        yield Member(key, role, requested), _exotic(key)
    yield Member("acct-000027", "manifests", requested=True), _manifests("acct-000027", scale)


def _nothing(_key: str) -> list[Case]:
    return []


def _every_shape(key: str) -> list[Case]:
    """Give each column type each shape, and each table several; three requests per feature."""
    results = [(images, shape) for images, shapes in RESULTS_OF.items() for shape in shapes]
    cases: list[Case] = []
    for turn in range(3):
        for position, feature in enumerate(FEATURES):
            # Features of one column type stand three apart.
            number = turn * len(FEATURES) // 3 + position // 3
            option = OPTIONS[number % len(OPTIONS)]
            images, result = results[number % len(results)]
            files = 1 + turn if option.startswith("inputFileList") else 1
            cases.append(
                ImageCase(
                    key,
                    feature,
                    option,
                    files=files,
                    result=result,
                    images=images,
                    failures=turn % 2,
                )
            )
    cases.append(ImageCase(key, "text-to-image", NO_REFERENCE, source="template"))
    cases.append(PdfCase(key, form="s3"))
    return cases


def _empties(key: str) -> list[Case]:
    """Give each column type each of the empty values, and prompts that are none."""
    cases: list[Case] = []
    for feature in FEATURES[:3]:
        for empty in range(len(EMPTY["text"])):
            cases.append(
                ImageCase(
                    key, feature, source="nothing", output="nothing", empty=empty, prompt="none"
                )
            )
            cases.append(ImageCase(key, feature, source="nothing", empty=empty, prompt="empty"))
        for empty in range(len(EMPTY_OPTIONS)):
            fields = empty % len(EMPTY_RESULTS)
            cases.append(ImageCase(key, feature, source="empty_fields", empty=empty))
            cases.append(ImageCase(key, feature, output="empty_fields", empty=fields))
    cases.append(PdfCase(key, manifest="no_path"))
    cases.append(PdfCase(key, files=0, stored=0))
    return cases


def _long_prompts(key: str) -> list[Case]:
    return [ImageCase(key, feature, prompt="long", failures=1) for feature in FEATURES[:6]]


def _unknown_type(key: str) -> list[Case]:
    tables = ("client", "client_old", "client_temp")
    return [ClientCase(key, UNKNOWN_TYPE, clients=(table,)) for table in tables]


def _forgotten_host(key: str) -> list[Case]:
    both = ("client", "client_temp")
    return [
        ImageCase(key, "upscale", "inputImageUrl/s3", "forgotten"),
        ImageCase(key, "image-to-image", "url/s3", "forgotten", clients=both),
        ImageCase(key, "outpaint", result="url/s3", output="forgotten"),
        ImageCase(key, "text-to-image", result="webp/s3", output="one_forgotten", images=2),
        ImageCase(
            key, "inpaint", result="fileList/s3", output="one_forgotten", images=3, failures=1
        ),
        ImageCase(key, "relight", "imageUrl/s3", "forgotten", output="forgotten"),
    ]


def _missing_manifest(key: str) -> list[Case]:
    return [
        PdfCase(key, manifest="missing"),
        PdfCase(key, files=5, stored=5, manifest="missing", form="s3", clients=("client_old",)),
        PdfCase(key, files=3, stored=3),
    ]


def _every_reason(key: str) -> list[Case]:
    return [*_unknown_type(key)[:1], *_forgotten_host(key)[2:4], *_missing_manifest(key)[:1]]


def _lender(key: str) -> list[Case]:
    kind = "erased" if key == "acct-000013" else "stays"
    return [
        ImageCase(key, "avatar", result="url/cdn", result_key=_LENT_RESULTS[kind].key),
        ImageCase(key, "colorize", upload_key=_LENT_UPLOADS[kind].key),
    ]


def _borrower(key: str) -> list[Case]:
    kind = "erased" if key == "acct-000014" else "stays"
    lent = (_LENT_RESULTS[kind], _LENT_UPLOADS[kind])
    return [
        ImageCase(key, feature, option, "borrowed", borrowed=ref)
        for ref, feature in zip(lent, ("upscale", "relight"), strict=True)
        for option in ("inputImageUrl/cdn", "bucket-key/s3", "inputFileList/cdn", "imageUrl/path")
    ]


def _each_other(key: str) -> list[Case]:
    mine, theirs = ("first", "second") if key == "acct-000017" else ("second", "first")
    return [
        ImageCase(key, "variation", result="url/s3", result_key=_LENT_RESULTS[mine].key),
        ImageCase(key, "variation", "url/cdn", "borrowed", borrowed=_LENT_RESULTS[theirs]),
    ]


def _lookalikes(key: str) -> list[Case]:
    suffix = ".bak" if key.endswith(".bak") else ""
    return [
        ImageCase(key, "product-shot", result="url/cdn", result_key=f"{_LOOKALIKE}{suffix}"),
        ImageCase(key, "face-swap"),
        PdfCase(key, files=11, stored=11, number=_LOOKALIKE_DOCUMENT, suffix=suffix, history=True),
    ]


def _one_table(table: str) -> list[Case]:
    key = "acct-000021" if table == "client_old" else "acct-000022"
    features = ("inpaint", "text-effect", "colorize")
    return [ImageCase(key, feature, clients=(table,)) for feature in features]


def _twice(key: str) -> list[Case]:
    both = ("client", "client_temp")
    return [
        *(ImageCase(key, feature, clients=both) for feature in FEATURES[:4]),
        PdfCase(key, clients=both),
        ImageCase(key, "avatar", clients=("client_old", "client_old")),
        ImageCase(key, "avatar", clients=("client", "client")),
    ]


def _gone_rows(key: str) -> list[Case]:
    return [
        ImageCase(
            key, "sketch-to-image", feature_gone=True, task_gone=True, clients=("client_old",)
        ),
        ImageCase(key, "sketch-to-image", feature_gone=True, task_gone=True, clients=("client",)),
        ImageCase(key, "style-transfer", feature_gone=True),
        ImageCase(key, "super-resolution", task_gone=True),
        ClientCase(key, "pdf-extraction"),
    ]


def _no_request_id(key: str) -> list[Case]:
    tables = ("client", "client_old", "client_temp")
    return [
        *(ClientCase(key, "upscale", names_request=False, clients=(table,)) for table in tables),
        ClientCase(key, "pdf-extraction", names_request=False, clients=("client",)),
        ImageCase(key, "upscale"),
    ]


def _shared(key: str) -> list[Case]:
    return [
        *(ImageCase(key, "background-generate", option, "template") for option in OPTIONS),
        *(
            ImageCase(key, "product-shot", result=shape, images=images, output="sample")
            for images in (1, 2)
            for shape in RESULTS_OF[images]
        ),
    ]


def _came_back(key: str) -> list[Case]:
    return [ImageCase(key, "avatar"), ImageCase(key, "upscale"), PdfCase(key)]


def _gone_objects(key: str) -> list[Case]:
    return [
        ImageCase(key, "object-remove", "bucket-key/s3", "gone"),
        ImageCase(key, "object-remove", result="fileList/s3", images=4, output="gone"),
        ImageCase(key, "object-remove", "inputImageUrl/s3", "reuse"),
        ImageCase(key, "object-remove", "imageUrl/cdn", "own_result"),
        PdfCase(key, files=4, stored=1),
    ]


def _documents(key: str) -> list[Case]:
    return [PdfCase(key, files=files, stored=files, history=True) for files in (0, 1, 5, 12)]


def _manifests(key: str, scale: float) -> list[Case]:
    """Manifests of every size; at a small scale, most files of the largest are gone already."""
    stored = min(_LARGEST_MANIFEST, max(_FEWEST_STORED, round(_LARGEST_MANIFEST * scale)))
    return [*_documents(key), PdfCase(key, files=_LARGEST_MANIFEST, stored=stored, form="s3")]


def _exotic(key: str) -> list[Case]:
    shapes = ("inputImageUrl/s3", "url/cdn", "bucket-key/cdn", "inputFileList/s3", "imageUrl/path")
    return [ImageCase(key, feature, shape) for shape in shapes for feature in FEATURES[9:11]]


_ROLES: Final = (
    (("acct-000002", "no data", True), _nothing),
    (("acct-000003", "every shape", True), _every_shape),
    (("acct-000004", "every shape", False), _every_shape),
    (("acct-000005", "empties", True), _empties),
    (("acct-000006", "empties", False), _empties),
    (("acct-000007", "long prompts", True), _long_prompts),
    (("acct-000008", "unknown type", True), _unknown_type),
    (("acct-000009", "forgotten host", True), _forgotten_host),
    (("acct-000010", "missing manifest", True), _missing_manifest),
    (("acct-000011", "every reason", True), _every_reason),
    (("acct-000012", "every reason", False), _every_reason),
    (("acct-000013", "lends and is erased", True), _lender),
    (("acct-000014", "borrows from the erased", False), _borrower),
    (("acct-000015", "lends and stays", False), _lender),
    (("acct-000016", "borrows and is erased", True), _borrower),
    (("acct-000017", "lends and borrows", True), _each_other),
    (("acct-000018", "lends and borrows", True), _each_other),
    (("acct-000019", "lookalike", True), _lookalikes),
    (("acct-000019.bak", "lookalike", False), _lookalikes),
    (("ACCT-000019", "lookalike", False), _exotic),
    (("acct-000021", "only client_old", True), lambda _: _one_table("client_old")),
    (("acct-000022", "only client_temp", True), lambda _: _one_table("client_temp")),
    (("acct-000023", "named twice", True), _twice),
    (("acct-000024", "gone rows", True), _gone_rows),
    (("acct-000025", "no request id", True), _no_request_id),
    (("acct-000026", "gone objects", True), _gone_objects),
    (("acct-000028", "documents", False), _documents),
    (("acct-000029", "shared objects", True), _shared),
    (("acct-000030", "shared objects", False), _shared),
    (("acct-000031", CAME_BACK, True), _came_back),
)

_EXOTIC: Final = (
    ("user+tag@example.com", "exotic key", True),
    ("user tag@example.com", "lookalike", False),
    ("한글-사용자", "exotic key", True),
    ("with a space", "exotic key", True),
    ("o'brien & sons", "exotic key", True),
    ("100%_wild", "exotic key", True),
    ("100 and wild", "lookalike", False),
    ("c#-fan?page=1", "exotic key", True),
    ("📷-studio", "exotic key", False),
)


def _nobodys() -> list[Case]:
    """Rows that no client row leads to: they are nobody's, and stay."""
    cases: list[Case] = [
        ImageCase(None, feature, clients=(), upload_key=f"uploads/closed/2022/{number}.png")
        for number, feature in enumerate(FEATURES[:3])
    ]
    return [*cases, PdfCase(None, clients=())]
