"""A tokenizer of ours as Hugging Face's tokenizer.json: bytes as a byte-level BPE without merges, a
sentencepiece model piece by piece, a tokenizer.json as it is.
"""

import base64
import json
import os

from data import tokenizers
from data.config import Data
from data.tokenizers.levels import alphabet
from launch import files
from launch.config import ConfigError

END = "<|endoftext|>"
# files of a folder that hold its tokenizer, and what reads them; the first that is there
FILES = {
    "tokenizer.json": "hf",
    "tokenizer.model": "sentencepiece",
    "spiece.model": "sentencepiece",
}


def beside(hf_dir: str) -> dict[str, str]:
    """The fields of `Data` that name the tokenizer of a folder; {} where it has none."""
    for name, kind in FILES.items():
        path = os.path.join(hf_dir, name)
        if os.path.isfile(path):
            return {"tokenizer": kind, "tokenizer_path": path}
    return {}


def begins(hf_dir: str) -> int | None:
    """The id that stands before every text by the folder's own word; None where there is none.

    In order: add_bos_token of tokenizer_config.json; a template of tokenizer.json that begins with
    a special token; of a tokenizer.model alone, as transformers' classes of Llama and Gemma read
    it, its id of a beginning. Raises ConfigError.
    """
    config, spec = (_json(hf_dir, name) for name in ("tokenizer_config.json", "tokenizer.json"))
    wanted = config.get("add_bos_token")
    if wanted is False:
        return None
    by_template = _template(spec)
    if wanted is None and by_template is not None:
        return by_template
    if wanted is None and (spec or "sentencepiece" not in beside(hf_dir).values()):
        return None
    named = config.get("bos_token")
    named = named.get("content") if isinstance(named, dict) else named
    found = _id(spec, named) if isinstance(named, str) else by_template
    if found is None and not spec:
        found = _piece(hf_dir, named)
    if found is None:
        found = _json(hf_dir, "config.json").get("bos_token_id")
    if found is None and wanted is None:
        return None
    if type(found) is not int:
        raise ConfigError(
            f"{hf_dir}: tokenizer_config.json says add_bos_token, and bos_token={named!r} has no id"
            " in its tokenizer: mend one, or set add_bos_token to false"
        )
    return found


def _json(hf_dir: str, name: str) -> dict:
    """A file of the folder; {} where there is none. Raises ConfigError."""
    path = os.path.join(hf_dir, name)
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found
    except (OSError, ValueError, RecursionError) as e:
        raise ConfigError(f"{path} is damaged ({str(e)[:80]})") from None


def _template(spec: dict) -> int | None:
    """The id of the special token with which the template of one text begins."""
    processor = spec.get("post_processor")
    held = processor if isinstance(processor, dict) else {}
    inner = held.get("processors") if held.get("type") == "Sequence" else [held]
    for p in inner if isinstance(inner, list) else []:
        try:
            if p.get("type") == "TemplateProcessing":
                named = p["single"][0]["SpecialToken"]["id"]
                return int(p["special_tokens"][named]["ids"][0])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            continue  # it begins with the text itself
    return None


def _id(spec: dict, content: str) -> int | None:
    """Of a piece of a tokenizer.json by its text."""
    for token in spec.get("added_tokens") or []:
        if token.get("content") == content:
            return token.get("id")
    vocab = (spec.get("model") or {}).get("vocab")
    return vocab.get(content) if isinstance(vocab, dict) else None


def _piece(hf_dir: str, content: str | None) -> int | None:
    """Of a sentencepiece model: the id of `content`, or of its own beginning."""
    import sentencepiece

    path = beside(hf_dir)["tokenizer_path"]
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=path)
    except Exception:  # it is refused, in words, where it is read
        return None
    if content:
        found = model.piece_to_id(content)
        if found != model.unk_id():
            return found
    return model.bos_id() if model.bos_id() >= 0 else None


def _added(ids: dict[int, str]) -> list[dict]:
    rest = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return [{"id": i, "content": piece, **rest} for i, piece in ids.items()]


def _bytes() -> dict:
    """The id of a byte is its value; id 0 ends a document."""
    vocab = {c: b for c, b in alphabet().items() if b} | {END: 0}
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    model = {
        "type": "BPE",
        "vocab": vocab,
        "merges": [],
        "byte_fallback": False,
        "fuse_unk": False,
        "ignore_merges": False,
    }
    return {
        "added_tokens": _added({0: END}),
        "normalizer": None,
        "pre_tokenizer": level,
        "decoder": level,
        "model": model,
    }


def _merges(scores: dict[str, float], ids: dict[str, int]) -> list[list[str]]:
    """The merges behind the pieces of a BPE model, best first: every split of a piece into two
    other pieces.
    """
    splits = [
        (p, p[:i], p[i:])
        for p in scores
        for i in range(1, len(p))
        if p[:i] in scores and p[i:] in scores
    ]
    splits.sort(key=lambda s: (-scores[s[0]], ids[s[1]], ids[s[2]]))
    return [[left, right] for _, left, right in splits]


def _sentencepiece(path: str) -> dict:
    """The pieces, normaliser and dummy prefix of a sentencepiece model (its ModelProto)."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    with open(path, "rb") as f:
        proto.ParseFromString(f.read())
    spec, kinds = proto.normalizer_spec, pb.ModelProto.SentencePiece
    pieces, ids = (
        [(p.piece, p.score) for p in proto.pieces],
        {p.piece: i for i, p in enumerate(proto.pieces)},
    )
    special = {
        i: p.piece for i, p in enumerate(proto.pieces) if p.type in (kinds.CONTROL, kinds.UNKNOWN)
    }
    fallback = any(p.type == kinds.BYTE for p in proto.pieces)
    steps = []
    if spec.precompiled_charsmap:
        steps.append(
            {
                "type": "Precompiled",
                "precompiled_charsmap": base64.b64encode(spec.precompiled_charsmap).decode(),
            }
        )
    if spec.remove_extra_whitespaces:
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        ]
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    if proto.trainer_spec.model_type == pb.TrainerSpec.BPE:
        plain = {
            p.piece: p.score for p in proto.pieces if p.type in (kinds.NORMAL, kinds.USER_DEFINED)
        }
        model = {
            "type": "BPE",
            "vocab": ids,
            "merges": _merges(plain, ids),
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": fallback,
        }
    else:
        model = {
            "type": "Unigram",
            "unk_id": proto.trainer_spec.unk_id,
            "vocab": pieces,
            "byte_fallback": fallback,
        }
    prefix = "always" if spec.add_dummy_prefix else "never"
    spaces = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": prefix,
        "split": False,
    }
    back = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    back += (
        [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spec.add_dummy_prefix else []
    )
    return {
        "added_tokens": _added(special),
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": spaces,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": model,
    }


def made(d: Data) -> dict:
    """What tokenizer.json holds for the tokenizer that `d` names. Raises ConfigError."""
    d = tokenizers.resolved(d)
    if d.tokenizer == "tiktoken" or d.tokenizer.startswith("ids"):
        what = "of tiktoken ranks" if d.tokenizer == "tiktoken" else "whose ids have no text"
        raise ConfigError(
            f"a tokenizer {what} is not written as tokenizer.json: give --run of another tokenizer"
        )
    path = os.path.expanduser(d.tokenizer_path)
    if d.tokenizer == "hf":
        path = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    own = _bytes() if d.tokenizer == "bytes" else _sentencepiece(path)
    return {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **own}


def save(hf_dir: str, d: Data, separator: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json of the tokenizer that `d` names; `separator`
    is the id that ends a document.
    """
    own = made(d)
    files.write_text(os.path.join(hf_dir, "tokenizer.json"), json.dumps(own, ensure_ascii=False))
    ends = {"eos_token": t["content"] for t in own["added_tokens"] if t["id"] == separator}  # noqa: B035
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **ends,
    }
    files.write_json(os.path.join(hf_dir, "tokenizer_config.json"), config)
