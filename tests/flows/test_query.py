"""Questions in SQL: what they see, and what they cannot do."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from flows.errors import QueryError
from flows.query import parse_outside, run_query
from storage.errors import StorageError
from storage.schema import TABLES
from storage.staging import table_file
from tests.flows.published import publish_small_trial
from tests.flows.trials import Cmrtrials, snapshot


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a published trial."""
    root = tmp_path_factory.mktemp("query") / "trial"
    publish_small_trial(root)
    return root


def test_every_table_is_there(root: Path) -> None:
    """With its columns, whether the question names it or not."""
    _, rows = run_query(root, "SHOW TABLES")
    assert {row[0] for row in rows} == set(TABLES)
    for name, columns in TABLES.items():
        assert run_query(root, f"FROM {name.upper()}")[0] == [column.name for column in columns]
    counts = {name: run_query(root, f"SELECT count(*) FROM {name}")[1][0][0] for name in TABLES}
    assert counts == {
        **{"scans": 8, "slices": 24, "segments": 24, "echoes": 0, "flags": 2, "longitudinal": 0},
        "reviews": 0,
        "visits": 10,
    }


def test_ids_are_text(root: Path) -> None:
    """Whatever they look like; categories compare as text."""
    _, rows = run_query(
        root,
        "SELECT subject_id || '!', typeof(site_id) FROM scans WHERE qc_verdict = 'fail' OR qc_verdict = '?'",
    )
    assert rows == [("02!", "VARCHAR")]


def test_the_last_of_several_statements_answers(root: Path) -> None:
    """The ones before it may prepare something, in memory."""
    sql = "CREATE TABLE bad AS FROM scans WHERE qc_verdict = 'fail'; SELECT count(*) AS n FROM bad"
    assert run_query(root, sql) == (["n"], [(1,)])


@pytest.mark.parametrize(
    "sql",
    [
        "COPY scans TO '{file}'",
        "COPY (PIVOT scans ON qc_verdict USING count(*)) TO '{file}'",
        "EXPLAIN ANALYZE COPY scans TO '{file}'",
        "EXPORT DATABASE '{file}'",
        "ATTACH '{file}'",
        "SET enable_external_access = true; COPY scans TO '{file}'",
        "SELECT * FROM read_csv('{plan}')",
        "SELECT * FROM read_text('{plan}')",
        "FROM '{plan}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "DELETE FROM scans",
        "INSERT INTO flags FROM flags",
        "SELECT * FROM tables",
        "SELECT count(",
        "-- nothing",
    ],
)
def test_a_question_reads_the_tables_and_nothing_else(root: Path, tmp_path: Path, sql: str) -> None:
    """No file is opened or written, nothing loaded; local variables are no tables."""
    before = snapshot(root)
    with pytest.raises(QueryError):
        run_query(root, sql.format(file=tmp_path / "out", plan=root / "subjects.csv"))
    assert not list(tmp_path.iterdir())
    assert snapshot(root) == before


def test_a_value_that_cannot_be_converted_is_a_clear_error(root: Path) -> None:
    """It shows up while rows are fetched."""
    with pytest.raises(QueryError, match="Conversion Error"):
        run_query(root, "SELECT scanner_model::INTEGER FROM scans")


def test_outside_tables_keep_ids_as_text(root: Path, tmp_path: Path) -> None:
    """From CSV, where '01' looks like a number and NA like nothing, and from Parquet."""
    (tmp_path / "arms.csv").write_text("subject_id,arm,age\n01,NA,61\n02,B,\n")
    sql = (
        "SELECT subject_id, arm, age FROM scans JOIN arms USING (subject_id) WHERE visit_id = 'BL' ORDER BY 1"
    )
    assert run_query(root, sql, {"arms": tmp_path / "arms.csv"})[1] == [("01", "NA", 61.0), ("02", "B", None)]
    pd.DataFrame({"subject_id": ["01"], "arm": ["A"], "age": [3]}).to_parquet(tmp_path / "arms.parquet")
    assert run_query(root, sql, {"arms": tmp_path / "arms.parquet"})[1] == [("01", "A", 3)]


def test_padded_numbers_and_ids_in_any_case_are_text(root: Path, tmp_path: Path) -> None:
    """A participant '007' is not 7."""
    file = tmp_path / "arms.csv"
    file.write_text("Subject_ID,participant,age\n01,007,61\n02,010,58\n")
    _, rows = run_query(root, "select * from arms order by age", {"arms": file})
    assert rows == [("02", "010", 58), ("01", "007", 61)]


def test_rows_of_another_length_are_refused(root: Path, tmp_path: Path) -> None:
    """With a comma at each row's end pandas takes ids for an index, and shifts all columns."""
    file = tmp_path / "arms.csv"
    file.write_text("subject_id,visit_id,arm\nS01,V1,A,\n")
    with pytest.raises(QueryError, match="row 2 has 4 cells, the header 3"):
        run_query(root, "select * from arms", {"arms": file})


@pytest.mark.parametrize(
    ("name", "contents"),
    [("none.csv", None), ("bad.parquet", b"x"), ("empty.csv", b""), ("raw.csv", b"\xff\xfe,")],
)
def test_an_outside_table_that_cannot_be_read_is_named(
    root: Path, tmp_path: Path, name: str, contents: bytes | None
) -> None:
    """With what was expected."""
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(QueryError, match=f"table other from .*{name}: .*; expected a CSV or Parquet file"):
        run_query(root, "FROM other", {"other": tmp_path / name})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["arms"], "expected NAME=FILE"),
        (["arms="], "expected NAME=FILE"),
        (["a b=x.csv"], "a name of letters, digits and _"),
        (["1=x.csv"], "a name of letters, digits and _"),
        (["Scans=x.csv"], "there is a table Scans already"),
        (["a=x.csv", "A=y.csv"], "there is a table A already"),
    ],
)
def test_an_outside_table_has_a_name_of_its_own(texts: list[str], message: str) -> None:
    """None of the trial's."""
    with pytest.raises(QueryError, match=message):
        parse_outside(texts)


def test_an_outside_table_may_have_any_path() -> None:
    """Also one with the sign in it that ends its name."""
    assert parse_outside(["a=x=1.csv", "_b2=y z"]) == {"a": Path("x=1.csv"), "_b2": Path("y z")}


def test_files_of_two_ages_are_one_table(root: Path, tmp_path: Path) -> None:
    """A column that one of them lacks is NULL in its rows."""
    copy = Path(shutil.copytree(root, tmp_path / "trial"))
    path = table_file(copy, "scans", "01", "BL")
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["n_slices"]).replace_schema_metadata(None), path)
    sql = "SELECT count(*), count(n_slices), count(*) FILTER (qc_verdict = 'pass') FROM scans"
    assert run_query(copy, sql)[1] == [(8, 7, 7)]


def test_a_broken_table_is_named_where_it_is_asked_for(root: Path, tmp_path: Path) -> None:
    """Other questions are answered."""
    copy = Path(shutil.copytree(root, tmp_path / "trial"))
    table_file(copy, "scans", "01", "BL").write_bytes(b"x")
    with pytest.raises(StorageError, match="table scans, subject 01, visit BL: cannot be read"):
        run_query(copy, "SELECT count(*) FROM scans")
    assert run_query(copy, "SELECT count(*) FROM flags")[1] == [(2,)]


def test_the_command_joins_an_outside_table_and_prints_csv(
    root: Path, tmp_path: Path, cmrtrials: Cmrtrials
) -> None:
    """Ids come out as they are; a reader that is told so keeps them."""
    (tmp_path / "arms.csv").write_text("subject_id,arm\n01,A\n")
    sql = "SELECT subject_id, arm, ecv_fraction FROM scans JOIN arms USING (subject_id) ORDER BY ALL"
    answer = cmrtrials("query", root, sql, "--with", f"arms={tmp_path / 'arms.csv'}")
    assert answer.stdout.splitlines() == ["subject_id,arm,ecv_fraction", "01,A,0.28", "01,A,0.3", "01,A,0.31"]
    frame = pd.read_csv(io.StringIO(answer.stdout), dtype={"subject_id": str})
    assert frame["subject_id"].tolist() == ["01"] * 3
    refused = cmrtrials("query", root, sql, "--with", "scans=x")
    assert (refused.returncode, "there is a table scans already" in refused.stderr) == (2, True)
