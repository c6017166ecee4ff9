"""The nightly flow with stub stages, importable by the process of a served run."""

from typing import Any

from prefect import flow

import flows.night
import flows.night_pages
import flows.summaries
from flows.nightly import nightly as real_nightly
from flows.reconcile import tells_its_end
from flows.site import dask_task_runner
from tests.benchmarks import stub_stages

for _module, _names in (
    (flows.night, ("intake", "segment", "quantify")),
    (flows.summaries, ("summarise",)),
    (flows.night_pages, ("report",)),
):
    for _name in _names:
        setattr(_module, _name, getattr(stub_stages, _name))


@tells_its_end
@flow(name="nightly", task_runner=dask_task_runner(), persist_result=False)
def nightly(root: str) -> Any:  # noqa: ANN401 (as the real one)
    """Process what is new in a trial, as the real night does."""
    return real_nightly.fn(root)
