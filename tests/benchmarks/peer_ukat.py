"""Time ukat's MOLLI fit; runs in the peer's own environment, which has neither torch nor this project."""

import importlib
import importlib.util
import json
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np


def _t1_class() -> type:
    """Import ukat's T1 class without the rest of ukat, which needs dipy and a TensorFlow."""
    spec = importlib.util.find_spec("ukat")
    if spec is None or spec.submodule_search_locations is None:
        message = "ukat is not installed"
        raise ImportError(message)
    root = next(iter(spec.submodule_search_locations))
    for name, folder in (("ukat", root), ("ukat.mapping", f"{root}/mapping")):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    return importlib.import_module("ukat.mapping.t1").T1  # type: ignore[no-any-return]


def main(path: str, result: str) -> None:
    """Write the seconds of a fit in one process and in ukat's pool to a JSON file."""
    warnings.simplefilter("ignore")
    data = np.load(path)
    fit = _t1_class()
    seconds = {}
    for name, multithread in (("one", False), ("pool", True)):
        start = time.perf_counter()
        fit(
            data["curves"][:, None, :],
            data["ti_ms"],
            np.eye(4),
            tss_axis=None,
            parameters=3,
            molli=True,
            multithread=multithread,
        )
        seconds[name] = time.perf_counter() - start
    Path(result).write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:3])
