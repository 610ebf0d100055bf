"""What may stand in a catalog file: its entries as they are written, and the JSON Schema of them.

`python -m lethe_eraser.catalog_schema` prints the JSON Schema, for editors that complete YAML. What
the entries mean together (names that must exist, tables claimed twice) is `catalog`'s part.
"""

import json
import re
import sys
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from lethe_eraser.settings import REGION

OWNERSHIP_HELP = (
    "write `ownership: owned` (made for this person) or "
    '`ownership: {owned_under: "uploads/{client_key}/"}` (theirs only below that prefix) or '
    "`ownership: if_unreferenced` (whoever is erased last takes it; needs `look_ups`)"
)
MASK_HELP = "a mask is null, {}, [], or a constant (text, whole number, true or false)"

DECIDE: Final = "DECIDE"
"""What `lethe catalog scaffold` writes where only a person knows; nothing takes it as a value."""

_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_$]*$"


def is_a_name(name: str) -> bool:
    """Whether a catalog can name a table or column that is called so."""
    return re.fullmatch(_NAME, name) is not None


def _decided(value: str) -> str:
    if value == DECIDE:
        raise ValueError(f"{DECIDE} is yours to replace: name the column")
    return value


Column = Annotated[str, Field(pattern=_NAME, max_length=63), AfterValidator(_decided)]
TablePath = Annotated[
    str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_$]*\.)?[A-Za-z_][A-Za-z0-9_$]*$", max_length=127)
]
BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$")]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=253)]


def _mask(value: object) -> object:
    if value == DECIDE:
        raise ValueError(f"{DECIDE} is yours to replace: {MASK_HELP}")
    if value is None or isinstance(value, str | bool | int) or value in ({}, []):
        return value
    raise ValueError(MASK_HELP)


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _empty_if_absent(value: object) -> object:
    return {} if value is None else value


def _ownership(value: object) -> object:
    if value in ("owned", "if_unreferenced"):
        return {"if_unreferenced": value == "if_unreferenced"}
    if isinstance(value, dict) and set(value) == {"owned_under"}:
        return value
    raise ValueError(f"unknown ownership; {OWNERSHIP_HELP}")


def _set_by_name(value: object) -> object:
    return {"use": value} if isinstance(value, str) else value


MaskValue = Annotated[
    Any,
    BeforeValidator(
        _mask, json_schema_input_type=str | int | bool | dict[str, str] | list[str] | None
    ),
]


class Entry(BaseModel):
    """Frozen, and a name nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OwnershipEntry(Entry):
    """Whose object a reference names: with no prefix the person's, whatever the key says."""

    owned_under: str | None = None
    if_unreferenced: bool = False

    @model_validator(mode="after")
    def _ends_after_the_person(self) -> Self:
        if self.owned_under is None:
            return self
        if self.owned_under.count("{client_key}") != 1 or "{client_key}/" not in self.owned_under:
            raise ValueError(
                "owned_under holds `{client_key}/` once; the slash keeps acct-1 out of acct-17"
            )
        if not self.owned_under.endswith("/"):
            raise ValueError("owned_under is a prefix and ends with a slash")
        return self


class OwnedUnder(Entry):
    """How `owned_under` is written."""

    owned_under: str


Ownership = Annotated[
    OwnershipEntry,
    BeforeValidator(
        _ownership, json_schema_input_type=Literal["owned", "if_unreferenced"] | OwnedUnder
    ),
]


class ReferenceEntry(Entry):
    """Where a value names objects. Without `at`, the column's text itself is the reference."""

    use: str | None = Field(None, description="the name of a reference set to use here")
    ignore: str | None = Field(None, description="JSONPath of URLs that name no object of ours")
    at: str | None = Field(None, description="JSONPath of the objects (or strings) that refer")
    url: Annotated[
        tuple[str, ...] | None, BeforeValidator(_listed, json_schema_input_type=str | list[str])
    ] = Field(None, description="members that hold a URL, each a reference of its own")
    key: str | None = Field(None, description="member that holds the key")
    bucket: str | None = Field(None, description="member that holds the bucket")
    in_bucket: BucketName | None = Field(None, description="bucket of a key that comes without one")
    ownership: Ownership | None = None
    only_version: bool = Field(
        default=False,
        description="a URL's versionId names one version to delete, rather than the whole object",
    )

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = self.model_fields_set
        if self.use is not None or self.ignore is not None:
            if len(given) > 1:
                raise ValueError("`use` and `ignore` stand alone")
            return self
        if self.ownership is None:
            raise ValueError(f"says nothing of ownership; {OWNERSHIP_HELP}")
        if self.at is None and given & {"url", "key", "bucket"}:
            raise ValueError('members need `at`, the JSONPath of their object: `at: "$"`')
        if self.bucket is not None and self.key is None and self.url is None:
            raise ValueError("a bucket alone names no object: add `key` or `url`")
        return self


References = Annotated[
    tuple[
        Annotated[
            ReferenceEntry,
            BeforeValidator(_set_by_name, json_schema_input_type=str | ReferenceEntry),
        ],
        ...,
    ],
    BeforeValidator(
        _listed, json_schema_input_type=str | ReferenceEntry | list[str | ReferenceEntry]
    ),
]


class TagEntry(Entry):
    """The tag by which a lifecycle rule finds what is to go; it says nothing of a person."""

    key: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w .:/=+@-]+$")] = (
        "lethe-erase"
    )
    value: Annotated[str, Field(max_length=256, pattern=r"^[\w .:/=+@-]*$")] = "yes"


class BucketEntry(Entry):
    """An S3 bucket of ours. Buckets that are not listed are never touched."""

    owner: Annotated[str, Field(pattern=r"^\d{12}$", strict=True)] | None = Field(
        None, description="AWS account of the bucket, quoted; sent as ExpectedBucketOwner"
    )
    region: str | None = Field(None, pattern=REGION)
    aliases: tuple[str, ...] = Field((), description="access point aliases (`...-s3alias`)")
    count_missing: bool = Field(
        default=False,
        description="ask what is there before deleting; over 2 % missing blocks what names it",
    )
    mode: Literal["delete", "tag"] = Field(
        "delete", description="tag: a lifecycle rule of the bucket deletes what carries `tag`"
    )
    tag: TagEntry | None = Field(None, description="with `mode: tag`; lethe-erase=yes by default")
    replicas: tuple[BucketName, ...] = Field(
        (),
        description="listed buckets that S3 replicates this one's objects to; a row that names"
        " an object there names it here, and is blocked where several are replicated there",
    )

    @model_validator(mode="after")
    def _tags_in_tag_mode_only(self) -> Self:
        if self.tag is not None and self.mode != "tag":
            raise ValueError("`tag` says something with `mode: tag` only")
        return self


class OriginEntry(Entry):
    """Where a CDN path pattern leads."""

    pattern: Annotated[str, Field(pattern="^/")]
    bucket: BucketName
    origin_path: Annotated[str, Field(pattern=r"^$|^/.*[^/]$")] = ""


class HostEntry(Entry):
    """A CDN host: its default origin, and path patterns that lead elsewhere, first match first."""

    bucket: BucketName
    origin_path: Annotated[str, Field(pattern=r"^$|^/.*[^/]$")] = ""
    paths: tuple[OriginEntry, ...] = ()
    distribution: Annotated[str, Field(pattern=r"^[A-Z0-9]+$")] | None = Field(
        None, description="CloudFront distribution to be told what is gone"
    )


class SharedTagEntry(Entry):
    """A tag that an object carries while it belongs to everybody."""

    key: Annotated[str, Field(min_length=1, max_length=128)]
    value: Annotated[str, Field(max_length=256)]


class SharedEntry(Entry):
    """Objects that are never deleted, whoever refers to them."""

    bucket: BucketName
    prefix: Annotated[str, Field(min_length=1)] | None = None
    key: Annotated[str, Field(min_length=1)] | None = None
    glob: Annotated[str, Field(min_length=1)] | None = None
    tag: SharedTagEntry | None = Field(
        None, description="S3 is asked for the tags of each object that would go: one call each"
    )

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if sum(part is not None for part in (self.prefix, self.key, self.glob, self.tag)) != 1:
            raise ValueError("name the shared objects by exactly one of prefix, key, glob, tag")
        return self


class LookUpEntry(Entry):
    """Where else an object may be named, for `if_unreferenced`; an index must serve it."""

    table: TablePath
    expression: Annotated[str, Field(min_length=1)] = Field(
        description="SQL over the table's columns, as it stands in its index: text, or text[]"
    )
    many: bool = Field(default=False, description="the expression is a text[] with a GIN index")
    forms: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("{key}",),
        description="how the object is written there: {bucket}, {key}, {encoded_key} are filled in",
    )
    buckets: tuple[BucketName, ...] = Field((), description="only for objects of these; all if []")

    @model_validator(mode="after")
    def _names_the_key(self) -> Self:
        for form in self.forms:
            if "{key}" not in form and "{encoded_key}" not in form:
                raise ValueError("a form names the key: write {key} or {encoded_key} in it")
        if ";" in self.expression:
            raise ValueError("an expression is no statement; take out the semicolon")
        return self


class SettleEntry(Entry):
    """When a person's rows count as finished; until then their job stays `erased`."""

    after_seconds: Annotated[int, Field(ge=0)] = Field(
        0, description="a row younger than this may still be written to"
    )
    at_most_seconds: Annotated[int, Field(gt=0)] = Field(
        86_400, description="a request that is unfinished for longer is blocked `still_writing`"
    )


class ActiveAccountEntry(Entry):
    """Where the product says whose account is active: nobody is erased while theirs is."""

    table: TablePath
    subject: Column = Field(description="column that holds the person's account id, by an index")
    active: Annotated[
        dict[Column, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)
    ] = Field(description="values, by column, that say the account is active; one of them will do")
    opened_at: Column = Field(
        description="when it was opened or opened again (timestamptz): after the request, it blocks"
    )


class ClientTableEntry(Entry):
    """A table that says which client key made which request of which type."""

    table: TablePath | None = Field(None, description="if it differs from the entry's name")
    primary_key: Annotated[
        tuple[Column, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])
    ] = ("id",)
    client_key: Column
    request_type: Column
    request_id: Column
    created_at: Column | None = None
    mask: dict[Column, MaskValue]


class TableEntry(Entry):
    """A feature or task table: what is masked, what is kept, where it names objects."""

    table: TablePath
    primary_key: Column = "id"
    request_id: Column | None = Field(
        None, description="column that holds the request's id; a feature table's primary key"
    )
    mask: Annotated[dict[Column, MaskValue], Field(min_length=1)]
    keep: tuple[Column, ...] = ()
    references: dict[Column, References] = Field(default_factory=dict)
    created_at: Column | None = Field(None, description="kept; how old a row is, for `settle`")
    unfinished: dict[Column, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="values of a kept column that say the product still works on the row",
    )


class FeatureEntry(Entry):
    """One request type: who erases it, in which tables."""

    handler: str
    feature: TableEntry
    task: TableEntry | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict, description="read by the handler")


Bucket = Annotated[
    BucketEntry, BeforeValidator(_empty_if_absent, json_schema_input_type=BucketEntry | None)
]


class CatalogFile(Entry):
    """The whole file. Keys that begin with `x-` are free, for YAML anchors."""

    version: Literal[1]
    schema_name: Column = Field("public", alias="schema", description="of tables named without one")
    owner: Annotated[str, Field(pattern=r"^\d{12}$", strict=True)] | None = Field(
        None, description="AWS account of every bucket that names no `owner` of its own, quoted"
    )
    buckets: Annotated[dict[BucketName, Bucket], Field(min_length=1)]
    hosts: dict[HostName, HostEntry] = Field(default_factory=dict)
    shared: tuple[SharedEntry, ...] = ()
    client_tables: Annotated[dict[str, ClientTableEntry], Field(min_length=1)]
    ignored_tables: dict[TablePath, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="tables with a client key that are nothing to erase, and why",
    )
    look_ups: dict[str, LookUpEntry] = Field(default_factory=dict)
    settle: SettleEntry = SettleEntry()
    active_account: ActiveAccountEntry | None = None
    reference_sets: dict[str, References] = Field(default_factory=dict)
    features: Annotated[dict[str, FeatureEntry], Field(min_length=1)]


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a catalog file."""
    schema = CatalogFile.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "patternProperties": {"^x-": {}},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
