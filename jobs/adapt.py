"""Adapt the text encoder to the texts of the log's catalogue, and write it as a new folder.

python -m jobs.adapt --out var/adapted
python -m jobs.adapt --out var/adapted --set encoder.policy=top-k --epochs 3 --masked 0
python -m jobs.adapt --out var/adapted --word-dropout 0.1 --synonyms words.json
python -m jobs.adapt --out var/adapted --translate var/en-fr var/fr-en
ray job submit --working-dir . -- python -m jobs.adapt --set log=kafka://broker:9092 --out /models/a

Then fine-tune or stream with --set encoder.model=var/adapted. A frozen encoder is adapted in full.
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from jobs.arguments import make_parser, settings, show
from ray_rec.features.text_augment import (
    BackTranslation,
    InTurn,
    TextAugment,
)
from ray_rec.model.adapt import AdaptOptions, adapt
from ray_rec.model.config import EncoderConfig
from ray_rec.model.encoder import TextEncoder
from ray_rec.model.self_supervised import LossOptions
from ray_rec.model.translation import Translator
from ray_rec.training.embed import catalogue_texts


def main() -> int:
    """Adapt, write the folder, and print its digest beside the losses before and after."""
    given = _arguments()
    config = settings(given)
    policy = config.encoder.policy if config.encoder.learns else "full"
    encoder = TextEncoder(replace(config.encoder, policy=policy))
    encoder.check_save(given.out)
    losses = LossOptions(given.masked, given.contrastive, bfloat16=given.bfloat16)
    options = AdaptOptions(losses, given.epochs, given.batch_size, given.lr, seed=given.seed)
    sys.stderr.write(f"{encoder.size}\n")
    texts = catalogue_texts(config.log)[1]
    report = adapt(encoder, texts, options, _wording(given), _progress)
    encoder.save(given.out)
    made = EncoderConfig(str(given.out), config.encoder.max_tokens, pooling=config.encoder.pooling)
    show({"encoder": TextEncoder(made).digest, "folder": str(given.out), **asdict(report)})
    return 0


def _wording(given: argparse.Namespace) -> InTurn:
    words = TextAugment(given.word_dropout, given.synonyms, given.synonym_share).transform()
    if not given.translate:
        return words
    there, back = map(Translator, given.translate)
    return InTurn([BackTranslation(there, back, given.translated_share), words])


def _arguments() -> argparse.Namespace:
    options, losses = AdaptOptions(), LossOptions()
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new folder to write")
    add("--epochs", type=int, default=options.epochs)
    add("--batch-size", type=int, default=options.batch_size)
    add("--lr", type=float, default=options.lr)
    add("--seed", type=int, default=options.seed)
    add("--masked", type=float, default=losses.masked, help="weight of the masked-language loss")
    add("--contrastive", type=float, default=losses.contrastive, help="weight of the other one")
    add("--bfloat16", action="store_true", help="learn under bfloat16 autocast")
    add("--word-dropout", type=float, default=0.0, help="chance of a view to lack a word")
    add("--synonyms", default="", metavar="FILE", help='JSON: {"sofa": ["couch"], ...}')
    add("--synonym-share", type=float, default=0.25, help="chance of a word to be replaced")
    add("--translate", type=Path, nargs=2, metavar=("THERE", "BACK"), help="two seq2seq folders")
    add("--translated-share", type=float, default=0.25, help="chance of a view to be translated")
    return parser.parse_args()


def _progress(what: str, done: int, total: int) -> None:
    if done == total or done % 100 == 0:
        sys.stderr.write(f"{what}: {done:,} of {total:,}\n")


if __name__ == "__main__":
    sys.exit(main())
