"""A reader's numbers: what is taken, and what is refused by row and column."""

from pathlib import Path

import pytest

from storage.errors import NotStoredError, ReaderTableError
from storage.reader_table import read_reader_table


def written(folder: Path, text: str) -> Path:
    """Write a table."""
    path = folder / "reader.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_whole_scans_need_no_place(tmp_path: Path) -> None:
    """Ids stay text, an empty cell is no value, empty rows of a spreadsheet are nothing."""
    text = "\ufeffsubject_id,visit_id,ecv_fraction,t1_native_ms\n01,V1,0.42,1100\n01,V2,,1090.5\n,,,\n"
    first, second = read_reader_table(written(tmp_path, text))
    assert (first.subject_id, first.visit_id, first.level, first.row_number) == ("01", "V1", "global", 2)
    assert first.values == {"t1_native_ms": 1100.0, "ecv_fraction": 0.42}
    assert second.values == {"t1_native_ms": 1090.5, "ecv_fraction": None}


@pytest.mark.parametrize("cell", ["NA", "NaN", "nan", " NA "])
def test_what_r_and_pandas_write_for_no_number_is_none(tmp_path: Path, cell: str) -> None:
    """Their tables are taken as they come; in an id such letters stay a name."""
    text = f"subject_id,visit_id,ecv_fraction,t1_native_ms\nNA,V1,{cell},1100\nS02,V1,0.3,{cell}\n"
    first, second = read_reader_table(written(tmp_path, text))
    assert (first.subject_id, first.values["ecv_fraction"], second.values["t1_native_ms"]) == (
        "NA",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("column", "cell", "place"),
    [
        ("level", "septal", ("septal", None, None)),
        ("slice_index", "2", (None, 2, None)),
        ("aha_segment", "16", (None, None, 16)),
    ],
)
def test_a_table_may_be_about_parts_of_the_heart(
    tmp_path: Path, column: str, cell: str, place: tuple[str | None, int | None, int | None]
) -> None:
    """One kind of place a table."""
    (row,) = read_reader_table(
        written(tmp_path, f"subject_id,visit_id,{column},t1_post_ms\nS01,V1,{cell},450\n")
    )
    assert (row.level, row.slice_index, row.aha_segment) == place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject_id,visit_id\nS01,V1\n", "row 1: no column with numbers, expected any of t1_native_ms"),
        ("subject_id,ecv_fraction\nS01,0.4\n", "row 1: column visit_id is missing"),
        ("subject_id,visit_id,ecv,ecv_fraction\nS01,V1,1,0.4\n", "row 1: column 3 has an unknown name"),
        ("subject_id;visit_id;ecv_fraction\nS01;V1;0.4\n", "separated by semicolons, expected commas"),
        (
            "subject_id,visit_id,level,aha_segment,ecv_fraction\nS01,V1,mid,8,0.4\n",
            "level and aha_segment: a table has one of them",
        ),
        ("subject_id,visit_id,ecv_fraction,ecv_fraction\nS01,V1,0.4,0.4\n", "ecv_fraction is there twice"),
        ("subject_id,visit_id,ecv_fraction\nS01,V1,42\n", "row 2: ecv_fraction: looks like percent"),
        ("subject_id,visit_id,ecv_fraction\nS01,V1,-0.1\n", "row 2: ecv_fraction: is not between 0 and 1"),
        ("subject_id,visit_id,ecv_fraction\nS01,V1,0.4,7\n", "row 2: has another number of cells"),
        (
            "subject_id,visit_id,t1_native_ms\nS01,V1,1.1\n",
            "t1_native_ms: is not between 50 and 5000, so no T1",
        ),
        (
            'subject_id,visit_id,t1_native_ms\nS01,V1,"1,1"\n',
            "t1_native_ms: is no number with a decimal point",
        ),
        ("subject_id,visit_id,t1_native_ms\n,V1,1100\n", "row 2: subject_id: is empty"),
        (
            "subject_id,visit_id,level,t1_native_ms\nS01,V1,base,1100\n",
            "row 2: level: expected one of global",
        ),
        ("subject_id,visit_id,aha_segment,t1_native_ms\nS01,V1,17,1100\n", "aha_segment: is no whole number"),
        (
            "subject_id,visit_id,ecv_fraction\nS01,V1,0.4\nS02,V1,0.4\nS01,V1,0.5\n",
            "row 4: says the same place again as row 2",
        ),
        ("subject_id,visit_id,ecv_fraction\n", "a header and no rows"),
        ('subject_id,visit_id,ecv_fraction\nS01,V1,"0.4\n', "is no CSV in UTF-8"),
    ],
)
def test_what_cannot_be_trusted_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """By row and column."""
    with pytest.raises(ReaderTableError, match=message):
        read_reader_table(written(tmp_path, text))


def test_all_errors_are_told_at_once_and_without_the_cells(tmp_path: Path) -> None:
    """A name that was typed into the table must not reach a log."""
    text = "subject_id,visit_id,ecv_fraction\nS01,V1,Jane Doe\nS02,V1,41\n"
    with pytest.raises(ReaderTableError) as caught:
        read_reader_table(written(tmp_path, text))
    assert "row 2" in str(caught.value)
    assert "row 3" in str(caught.value)
    assert "Jane" not in str(caught.value)


def test_a_file_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    """The second argument is either a folder or a table."""
    with pytest.raises(NotStoredError, match="name the second trial's folder, or a reader's table"):
        read_reader_table(tmp_path / "nothing.csv")
