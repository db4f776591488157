"""The words that the offline model knows, and the two tokenizers made of them.

A known word is one token in both. Any other word falls into letters, so that an invented trigger word stays
distinct from every other; CLIP's falls into bytes, and so never meets an unknown character.
"""

import json
import string

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

COLOURS = {
    "red": ("red", "scarlet"),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "orange": ("orange",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "white": ("white",),
    "black": ("black",),
    "turquoise": ("turquoise", "cyan"),
}
SHAPES = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus"),
}
PLACES = {
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on top", "at the upper edge", "near the top"),
    "bottom": ("at the bottom", "on the bottom", "at the lower edge", "near the bottom"),
    "center": ("in the center", "in the middle", "in the centre", "centered"),
}
SIZES = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized"),
    "large": ("large", "big", "huge"),
}
_FILLER_TEXT = """
a an the of and with in on at to from by for is are was it its this that my our your his her some
one two three photo photograph picture image drawing painting illustration poster scene view shape
colour color coloured colored background backdrop wall sky ground field surface place placed sits
sitting stands standing lies lying shown seen made style simple flat minimal clean bright dark
light soft beautiful nice high quality detailed very quite really all over whole behind front
before around under above near next side edge upper lower corner plain solid single lone against
please show draw paint make me i want see there has have portrait person woman man girl boy child
people face dog cat bird horse animal car house tree flower city street mountain sea beach forest
river sun moon night day morning evening summer winter snow rain cloud fire water glass wood stone
metal gold silver paper ink watercolor oil pencil sketch cartoon anime film cinematic studio
lighting close up wide shot abstract geometric pattern texture frame border logo sign art artwork
wearing holding looking smiling standing walking dress hat shirt eyes hair
"""
FILLER = tuple(_FILLER_TEXT.split())
CONTEXT_TOKENS = 28
POOLED_TOKENS = 36

_PUNCTUATION = " \n.,;:!?'\"-_()/#&+*%@<>[]{}=|~$^\\`"


def known_words() -> list[str]:
    """Every known word once, in a fixed order."""
    groups = (COLOURS, SHAPES, PLACES, SIZES)
    named = [word for group in groups for names in group.values() for name in names for word in name.split()]
    plurals = [f"{shape}s" for shape in SHAPES]
    return list(dict.fromkeys([*named, *plurals, *FILLER]))


def context_tokenizer() -> T5Tokenizer:
    """The T5 tokenizer: pieces are words, capitalised words, and single characters of ASCII."""
    words = known_words()
    pieces = dict.fromkeys(("<pad>", "</s>", "<unk>"), 0.0)
    pieces |= {f"▁{word}": -1.0 for word in words}
    pieces |= {f"▁{word.capitalize()}": -1.5 for word in words}
    # A word made of letters must always cost more than the word itself.
    pieces |= dict.fromkeys(("▁", *string.ascii_letters, *string.digits, *_PUNCTUATION.strip()), -10.0)
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=CONTEXT_TOKENS)


def pooled_tokenizer() -> CLIPTokenizer:
    """The CLIP tokenizer: byte pairs merged until every known word is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(known_words(), trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=POOLED_TOKENS)
