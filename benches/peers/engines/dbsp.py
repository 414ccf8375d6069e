"""Circuits written by hand on the dbsp crate (`dbsp`, a cargo package of its own), over the Parquet files."""

import json
import os

from . import CACHE, PEERS, pinned, run

FOLDER = PEERS / "dbsp"
TARGET = CACHE / "peers-dbsp-target"
BATCHES = (1000, 5000, 40000)
CHECK_BATCH = 5000
CHECK_CORES = 2


def program():
    return TARGET / "release" / "tributary-peer-dbsp"


def setup():
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET))
    run("cargo", "build", "--release", "--quiet", "--locked", cwd=FOLDER, env=environment)


def queries():
    return run(program(), "queries").split()


def check(query, files, events, rows):
    pinned(CHECK_CORES, program(), "run", query, files, CHECK_CORES, CHECK_BATCH, rows)


def time(query, files, events, cores):
    """The fastest of the batch sizes, each in a process of its own."""
    runs = [json.loads(pinned(cores, program(), "run", query, files, cores, batch)) for batch in BATCHES]
    return min(runs, key=lambda result: result["elapsed_seconds"])
