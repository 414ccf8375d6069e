//! The readers: every format gives the same rows from every row on, and names what is wrong.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tributary_planner::parse;

use super::{Format, Rows, Settings, complete};

const ROWS_PER_FILE: i64 = 23;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let name = |id: i64| (id % 4 != 0).then(|| format!("name {id}"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(StringArray::from_iter(ids.clone().map(name))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            ids.map(|id| id * 1_000_000),
        )),
    ];
    RecordBatch::try_new(schema(), columns).expect("three columns")
}

fn write(path: &Path, format: Format, ids: std::ops::Range<i64>) {
    let file = File::create(path).expect("a file");
    let rows = batch(ids);
    match format {
        Format::Parquet => {
            let groups = WriterProperties::builder()
                .set_max_row_group_row_count(Some(10))
                .build();
            let mut writer = ArrowWriter::try_new(file, schema(), Some(groups)).expect("a writer");
            writer.write(&rows).expect("written");
            writer.close().expect("closed");
        }
        Format::Arrow => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &schema()).expect("a writer");
            writer.write(&rows.slice(0, 9)).expect("written");
            writer
                .write(&rows.slice(9, rows.num_rows() - 9))
                .expect("written");
            writer.finish().expect("finished");
        }
        Format::Csv => {
            let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(file);
            writer.write(&rows).expect("written");
        }
        Format::Ndjson => {
            let mut writer = arrow_json::LineDelimitedWriter::new(file);
            writer.write(&rows).expect("written");
            writer.finish().expect("finished");
        }
    }
}

fn settings(directory: &Path, format: Format) -> Settings {
    Settings {
        pattern: directory.join("f-*").display().to_string(),
        format,
        columns: schema(),
        header: true,
        order_by: Some(0),
        follow: false,
        rate: None,
        batch_rows: 8,
        latency: None,
    }
}

/// All rows from `from` on, as one batch, and the digest at the end.
fn read(settings: &Settings, from: u64) -> Result<(RecordBatch, u64), String> {
    let mut rows = Rows::open(settings.clone(), from)?;
    let mut batches = Vec::new();
    while let Some(piece) = rows.next_piece(5)? {
        batches.push(piece.rows);
    }
    let all = arrow::compute::concat_batches(&settings.columns, &batches).expect("one schema");
    Ok((all, rows.mark()))
}

#[test]
fn every_format_goes_on_at_every_row() {
    for format in [Format::Parquet, Format::Arrow, Format::Csv, Format::Ndjson] {
        let directory = tempfile::tempdir().expect("a directory");
        for file in 0..3 {
            let from = file * ROWS_PER_FILE;
            write(
                &directory.path().join(format!("f-{file}")),
                format,
                from..from + ROWS_PER_FILE,
            );
        }
        let settings = settings(directory.path(), format);
        let total = 3 * ROWS_PER_FILE;
        let (_, mark) = read(&settings, 0).expect("readable");
        for from in 0..=total {
            let (rows, end) = read(&settings, from as u64).expect("readable");
            assert_eq!(rows, batch(from..total), "{format:?} from {from}");
            assert_eq!(end, mark, "{format:?} from {from}");
        }
        let error = read(&settings, total as u64 + 1).expect_err("there are not that many");
        assert!(error.contains("holds only 69"), "{error}");
    }
}

#[test]
fn a_file_that_was_rewritten_has_another_mark() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("f-0");
    write(&path, Format::Csv, 0..10);
    let settings = settings(directory.path(), Format::Csv);
    let (_, before) = read(&settings, 0).expect("readable");
    write(&path, Format::Csv, 1..11);
    let (_, after) = read(&settings, 0).expect("readable");
    assert_ne!(before, after);
}

#[test]
fn malformed_rows_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("f-0");
    write(&path, Format::Csv, 0..20);
    let mut file = File::options().append(true).open(&path).expect("a file");
    writeln!(file, "20,a,1970-01-01T00:00:20\nx,b,1970-01-01T00:00:21").expect("written");
    let error = read(&settings(directory.path(), Format::Csv), 0).expect_err("x is no number");
    assert!(error.contains("f-0: row 22:"), "{error}");

    let path = directory.path().join("f-0");
    write(&path, Format::Ndjson, 0..20);
    let mut file = File::options().append(true).open(&path).expect("a file");
    writeln!(file, "{{\"id\": 20}}\n{{\"id\": \"x\"}}").expect("written");
    let error = read(&settings(directory.path(), Format::Ndjson), 0).expect_err("x is no number");
    assert!(error.contains("f-0: row 22:"), "{error}");
}

#[test]
fn rows_out_of_order_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("f-0");
    let mut file = File::create(&path).expect("a file");
    writeln!(file, "id,name,at").expect("written");
    for id in (0..11).chain(5..9) {
        writeln!(file, "{id},,").expect("written");
    }
    let error = read(&settings(directory.path(), Format::Csv), 0).expect_err("5 comes after 10");
    assert!(error.contains("f-0: row 12 is less in \"id\""), "{error}");
}

#[test]
fn columns_of_other_types_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("f-0"), Format::Parquet, 0..10);
    let mut settings = settings(directory.path(), Format::Parquet);
    settings.order_by = None;
    settings.columns = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    let error = read(&settings, 0).expect_err("another type");
    assert!(error.contains("column \"id\" is of type Int64"), "{error}");
    settings.columns = Arc::new(Schema::new(vec![Field::new("other", DataType::Int32, true)]));
    let error = read(&settings, 0).expect_err("no such column");
    assert!(error.contains("no column \"other\""), "{error}");
    settings.columns = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    let (rows, _) = read(&settings, 8).expect("a part of the columns");
    assert_eq!((rows.num_rows(), rows.num_columns()), (2, 1));
}

#[test]
fn statements_are_completed_where_the_files_are() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("f-0"), Format::Parquet, 0..10);
    let pattern = directory.path().join("f-*").display().to_string();
    let sql = format!("CREATE SOURCE s WITH (connector = 'file', path = '{pattern}', format = 'parquet')");
    let completed = complete(sql, "eu").expect("the file is there");
    assert!(
        completed.contains("(\"id\" bigint, \"name\" text, \"at\" timestamp without time zone)"),
        "{completed}"
    );
    assert!(completed.contains("\"region\" = 'eu'"), "{completed}");
    parse::parse(&completed).expect("it parses");
    let other = "CREATE TABLE t (id INT)".to_owned();
    assert_eq!(complete(other.clone(), "eu").expect("untouched"), other);
}
