"""From what a product stored (URL, key, {bucket, key}) to the S3 object it names, or to a refusal.

Pure. A bucket is never guessed: only the catalog's buckets come out, whatever goes in. A key is
percent-decoded exactly once where it stood in a URL, never where it stood as a key, and is never
normalised: `a//b`, `./a` and `a/../b` are keys of their own.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import Final
from unicodedata import normalize
from urllib.parse import parse_qs, unquote

from lethe_eraser.catalog.model import Bucket, Origin, originals
from lethe_eraser.domain import ObjectRef

LONGEST_KEY: Final = 1024
"""Bytes of UTF-8 in an S3 key."""

LONGEST_HOST: Final = 259
"""Characters of a host name with its port."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The object that is named."""

    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Several objects that may be meant, the likeliest first: a raw `+` may be a space, say."""

    candidates: tuple[ObjectRef, ...]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Nothing the catalog knows."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Parts of one reference name different objects."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A reference that names no object: empty, or with its data in itself."""


Resolution = Resolved | Ambiguous | Unresolved | Conflict | Nothing

_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-\d+)"
_ENDPOINT = (
    rf"(?:s3(?:-fips)?(?:\.dualstack)?\.{_REGION}|s3-(?P<dash>[a-z]{{2}}(?:-[a-z]+)+-\d+)|s3)"
)
_VPCE = r"bucket\.vpce-[a-z0-9-]+\.s3\.(?P<vpce>[a-z]{2}(?:-[a-z]+)+-\d+)\.vpce"
_WEBSITE = r"s3-website[.-](?P<site>[a-z]{2}(?:-[a-z]+)+-\d+)"
_SUFFIX = r"\.amazonaws\.com(?P<china>\.cn)?"
_VIRTUAL_HOST = re.compile(
    rf"(?P<bucket>.+)\.(?:{_ENDPOINT}|{_VPCE}|{_WEBSITE}|s3-accelerate(?:\.dualstack)?){_SUFFIX}"
)
_PATH_HOST = re.compile(rf"(?:{_ENDPOINT}|{_VPCE}){_SUFFIX}")
_HOST = re.compile(r"(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>\d{1,5}))?")
_WEB = re.compile(
    r"\s*(?:(?P<scheme>https?):)?//(?P<host>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_URI = re.compile(
    r"\s*(?:s3[an]?://|arn:(?P<arn>aws(?:-cn|-us-gov)?):s3:::)(?P<bucket>[^/]+)/(?P<key>.*)",
    re.IGNORECASE | re.DOTALL,
)
# Quotes, brackets, marks that nobody sees: a URL in them is a URL still, and no key.
_WRAPPED = r"[^\w/.]*"
_NO_KEY = re.compile(rf"{_WRAPPED}(?:[a-z][a-z0-9+.-]*:|//)|\s*[\[{{]?\s*\"", re.IGNORECASE)
"""What text that should be a bare key begins with if it is a URL, or JSON that names several."""
_URL_AS_KEY = re.compile(rf"{_WRAPPED}(?:https?://|s3[an]?://|arn:aws)", re.IGNORECASE)
_INLINE = re.compile(r"\s*data:", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_SPACES = " \t\r\n\f"
_BREAKS = re.compile("[\t\r\n]")
_PORTS = {"http": "80", "https": "443"}
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]*")
"""What follows a host and can be read in one way only."""
_HOSTS_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class _Host:
    """What a host name stands for, whatever path follows."""

    bucket: Bucket | None = None
    origins: tuple[tuple[re.Pattern[str], Origin], ...] = ()
    path_style: re.Match[str] | None = None
    """Given if the bucket stands in the path."""
    is_website: bool = False


_NOBODY: Final = _Host()


class Resolver:
    """Resolves references against one catalog's buckets and hosts."""

    def __init__(
        self, buckets: Mapping[str, Bucket], hosts: Mapping[str, tuple[Origin, ...]]
    ) -> None:
        named = dict(buckets)
        for bucket in buckets.values():
            named.update(dict.fromkeys(bucket.aliases, bucket))
        copies = originals(buckets)
        # A copy stands for its original, with which all of them go; one of several for none.
        self._buckets = {
            n: buckets[home] for n, b in named.items() if (home := copies.get(b.name, b.name))
        }
        self._origins = {
            host: tuple((_pattern(origin.pattern), origin) for origin in origins)
            for host, origins in hosts.items()
        }
        # Rows name few hosts, again and again.
        self._host = lru_cache(_HOSTS_KEPT)(self._read_host)

    def resolve(
        self,
        *,
        url: str | None = None,
        key: str | None = None,
        bucket: str | None = None,
        in_bucket: str | None = None,
    ) -> Resolution:
        """Resolve the parts of one reference; those that are given must agree.

        Args:
            url: A URL, an S3 URI or ARN or, where `in_bucket` is given, a bare key.
            key: The key, as it is.
            bucket: The bucket it stands with.
            in_bucket: The bucket of a key that comes without one.
        """
        by_url: Resolution = self.resolve_url(url, in_bucket=in_bucket) if url else Nothing()
        if not key and not bucket:
            return by_url
        if isinstance(by_url, Nothing) and key:
            return self._by_key(key, bucket or in_bucket)
        if isinstance(by_url, Nothing):
            # A bucket alone names no object, unless it is none and more than a bucket.
            return Unresolved() if bucket and {"/", ":"} & set(bucket) else by_url
        if isinstance(by_url, Unresolved | Conflict):
            known = bucket is not None and bucket in self._buckets
            return Conflict() if known else by_url
        return self._agreeing(by_url, key, bucket)

    def resolve_url(self, text: str, *, in_bucket: str | None = None) -> Resolution:
        """Resolve one piece of text that should be a URL, an S3 URI, an ARN or a bare key."""
        if not text.strip() or _INLINE.match(text):
            return Nothing()
        found = self._read(text, in_bucket)
        if "&" in text and _ENTITY.search(text) and _WEB.match(text):
            found += self._read(unescape(text), in_bucket)
        return _one_or_several(found)

    def _by_key(self, key: str, bucket: str | None) -> Resolution:
        known = None if bucket is None else self._buckets.get(bucket)
        # Where a key should stand a product may have put a URL: no object is named like that.
        if known is None or not _is_key(key) or _URL_AS_KEY.match(key):
            return Unresolved()
        return _one_or_several([ObjectRef(known.name, key)])

    def _agreeing(
        self, by_url: Resolved | Ambiguous, key: str | None, bucket: str | None
    ) -> Resolution:
        candidates = (by_url.ref,) if isinstance(by_url, Resolved) else by_url.candidates
        if bucket:
            known = self._buckets.get(bucket)
            candidates = tuple(c for c in candidates if known and c.bucket == known.name)
        if key:
            # A key names every version, so it says more than a URL's versionId.
            same = normalize("NFC", key)
            candidates = tuple(
                ObjectRef(c.bucket, key) for c in candidates if normalize("NFC", c.key) == same
            )
        return _one_or_several(candidates) if candidates else Conflict()

    def _read(self, text: str, in_bucket: str | None) -> list[ObjectRef]:
        web = _WEB.fullmatch(text)
        if web is not None:
            return self._read_web(*web.group("scheme", "host", "rest"))
        uri = _URI.fullmatch(text)
        if uri is not None:
            bucket = self._buckets.get(uri["bucket"])
            arn = (uri["arn"] or "").lower()
            if bucket is None or (arn and arn != _partition(bucket.region)):
                return []
            # Some tools write a version behind the key.
            key, mark, _ = uri["key"].partition("?versionId=")
            return _refs(bucket.name, _written([uri["key"], key] if mark else [key]))
        bucket = self._buckets.get(in_bucket or "")
        if bucket is None or _NO_KEY.match(text) or self._begins_with_a_host(text):
            return []
        return _refs(bucket.name, _written([text] if text[0] != "/" else [text, text[1:]]))

    def _begins_with_a_host(self, text: str) -> bool:
        """Whether it is a URL of ours without its scheme, and no key."""
        host, slash, _ = text.partition("/")
        return bool(slash) and "." in host and self._host(None, host) != _NOBODY

    def _read_web(self, scheme: str | None, authority: str, rest: str) -> list[ObjectRef]:
        # Only of a length that a host has, lest what is kept grows with what is stored.
        host = self._host(scheme, authority) if len(authority) <= LONGEST_HOST else _NOBODY
        paths, query = _paths(rest)
        if host.origins:
            return self._read_cdn(host.origins, paths)
        if host.path_style is not None:
            return self._read_path_style(host.path_style, paths, query)
        if host.bucket is None:
            return []
        if host.is_website:
            # A website answers a folder with its index document: the key is not in the URL.
            paths = [path for path in paths if not path.endswith("/")]
        return _refs(host.bucket.name, _below_root(paths), query)

    def _read_host(self, scheme: str | None, authority: str) -> _Host:
        # Lowering a non-ASCII host could turn a look-alike into one of ours.
        named = _HOST.fullmatch(authority.lower()) if authority.isascii() else None
        if named is None or named["port"] not in {None, _PORTS[(scheme or "https").lower()]}:
            return _NOBODY
        name = named["name"]
        if name in self._origins:
            return _Host(origins=self._origins[name])
        path_style = _PATH_HOST.fullmatch(name)
        if path_style is not None:
            return _Host(path_style=path_style)
        virtual = _VIRTUAL_HOST.fullmatch(name)
        if virtual is not None:
            bucket = self._of_partition(virtual["bucket"], virtual)
            return _Host(bucket, is_website=virtual["site"] is not None)
        return _Host(self._buckets.get(name) if "." in name else None)

    def _read_cdn(
        self, origins: Sequence[tuple[re.Pattern[str], Origin]], paths: Iterable[str]
    ) -> list[ObjectRef]:
        found: list[ObjectRef] = []
        for path in paths:
            for key in _decoded([path]) if path.startswith("/") and path != "/" else ():
                # CloudFront decodes what need not be encoded before it compares.
                led = (next(o for p, o in origins if p.fullmatch(spelt)) for spelt in (path, key))
                for origin in dict.fromkeys(led):
                    bucket = self._buckets.get(origin.bucket)
                    below = (origin.origin_path + key).removeprefix("/")
                    found += [] if bucket is None else _refs(bucket.name, [below])
        return found

    def _read_path_style(
        self, host: re.Match[str], paths: Iterable[str], query: str
    ) -> list[ObjectRef]:
        found: list[ObjectRef] = []
        for path in paths:
            name, slash, key = path.removeprefix("/").partition("/")
            bucket = self._of_partition(name, host)
            if bucket is not None and slash:
                found += _refs(bucket.name, _decoded([key]), query)
        return found

    def _of_partition(self, name: str, host: re.Match[str]) -> Bucket | None:
        """Give the bucket, unless the host lies in another partition: names repeat across them."""
        bucket = self._buckets.get(name)
        groups = host.groupdict()
        region = next(
            (groups[g] for g in ("region", "dash", "vpce", "site") if groups.get(g)), None
        )
        if bucket is None or bool(groups["china"]) != (_partition(bucket.region) == "aws-cn"):
            return None
        return bucket if region is None or _partition(region) == _partition(bucket.region) else None


def _partition(region: str | None) -> str:
    start = (region or "").partition("-")[0]
    if start == "cn":
        return "aws-cn"
    return "aws-us-gov" if (region or "").startswith("us-gov-") else "aws"


def _pattern(written: str | None) -> re.Pattern[str]:
    if written is None:
        return re.compile(".*", re.DOTALL)
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in written)
    return re.compile("".join(parts), re.DOTALL)


def _paths(rest: str) -> tuple[list[str], str]:
    """Split what follows the host into readings of the path, still encoded, and the query."""
    if _PLAIN_PATH.fullmatch(rest):
        return [rest], ""
    before, mark, query = rest.partition("?")
    fragment = before.partition("#")
    paths = [fragment[0]]
    if fragment[1]:
        # Stored unencoded, a `#` belongs to the key; in a true URL it ends it.
        paths.append(before)
    if mark and "=" not in query:
        # No query that is known to us: it belongs to a key that was stored unencoded.
        paths.append(before + mark + query)
    paths += [path.rstrip(_SPACES) for path in paths if not mark and path != path.rstrip(_SPACES)]
    # Browsers take no notice of these.
    paths += [_BREAKS.sub("", path) for path in paths if _BREAKS.search(path)]
    # S3 reads a raw plus as a space in some places and as itself in others.
    paths += [path.replace("+", " ") for path in paths if "+" in path]
    return paths, query.partition("#")[0]


def _written(keys: list[str]) -> list[str]:
    """Add what a key is that was stored with blanks around it, of which it may have its own."""
    return keys + [bare for key in keys if (bare := key.strip(_SPACES)) != key]


def _decoded(paths: Iterable[str]) -> list[str]:
    keys: list[str] = []
    for path in paths:
        try:
            keys.append(unquote(path, errors="strict") if "%" in path else path)
        except UnicodeDecodeError:
            continue
    return keys


def _below_root(paths: Iterable[str]) -> list[str]:
    return _decoded(path[1:] for path in paths if path.startswith("/"))


def _version(query: str) -> str | None:
    values = parse_qs(query.replace("&amp;", "&")).get("versionId")
    return values[0] if values else None


def _refs(bucket: str, keys: Iterable[str], query: str = "") -> list[ObjectRef]:
    version = _version(query) if "versionId" in query else None
    return [ObjectRef(bucket, key, version) for key in keys if _is_key(key)]


def _is_key(key: str) -> bool:
    if key.isascii():
        return 0 < len(key) <= LONGEST_KEY
    try:
        return len(key.encode()) <= LONGEST_KEY
    except UnicodeEncodeError:
        return False


def _one_or_several(found: Sequence[ObjectRef]) -> Resolution:
    if len(found) == 1 and found[0].key.isascii():
        return Resolved(found[0])
    named = dict.fromkeys(found)
    # File names from macOS come decomposed (NFD) and are stored composed (NFC), or the other way.
    named |= dict.fromkeys(
        ObjectRef(ref.bucket, key, ref.version)
        for ref in tuple(named)
        if not ref.key.isascii()
        for form in ("NFC", "NFD")
        if _is_key(key := normalize(form, ref.key))
    )
    candidates = tuple(named)
    if not candidates:
        return Unresolved()
    return Resolved(candidates[0]) if len(candidates) == 1 else Ambiguous(candidates)
