"""Tiny encoders in folders, randomly initialised: a BERT and a GPT-2 that know a few words."""

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

WORDS = ("milk", "bread", "coffee", "soap", "apples", "cheese", "tea", "paper", "number", "item")
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<end>")
PLACES = 24
BLOCKS = 3

Kind = Literal["bert", "gpt2"]


def make_encoder(folder: Path, kind: Kind, seed: int = 1) -> Path:
    """Write a model of three blocks, width 16, and its tokenizer into a folder."""
    vocabulary = {w: at for at, w in enumerate((*MARKS, *WORDS, *map(str, range(48))))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(seed)
    if kind == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        marks = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        marks["mask_token"] = "[MASK]"
        _bert(len(vocabulary)).save_pretrained(folder)
    else:
        marks = {"eos_token": "<end>"}
        _gpt2(len(vocabulary)).save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **marks)
    wrapped.save_pretrained(folder)
    return folder


def _bert(num_words: int) -> BertModel:
    return BertModel(
        BertConfig(
            vocab_size=num_words,
            hidden_size=16,
            num_hidden_layers=BLOCKS,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=PLACES,
        )
    )


def _gpt2(num_words: int) -> GPT2Model:
    config = GPT2Config(
        vocab_size=num_words,
        n_embd=16,
        n_layer=BLOCKS,
        n_head=2,
        n_positions=PLACES,
        bos_token_id=MARKS.index("<end>"),
        eos_token_id=MARKS.index("<end>"),
    )
    return GPT2Model(config)
