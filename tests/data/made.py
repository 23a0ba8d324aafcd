"""Tokenizer files of every kind, made by the libraries themselves from a little text."""

import base64
import pathlib

from data.tokenizers.levels import alphabet

# what a table by id gets wrong: unknown pieces, NFKC, runs of spaces, combining marks, letters that
# end in two ways, names of special tokens, tabs, a literal U+2581
ODD = (
    "  漢字漢字 ﬁne x² Ａ e\u0301\u0301 \t the  FOX \n\n 🦊🦊 \u00a0 line <|endoftext|> </s>"
    " A\u030a \u2581 \ufffd caf\u00e9 "
)
LINES = [f"line {i} of the quick brown fox jumps over 12 dogs\n" for i in range(300)]

SENTENCEPIECE = {
    "unknown": {},
    "fallback": {"byte_fallback": True, "vocab_size": 400},
    "bpe": {"model_type": "bpe", "vocab_size": 120},
    "bpe_fallback": {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True},
    "nfkc_folded": {"normalization_rule_name": "nfkc_cf"},
    "identity": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
    "suffix": {"treat_whitespace_as_suffix": True},
    "symbols": {"user_defined_symbols": ["<sep>", "\u2581\u2581"]},
}


def sentencepiece(folder: pathlib.Path, name: str) -> str:
    import sentencepiece as library

    (folder / "learn.txt").write_text("".join(LINES))
    options = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 2}
    library.SentencePieceTrainer.train(
        input=str(folder / "learn.txt"),
        model_prefix=str(folder / name),
        **{**options, **SENTENCEPIECE[name]},
    )
    return str(folder / f"{name}.model")


def _byte_level(prefix=False, normalizer=None, first=()):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    t.pre_tokenizer = pre_tokenizers.Sequence([*first, level]) if first else level
    t.decoder = decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(alphabet()),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    t.train_from_iterator(LINES, trainer)
    return t


def _gpt2():
    return _byte_level()


def _spaces():
    """As in GPT-NeoX: runs of spaces are added tokens; and digits stand alone."""
    from tokenizers import AddedToken, pre_tokenizers

    t = _byte_level(first=[pre_tokenizers.Digits(individual_digits=True)])
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 4)])
    return t


def _swallowing():
    """An added token that takes the spaces before it, as <mask> of RoBERTa does."""
    from tokenizers import AddedToken

    t = _byte_level()
    t.add_tokens([AddedToken("FOX", lstrip=True)])
    return t


def _composed():
    from tokenizers import normalizers

    return _byte_level(normalizer=normalizers.NFC())


def _compatible():
    from tokenizers import normalizers

    return _byte_level(normalizer=normalizers.NFKC())


def _prefixed():
    return _byte_level(prefix=True)


def _t5():
    """Metaspace and Unigram after NFKC and lower case, with an unknown piece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    t.train_from_iterator(LINES, trainer)
    return t


def _bert():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer, t.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    t.train_from_iterator(LINES, trainer)
    return t


def _llama(fallback=True):
    """As of Llama 2: a prefix and marked spaces by the normalizer, bytes for unknown characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    bytes_ = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    mark = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    t.normalizer = normalizers.Sequence(mark)
    t.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    t.train_from_iterator(LINES, trainer)
    return t


HF = {
    "gpt2": _gpt2,
    "spaces": _spaces,
    "swallowing": _swallowing,
    "composed": _composed,
    "compatible": _compatible,
    "prefixed": _prefixed,
    "t5": _t5,
    "bert": _bert,
    "llama": _llama,
    "llama_unknown": lambda: _llama(fallback=False),
}


def hf(folder: pathlib.Path, name: str) -> str:
    (folder / name).mkdir(exist_ok=True)
    HF[name]().save(str(folder / name / "tokenizer.json"))
    return str(folder / name / "tokenizer.json")


def ranks() -> list[bytes]:
    """Pieces in the order of their ranks: every byte, and the merges of a byte-level BPE."""
    known = alphabet()
    vocab = sorted(_byte_level().get_vocab().items(), key=lambda kv: kv[1])
    return [bytes(known[c] for c in piece) for piece, i in vocab if i]


def tiktoken(folder: pathlib.Path, name: str) -> str:
    path = folder / f"mine.{name}.tiktoken"
    lines = (base64.b64encode(piece) + b" %d\n" % i for i, piece in enumerate(ranks()))
    path.write_bytes(b"".join(lines))
    return str(path)


TIKTOKEN = ("gpt2", "cl100k_base", "o200k_base", "llama3")
ALL = [
    ("bytes", ""),
    *(("sentencepiece", name) for name in SENTENCEPIECE),
    *(("hf", name) for name in HF),
    *(("tiktoken", name) for name in TIKTOKEN),
]
IDS = ["-".join(filter(None, kind)) for kind in ALL]
MAKERS = {"sentencepiece": sentencepiece, "hf": hf, "tiktoken": tiktoken}
