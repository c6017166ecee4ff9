"""The canonical line, and the peak memory that it tells."""

import pytest

from tasks.canonical import canonical_line, forget_peak_memory, peak_memory_mib


def test_a_line_names_everything_in_one_order() -> None:
    """What is not known is a dash, so that every line has the same words."""
    known = canonical_line(
        trial="demo",
        subject="S01",
        visit="V2",
        stage="quantify",
        state="executed",
        run="r-1",
        seconds=12.3456,
        peak_memory_mib=511.6,
        verdict="pass",
        device="cuda:0",
    )
    assert known == (
        "trial=demo subject=S01 visit=V2 stage=quantify state=executed seconds=12.35 peak_memory_mib=512 "
        "verdict=pass device=cuda:0 run=r-1"
    )
    unknown = canonical_line(
        trial="demo", subject="S01", visit=None, stage="summarise", state="crashed", run="r-1"
    )
    assert unknown == (
        "trial=demo subject=S01 visit=- stage=summarise state=crashed seconds=- peak_memory_mib=- "
        "verdict=- device=- run=r-1"
    )


def test_peak_memory_counts_from_when_it_was_forgotten() -> None:
    """What an earlier stage held is not the next one's."""
    forget_peak_memory()
    before = peak_memory_mib()
    assert before is not None
    block = bytearray(b"1") * (256 * 2**20)  # written, so that it is held
    held = peak_memory_mib()
    assert held is not None
    assert held - before == pytest.approx(256, abs=16)
    del block
    released = peak_memory_mib()
    assert released is not None
    assert released == pytest.approx(held, abs=16)
    forget_peak_memory()
    after = peak_memory_mib()
    assert after is not None
    assert after < before + 64
