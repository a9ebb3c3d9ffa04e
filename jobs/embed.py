"""Encode the texts of the catalogue with a pool of actors, ahead of learning or for a new encoder.

python -m jobs.embed --config run.toml
ray job submit --working-dir . -- python -m jobs.embed --set encoder.model=/models/shop-encoder
"""

import sys

from jobs.arguments import make_parser, settings, show
from ray_rec.training.embed import embed_catalogue
from ray_rec.training.stream import connect


def main() -> int:
    """Embed what has no vector yet, then end."""
    config = settings(make_parser(__doc__).parse_args())
    connect()
    show(embed_catalogue(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
