"""How the product wrote options and results over the years: JSON shapes, URL forms, hands."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final
from urllib.parse import quote

from lethe_sandbox.product import DOCUMENTS, RESULTS, UPLOADS, JsonType

CDN_OF_RESULTS: Final = "cdn.sample.example"
"""Serves the bucket of results below `/public`."""
CDN_OF_UPLOADS: Final = "d1sample.cloudfront.net"
"""Serves the bucket of uploads as it is."""
FORGOTTEN_HOST: Final = "old-images.sample.example"
"""A host that nobody can map to a bucket any more."""

_REGION: Final = "ap-northeast-2"
_ORIGIN_PATH: Final = "public/"


@dataclass(frozen=True, slots=True)
class Ref:
    """An object that a row names; without a bucket, one that cannot be found by anybody."""

    bucket: str | None
    key: str

    @property
    def place(self) -> tuple[str, str]:
        """Bucket and key of an object that can be found."""
        if self.bucket is None:
            raise ValueError("a reference to a forgotten host has no bucket")
        return self.bucket, self.key


def _encoded(key: str) -> str:
    return quote(key, safe="/@")


def s3_url(ref: Ref) -> str:
    """Write the URL with the bucket in the host name."""
    if ref.bucket is None:
        return f"https://{FORGOTTEN_HOST}/{_encoded(ref.key)}"
    return f"https://{ref.bucket}.s3.{_REGION}.amazonaws.com/{quote(ref.key)}"


def path_url(ref: Ref) -> str:
    """Write the URL with the bucket in the path."""
    if ref.bucket is None:
        return s3_url(ref)
    return f"https://s3.{_REGION}.amazonaws.com/{ref.bucket}/{quote(ref.key)}"


def cdn_url(ref: Ref) -> str:
    """Write the URL by which browsers load the object."""
    if ref.bucket == UPLOADS:
        return f"https://{CDN_OF_UPLOADS}/{_encoded(ref.key)}"
    if ref.bucket == RESULTS:
        return f"https://{CDN_OF_RESULTS}/{_encoded(ref.key.removeprefix(_ORIGIN_PATH))}"
    return s3_url(ref)


_URLS: Final[Mapping[str, Callable[[Ref], str]]] = {
    "s3": s3_url,
    "path": path_url,
    "cdn": cdn_url,
}

OPTIONS: Final = (
    "inputImageUrl/s3",
    "inputImageUrl/cdn",
    "imageUrl/s3",
    "imageUrl/cdn",
    "url/s3",
    "url/cdn",
    "imageUrl/path",
    "bucket-key/s3",
    "bucket-key/cdn",
    "bucket-key/path",
    "inputFileList/s3",
    "inputFileList/cdn",
)
"""Shapes of an option that names its input, as `shape/form of URL`; only lists name several."""

NO_REFERENCE: Final = "no-reference"
"""The shape of a text-to-image option: there is no input."""

RESULTS_OF: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("url/s3", "url/cdn", "url/path", "fileList/cdn", "fileList-key/s3"),
    2: ("webp/s3", "webp/cdn", "fileList/s3", "fileList-key/cdn", "fileList-mixed/cdn"),
    3: ("fileList/s3", "fileList/cdn", "fileList-key/s3", "fileList-mixed/path"),
    4: ("fileList/s3", "fileList/cdn", "fileList-key/cdn", "fileList-mixed/s3"),
}
"""Shapes of a result by how many images it names."""

EMPTY: Final[Mapping[JsonType, tuple[str | None, ...]]] = {
    "jsonb": (None, "null", "{}", "[]", '""'),
    "json": (None, "null", "{}", "[]", '""'),
    "text": (None, "null", "{}", "[]", ""),
}
"""What stands in a column where there "cannot be" nothing."""

EMPTY_OPTIONS: Final[tuple[Mapping[str, Any], ...]] = (
    {"inputImageUrl": None, "strength": 0.5},
    {"imageUrl": "", "size": "512x512"},
    {"inputFileList": []},
    {"inputFileList": None, "seed": 7},
    {"bucket": None, "key": None, "url": None},
)
EMPTY_RESULTS: Final[tuple[Mapping[str, Any], ...]] = (
    {"url": None},
    {"url": "", "webpUrl": None},
    {"fileList": []},
    {"fileList": None, "seconds": 0.25},
)


def option(shape: str, refs: Sequence[Ref], rng: Random) -> dict[str, Any]:
    """Write an option of a shape of `OPTIONS`, or `NO_REFERENCE`, with its harmless settings."""
    settings = _settings(rng)
    if shape == NO_REFERENCE:
        return settings | {"style": rng.choice(("anime", "photo", "수채화"))}
    name, form = shape.split("/")
    url = _URLS[form]
    if name == "bucket-key":
        bucket, key = refs[0].place
        return {"bucket": bucket, "key": key, "url": url(refs[0])} | settings
    if name == "inputFileList":
        files = [
            {"key": ref.key, "url": url(ref), "bucket": ref.bucket, "inputFileType": "image/png"}
            for ref in refs
        ]
        return settings | {"inputFileList": files}
    return settings | {name: url(refs[0])}


def result(shape: str, refs: Sequence[Ref], rng: Random) -> dict[str, Any]:
    """Write a result of a shape of `RESULTS_OF`, with its harmless measures."""
    measures = {"seconds": round(rng.uniform(0.5, 30), 2), "nsfw": False}
    name, form = shape.split("/")
    url = _URLS[form]
    if name == "url":
        return {"url": url(refs[0])} | measures
    if name == "webp":
        return {"url": url(refs[0]), "webpUrl": url(refs[1])} | measures
    files = []
    for position, ref in enumerate(refs):
        file: dict[str, Any] = {"url": url(ref)}
        if name == "fileList-key" or (name == "fileList-mixed" and position % 2):
            file |= {"key": ref.key, "bucket": ref.bucket}
        files.append(file)
    return {"fileList": files} | measures


def _settings(rng: Random) -> dict[str, Any]:
    settings: dict[str, Any] = {"strength": round(rng.uniform(0.05, 0.95), 2)}
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin
        settings["size"] = rng.choice(("512x512", "1024x768", {"width": 1024, "height": 1024}))
    settings["seed"] = rng.randrange(2**32)
    return settings


def manifest_path(form: str, key: str) -> str:
    """Write where a manifest is: its key alone, or an S3 address."""
    return key if form == "key" else f"s3://{DOCUMENTS}/{key}"


def write(value: Any, column: JsonType, rng: Random) -> str:
    """Write JSON as the column shows it: `jsonb` in PostgreSQL's form, others in one of three."""
    if column == "jsonb":
        return as_jsonb(value)
    hand = rng.randrange(3)
    if hand == 0:
        return json.dumps(value)
    return json.dumps(value, ensure_ascii=hand == 1, separators=(",", ":"))


def as_jsonb(value: Any) -> str:
    """Write JSON as PostgreSQL shows a `jsonb`: shorter keys first, a space after separators."""
    return json.dumps(_sorted(value), ensure_ascii=False)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return {key: _sorted(value[key]) for key in keys}
    if isinstance(value, list):
        return [_sorted(each) for each in value]
    return value
