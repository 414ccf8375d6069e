"""DuckDB beside the bench: the rows a query gives over the same files, or the time it takes.

    check.py compare QUERY.sql FILES ROWS.csv     exit status 1 and the difference when rows differ
    check.py time    QUERY.sql FILES THREADS      one JSON object on standard output
"""

import json
import resource
import sys
import time

import duckdb

from relations import VIEWS


def peak_rss_bytes():
    """The peak of this program: unlike ru_maxrss it does not outlive exec, and the caller may have been large."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def connect(files, threads):
    db = duckdb.connect()
    db.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
    for kind, (name, columns) in enumerate(VIEWS.items()):
        db.execute(
            f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet('{files}') WHERE event_type = {kind}"
        )
    db.execute("CREATE TABLE side_input AS SELECT i AS key, i::VARCHAR AS value FROM range(10000) AS r(i)")
    return db


def comparable(column, data_type):
    """Numbers with a fraction are compared to nine digits; everything else as it is."""
    if data_type.startswith(("DECIMAL", "DOUBLE", "FLOAT", "HUGEINT")):
        return f"round({column}::DOUBLE, 6)"
    return column


def compare(sql, files, rows):
    db = connect(files, 2)
    db.execute(f"CREATE TABLE expected AS {sql}")
    columns = db.execute("DESCRIBE expected").fetchall()
    names = [f"c{number}" for number in range(len(columns))]
    types = [column[1] for column in columns]
    spec = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    db.execute(
        f"CREATE TABLE texts AS SELECT * FROM read_csv('{rows}', header = false, columns = {{{spec}}}, "
        "quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false, delim = ',', auto_detect = false)"
    )
    ours = ", ".join(comparable(f"CAST({name} AS {kind})", kind) for name, kind in zip(names, types))
    theirs = ", ".join(comparable(f'"{column[0]}"', column[1]) for column in columns)
    db.execute(f"CREATE TABLE found AS SELECT {ours} FROM texts")
    db.execute(f"CREATE TABLE wanted AS SELECT {theirs} FROM expected")
    missing = db.execute("FROM wanted EXCEPT ALL FROM found").fetchall()
    surplus = db.execute("FROM found EXCEPT ALL FROM wanted").fetchall()
    if missing or surplus:
        print(f"{len(missing)} rows are missing, {len(surplus)} are too many")
        for sign, some in (("-", missing), ("+", surplus)):
            for row in some[:5]:
                print(sign, row)
        return 1
    return 0


def measure(sql, files, threads):
    db = connect(files, threads)
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.monotonic()
    db.execute(f"CREATE TABLE result AS {sql}")
    elapsed = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rows = db.execute("SELECT count(*) FROM result").fetchone()[0]
    result = {
        "elapsed_seconds": elapsed,
        "cpu_seconds": cpu,
        "peak_rss_bytes": peak_rss_bytes(),
        "rows": rows,
    }
    print(json.dumps(result))
    return 0


def main():
    verb, query, files, last = sys.argv[1:5]
    with open(query, encoding="utf-8") as text:
        sql = text.read().strip().rstrip(";")
    return compare(sql, files, last) if verb == "compare" else measure(sql, files, last)


if __name__ == "__main__":
    sys.exit(main())
