"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, and give back what it had before.

    A convolution adds in another order on another number of threads, so the last bits of what a network says
    would depend on it; and on small images threads mostly wait, long on a busy machine.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
