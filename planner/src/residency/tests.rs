//! Statements that copy, and tables that change under their views; what views may send is in `testscripts/ddl/residency.txt`.

use tributary_storage::RegionId;

use super::*;
use crate::catalog::{CatalogChange, PlanSettings};
use crate::ddl::plan_ddl;
use crate::parse::parse;

fn run(catalog: &mut Catalog, sql: &str) -> Result<(), PlanErrorKind> {
    let statement = parse(sql).expect(sql).remove(0).statement;
    let plan = plan_ddl(&statement, catalog, &PlanSettings::default(), 0).map_err(|error| error.kind)?;
    plan.changes.iter().for_each(|change| catalog.apply(change));
    Ok(())
}

fn cluster() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&CatalogChange::Found {
        cluster: [1; 16],
        regions: vec![(RegionId(1), "us".into()), (RegionId(2), "eu".into())],
        primary: RegionId(1),
    });
    for sql in [
        "CREATE TABLE people (id bigint PRIMARY KEY, name text, age int) WITH (residency = enforced, min_group_size = 5)",
        "CREATE TABLE copies (id bigint PRIMARY KEY, name text, age int) WITH (residency = enforced)",
        "CREATE TABLE loose (id bigint PRIMARY KEY, name text) WITH (residency = enforced, min_group_size = 2)",
        "CREATE TABLE open (id bigint PRIMARY KEY, name text)",
        "CREATE TABLE everywhere (id bigint PRIMARY KEY, name text) LOCALITY GLOBAL",
        "CREATE VIEW named AS SELECT id, name FROM people",
        "CREATE VIEW twice AS SELECT id, name FROM named",
        "CREATE MATERIALIZED VIEW ages AS SELECT age, count(*) AS n FROM people GROUP BY age",
    ] {
        run(&mut catalog, sql).expect(sql);
    }
    catalog
}

fn copied(catalog: &Catalog, sql: &str) -> Result<Copies, PlanErrorKind> {
    let statement = parse(sql).expect(sql).remove(0).statement;
    check_statement(catalog, &statement).map_err(|error| error.kind)
}

fn checked(catalog: &Catalog, sql: &str) -> Result<(), PlanErrorKind> {
    copied(catalog, sql).map(drop)
}

#[test]
fn what_is_read_from_an_enforced_table_is_written_into_such_tables_only() {
    let catalog = cluster();
    let refused = [
        "INSERT INTO open SELECT id, name FROM people",
        "INSERT INTO everywhere SELECT id, name FROM twice",
        "INSERT INTO open SELECT 1, (SELECT max(name) FROM people)",
        "INSERT INTO open WITH p AS (SELECT * FROM people) SELECT id, name FROM p",
        "INSERT INTO loose SELECT id, name FROM people",
        "INSERT INTO loose SELECT id, name FROM copies",
        "UPDATE open SET name = people.name FROM people WHERE people.id = open.id",
        "UPDATE open SET name = (SELECT name FROM people WHERE id = 1)",
        "DELETE FROM everywhere WHERE id IN (SELECT id FROM named)",
        "INSERT INTO open VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = (SELECT max(name) FROM people)",
    ];
    for sql in refused {
        assert_eq!(checked(&catalog, sql), Err(PlanErrorKind::Forbidden), "{sql}");
    }
    let allowed = [
        "INSERT INTO copies SELECT id, name, age FROM people",
        "INSERT INTO people SELECT id, name, age FROM people",
        "UPDATE people SET age = age + 1 WHERE id IN (SELECT id FROM twice)",
        "INSERT INTO open SELECT age, 'x' FROM ages",
        "INSERT INTO open WITH people AS (SELECT 1 AS id, 'x' AS name) SELECT id, name FROM people",
        "DELETE FROM people",
        "INSERT INTO open VALUES (1, 'people')",
    ];
    for sql in allowed {
        assert_eq!(checked(&catalog, sql), Ok(()), "{sql}");
    }
}

#[test]
fn what_is_copied_is_judged_again_by_a_later_catalog() {
    let mut catalog = cluster();
    run(
        &mut catalog,
        "CREATE TABLE later (id bigint PRIMARY KEY, name text)",
    )
    .expect("it is new");
    run(&mut catalog, "CREATE VIEW seen AS SELECT id, name FROM later").expect("it is new");
    let copies = copied(&catalog, "INSERT INTO open SELECT id, name FROM seen").expect("nothing is enforced");
    let may = |catalog: &Catalog| copies.iter().all(|(from, into)| may_copy(catalog, *from, *into));
    assert_eq!(copies.len(), 1);
    assert!(may(&catalog));
    run(&mut catalog, "ALTER TABLE later SET (residency = enforced)").expect("nothing speaks against it");
    assert!(!may(&catalog));
    run(&mut catalog, "ALTER TABLE open SET (residency = enforced)").expect("nothing speaks against it");
    assert!(may(&catalog), "it is as strict by now");
    run(&mut catalog, "ALTER TABLE later RESET (residency)").expect("nothing speaks against it");
    run(&mut catalog, "DROP VIEW seen").expect("it is there");
    run(&mut catalog, "DROP TABLE later").expect("it is there");
    assert!(!may(&catalog), "nobody knows how it was protected");
    let own = copied(
        &catalog,
        "UPDATE open SET name = 'x' WHERE id IN (SELECT id FROM open)",
    );
    assert_eq!(own, Ok(Copies::new()));
}

#[test]
fn no_rows_are_returned_to_another_region() {
    let catalog = cluster();
    let forwarded = |sql: &str| {
        let statement = parse(sql).expect(sql).remove(0).statement;
        check_forwarded(&catalog, &statement).map_err(|error| error.kind)
    };
    let refused = Err(PlanErrorKind::Forbidden);
    assert_eq!(forwarded("UPDATE people SET age = 1 RETURNING name"), refused);
    assert_eq!(forwarded("DELETE FROM people RETURNING 1"), refused);
    assert_eq!(
        forwarded("INSERT INTO copies SELECT * FROM people RETURNING id"),
        refused
    );
    assert_eq!(forwarded("UPDATE people SET age = 1"), Ok(true));
    assert_eq!(forwarded("UPDATE open SET name = 'x' RETURNING name"), Ok(false));
    assert_eq!(forwarded("COPY people (id, name) FROM STDIN"), Ok(true));
    assert_eq!(forwarded("COPY open FROM STDIN"), Ok(false));
}

#[test]
fn a_table_changes_only_as_far_as_its_views_allow() {
    let mut catalog = cluster();
    let mut set = |sql: &str| run(&mut catalog, sql);
    let refused = Err(PlanErrorKind::DependentObjects);
    assert_eq!(set("ALTER TABLE people SET (min_group_size = 4)"), refused);
    assert_eq!(set("ALTER TABLE people RESET (residency)"), refused);
    assert_eq!(
        set("CREATE MATERIALIZED VIEW names AS SELECT name FROM open"),
        Ok(())
    );
    assert_eq!(
        set("ALTER TABLE open SET (residency = enforced)"),
        Err(PlanErrorKind::Forbidden)
    );
    assert_eq!(set("DROP MATERIALIZED VIEW names"), Ok(()));
    assert_eq!(
        set("CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM open"),
        Ok(())
    );
    assert_eq!(set("ALTER TABLE open SET (residency = enforced)"), Ok(()));
    assert_eq!(set("ALTER TABLE open SET (min_group_size = 3)"), refused);
    assert_eq!(set("ALTER TABLE open RESET (residency)"), Ok(()));
    assert_eq!(
        set("ALTER TABLE everywhere SET (residency = enforced)"),
        Err(PlanErrorKind::PrerequisiteState)
    );
}
