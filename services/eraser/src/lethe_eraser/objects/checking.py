"""What must be true of a bucket before anything is erased in it."""

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from lethe_eraser.catalog import Bucket
from lethe_eraser.objects.calls import RefusedError, S3Calls

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROBE_KEY: Final = "lethe-readiness-probe"
"""An object that never exists: asking for it tells whether S3 answers, and what it lets us see."""

_FORBIDDEN: Final = 403
_PARTITIONS: Final = ("aws", "aws-cn", "aws-us-gov")


def problems_of(calls: S3Calls, bucket: Bucket, is_aws: bool) -> list[str]:  # noqa: FBT001  # called through a pool of threads
    """Say what is wrong with a bucket, each with its remedy.

    Raises:
        ObjectStoreUnavailableError: S3 is away.
    """
    name = bucket.name
    found: list[str] = []
    if is_aws and bucket.owner is None:
        found.append(f"bucket {name}: whose it is must be known; add `owner` to the catalog")
    try:
        if not calls.call(name, _tells_what_is_absent):
            # Without the permission, absent and forbidden are the same answer.
            return [
                *found,
                f"bucket {name}: grant s3:ListBucket; without it nothing is proven gone",
            ]
        calls.call(name, _lists_versions)
    except RefusedError as refusal:
        return [*found, f"bucket {name}: S3 refuses to list its versions ({refusal.code})"]
    if bucket.tag is not None:
        found += _problems_of_tagging(calls, name, *bucket.tag)
    return found


def _tells_what_is_absent(client: "S3Client", arguments: dict[str, Any]) -> bool:
    try:
        client.head_object(**arguments, Key=PROBE_KEY)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _FORBIDDEN:
            return False
        if error.response.get("Error", {}).get("Code") != "404":
            raise
    return True


def _lists_versions(client: "S3Client", arguments: dict[str, Any]) -> None:
    client.list_object_versions(**arguments, Prefix=PROBE_KEY, MaxKeys=1)


def _problems_of_tagging(calls: S3Calls, bucket: str, key: str, value: str) -> list[str]:
    """Prove that what is tagged goes, in every version, and is refused to readers until then."""
    found = []
    keeps_versions = _asked(calls, bucket, _keeps_versions, otherwise=True)
    rules: list[dict[str, Any]] = _asked(calls, bucket, _lifecycle, otherwise=[])
    of_tag = [rule for rule in rules if _selects(rule, key, value)]
    if not any("Expiration" in rule for rule in of_tag):
        found.append(f"bucket {bucket}: no lifecycle rule expires what is tagged {key}={value}")
    if keeps_versions and not any(_expires_every_version(rule) for rule in of_tag):
        found.append(
            f"bucket {bucket}: has versions, and no lifecycle rule with"
            f" NoncurrentVersionExpiration, of all of them, is for {key}={value}"
        )
    policy: dict[str, Any] = _asked(calls, bucket, _policy, otherwise={})
    denials = [one for one in _statements(policy) if _denies(one, bucket, key, value)]
    reads = ("s3:GetObject", "s3:GetObjectVersion") if keeps_versions else ("s3:GetObject",)
    found += [
        f"bucket {bucket}: no bucket policy denies everybody {read} on what is tagged"
        f" {key}={value}, so it is served until it expires"
        for read in reads
        if not any(_is_of(statement, read) for statement in denials)
    ]
    return found


def _asked(calls: S3Calls, bucket: str, question: Any, *, otherwise: Any) -> Any:
    """Ask; a refusal (there is none, or we may not know) is no proof."""
    try:
        return calls.call(bucket, question)
    except RefusedError:
        return otherwise


def _keeps_versions(client: "S3Client", arguments: dict[str, Any]) -> bool:
    return client.get_bucket_versioning(**arguments).get("Status") is not None


def _lifecycle(client: "S3Client", arguments: dict[str, Any]) -> Any:
    return client.get_bucket_lifecycle_configuration(**arguments).get("Rules", [])


def _policy(client: "S3Client", arguments: dict[str, Any]) -> Any:
    return json.loads(client.get_bucket_policy(**arguments)["Policy"])


def _selects(rule: dict[str, Any], key: str, value: str) -> bool:
    """Whether a rule is on and for this tag alone, wherever the object lies."""
    wanted = {"Key": key, "Value": value}
    chosen = rule.get("Filter", {})
    both = chosen.get("And", {})
    of_tag = chosen == {"Tag": wanted} or (both.get("Tags") == [wanted] and both.keys() == {"Tags"})
    return rule.get("Status") == "Enabled" and of_tag


def _expires_every_version(rule: dict[str, Any]) -> bool:
    """Whether a rule leaves no version that is not the current one."""
    of_others = rule.get("NoncurrentVersionExpiration")
    return of_others is not None and not of_others.get("NewerNoncurrentVersions")


def _statements(policy: dict[str, Any]) -> list[dict[str, Any]]:
    stated = policy.get("Statement", [])
    return stated if isinstance(stated, list) else [stated]


def _denies(statement: dict[str, Any], bucket: str, key: str, value: str) -> bool:
    resources = statement.get("Resource", [])
    conditions = statement.get("Condition", {})
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and not {f"arn:{one}:s3:::{bucket}/*" for one in _PARTITIONS}.isdisjoint(
            [resources] if isinstance(resources, str) else resources
        )
        and conditions.keys() == {"StringEquals"}
        and conditions["StringEquals"]
        in (
            {f"s3:ExistingObjectTag/{key}": value},
            {f"s3:ExistingObjectTag/{key}": [value]},
        )
    )


def _is_of(statement: dict[str, Any], action: str) -> bool:
    """Whether a statement speaks of an action, by its name or a pattern."""
    actions = statement.get("Action", [])
    patterns = [actions] if isinstance(actions, str) else actions
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)
