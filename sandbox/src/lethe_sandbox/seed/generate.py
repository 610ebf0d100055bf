"""Make rows and objects of the plan, and write down what is true of each while it is made."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from lethe_sandbox import ground_truth as truth
from lethe_sandbox.product import (
    ACCOUNT,
    DOCUMENTS,
    PDF,
    RESULTS,
    TABLES,
    UPLOADS,
    feature_table,
    json_type,
    task_table,
)
from lethe_sandbox.seed.cases import Case, ClientCase, ImageCase, PdfCase
from lethe_sandbox.seed.cast import CAME_BACK, Plan
from lethe_sandbox.seed.records import (
    FIRST_DAY,
    Made,
    Maker,
    SeedObject,
    SeedRow,
    seed_object,
    timestamp,
)
from lethe_sandbox.seed.shapes import (
    EMPTY,
    EMPTY_OPTIONS,
    EMPTY_RESULTS,
    NO_REFERENCE,
    Ref,
    manifest_path,
    option,
    result,
    write,
)
from lethe_sandbox.seed.wording import Wording, needle

TEMPLATES: Final = tuple(Ref(UPLOADS, f"templates/frame-{n:02}.png") for n in range(12))
SAMPLES: Final = tuple(Ref(RESULTS, f"public/samples/sample-{n:02}.webp") for n in range(8))
"""Shared by everybody; no erasure may delete them."""

UNRESOLVED: Final = "unresolved_reference"
UNKNOWN: Final = "unknown_type"
MISSING: Final = "manifest_missing"
ACTIVE: Final = "subject_active"

_LAST_DAY: Final = datetime(2026, 10, 31, tzinfo=UTC)
_CLIENT_TABLE_FROM: Final = 2024
_CLIENT_TEMP_FROM: Final = 2022
_BOTH_TABLES: Final = 0.03
_REMEMBERED: Final = 50
_GPUS: Final = ("A100-80G", "H100", "L4", "T4", None)


@dataclass(slots=True)
class _Memory:
    """What later requests of a person may name again."""

    uploads: list[Ref] = field(default_factory=list)
    results: list[Ref] = field(default_factory=list)


class Generator(Maker):
    """Turns a plan into rows and objects in the order of its cases: same plan, same bytes."""

    def __init__(self, rng: Random, plan: Plan) -> None:
        super().__init__(rng, plan.members)
        self._plan = plan
        self._wording = Wording(rng)
        self._memory: dict[str | None, _Memory] = {}

    def run(self) -> Iterator[Made]:
        """Make everything; works once."""
        for shared in (*TEMPLATES, *SAMPLES):
            yield self._stored(shared, "shared", None, "shared")
        yield from self._accounts()
        step = (_LAST_DAY - FIRST_DAY) / len(self._plan.cases)
        for number, case in enumerate(self._plan.cases):
            self._now = FIRST_DAY + number * step + self._rng.random() * step
            match case:
                case ImageCase():
                    yield from self._image(case)
                case PdfCase():
                    yield from self._pdf(case)
                case ClientCase():
                    yield from self._client_only(case)

    def _accounts(self) -> Iterator[Made]:
        """Make the customers' accounts; it draws nothing."""
        for member in self._plan.members:
            if member.requested and member.role != CAME_BACK:
                continue
            account = ClientCase(member.key, ACCOUNT)
            yield self._row(
                TABLES[ACCOUNT],
                {
                    "id": str(self._next(ACCOUNT)),
                    "client_key": member.key,
                    "status": "active",
                },
                account,
                self._fate(member.key, None),
                reason=ACTIVE,
            )

    def _image(self, case: ImageCase) -> Iterator[Made]:
        request = self._next(case.type)
        prompt = self._wording.prompt(case.prompt)
        blocked = False
        if not case.feature_gone:
            reason = UNRESOLVED if case.source == "forgotten" else None
            yield from self._feature(case, request, prompt, reason)
            blocked = reason is not None
        if not case.task_gone:
            reason = UNRESOLVED if case.output in ("forgotten", "one_forgotten") else None
            yield from self._tasks(case, request, prompt, reason)
            blocked = blocked or reason is not None
        yield from self._clients(case, request, names_blocked=blocked)

    def _feature(
        self, case: ImageCase, request: int, prompt: str | None, reason: str | None
    ) -> Iterator[Made]:
        fate = self._fate(case.person, reason)
        refs = self._inputs(case)
        if case.source == "upload" and case.option != NO_REFERENCE:
            for ref in refs:
                yield self._stored(ref, case.type, case.person, fate)
        value = self._option(case, refs)
        negative = self._wording.negative(case.prompt)
        changed = self._now + timedelta(seconds=self._rng.randint(1, 90))
        yield self._row(
            feature_table(case.type),
            {
                "id": str(request),
                "option": value,
                "prompt": prompt,
                "negative_prompt": negative,
                "status": "completed" if case.worked else "failed",
                "gpu": self._rng.choice(_GPUS),
                "created_at": timestamp(self._now),
                "updated_at": timestamp(changed) if case.worked else None,
            },
            case,
            fate,
            reason=reason,
            needles=[*needle(prompt), *needle(negative)],
            keeps=[ref for ref in refs if ref in TEMPLATES or ref == case.borrowed],
        )

    def _inputs(self, case: ImageCase) -> list[Ref]:
        memory = self._memory.setdefault(case.person, _Memory())
        if case.option == NO_REFERENCE or case.source in ("nothing", "empty_fields"):
            return []
        if case.source == "upload":
            refs = [Ref(UPLOADS, self._upload_key(case)) for _ in range(case.files)]
            if case.upload_key is None:
                _remember(memory.uploads, refs[0])
            return refs
        if case.source == "gone":
            return [Ref(UPLOADS, self._upload_key(case))]
        if case.source == "forgotten":
            return [Ref(None, f"2019/{self._token()}.png")]
        if case.source == "borrowed" and case.borrowed is not None:
            return [case.borrowed]
        earlier = {"reuse": memory.uploads, "own_result": memory.results}.get(case.source)
        return [self._rng.choice(earlier or TEMPLATES)]

    def _upload_key(self, case: ImageCase) -> str:
        made = f"uploads/{case.person or 'closed'}/{self._now.year}/{self._token()}.png"
        return case.upload_key or made

    def _option(self, case: ImageCase, refs: Sequence[Ref]) -> str | None:
        column = json_type(case.type)
        if case.source == "nothing":
            return EMPTY[column][case.empty]
        if case.source == "empty_fields":
            return write(EMPTY_OPTIONS[case.empty], column, self._rng)
        return write(option(case.option, refs, self._rng), column, self._rng)

    def _tasks(
        self, case: ImageCase, request: int, prompt: str | None, reason: str | None
    ) -> Iterator[Made]:
        column = json_type(case.type)
        for _ in range(case.failures or int(not case.worked)):
            message = f"CUDA out of memory while rendering: {(prompt or '-')[:80]}"
            nothing = self._rng.choice(EMPTY[column])
            yield self._task(
                case, request, nothing, message, self._fate(case.person, None), None, ()
            )
        if not case.worked:
            return
        fate = self._fate(case.person, reason)
        refs = self._outputs(case)
        for ref in refs:
            if case.output not in ("sample", "gone") and ref.bucket is not None:
                yield self._stored(ref, case.type, case.person, fate)
        if case.output == "nothing":
            value = EMPTY[column][case.empty]
        elif case.output == "empty_fields":
            value = write(EMPTY_RESULTS[case.empty], column, self._rng)
        else:
            value = write(result(case.result, refs, self._rng), column, self._rng)
        keeps = refs if case.output == "sample" else ()
        yield self._task(case, request, value, None, fate, reason, keeps)

    def _outputs(self, case: ImageCase) -> list[Ref]:
        if case.output in ("nothing", "empty_fields"):
            return []
        if case.output == "sample":
            return self._rng.sample(SAMPLES, case.images)
        folder = f"public/{self._now.year}/{self._now.month:02}"
        refs = []
        for number in range(case.images):
            kind = "webp" if case.result.startswith("webp") and number else "png"
            refs.append(Ref(RESULTS, f"{folder}/{self._token()}.{kind}"))
        if case.result_key is not None:
            refs[0] = Ref(RESULTS, case.result_key)
        elif case.output == "own":
            memory = self._memory.setdefault(case.person, _Memory())
            _remember(memory.results, refs[0])
        if case.output in ("forgotten", "one_forgotten"):
            refs[-1] = Ref(None, refs[-1].key)
        return refs

    def _task(
        self,
        case: ImageCase,
        request: int,
        value: str | None,
        message: str | None,
        fate: truth.RowFate,
        reason: str | None,
        keeps: Sequence[Ref],
    ) -> SeedRow:
        table = task_table(case.type)
        finished = self._now + timedelta(seconds=self._rng.uniform(1, 60))
        return self._row(
            table,
            {
                "id": str(self._next(table.name)),
                "feature_id": str(request),
                "result": value,
                "error_message": message,
                "gpu_name": self._rng.choice(_GPUS),
                "status": "failed" if message else "completed",
                "created_at": timestamp(self._now),
                "finished_at": None if message else timestamp(finished),
            },
            case,
            fate,
            reason=reason,
            keeps=keeps,
        )

    def _pdf(self, case: PdfCase) -> Iterator[Made]:
        request = self._next(PDF)
        reason = MISSING if case.manifest == "missing" else None
        fate = self._fate(case.person, reason)
        number = case.number or request
        manifest = Ref(DOCUMENTS, f"manifests/{number}.json{case.suffix}")
        files = [
            Ref(DOCUMENTS, f"extractions/{number}/{page}.png{case.suffix}")
            for page in range(1, case.files + 1)
        ]
        if case.manifest == "there":
            yield self._manifest(case, manifest, files, fate)
        if case.manifest != "no_path":
            for position, ref in enumerate(files[: case.stored]):
                versions = 1 + (position % 3 if case.history else 0)
                deleted = case.history and position % 4 == 1
                yield self._stored(ref, PDF, case.person, fate, versions=versions, deleted=deleted)
        path = None
        if case.manifest != "no_path":
            path = manifest_path(case.form, manifest.key)
        title = self._wording.title() if path else None
        finished = self._now + timedelta(seconds=self._rng.randint(2, 400))
        yield self._row(
            TABLES["pdf_extraction"],
            {
                "id": str(request),
                "manifest_path": path,
                "title": title,
                "page_count": str(case.files),
                "status": "completed",
                "gpu": self._rng.choice(_GPUS),
                "created_at": timestamp(self._now),
                "finished_at": timestamp(finished),
            },
            case,
            fate,
            reason=reason,
            needles=[*needle(path), *needle(title)],
        )
        yield from self._clients(case, request, names_blocked=reason is not None)

    def _manifest(
        self, case: PdfCase, ref: Ref, files: Sequence[Ref], fate: truth.RowFate
    ) -> SeedObject:
        keys = [file.key for file in files]
        versions = [keys[: len(keys) // 2], keys] if case.history else [keys]
        bodies = [
            json.dumps(
                {"fileKeyList": listed, "pageCount": len(listed), "tool": "extract/3"}
            ).encode()
            for listed in versions
        ]
        return seed_object(ref, PDF, case.person, fate, bodies, deleted=False)

    def _client_only(self, case: ClientCase) -> Iterator[Made]:
        reason = None if case.type in self._ids else UNKNOWN
        request = None
        if case.names_request:
            request = self._rng.randint(1, 10_000) if reason else self._next(case.type)
        yield from self._clients(case, request, names_blocked=False, reason=reason)

    def _clients(
        self, case: Case, request: int | None, *, names_blocked: bool, reason: str | None = None
    ) -> Iterator[Made]:
        if case.person is None:
            return
        fate = self._fate(case.person, reason)
        if fate == "erased" and names_blocked:
            fate = "names_blocked"
        for name in self._usual_tables() if case.clients is None else case.clients:
            table = TABLES[name]
            values = [str(self._next(name)), case.person, case.type]
            row = dict(
                zip(
                    table.columns,
                    [*values, None if request is None else str(request)],
                    strict=False,
                )
            )
            if table.partitioned:
                row["created_at"] = timestamp(self._now)
            yield self._row(table, row, case, fate, reason=reason)

    def _usual_tables(self) -> tuple[str, ...]:
        if self._now.year < _CLIENT_TEMP_FROM:
            return ("client_old",)
        if self._now.year < _CLIENT_TABLE_FROM:
            return ("client_temp",)
        return ("client", "client_temp") if self._rng.random() < _BOTH_TABLES else ("client",)


def _remember(memory: list[Ref], ref: Ref) -> None:
    memory.append(ref)
    if len(memory) > _REMEMBERED:
        del memory[0]
