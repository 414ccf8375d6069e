//! COPY: all rows or none, and errors that say where.

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::client::{Server, rows, run};

async fn copy(
    client: &tokio_postgres::Client,
    sql: &str,
    data: &(impl AsRef<[u8]> + ?Sized),
) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(sql).await?;
    let mut sink = std::pin::pin!(sink);
    // In two pieces, so that lines do not end where messages do.
    let data = data.as_ref();
    let (first, second) = data.split_at(data.len() / 2);
    sink.send(Bytes::copy_from_slice(first)).await?;
    sink.send(Bytes::copy_from_slice(second)).await?;
    sink.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_and_csv_are_loaded() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, name text, at date DEFAULT '2024-01-01')",
    )
    .await;
    assert_eq!(
        copy(
            &client,
            "COPY t FROM STDIN",
            "1\ta\\tb\t2020-02-02\n2\t\\N\t\\N\n"
        )
        .await
        .expect("loaded"),
        2
    );
    let csv = "COPY t (name, id) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')";
    assert_eq!(
        copy(&client, csv, "name;id\n\"x;\"\"y\"\"\";3\n;4\n")
            .await
            .expect("loaded"),
        2
    );
    let all = rows(&client, "SELECT * FROM t ORDER BY id").await;
    assert_eq!(
        all,
        [
            "1|a\tb|2020-02-02",
            "2|NULL|NULL",
            "3|x;\"y\"|2024-01-01",
            "4|NULL|2024-01-01"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_row_loads_nothing_and_is_named() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    for (data, state, place) in [
        ("1\t1\n2\tx\n", "22P02", "COPY t, line 2, column n"),
        ("1\t1\n2\n", "22P04", "COPY t, line 2"),
        ("1\t1\t1\n", "22P04", "COPY t, line 1"),
        ("1\t99999999999\n", "22003", "COPY t, line 1, column n"),
    ] {
        let error = copy(&client, "COPY t FROM STDIN", data).await.expect_err(data);
        let error = error.as_db_error().expect("of the server");
        assert_eq!(
            (error.code().code(), error.where_()),
            (state, Some(place)),
            "{data:?}"
        );
    }
    let error = copy(&client, "COPY t FROM STDIN", "1\t1\n1\t2\n")
        .await
        .expect_err("one key twice");
    assert_eq!(error.code().map(|code| code.code()), Some("23505"));
    assert!(rows(&client, "SELECT * FROM t").await.is_empty());
}

/// Binary data: the header, rows of fields, the trailer.
fn binary(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        data.extend_from_slice(&(row.len() as i16).to_be_bytes());
        for field in *row {
            match field {
                Some(bytes) => {
                    data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    data.extend_from_slice(bytes);
                }
                None => data.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
    }
    data.extend_from_slice(&(-1i16).to_be_bytes());
    data
}

const BINARY: &str = "COPY t FROM STDIN (FORMAT binary)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_rows_of_a_driver_are_loaded() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, b bool, f real, name varchar(3), d bytea, at timestamptz)",
    )
    .await;
    let sink = client.copy_in(BINARY).await.expect("it starts");
    let types = [
        Type::INT8,
        Type::BOOL,
        Type::FLOAT4,
        Type::VARCHAR,
        Type::BYTEA,
        Type::TIMESTAMPTZ,
    ];
    let mut writer = std::pin::pin!(BinaryCopyInWriter::new(sink, &types));
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_709_210_096);
    let row: [&(dyn ToSql + Sync); 6] = [&-7i64, &true, &0.5f32, &"\u{e9}t\u{e9}", &vec![0u8, 255], &at];
    writer.as_mut().write(&row).await.expect("a row");
    let nothing: [&(dyn ToSql + Sync); 6] = [
        &8i64,
        &None::<bool>,
        &None::<f32>,
        &None::<&str>,
        &None::<Vec<u8>>,
        &None::<std::time::SystemTime>,
    ];
    writer.as_mut().write(&nothing).await.expect("a row");
    assert_eq!(writer.finish().await.expect("loaded"), 2);
    assert_eq!(
        rows(&client, "SELECT * FROM t ORDER BY id").await,
        [
            "-7|t|0.5|\u{e9}t\u{e9}|\\x00ff|2024-02-29 12:34:56+00",
            "8|NULL|NULL|NULL|NULL|NULL"
        ]
    );
    // Without a trailer an input that ends between rows is whole; named columns get theirs, others their defaults.
    let mut one = binary(&[&[Some(b"abc"), Some(&9i64.to_be_bytes())]]);
    one.truncate(one.len() - 2);
    let named = "COPY t (name, id) FROM STDIN WITH BINARY";
    assert_eq!(copy(&client, named, &one).await.expect("loaded"), 1);
    assert_eq!(
        rows(&client, "SELECT id, name FROM t WHERE id = 9").await,
        ["9|abc"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_binary_data_load_nothing_and_are_named() {
    let server = Server::start().await;
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(3) NOT NULL)",
    )
    .await;
    let one: &[Option<&[u8]>] = &[Some(&[0, 0, 0, 1]), Some(b"a")];
    let good = binary(&[one]);
    let with = |at: usize, byte: u8| {
        let mut data = good.clone();
        data[at] = byte;
        data
    };
    let field = "COPY t, line 2, column id";
    let name = "COPY t, line 2, column name";
    for (data, state, place) in [
        (b"PGCOPY\r\n".to_vec(), "22P04", "COPY t"),
        (with(12, 1), "22P04", "COPY t"),
        (with(11, 1), "22P04", "COPY t"),
        (with(18, 200), "22P04", "COPY t"),
        (good[..13].to_vec(), "22P04", "COPY t"),
        (good[..20].to_vec(), "22P04", "COPY t, line 1"),
        (good[..23].to_vec(), "22P04", "COPY t, line 1, column id"),
        (
            good[..good.len() - 3].to_vec(),
            "22P04",
            "COPY t, line 1, column name",
        ),
        ([good.as_slice(), &[0]].concat(), "22P04", "COPY t, line 2"),
        (with(20, 3), "22P04", "COPY t, line 1"),
        (with(21, 0x80), "22P04", "COPY t, line 1, column id"),
        (binary(&[one, &[Some(&[0, 2]), Some(b"b")]]), "22P03", field),
        (binary(&[one, &[None, Some(b"b")]]), "23502", field),
        (binary(&[one, &[Some(&[0, 0, 0, 2]), None]]), "23502", name),
        (
            binary(&[one, &[Some(&[0, 0, 0, 2]), Some(b"abcd")]]),
            "22001",
            name,
        ),
        (
            binary(&[one, &[Some(&[0, 0, 0, 2]), Some(b"\xff")]]),
            "22021",
            name,
        ),
    ] {
        let error = copy(&client, BINARY, &data).await.expect_err(place);
        let error = error.as_db_error().expect("of the server");
        assert_eq!(
            (error.code().code(), error.where_()),
            (state, Some(place)),
            "{data:?}"
        );
    }
    let twice = copy(&client, BINARY, &binary(&[one, one]))
        .await
        .expect_err("one key twice");
    assert_eq!(twice.code().map(|code| code.code()), Some("23505"));
    assert!(rows(&client, "SELECT * FROM t").await.is_empty());
    assert_eq!(copy(&client, BINARY, &good).await.expect("loaded"), 1);
}
