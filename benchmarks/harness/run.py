"""Running the cases of all figures in turn, so that each stands beside its base in time."""

import time
from collections.abc import Iterable, Sequence

from benchmarks.harness.model import Bench, Case, Figure, Sample


def run(figures: Sequence[Figure], bench: Bench) -> dict[str, list[Sample]]:
    """Run every case as often as it asks for, one repetition of all after another.

    Every other repetition goes backwards: what a case leaves behind in the servers weighs on
    another one each time.
    """
    samples: dict[str, list[Sample]] = {case.name: [] for case in _cases(figures)}
    for repetition in range(bench.options.repeats):
        due = [case for case in _cases(figures) if repetition < _repeats(case, bench)]
        for case in reversed(due) if repetition % 2 else due:
            started = time.monotonic()
            sample = case.run(bench)
            samples[case.name].append(sample)
            told = ", ".join(f"{name} {value:,.2f}" for name, value in sample.values.items())
            bench.say(f"{repetition + 1} {case.name} ({time.monotonic() - started:.0f} s): {told}")
    return samples


def _cases(figures: Iterable[Figure]) -> list[Case]:
    """Every case once, whoever asks for it."""
    found: dict[str, Case] = {}
    for figure in figures:
        for case in figure.cases:
            found.setdefault(case.name, case)
    return list(found.values())


def _repeats(case: Case, bench: Bench) -> int:
    return min(bench.options.repeats, case.at_most or bench.options.repeats)
