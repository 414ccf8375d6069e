"""What the peers share: where things lie, and how programs are run."""

import os
import subprocess
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent
NEXMARK = PEERS.parent / "nexmark"
CACHE = Path(os.environ.get("TRIBUTARY_PEERS_CACHE", Path.home() / ".cache" / "tributary"))


def run(*command, **options):
    """What a program prints; CalledProcessError has its output when it fails."""
    command = [str(part) for part in command]
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def pinned(cores, *command):
    """What a program prints that has the first processors for itself."""
    return run("taskset", "-c", processors(cores), *command)


def processors(cores):
    return "0" if cores < 2 else f"0-{cores - 1}"


def install(package):
    """Installs a Debian package."""
    as_root = [] if os.getuid() == 0 else ["sudo"]
    run(*as_root, "apt-get", "update", "-qq")
    run(*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package)


def query_files(folder, shared):
    """The file of each query that a peer can do: its own, and those it takes from other folders as they are."""
    files = {path.stem: path for path in folder.glob("q*.sql")}
    for other, names in shared.items():
        files |= {name: other / f"{name}.sql" for name in names.split()}
    return dict(sorted(files.items(), key=lambda file: int(file[0][1:])))
