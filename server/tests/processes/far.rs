//! Rows of other regions, read and written from everywhere.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tributary_server::demo::Cluster;
use tributary_server::far::forward::{Errand, ForwardReply, ForwardRequest};
use tributary_server::links::PeerClient;
use tributary_server::pgwire::error::SqlError;

use crate::running::{BINARY, rows, run, wait_for_rows};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];

/// Three regions with a REGIONAL table of three rows in each, of which one has the same key everywhere.
async fn with_orders() -> (Cluster, Vec<Client>) {
    let mut cluster = Cluster::spawn(Path::new(BINARY), &["us", "eu", "ap"])
        .await
        .expect("three processes");
    cluster.wait_ready().await.expect("they find each other");
    let us = cluster.connect("us").await.expect("us answers");
    run(&us, "CREATE TABLE orders (id int PRIMARY KEY, note text)").await;
    run(
        &us,
        "CREATE TABLE kind (id int PRIMARY KEY, name text) LOCALITY GLOBAL",
    )
    .await;
    run(
        &us,
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n, sum(id) AS total FROM orders",
    )
    .await;
    run(&us, "INSERT INTO kind VALUES (1, 'one'), (2, 'two')").await;
    let mut clients = Vec::new();
    for (number, region) in REGIONS.iter().enumerate() {
        let client = cluster.connect(region).await.expect("the region answers");
        wait_for_rows(&client, "SELECT count(*) FROM kind", &["2".to_owned()]).await;
        let base = 10 * (number + 1);
        run(
            &client,
            &format!(
                "INSERT INTO orders VALUES (1, '{region}'), ({base}, 'a'), ({}, 'b')",
                base + 1
            ),
        )
        .await;
        clients.push(client);
    }
    for client in &clients {
        wait_for_rows(client, "SELECT n, total FROM n", &["9|126".to_owned()]).await;
    }
    (cluster, clients)
}

fn code(error: &tokio_postgres::Error) -> (SqlState, String) {
    let error = error.as_db_error().expect("an answer of the server");
    (error.code().clone(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regional_table_shows_the_rows_of_all_regions_everywhere() {
    let (cluster, clients) = with_orders().await;
    for client in &clients {
        let expect =
            async |sql: &str, expected: &[&str]| assert_eq!(rows(client, sql).await, expected, "{sql}");
        expect("SELECT count(*), sum(id) FROM orders", &["9|126"]).await;
        expect(
            "SELECT note FROM orders WHERE id = 1 ORDER BY note",
            &["ap", "eu", "us"],
        )
        .await;
        expect(
            "SELECT tributary_region, id FROM orders WHERE note = 'b' AND id > 15 ORDER BY id",
            &["eu|21", "us|31"],
        )
        .await;
        expect(
            "SELECT id FROM orders WHERE tributary_region = 'eu' ORDER BY id",
            &["1", "20", "21"],
        )
        .await;
        expect("SELECT count(*) FROM (SELECT id FROM orders LIMIT 7) few", &["7"]).await;
        expect(
            "SELECT id FROM orders WHERE note LIKE 'u%' OR id IN (10, 31) ORDER BY id",
            &["1", "10", "31"],
        )
        .await;
        expect(
            "SELECT k.name, count(*) FROM orders o JOIN kind k ON k.id = o.id GROUP BY k.name",
            &["one|3"],
        )
        .await;
        expect(
            "SELECT count(*) FROM orders a JOIN orders b ON a.id = b.id",
            &["15"],
        )
        .await;
        run(client, "SET regional_reads = 'local'").await;
        expect("SELECT count(*) FROM orders", &["3"]).await;
        run(client, "SET regional_reads = 'global'").await;
    }
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn far_rows_and_views_of_one_transaction_are_of_one_moment_while_all_regions_write() {
    let (cluster, clients) = with_orders().await;
    let writers: Vec<_> = REGIONS
        .iter()
        .map(|region| {
            let connecting = cluster.connect(region);
            async move {
                let client = connecting.await.expect("the region answers");
                for id in 100..400 {
                    run(&client, &format!("INSERT INTO orders VALUES ({id}, 'w')")).await;
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            }
        })
        .collect();
    let reader = async {
        let mut compared = 0;
        let mut seen = String::new();
        while compared < 60 {
            run(&clients[0], "BEGIN").await;
            let view = rows(&clients[0], "SELECT n, total FROM n").await;
            let table = rows(&clients[0], "SELECT count(*), sum(id) FROM orders").await;
            run(&clients[0], "COMMIT").await;
            assert_eq!(view, table);
            compared += usize::from(view[0] != seen);
            seen.clone_from(&view[0]);
        }
    };
    tokio::join!(futures::future::join_all(writers), async {
        tokio::time::timeout(Duration::from_secs(30), reader)
            .await
            .expect("it sees changes");
    });
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_cannot_be_reached_is_named_and_an_old_version_is_gone() {
    let (cluster, clients) = with_orders().await;
    let (ap, us) = (&clients[0], &clients[2]);
    cluster.set_cut("eu", true);
    let refused = ap
        .simple_query("SELECT count(*) FROM orders")
        .await
        .expect_err("eu is cut off");
    let (state, message) = code(&refused);
    assert_eq!(state, SqlState::CANNOT_CONNECT_NOW);
    assert!(message.contains("\"eu\""), "{message}");
    let near = "SELECT count(*) FROM orders WHERE tributary_region IN ('ap', 'us')";
    assert_eq!(rows(ap, near).await, ["6"]);
    assert_eq!(rows(ap, "SELECT n FROM n").await, ["9"], "views go on");
    cluster.set_cut("eu", false);
    wait_for_rows(ap, "SELECT count(*) FROM kind", &["2".to_owned()]).await;
    for _ in 0..100 {
        if ap.simple_query("SELECT count(*) FROM orders").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A transaction reads its own moment for a while, and then is told.
    run(ap, "BEGIN").await;
    assert_eq!(rows(ap, "SELECT count(*) FROM orders").await, ["9"]);
    run(us, "INSERT INTO orders VALUES (99, 'new')").await;
    wait_for_rows(us, "SELECT n FROM n", &["10".to_owned()]).await;
    assert_eq!(
        rows(ap, "SELECT count(*) FROM orders").await,
        ["9"],
        "of the same moment"
    );
    let mut told = None;
    for id in 0..100 {
        run(us, &format!("INSERT INTO orders VALUES ({}, 'more')", 1000 + id)).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        match ap.simple_query("SELECT count(*) FROM orders").await {
            Ok(_) => {}
            Err(error) => {
                told = Some(code(&error));
                break;
            }
        }
    }
    let (state, message) = told.expect("versions are not kept for ever");
    assert_eq!(state, SqlState::T_R_SERIALIZATION_FAILURE, "{message}");
    run(ap, "ROLLBACK").await;
    assert!(
        rows(ap, "SELECT count(*) FROM orders").await[0]
            .parse::<u32>()
            .is_ok_and(|count| count > 10)
    );
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_pins_another_region_writes_there_once() {
    let (mut cluster, clients) = with_orders().await;
    let (ap, eu, us) = (&clients[0], &clients[1], &clients[2]);
    let changed = ap
        .execute(
            "UPDATE orders SET note = 'x' WHERE tributary_region = 'eu' AND id >= 20",
            &[],
        )
        .await;
    assert_eq!(changed.expect("eu writes"), 2);
    let read = "SELECT id, note FROM orders WHERE tributary_region = 'eu' ORDER BY id";
    let expected = ["1|eu", "20|x", "21|x"];
    assert_eq!(rows(ap, read).await, expected, "who wrote reads it");
    assert_eq!(rows(eu, read).await, expected);
    let gone = "DELETE FROM orders WHERE id = 1 AND tributary_region = 'eu' RETURNING note, id";
    assert_eq!(rows(us, gone).await, ["eu|1"]);
    assert_eq!(rows(us, gone).await, Vec::<String>::new());
    wait_for_rows(ap, "SELECT n FROM n", &["8".to_owned()]).await;

    let refused = async |client: &Client, sql: &str| code(&client.batch_execute(sql).await.expect_err(sql)).0;
    let nowhere = "DELETE FROM orders WHERE tributary_region = 'moon'";
    assert_eq!(refused(ap, nowhere).await, SqlState::UNDEFINED_OBJECT);
    let wrong = "UPDATE orders SET id = NULL WHERE tributary_region = 'us'";
    assert_eq!(refused(ap, wrong).await, SqlState::NOT_NULL_VIOLATION);
    let several = "UPDATE orders SET note = 'z' WHERE tributary_region = 'us'; SELECT 1 / 0";
    assert_eq!(refused(ap, several).await, SqlState::FEATURE_NOT_SUPPORTED);
    run(ap, "BEGIN").await;
    let within = "UPDATE orders SET note = 'y' WHERE tributary_region = 'us'";
    assert_eq!(refused(ap, within).await, SqlState::FEATURE_NOT_SUPPORTED);
    run(ap, "ROLLBACK").await;
    cluster.set_cut("us", true);
    run(ap, "EXPLAIN SELECT * FROM orders WHERE tributary_region = 'us'").await;
    // The proxy takes the connection: what became of what was sent into it cannot be known.
    assert_eq!(
        refused(ap, within).await,
        SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
    );
    cluster.set_cut("us", false);
    // A region that comes back remembers what it has carried out.
    cluster.kill("eu").await.expect("it can be killed");
    cluster.restart("eu").await.expect("it comes back");
    wait_for_rows(
        ap,
        "SELECT count(*) FROM orders WHERE tributary_region = 'ap'",
        &["3".to_owned()],
    )
    .await;
    cluster.stop().await.expect("all stop cleanly");
}

/// What a region answers to one that sends it a statement, twice.
fn forwarded(sql: &str, token: u8, from: &str) -> Errand {
    Errand::Statement(ForwardRequest {
        from: from.to_owned(),
        user: "postgres".to_owned(),
        sql: sql.to_owned(),
        settings: Vec::new(),
        catalog_version: 0,
        seen: Vec::new(),
        token: [token; 16],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_comes_again_is_answered_as_before_also_over_a_kill() {
    let (mut cluster, clients) = with_orders().await;
    let address = cluster.peer_address("eu").to_string();
    let to_eu = PeerClient::new("eu", &address, None).expect("an address");
    let insert = forwarded("INSERT INTO orders VALUES (50, 'sent')", 1, "ap");
    let delete = forwarded("DELETE FROM orders WHERE id = 20 RETURNING note", 2, "ap");
    let update = forwarded("UPDATE orders SET note = note || '!' WHERE id > 20", 3, "ap");
    let mut answers = Vec::new();
    for request in [&insert, &delete, &update] {
        let (first, again) = tokio::join!(to_eu.forward(request), to_eu.forward(request));
        let (first, again) = (first.expect("eu answers"), again.expect("eu answers"));
        assert_eq!(first, again, "{request:?}");
        assert_eq!(to_eu.forward(request).await.expect("eu answers"), first);
        answers.push(first);
    }
    let count = |reply: &ForwardReply| match reply {
        ForwardReply::Done(done) => done.count,
        ForwardReply::Refused(error) => panic!("refused: {error:?}"),
    };
    assert_eq!(answers.iter().map(count).collect::<Vec<_>>(), [1, 1, 2]);
    let stranger = to_eu.forward(&forwarded("DELETE FROM orders", 4, "moon")).await;
    assert!(stranger.is_err_and(|error| error.is_final() && !error.was_asked()));

    cluster.kill("eu").await.expect("it can be killed");
    cluster.restart("eu").await.expect("it comes back");
    cluster.wait_ready().await.expect("it is ready");
    for (request, answer) in [(&insert, &answers[0]), (&update, &answers[2])] {
        assert_eq!(to_eu.forward(request).await.expect("eu answers"), *answer);
    }
    match to_eu.forward(&delete).await.expect("eu answers") {
        ForwardReply::Refused(error) => {
            let error = SqlError::from(error);
            assert_eq!(error.state, "40003", "{error:?}");
        }
        done => panic!("what it returned cannot be known any more: {done:?}"),
    }
    let expected = ["1|eu", "21|b!", "50|sent!"].map(str::to_owned);
    let read = "SELECT id, note FROM orders WHERE tributary_region = 'eu' ORDER BY id";
    wait_for_rows(&clients[0], read, &expected).await;
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_of_one_region_do_not_stop_each_other() {
    let (cluster, clients) = with_orders().await;
    let (ap, eu) = (&clients[0], &clients[1]);
    for table in ["a", "b", "c"] {
        run(
            eu,
            &format!("CREATE TABLE {table} (id int PRIMARY KEY, filling text)"),
        )
        .await;
        let fill =
            format!("INSERT INTO {table} SELECT n, repeat('x', 1000) FROM generate_series(1, 8000) AS s(n)");
        run(eu, &fill).await;
    }
    let expected = ["8000|24000000".to_owned()];
    let join = "SELECT count(*), sum(length(a.filling) + length(b.filling) + length(c.filling)) \
                FROM a JOIN b ON a.id = b.id JOIN c ON b.id = c.id";
    let started = std::time::Instant::now();
    wait_for_rows(ap, join, &expected).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    let recursive = "WITH RECURSIVE r AS (SELECT 1 AS id UNION ALL \
                     SELECT a.id + 1 FROM a JOIN r ON a.id = r.id WHERE a.id < 5) SELECT count(*) FROM r";
    let refused = ap.query(recursive, &[]).await.expect_err("it reads a in rounds");
    assert_eq!(code(&refused).0, SqlState::FEATURE_NOT_SUPPORTED);
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lives_in_one_region_is_written_from_everywhere() {
    let (cluster, clients) = with_orders().await;
    let (ap, eu) = (&clients[0], &clients[1]);
    run(
        ap,
        "CREATE TABLE ledger (id int PRIMARY KEY, note text) LOCALITY REGIONAL BY TABLE IN \"eu\"",
    )
    .await;
    run(ap, "INSERT INTO ledger VALUES (1, 'from ap'), (2, 'it''s')").await;
    let insert = ap
        .prepare("INSERT INTO ledger VALUES ($1, $2)")
        .await
        .expect("it prepares");
    let inserted = ap.execute(&insert, &[&3_i32, &"param"]).await.expect("eu writes");
    assert_eq!(inserted, 1);
    // What a client wrote arrives as it was written, as text and as parameter.
    for (note, text) in [
        ("a''b", "'a''''b'"),
        ("'", "''''"),
        ("''", "''''''"),
        ("x\\'y", r"'x\''y'"),
        (r"\' --", r"E'\\\' --'"),
        (r"\', id = 7 --", r"$$\', id = 7 --$$"),
        ("$2", "'$2'"),
    ] {
        let update = format!("UPDATE ledger SET note = {text} WHERE id = 2");
        assert_eq!(ap.execute(&update, &[]).await.expect("eu writes"), 1, "{update}");
        let update = "UPDATE ledger SET \"note\" = $1 WHERE id = $2 AND note <> 'it''s'";
        assert_eq!(
            ap.execute(update, &[&note, &3_i32]).await.expect("eu writes"),
            1,
            "{note}"
        );
        let read = rows(ap, "SELECT note FROM ledger ORDER BY id").await;
        assert_eq!(read, ["from ap", note, note]);
    }
    run(ap, "UPDATE ledger SET note = 'it''s' WHERE id = 2").await;
    run(ap, "UPDATE ledger SET note = 'param' WHERE id = 3").await;
    let twice = ap
        .batch_execute("INSERT INTO ledger VALUES (1, 'again')")
        .await
        .expect_err("the key is taken");
    assert_eq!(code(&twice).0, SqlState::UNIQUE_VIOLATION);
    let on_conflict =
        "INSERT INTO ledger VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET note = excluded.note";
    run(ap, on_conflict).await;
    for client in [ap, eu] {
        let all = rows(
            client,
            "SELECT id, note, tributary_region FROM ledger ORDER BY id",
        )
        .await;
        assert_eq!(all, ["1|again|eu", "2|it's|eu", "3|param|eu"]);
    }
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_elsewhere_reads_what_the_session_wrote_before() {
    let (cluster, clients) = with_orders().await;
    let ap = &clients[0];
    for round in 10..30 {
        run(ap, &format!("INSERT INTO kind VALUES ({round}, 'k{round}')")).await;
        // Here, there, and in the region that is written then.
        for (region, from) in [
            ("eu", format!("SELECT name FROM kind WHERE id = {round}")),
            (
                "us",
                "SELECT note FROM orders WHERE tributary_region = 'eu' AND id = 1".to_owned(),
            ),
        ] {
            let update =
                format!("UPDATE orders SET note = ({from}) WHERE tributary_region = '{region}' AND id = 1");
            assert_eq!(ap.execute(&update, &[]).await.expect("it writes"), 1);
            let read = format!("SELECT note FROM orders WHERE tributary_region = '{region}' AND id = 1");
            assert_eq!(rows(ap, &read).await, [format!("k{round}")], "{region}");
        }
    }

    // What the session has set goes along.
    let read = "SELECT note FROM orders WHERE tributary_region = 'eu' AND id = 1";
    let update =
        |value: &str| format!("UPDATE orders SET note = {value} WHERE tributary_region = 'eu' AND id = 1");
    run(ap, "SET app.tenant = 'acme'").await;
    run(ap, &update("current_setting('app.tenant')")).await;
    assert_eq!(rows(ap, read).await, ["acme"]);
    let refused = ap
        .batch_execute(&update("set_config('app.tenant', 'x', false)"))
        .await;
    let refused = refused.expect_err("it would be lost");
    assert_eq!(refused.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));

    // What is durable is told, also when the time is over before it is shown here.
    cluster.set_delay(Duration::from_millis(400));
    run(ap, "SET statement_timeout = '300ms'").await;
    run(ap, &update("'late'")).await;
    run(ap, "RESET statement_timeout").await;
    assert_eq!(rows(ap, read).await, ["late"]);
    cluster.set_delay(Duration::ZERO);
    cluster.stop().await.expect("all stop cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_empties_a_table_in_all_regions_and_joins_say_which_rows_to_write() {
    let (cluster, clients) = with_orders().await;
    let (ap, eu, us) = (&clients[0], &clients[1], &clients[2]);
    // Own rows that meet rows of any region.
    let marked = "UPDATE orders SET note = k.name FROM kind k WHERE k.id = orders.id";
    assert_eq!(ap.execute(marked, &[]).await.expect("it writes"), 1);
    assert_eq!(
        rows(
            ap,
            "SELECT note FROM orders WHERE tributary_region = 'ap' AND id = 1"
        )
        .await,
        ["one"]
    );
    let gone =
        "DELETE FROM orders USING orders o WHERE o.id = orders.id AND o.note = 'us' RETURNING orders.id";
    assert_eq!(rows(eu, gone).await, ["1"], "the row of eu met one of us, once");
    wait_for_rows(us, "SELECT n FROM n", &["8".to_owned()]).await;

    run(eu, "TRUNCATE orders, kind").await;
    for client in &clients {
        wait_for_rows(client, "SELECT n, total FROM n", &["0|NULL".to_owned()]).await;
        wait_for_rows(client, "SELECT count(*) FROM orders", &["0".to_owned()]).await;
        wait_for_rows(client, "SELECT count(*) FROM kind", &["0".to_owned()]).await;
    }
    for client in &clients {
        run(client, "INSERT INTO orders VALUES (1, 'new')").await;
    }
    for client in &clients {
        wait_for_rows(client, "SELECT n, total FROM n", &["3|3".to_owned()]).await;
    }
    cluster.stop().await.expect("all stop cleanly");
}
