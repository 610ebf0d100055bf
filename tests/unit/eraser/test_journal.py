"""What a batch set out to do is read back as it was written, also by an earlier release."""

import json
import zlib
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from lethe_contracts.cipher import Cipher
from lethe_contracts.keyring import KeyRing
from lethe_contracts.states import BlockReason
from lethe_eraser.domain import AsRead, ObjectRef, RowTarget
from lethe_eraser.storage.journal import Intent, Journal, OfType
from lethe_eraser.storage.progress import OBJECTS_ONLY, Blocked, Page, Stretch

JOB = UUID(int=7)
CIPHER = Cipher(KeyRing.generate())
A, B, C = (ObjectRef("images", key) for key in "abc")


def row(row_id: int, *delete: ObjectRef, **more: Any) -> RowTarget:
    values: dict[str, Any] = {"delete_last": (), "kept": 0, **more}
    return RowTarget("feature", "draw", row_id, "77", row_id, delete, **values)


def opened(stored: bytes, *, batch: int = 3) -> Intent:
    of_page = SimpleNamespace(
        batch=batch, request_type="draw", source="client", after_key="[1]", intent=stored
    )
    return Journal(CIPHER)._opened(JOB, of_page)


def test_an_intent_of_many_types_comes_back() -> None:
    intent = Intent(
        batch=3,
        stretches=(
            Stretch(Page("draw", "client", "[1]"), "[9]", done=True),
            Stretch(Page("draw", "client_old"), None, done=True),
            Stretch(Page("scan", "client"), "[4]"),
        ),
        found=(
            OfType(request_type="draw", rows=(row(1, A, kept=2), row(2, A, B)), missing=(B,)),
            OfType(
                request_type="scan",
                rows=(
                    row(
                        3,
                        C,
                        delete_last=(A,),
                        unless_referenced=(ObjectRef("x", "y", "v"),),
                        as_read=(AsRead(A, ("v1", '"etag"')),),
                    ),
                ),
                objects=(ObjectRef("images", "\udcff"), B),
                as_read=(AsRead(B, ()),),
            ),
        ),
        blocked=(Blocked("feature", "draw", "5", "draw", 5, BlockReason.UNCOVERED),),
        failed=(A,),
        scheduled=(C,),
    )
    assert opened(Journal(CIPHER)._sealed(JOB, intent)) == intent


def test_an_intent_of_the_release_before_is_finished() -> None:
    written = {
        "refs": [["images", "a", None], ["images", "b", "v1"], ["images", "c", None]],
        "end": "[9]",
        "done": True,
        "objects": [2],
        "if_unreferenced": False,
        "missing": [1],
        "failed": [0],
        "scheduled": [],
        "blocked": [
            {
                "kind": "feature",
                "table": "draw",
                "row_key": "5",
                "request_type": "draw",
                "request_id": 5,
                "reason": "uncovered",
            }
        ],
        "rows": [
            ["feature", "draw", 1, "77", 1, [0], [1], 2, []],
            ["feature", "draw", 2, "77", 2, [0], [], 0],
        ],
    }
    sealed = CIPHER.encrypt(
        zlib.compress(json.dumps(written).encode()), context=f"journal:{JOB}:3"
    ).encode()
    named = ObjectRef("images", "b", "v1")
    assert opened(sealed) == Intent(
        batch=3,
        stretches=(Stretch(Page("draw", "client", "[1]"), "[9]", done=True),),
        found=(
            OfType(
                request_type="draw",
                rows=(row(1, A, delete_last=(named,), kept=2), row(2, A)),
                objects=(C,),
                missing=(named,),
            ),
        ),
        blocked=(Blocked("feature", "draw", "5", "draw", 5, BlockReason.UNCOVERED),),
        failed=(A,),
    )


def test_an_object_counts_for_the_first_type_that_names_it() -> None:
    intent = Intent(
        batch=1,
        stretches=(Stretch(Page("scan", "client")),),
        found=(
            OfType(request_type="draw", rows=(row(1, A, B),)),
            OfType(request_type="scan", rows=(row(2, B, C),)),
        ),
    )
    assert intent.owners == {A: "draw", B: "draw", C: "scan"}
    again = intent.naming({B, C})
    assert [part.objects for part in again.found] == [(B,), (C,)]
    alone = Intent.of_objects(2, "scan", [C], if_unreferenced=True)
    assert (alone.request_type, alone.objects) == ("scan", (C,))
    assert [one.page.source for one in alone.stretches] == [OBJECTS_ONLY]


def test_of_what_two_rows_read_differently_nothing_may_go() -> None:
    first, other = AsRead(A, ("v1",)), AsRead(A, ("v2", "v1"))
    read = [row(n, delete_last=(A,), as_read=(one,)) for n, one in enumerate((first, other, first))]
    for rows, held in ((read[:1], ("v1",)), (read[::2], ("v1",)), (read, ()), (read[:2], ())):
        found = (OfType(request_type="scan", rows=tuple(rows)),)
        intent = Intent(batch=1, stretches=(Stretch(Page("scan", "client")),), found=found)
        assert intent.held == {A: held}
