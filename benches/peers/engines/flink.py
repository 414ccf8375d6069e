"""Flink SQL on a mini-cluster in one JVM, without Python in between: its jars come with the Python package.

The package has no Parquet format, so Flink reads `events.rows`, which the bench makes of the Parquet files; all fields
of all events are decoded within the time. The source that does it (`flink/source`) is compiled here.
"""

import json
import shutil
import sys
from pathlib import Path

from . import CACHE, NEXMARK, PEERS, install, pinned, query_files, run

PACKAGE = "apache-flink-libraries==2.3.0"
FOLDER = PEERS / "flink"
VENV = CACHE / "peers-venv"
CLASSES = CACHE / "peers-flink-classes"
CHECK_CORES = 2
QUERIES = query_files(FOLDER, {NEXMARK / "duckdb": "q0 q1 q2 q3", PEERS / "postgres": "q9"})


def jars():
    found = list(VENV.glob("lib/python*/site-packages/pyflink/lib"))
    return found[0] if found else None


def setup():
    if not shutil.which("javac"):
        install("default-jdk-headless")
    if not jars():
        run(sys.executable, "-m", "venv", VENV)
        # The package is built on the spot, by whatever setuptools there is.
        run(VENV / "bin" / "pip", "install", "--quiet", "--no-deps", PACKAGE)
    sources = sorted(FOLDER.glob("source/tributary/*.java"))
    run("javac", "-cp", f"{jars()}/*", "-d", CLASSES, *sources)
    service = Path("META-INF", "services", "org.apache.flink.table.factories.Factory")
    (CLASSES / service).parent.mkdir(parents=True, exist_ok=True)
    (CLASSES / service).write_text((FOLDER / "source" / service).read_text())


def queries():
    return list(QUERIES)


def java(verb, query, files, events, cores, *more):
    rows = Path(files).parent / "events.rows"
    output = pinned(
        cores,
        "java",
        "-Xmx6g",
        "-XX:+UseParallelGC",
        "-Dlog4j2.level=OFF",
        "--add-opens=java.base/java.util=ALL-UNNAMED",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-cp",
        f"{CLASSES}:{jars()}/*",
        "tributary.Run",
        verb,
        QUERIES[query],
        FOLDER / "tables.sql",
        rows,
        events,
        cores,
        *more,
    )
    return json.loads(output.strip().splitlines()[-1])


def check(query, files, events, rows):
    java("check", query, files, events, CHECK_CORES, rows)


def time(query, files, events, cores):
    return java("time", query, files, events, cores)
