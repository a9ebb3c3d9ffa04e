"""Fine-tune on what the log holds now, publish the result, and end.

python -m jobs.finetune --config run.toml
python -m jobs.finetune --set encoder.policy=lora --set learner.encoder_lr=2e-5
python -m jobs.finetune --config benchmarks/configs/beauty.toml --set training.passes=8
ray job submit --working-dir . -- python -m jobs.finetune --set log=kafka://broker:9092
"""

import sys

from jobs.arguments import add_on_gap, make_parser, settings, show
from ray_rec.model.encoder import TextEncoder
from ray_rec.training.interrupt import stop_on_signals
from ray_rec.training.stream import run_stream


def main() -> int:
    """Learn every window up to the log's present end; a later run, or the stream, goes on there."""
    parser = make_parser(__doc__)
    add_on_gap(parser)
    config = settings(parser.parse_args())
    if config.encoder.learns:
        sys.stderr.write(f"{TextEncoder(config.encoder).size}\n")
    with stop_on_signals() as stop:
        show(run_stream(config, bounded=True, stop=stop))
    return 130 if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
