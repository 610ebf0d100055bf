"""Running the cases of all figures in turn, so that each stands beside its base in time."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.harness.model import Bench, Case, Figure, Sample


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run, by case."""

    samples: Mapping[str, Sequence[Sample]]
    failures: Mapping[str, str]
    """What ended a case; it was not run again and its samples do not count."""


def run(figures: Sequence[Figure], bench: Bench) -> Outcome:
    """Run every case as often as it asks for, one repetition of all after another.

    Every other repetition goes backwards: what a case leaves behind in the servers weighs on
    another one each time. A case that fails ends itself and no other.
    """
    samples: dict[str, list[Sample]] = {case.name: [] for case in _cases(figures)}
    failures: dict[str, str] = {}
    for repetition in range(bench.options.repeats):
        due = [case for case in _cases(figures) if repetition < _repeats(case, bench)]
        for case in reversed(due) if repetition % 2 else due:
            if case.name in failures:
                continue
            started = time.monotonic()
            try:
                sample = case.run(bench)
            except Exception as error:  # noqa: BLE001 - an hour of others' figures is kept
                failures[case.name] = f"{type(error).__name__}: {error}"
                bench.say(f"{repetition + 1} {case.name} failed: {failures[case.name]}")
                continue
            samples[case.name].append(sample)
            told = ", ".join(f"{name} {value:,.2f}" for name, value in sample.values.items())
            bench.say(f"{repetition + 1} {case.name} ({time.monotonic() - started:.0f} s): {told}")
    whole = {name: found for name, found in samples.items() if name not in failures}
    return Outcome(whole, failures)


def _cases(figures: Iterable[Figure]) -> list[Case]:
    """Every case once, whoever asks for it."""
    found: dict[str, Case] = {}
    for figure in figures:
        for case in figure.cases:
            found.setdefault(case.name, case)
    return list(found.values())


def _repeats(case: Case, bench: Bench) -> int:
    return min(bench.options.repeats, case.at_most or bench.options.repeats)
