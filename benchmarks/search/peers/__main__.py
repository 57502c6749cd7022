"""A process of the peers' environment: `python -m benchmarks.search.peers FOLDER`, see `replay.serve`."""

import sys
from pathlib import Path

from benchmarks.search.peers.catalogue import make_peer
from benchmarks.search.replay import serve

if __name__ == "__main__":
    serve(make_peer, Path(sys.argv[1]))
