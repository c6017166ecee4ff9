"""Time of an alignment: 11 echoes of 192 x 192, ``python -m tests.benchmarks.registration_speed``.

Slices of the digital trial at ``typical`` with their true masks. Processor time on one thread, the least of
some repetitions: what else the machine does matters little.
"""

import time
from typing import Literal

from cmrcore.threads import one_thread
from tests.benchmarks.figure import Figure, print_figures
from tests.benchmarks.moving import moving_slices
from tests.benchmarks.registration_methods import align

SUBJECT = 1
"""One whose slices have the wanted size."""
N_REPETITIONS = 5
TARGETS: dict[Literal["affine", "refined"], str] = {"affine": "< 0.3", "refined": "< 3"}
"""What each method may take [s]."""


def speed_figures() -> list[Figure]:
    """Time each method takes for a native slice, the mean of three."""
    slices = [one.native for one in moving_slices("typical", SUBJECT)]
    figures = []
    with one_thread():
        for method, target in TARGETS.items():
            least = []
            for series in slices:
                taken = []
                for _ in range(N_REPETITIONS):
                    started = time.process_time()
                    align(series, series.labels, method)
                    taken.append(time.process_time() - started)
                least.append(min(taken))
            n_echoes, *shape = slices[0].echoes.shape
            note = f"{n_echoes} echoes of {shape[0]} x {shape[1]}, one thread, mean of {len(slices)} slices"
            figures.append(Figure(f"{method}: processor time", sum(least) / len(least), "s", target, note))
    return figures


if __name__ == "__main__":
    print_figures("time of an alignment", speed_figures())
