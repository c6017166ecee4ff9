"""Rows in Arrow and pandas: stated values, missing ones, and files of other versions of the schema."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import rows
from storage.errors import StorageError
from storage.rows import VERSION_KEY, arrow_schema, arrow_table, conform, pandas_type, schema_version
from storage.schema import SCHEMA_VERSION, TABLES, TEXT, Column
from storage.staging import table_file
from storage.tables import publish, read_table, read_tables
from storage.trial import Trial, open_trial
from tests.storage.drawn_rows import row, visit_row
from tests.storage.drawn_uploads import DEMO_CONFIG


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """Give a trial of two subjects '01' and '02' with one visit each."""
    (tmp_path / "trial.toml").write_bytes(DEMO_CONFIG.read_bytes())
    for subject_id in ("01", "02"):
        publish_flags(tmp_path, subject_id)
    return open_trial(tmp_path)


def publish_flags(root: Path, subject_id: str, visit_id: str = "01") -> None:
    """Publish a visit with two flags."""
    ids = {"subject_id": subject_id, "visit_id": visit_id}
    flags = [row("flags", severity="fail", slice_index=None, **ids), row("flags", severity="review", **ids)]
    rows = {"flags": flags, "slices": [row("slices", **ids)]}
    publish(root, visit_row(**ids), rows, "core lab", "night")


def rewrite(path: Path, without: Iterable[str] = (), version: int | None = None, **values: Any) -> None:
    """Write a file anew as another version would have: plain text, fewer columns, other ones."""
    table = pq.ParquetFile(path).read()
    table = table.select([name for name in table.column_names if name not in set(without)])
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(pa.string()))
    for name, value in values.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    metadata = None if version is None else {VERSION_KEY: str(version)}
    pq.write_table(table.replace_schema_metadata(metadata), path)


STATED = [(table, column) for table, columns in TABLES.items() for column in columns if column.values]


@pytest.mark.parametrize(("table", "column"), STATED, ids=lambda given: getattr(given, "name", given))
def test_a_value_that_is_not_stated_is_refused(table: str, column: Column) -> None:
    """The message names those that are; each of them is taken and comes back as text."""
    expected = f"column {column.name}: found 'other', expected one of {', '.join(column.values)}"
    with pytest.raises(StorageError, match=expected):
        arrow_table(table, [row(table, **{column.name: "other"})])
    written = arrow_table(table, [row(table, **{column.name: value}) for value in column.values])
    assert written[column.name].to_pylist() == list(column.values)
    assert arrow_schema(table).field(column.name).metadata[b"values"].decode() == ", ".join(column.values)


def test_only_text_has_stated_values() -> None:
    """Categories are text in Parquet."""
    assert {column.type for _, column in STATED} == {TEXT}


def test_stated_values_are_ordered_categories(trial: Trial) -> None:
    """All of them, in their order, whatever the rows hold; also without rows."""
    flags = trial.table("flags")
    assert list(flags["severity"].cat.categories) == ["note", "review", "fail"]
    assert flags.sort_values("severity")["severity"].tolist() == ["review"] * 2 + ["fail"] * 2
    assert (flags["severity"] > "review").tolist() == [True, False, True, False]
    assert list(trial.table("scans")["qc_verdict"].cat.categories) == ["pass", "review", "fail"]


def test_types_survive_pandas_on_the_folder(trial: Trial) -> None:
    """Without our code: text stays text, a missing count is no float, categories have all their values."""
    flags = pd.read_parquet(trial.folder / "tables/flags")
    assert flags["subject_id"].tolist() == ["01", "01", "02", "02"]
    assert str(flags["slice_index"].dtype) == "Int64"
    assert flags["slice_index"].isna().tolist() == [True, False, True, False]
    assert list(flags["severity"].cat.categories) == ["note", "review", "fail"]
    longitudinal = pd.read_parquet(trial.folder / "tables/longitudinal")
    assert str(longitudinal["ecv_change_beyond_limit"].dtype) == "boolean"


def test_both_ways_of_reading_give_the_same_types(trial: Trial) -> None:
    """Those that the data dictionary names; with and without rows."""
    for name, columns in TABLES.items():
        for frame in (trial.table(name), pd.read_parquet(trial.folder / "tables" / name)):
            assert {column: str(kind) for column, kind in frame.dtypes.items()} == {
                column.name: pandas_type(column) for column in columns
            }


def test_every_file_says_its_version(trial: Trial) -> None:
    """And its table; a file of the first version said none."""
    for path in (trial.folder / "tables").rglob("*.parquet"):
        metadata = pq.read_schema(path).metadata
        assert metadata[VERSION_KEY].decode() == str(SCHEMA_VERSION)
        assert metadata[b"cmrtrials.table"].decode() == path.relative_to(trial.folder / "tables").parts[0]
        assert "pandas_version" in json.loads(metadata[b"pandas"])
    assert schema_version(pa.table({"x": [1]})) == 1


def test_one_subject_is_read_from_its_folder_alone(trial: Trial) -> None:
    """Another subject's broken file is not even opened; reading all of them names it."""
    broken = table_file(trial.folder, "flags", "02", "01")
    broken.write_bytes(b"no Parquet")
    table_file(trial.folder, "visits", "02", "01").write_bytes(b"no Parquet")
    assert trial.table("flags", "01")["subject_id"].tolist() == ["01", "01"]
    assert pd.read_parquet(trial.folder / "tables/flags/01")["subject_id"].tolist() == ["01", "01"]
    with pytest.raises(StorageError, match="table flags, subject 02, visit 01: cannot be read"):
        trial.table("flags")
    assert trial.table("flags", "03").empty
    assert trial.table("flags", "../flags/01").empty


def test_only_one_subjects_files_are_opened(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the table, one of visits."""
    opened: list[str] = []
    real = pq.ParquetFile

    def spy(path: Path) -> pq.ParquetFile:
        opened.append(path.relative_to(trial.folder / "tables").as_posix())
        return real(path)

    monkeypatch.setattr(pq, "ParquetFile", spy)
    read_table(trial.folder, "flags", "02")
    assert sorted(opened) == ["flags/02/01.parquet", "visits/02/01.parquet"]


def test_a_file_that_cannot_be_opened_is_named(trial: Trial) -> None:
    """A folder stands in its place."""
    path = table_file(trial.folder, "slices", "02", "01")
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="table slices, subject 02, visit 01: cannot be read"):
        read_table(trial.folder, "slices")


def test_an_older_file_without_a_column_has_no_value_in_it(trial: Trial) -> None:
    """As of version 1: plain text, no version; beside files of today, and with columns that are gone."""
    old = table_file(trial.folder, "flags", "01", "01")
    rewrite(old, without=["value", "role", "slice_index"], gone="x")
    flags = trial.table("flags")
    assert flags["value"].isna().tolist() == [True, True, False, False]
    assert flags["role"].tolist()[2:] == ["native", "native"]
    assert flags["role"].isna().tolist() == [True, True, False, False]
    assert str(flags["slice_index"].dtype) == "Int64"
    assert flags["severity"].tolist() == ["fail", "review"] * 2
    assert list(flags["severity"].cat.categories) == ["note", "review", "fail"]
    assert "gone" not in flags


def test_pandas_reads_files_of_both_ages(trial: Trial) -> None:
    """The columns are those of today, though the first visit's file lacks some."""
    rewrite(table_file(trial.folder, "flags", "01", "01"), without=["value", "slice_index"], gone="x")
    flags = pd.read_parquet(trial.folder / "tables/flags")
    assert list(flags.columns) == [column.name for column in TABLES["flags"]]
    assert flags["value"].isna().tolist() == [True, True, False, False]
    assert flags["severity"].tolist() == ["fail", "review"] * 2
    assert set(flags["severity"].cat.categories) == {"note", "review", "fail"}


def test_the_next_publication_gives_the_folder_its_columns_of_today(trial: Trial) -> None:
    """What a former version left as the columns of a table is replaced, and its name is gone."""
    folder = trial.folder / "tables/flags"
    today = (folder / "+columns.parquet").read_bytes()
    rewrite(folder / "+columns.parquet", without=["value"])
    (folder / "+columns.parquet").rename(folder / "columns.parquet")
    publish_flags(trial.folder, "02", "02")
    assert sorted(path.name for path in folder.iterdir()) == ["+columns.parquet", "01", "02"]
    assert (folder / "+columns.parquet").read_bytes() == today


@pytest.mark.parametrize("subject_id", ["0", "00", "A", "a", "9-x", "Z.z"])
def test_the_columns_of_a_table_come_first(tmp_path: Path, subject_id: str) -> None:
    """No subject sorts before them, or pandas would take the columns of an old file."""
    publish_flags(tmp_path, subject_id)
    rewrite(table_file(tmp_path, "flags", subject_id, "01"), without=["value"])
    assert "value" in pd.read_parquet(tmp_path / "tables/flags")


def test_a_value_of_a_former_version_stays(trial: Trial) -> None:
    """It comes after those of today; only what is written is held to them."""
    rewrite(table_file(trial.folder, "flags", "01", "01"), without=["severity"], severity="hint")
    assert list(trial.table("flags")["severity"].cat.categories) == ["note", "review", "fail", "hint"]


def test_an_older_file_without_a_required_column_is_named_with_what_to_run(trial: Trial) -> None:
    """Missing values must not be taken for values; other tables and subjects are read as before."""
    rewrite(table_file(trial.folder, "slices", "01", "01"), without=["qc_verdict"])
    expected = (
        "table slices, subject 01, visit 01: written by schema version 1, without column qc_verdict, which "
        "every row has now; run `cmrtrials rerun ROOT --subject 01 --visit 01`"
    )
    with pytest.raises(StorageError) as raised:
        trial.table("slices")
    assert str(raised.value) == expected
    assert len(trial.table("slices", "02")) == 1
    assert len(trial.table("flags")) == 4


def test_running_an_old_visit_again_renews_its_files(trial: Trial) -> None:
    """Though its numbers are the same; the file as it was moves to history."""
    for name in ("slices", "visits"):
        rewrite(table_file(trial.folder, name, "01", "01"), without=["qc_verdict", "run_id"])
    publish_flags(trial.folder, "01")
    assert trial.table("slices")["qc_verdict"].tolist() == ["pass", "pass"]
    assert (trial.folder / "history/01/01/1/slices.parquet").exists()
    publish_flags(trial.folder, "01")
    assert not (trial.folder / "history/01/01/2").exists()


def test_a_file_of_a_later_version_is_refused(trial: Trial) -> None:
    """Its columns may mean something else."""
    rewrite(table_file(trial.folder, "slices", "01", "01"), version=SCHEMA_VERSION + 1)
    with pytest.raises(StorageError, match=f"schema version {SCHEMA_VERSION + 1}, this cmrtrials knows"):
        trial.table("slices")


def test_a_column_that_no_longer_fits_is_named() -> None:
    """A text where numbers are expected now."""
    table = pa.table({**{name: ["x"] for name in ("code", "message")}, "value": ["high"]})
    with pytest.raises(StorageError, match=r"flags, subject 01, visit V1.*without column subject_id"):
        conform("flags", table, "01", "V1")
    told = {column.name: [row("flags")[column.name]] for column in TABLES["flags"]}
    with pytest.raises(StorageError, match="column value: found string, expected double"):
        conform("flags", pa.table({**told, "value": ["high"]}), "01", "V1")


def test_a_new_column_of_visits_is_not_required() -> None:
    """A night reads the table before it can renew it: with a required one, no old trial could run again."""
    required = {column.name for column in TABLES["visits"] if column.required}
    assert required == {
        *("subject_id", "visit_id", "site_id", "visit_date", "state", "published_at"),
        *("upload_ids", "upload_digests", "upload_fingerprints"),
    }


def test_several_tables_are_read_as_of_one_moment(trial: Trial) -> None:
    """In the order they are asked for, without rows of results that are not published."""
    tables = read_tables(trial.folder, ["slices", "flags"])
    assert {name: table.num_rows for name, table in tables.items()} == {"slices": 2, "flags": 4}
    rewrite(table_file(trial.folder, "flags", "01", "01"), without=["result_digest"], result_digest="other")
    assert read_table(trial.folder, "flags")["subject_id"].to_pylist() == ["02", "02"]


def test_tables_without_rows_have_their_columns(tmp_path: Path) -> None:
    """Before the first night."""
    assert read_tables(tmp_path, ["scans"])["scans"].schema == arrow_schema("scans")
    assert rows.table_columns("scans") is TABLES["scans"]
