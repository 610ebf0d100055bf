"""The catalog file as a document: read strictly, with the line of every entry for the errors."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lethe_eraser.catalog.model import CatalogError
from lethe_eraser.catalog_schema import CatalogFile

_MERGE: Final = "tag:yaml.org,2002:merge"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Answer an unknown name with the one that was likely meant, and all valid ones."""
    names = sorted(valid)
    near = get_close_matches(name, names, n=1)
    listed = ", ".join(names) or "none"
    return f"did you mean {near[0]}? valid are: {listed}" if near else f"valid are: {listed}"


class _UniqueKeys(yaml.SafeLoader):
    """YAML as it is written: a key that stands twice is an error, not the last one's victory."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  # PyYAML's signature
        """Construct `node`, saying where one stands that looks like a date, say, and is none."""
        try:
            return super().construct_object(node, deep)
        except ValueError:
            says = "is read as a date or a number and is none; put it in quotes"
            raise yaml.MarkedYAMLError(None, None, says, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        """Construct `node`, refusing keys that stand in it twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a name must be a text", key.start_mark)
            if key.tag != _MERGE and key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True, slots=True)
class Document:
    """A catalog file that is well-formed, and where its entries stand."""

    name: str
    file: CatalogFile
    root: yaml.Node

    def where(self, place: tuple[str | int, ...]) -> str:
        """Name an entry by file, line and path."""
        return _where(self.name, self.root, place)


def read(path: Path) -> Document:
    """Read `path`.

    Raises:
        CatalogError: It is no well-formed catalog; everything that is wrong with it.
    """
    root, value = _parse(path)
    if root is None or not isinstance(value, dict):
        raise CatalogError([f"{path.name}: is empty or no mapping; it begins with `version: 1`"])
    entries = {k: v for k, v in value.items() if not str(k).startswith("x-")}
    try:
        file = CatalogFile.model_validate(entries)
    except ValidationError as invalid:
        raise CatalogError(
            f"{_where(path.name, root, error['loc'])}: {_says(error)}" for error in invalid.errors()
        ) from None
    return Document(path.name, file, root)


def _parse(path: Path) -> tuple[yaml.Node | None, object]:
    try:
        text = path.read_bytes().decode("utf-8")
        # Composed a second time for the lines: constructed values do not know where they stood.
        root = yaml.compose(text, Loader=_UniqueKeys)
        return root, yaml.load(text, Loader=_UniqueKeys)  # noqa: S506  # it is a SafeLoader
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror}); LETHE_ERASER_CATALOG names the file"
    except UnicodeDecodeError:
        problem = f"{path}: is not UTF-8"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = f"{path.name}:{line}: {error.problem}"
    except yaml.YAMLError:
        problem = f"{path.name}: holds a character that YAML does not allow"
    except RecursionError:
        problem = f"{path.name}: is nested deeper than any catalog"
    raise CatalogError([problem])


def _where(name: str, root: yaml.Node, place: tuple[str | int, ...]) -> str:
    node, line = root, root.start_mark.line
    for part in place:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return f"{name}:{line + 1}: {'.'.join(map(str, place)) or 'the file'}"


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line, item
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == str(part):
            return key.start_mark.line, value
    merged = [value for key, value in node.value if key.tag == _MERGE]
    sources = [s for m in merged for s in (m.value if isinstance(m, yaml.SequenceNode) else [m])]
    return next((found for s in sources if (found := _child(s, part)) is not None), None)


def _says(error: ErrorDetails) -> str:
    """Turn pydantic's words into what to write instead."""
    name = str(error["loc"][-1]) if error["loc"] else ""
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"unknown name; {did_you_mean(name, _names_at(error['loc'][:-1]))}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "string_type" and isinstance(error["input"], int):
        return "is read as a number; put it in quotes"
    pattern = error.get("ctx", {}).get("pattern")
    plain = {
        "missing": "is missing",
        "string_pattern_mismatch": f"does not look like one (pattern {pattern})",
        "dict_type": "must be a mapping (`name: value` lines)",
        "model_type": "must be a mapping (`name: value` lines)",
    }
    return plain.get(kind, error["msg"][:1].lower() + error["msg"][1:])


def _names_at(place: tuple[str | int, ...]) -> list[str]:
    """The names that an entry at `place` may hold."""
    at: object = CatalogFile
    for part in place:
        if isinstance(at, type) and issubclass(at, BaseModel):
            fields = {f.alias or n: f.annotation for n, f in at.model_fields.items()}
            at = fields.get(str(part))
        else:
            at = get_args(at)[-1 if isinstance(part, str) else 0]
        while get_origin(at) in {Annotated, UnionType, Union}:
            at = get_args(at)[0]
    if isinstance(at, type) and issubclass(at, BaseModel):
        return [field.alias or name for name, field in at.model_fields.items()]
    return []
