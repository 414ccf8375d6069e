"""PostgreSQL computing a materialized view anew. The rows are loaded and analysed beforehand, once for all runs of a
bench, and the view was computed once before, so that neither decoding nor a cold cache is in the time."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from . import NEXMARK, PEERS, install, processors, query_files, run

FOLDER = PEERS / "postgres"
USER = "postgres"
CHECK_CORES = 2
START_SECONDS = 30
SETTINGS = {
    "shared_buffers": "4GB",
    "work_mem": "2GB",
    "hash_mem_multiplier": "1",
    "maintenance_work_mem": "1GB",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "jit": "off",
}
QUERIES = query_files(
    FOLDER,
    {NEXMARK: "q10 q15 q16 q17 q18 q21", NEXMARK / "duckdb": "q0 q1 q2 q3 q4 q6 q13 q14 q19 q20 q22"},
)
SCHEMA = """
CREATE TABLE person (id bigint, name text, email_address text, credit_card text, city text, state text,
  date_time timestamp, extra text);
CREATE TABLE auction (id bigint, item_name text, description text, initial_bid bigint, reserve bigint,
  date_time timestamp, expires timestamp, seller bigint, category bigint, extra text);
CREATE TABLE bid (auction bigint, bidder bigint, price bigint, channel text, url text, date_time timestamp, extra text);
CREATE TABLE side_input AS SELECT key::bigint, key::text AS value FROM generate_series(0, 9999) AS r(key);
"""


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


def setup():
    if not programs():
        install("postgresql")
    try:
        pwd.getpwnam(USER)
    except KeyError:
        raise SystemExit(f"there is no user {USER}, which the server would run as") from None


def queries():
    return list(QUERIES)


def as_user():
    """The server refuses to be run by root."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.getuid() == 0 else []


def own(path):
    if os.getuid() == 0:
        shutil.chown(path, USER, USER)


class Session:
    """One psql, fed a statement at a time."""

    def __init__(self, folder):
        command = ["psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", USER, "postgres"]
        self.psql = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, sql):
        self.psql.stdin.write(f"{sql};\n\\echo --end--\n")
        self.psql.stdin.flush()
        lines = []
        for line in self.psql.stdout:
            if line.strip() == "--end--":
                return "\n".join(lines)
            lines.append(line.strip())
        raise SystemExit(f"postgres: {self.psql.stderr.read().strip()}")

    def meta(self, command):
        """A command of psql itself, which has no semicolon."""
        return self.run(f"{command}\nSELECT 1 WHERE false")

    def close(self):
        self.psql.stdin.close()
        self.psql.wait()


@contextmanager
def server(folder, cores):
    """A fresh server on a loaded directory; gives a session and the server's process id."""
    options = dict(SETTINGS, max_parallel_workers_per_gather=str(cores - 1), max_parallel_workers=str(cores - 1))
    arguments = [f"-c{name}={value}" for name, value in options.items()]
    command = ["taskset", "-c", processors(cores), *as_user(), programs() / "postgres", "-D", folder / "data"]
    command += ["-k", folder, "-c", "listen_addresses=", *arguments]
    with open(folder / "log", "w", encoding="utf-8") as log:
        postgres = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
    try:
        wait_until_ready(folder)
        session = Session(folder)
        try:
            yield session, postgres.pid
        finally:
            session.close()
    finally:
        postgres.terminate()
        postgres.wait()


def wait_until_ready(folder):
    deadline = monotonic() + START_SECONDS
    while subprocess.run(["pg_isready", "-q", "-h", folder], check=False).returncode != 0:
        if monotonic() > deadline:
            raise SystemExit(f"postgres does not start: {(folder / 'log').read_text()[-1000:]}")
        sleep(0.1)


def loaded(files, events):
    """The directory of a server that has the events: in the bench's scratch directory, made by the first call."""
    scratch = Path(os.environ.get("TRIBUTARY_PEERS_SCRATCH", tempfile.gettempdir()))
    scratch.chmod(0o755)
    folder = scratch / f"postgres-{events}"
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    own(folder)
    initdb = [programs() / "initdb", "-D", folder / "data", "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C"]
    run(*as_user(), *initdb)
    with server(folder, CHECK_CORES) as (session, _):
        session.run(SCHEMA.strip().rstrip(";"))
        for kind, (table, columns) in enumerate(relations().items()):
            path = folder / f"{table}.csv"
            write_csv(f"SELECT {columns} FROM read_parquet('{files}') WHERE event_type = {kind}", path)
            session.meta(f"\\copy {table} FROM '{path}' WITH (FORMAT csv)")
            path.unlink()
        session.run("VACUUM ANALYZE")
        session.run("CHECKPOINT")
    (folder / "complete").touch()
    return folder


def relations():
    """The columns of each relation, as the bench's own queries see them."""
    sys.path.append(str(NEXMARK))
    from relations import VIEWS

    return VIEWS


def write_csv(sql, path):
    import duckdb

    duckdb.execute(f"COPY ({sql}) TO '{path}' (FORMAT csv, HEADER false)")


def create_view(session, query):
    sql = QUERIES[query].read_text().strip().rstrip(";")
    session.run(f"DROP MATERIALIZED VIEW IF EXISTS {query}")
    session.run(f"CREATE MATERIALIZED VIEW {query} AS {sql}")


def check(query, files, events, rows):
    with server(loaded(files, events), CHECK_CORES) as (session, _):
        create_view(session, query)
        session.meta(f"\\copy (SELECT * FROM {query}) TO '{rows}' WITH (FORMAT csv, FORCE_QUOTE *)")
        session.run(f"DROP MATERIALIZED VIEW {query}")


def time(query, files, events, cores):
    with server(loaded(files, events), cores) as (session, pid):
        create_view(session, query)
        backend = int(session.run("SELECT pg_backend_pid()"))
        before = cpu_seconds(backend, pid)
        started = monotonic()
        session.run(f"REFRESH MATERIALIZED VIEW {query}")
        elapsed = monotonic() - started
        after = cpu_seconds(backend, pid)
        result = {
            "elapsed_seconds": elapsed,
            "cpu_seconds": after - before,
            "peak_rss_bytes": peak_rss_bytes(backend),
            "rows": int(session.run(f"SELECT count(*) FROM {query}")),
            "setting": "recomputed anew, rows loaded before, the second time in a process; fsync and jit off, "
            f"shared_buffers 4 GB, work_mem 2 GB, {cores - 1} parallel workers",
        }
        session.run(f"DROP MATERIALIZED VIEW {query}")
        return result


def cpu_seconds(backend, postmaster):
    """Of the session's process, and of parallel workers, which the postmaster has waited for."""

    def ticks(pid, fields):
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return sum(int(stat[field]) for field in fields)

    return (ticks(backend, (11, 12)) + ticks(postmaster, (13, 14))) / os.sysconf("SC_CLK_TCK")


def peak_rss_bytes(pid):
    """Of the session's process, with the shared buffers that it touched."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
