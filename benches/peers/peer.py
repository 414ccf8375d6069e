"""Peers of the Nexmark bench: engines that install from package registries, over the bench's event files.

    peer.py PEER setup                                installs or builds what is missing; exit status 1 and a reason
    peer.py PEER queries                              the queries it can do, one a line
    peer.py PEER check QUERY FILES EVENTS ROWS.csv    writes the view's rows: every value quoted, null as nothing
    peer.py PEER time QUERY FILES EVENTS CORES        one JSON object: elapsed_seconds, cpu_seconds, peak_rss_bytes,
                                                      setting, and events, where the peer counts what it read

FILES is the pattern of the Parquet files, as DIRECTORY/events-*.parquet. A call is a fresh process of the peer.
"""

import importlib
import json
import subprocess
import sys


def main():
    peer, verb, *arguments = sys.argv[1:]
    engine = importlib.import_module(f"engines.{peer}")
    try:
        if verb == "setup":
            engine.setup()
        elif verb == "queries":
            print("\n".join(engine.queries()))
        elif verb == "check":
            query, files, events, rows = arguments
            engine.check(query, files, int(events), rows)
        elif verb == "time":
            query, files, events, cores = arguments
            print(json.dumps(engine.time(query, files, int(events), int(cores))))
        else:
            sys.exit(f"{verb} is no verb")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{(error.stderr or error.stdout or '')[-2000:]}")


if __name__ == "__main__":
    main()
