"""Translation by a tiny model of random weights: what matters is that it is opened and asked."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from ray_rec.errors import ModelError
from ray_rec.features.text_augment import BackTranslation
from ray_rec.model.translation import Translator

WORDS = ("<pad>", "<s>", "</s>", "<unk>", "milk", "bread", "tea", "soap")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("translator")
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(made)
    torch.manual_seed(3)
    sizes = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in LAYERS.items()}
    config = BartConfig(
        vocab_size=len(WORDS), d_model=16, max_position_embeddings=32, init_std=1.0, **sizes
    )
    BartForConditionalGeneration(config).save_pretrained(made)
    return made


LAYERS = {"layers": 1, "attention_heads": 2, "ffn_dim": 16}


def test_texts_are_translated_in_order_and_alike_each_time(folder: Path) -> None:
    texts = [" ".join(WORDS[4 + (n + k) % 4] for k in range(1 + n % 3)) for n in range(9)]
    made = Translator(folder, max_tokens=8)(texts)
    assert len(set(made)) > 1
    assert {word for text in made for word in text.split()} <= set(WORDS[3:])
    again = Translator(folder, max_tokens=8)
    assert [again([text])[0] for text in texts[:4]] == made[:4]
    assert again([]) == []


def test_it_is_a_way_there_and_back(folder: Path) -> None:
    translator = Translator(folder, max_tokens=8)
    both = BackTranslation(translator, translator, share=1.0)
    wanted = translator(translator(["milk bread"]))[0] or "milk bread"
    assert both(["milk bread"], 0) == [wanted]


def test_a_folder_without_a_model_says_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a folder with config"):
        Translator(tmp_path)(["tea"])
