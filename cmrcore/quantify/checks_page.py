"""The table of checks as a page: ``python -m cmrcore.quantify.checks_page > cmrcore/quantify/CHECKS.md``."""

import sys

from cmrcore.quantify.checks import CHECKS, Check

_HEAD = """# Checks

Made from `checks.py` by `python -m cmrcore.quantify.checks_page`; a test holds it up to date.

A raised check is a row of the table `flags`. Its severity decides about the verdict (`qc_verdict`; the
codes that it rests on are in `qc_reasons`):

- `note`: to know; does not count. The rules of S1 about R2 are notes: at the noise of a usual scan most
  slices break them, sound ones too.
- `review`: look at the images and masks; the numbers are published and averaged.
- `fail`: do not use the numbers. The slice keeps its row; its role leaves the scan's means and ECV, and so
  does the ECV of slices that its blood would have served. `n_slices_used_native`, `n_slices_used_post` and
  `n_slices_used_ecv` count what is left.

A reader's decision (`cmrtrials review`) about a slice of one series is honored by the next night, and holds
while images and masks of that slice are those that the reader saw. `exclude` and `repeat` fail the slice.
`accept` makes a `note` of each kind of `review` flag that stood about the slice when the reader decided (one
about both series needs both accepted), whatever its value is later; it overrides no `fail`, whose numbers
stay out, and no flag about the whole scan. With a guide to be redrawn nothing is accepted.

A slice's verdict is the worst of the flags about it. A scan fails where a check of the whole scan says so;
a slice that failed, and was left out, makes it a `review`. A visit has the verdict of its scan, checks
against the baseline included, and is `flagged` where that is not `pass`: a failed check is no failed visit.

Limits are keys of `[quantify.qc]` in trial.toml unless a section stands before them; `tissue_*` is the
section of the scan's field strength (what either allows, where that is unknown; none at a field strength
over 0.3 T from both, see `field_strength_without_limits`). Those of
`deploy/trials/demo.toml` were set on development seeds of the digital trial, see
`tests/benchmarks/verdicts.py`: look at the first scans of a trial's own scanners before they are trusted.

| code | what it means | severity | limits in trial.toml | unit |
| --- | --- | --- | --- | --- |
"""


def checks_page() -> str:
    """Markdown page of all checks."""
    return _HEAD + "".join(_row(code, check) for code, check in CHECKS.items())


def _row(code: str, check: Check) -> str:
    limits = ", ".join(f"`{key}`" for key in check.limits)
    meaning = check.meaning.replace("|", "\\|")
    return f"| `{code}` | {meaning} | {check.severity} | {limits} | {check.unit or ''} |\n"


if __name__ == "__main__":
    sys.stdout.write(checks_page())
