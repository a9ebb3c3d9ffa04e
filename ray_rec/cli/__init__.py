"""The command line `ray-rec`: reads the configuration, calls one function, prints its result.

Libraries are imported inside the commands, so that `--help` answers at once.
"""

from ray_rec.cli.main import main

__all__ = ["main"]
