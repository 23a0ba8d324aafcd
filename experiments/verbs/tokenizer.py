"""Trains a tokenizer on a corpus, or shows what one makes of a text.

isoflop tokenizer --train --kind=bpe --vocab_size=8192 --out=mine.json \\
    --set data.source=text --set "data.path=notes/*.md"
isoflop tokenizer --inspect --set data.tokenizer=hf --set data.tokenizer_path=mine.json "some text"

--kind=bpe writes a byte-level BPE as tokenizer.json, --kind=sentencepiece a unigram model. It
learns from the first --sample_bytes of the corpus's training documents, in the corpus's order.
Without data.source it learns from the standard library's source code.
"""

import dataclasses
import json
import sys
import time

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.console.terminal import plain
from experiments.verbs import common

HELD = 2**20  # bytes of held-out text that a new tokenizer is tried on


def _tried(tokenizer, documents) -> dict:
    """Bytes and tokens of some text; the separators count as tokens."""
    from data.tokenizers import training

    taken, size = training.sample(documents, HELD)
    tokens = sum(len(ids) + 1 for ids, _ in tokenizer.counted_batch(taken))
    return {"bytes": size, "tokens": tokens, "bytes_per_token": size / tokens if tokens else None}


def _train(fv) -> int:
    from data import tokenizers
    from data.sources import registry
    from data.tokenizers import training

    make, name, least = training.KINDS[fv.kind]
    if not fv.out:
        raise UserError("--out is missing: name the file to write")
    if fv.vocab_size < least:
        raise UserError(
            f"--vocab_size={fv.vocab_size} is too small: a {fv.kind} tokenizer needs {least} ids,"
            " for every byte has one"
        )
    d = common.data(getattr(fv, "set"))
    if d.source in ("synthetic", "tokens"):
        raise UserError(f"data.source={d.source} is no text: name a source of text to learn from")
    if d.sources or d.mixture:
        raise UserError("a tokenizer learns from one source: name it by data.source and data.path")
    training.writable(fv.out)
    corpus, started = registry.load(d), time.perf_counter()
    taken, size = training.sample(corpus.documents("train"), fv.sample_bytes)
    if not size:
        raise UserError(f"corpus {corpus.name} is empty: check data.path")
    training.write(fv.out, make(taken, fv.vocab_size))
    made = tokenizers.load(dataclasses.replace(d, tokenizer=name, tokenizer_path=fv.out))
    said = {
        "path": fv.out,
        "kind": fv.kind,
        "tokenizer": name,
        "vocab_size": made.vocab_size,
        "fingerprint": made.fingerprint,
        "corpus": corpus.name,
        "sample": {"documents": len(taken), "bytes": size},
        "held_out": _tried(made, corpus.documents("validation")),
        "seconds": time.perf_counter() - started,
    }
    if fv.format == "json":
        print(json.dumps(said))
        return 0
    held = said["held_out"]
    print(
        f"{fv.out}: {fv.kind}, {made.vocab_size:,} ids, of {size:,} bytes in {len(taken)} documents"
    )
    if held["tokens"]:
        print(
            f"{held['bytes_per_token']:.3f} bytes per token on {held['bytes']:,} bytes of held-out"
            " text"
        )
    print(
        f"use it: --set data.tokenizer={name} --set data.tokenizer_path={fv.out} --set"
        f" model.vocab_size={made.vocab_size}"
    )
    return 0


def _inspect(fv) -> int:
    from data import tokenizers

    if fv.text is None:
        raise UserError('the text is missing: isoflop tokenizer --inspect "some text"')
    t, text = (
        tokenizers.load(common.data(getattr(fv, "set"))),
        fv.text.encode("utf-8", "surrogateescape"),
    )
    ids, sizes = t.counted(text)
    rows, at = [], 0
    for i, n in zip(ids.tolist(), sizes.tolist()):
        own = text[at : at + n].decode("utf-8", "backslashreplace")
        rows.append({"id": i, "piece": t.piece(i), "bytes": n, "text": own})
        at += n
    said = {
        "tokenizer": t.fingerprint,
        "vocab_size": t.vocab_size,
        "separator": int(t.separator),
        "unknown": t.unknown,
        "bytes_by": "place" if t.token_bytes is None else "id",
        "bytes": len(text),
        "left_to_the_separator": len(text) - at,
        "tokens": rows,
    }
    if fv.format == "json":
        print(json.dumps(said))
        return 0
    print(f"{t.fingerprint}: {t.vocab_size:,} ids, documents end with {t.separator}")
    print(f"{'id':>8}  {'bytes':>5}  {'piece':<24} text")
    for r in rows:
        shown = plain(r["text"].replace("\n", "\\n").replace("\t", "\\t"))
        print(f"{r['id']:>8}  {r['bytes']:>5}  {plain(r['piece']):<24} '{shown}'")
    ends = f", {len(text) - at} left to the separator" if at < len(text) else ""
    print(f"{len(rows)} tokens, {len(text)} bytes{ends}")
    return 0


def _body(fv) -> int:
    if fv.train == fv.inspect:
        raise UserError("choose one of --train and --inspect")
    if fv.train and fv.text is not None:
        raise UserError(f"unexpected argument {fv.text!r}: flags are written --name=value")
    return _train(fv) if fv.train else _inspect(fv)


def _flags() -> flags.FlagValues:
    fv = cli.flag_values("set")
    flags.DEFINE_bool("train", False, "make a tokenizer of a corpus", flag_values=fv)
    flags.DEFINE_bool("inspect", False, "ids, pieces and bytes of a text", flag_values=fv)
    flags.DEFINE_enum("kind", "bpe", ["sentencepiece", "bpe"], "what to train", flag_values=fv)
    flags.DEFINE_integer("vocab_size", 8192, "how many ids", flag_values=fv)
    flags.DEFINE_string("out", "", "file to write; never over another", flag_values=fv)
    flags.DEFINE_integer(
        "sample_bytes",
        10_000_000,
        "how much text to learn from: the first training documents until they hold so many bytes",
        lower_bound=1,
        flag_values=fv,
    )
    flags.DEFINE_string("text", None, "what --inspect shows; also without --text=", flag_values=fv)
    return fv


def _placed(argv: list[str]) -> list[str]:
    """`argv` with a text that stands alone as --text."""
    try:
        alone = _flags()(["isoflop", *argv])[1:]
    except flags.Error:  # said by the reading proper
        return argv
    if len(alone) != 1:
        return argv
    at = len(argv) - 1 - argv[::-1].index(alone[0])
    return [*argv[:at], f"--text={alone[0]}", *argv[at + 1 :]]


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return cli.run("tokenizer", __doc__, _flags(), _placed(argv), _body)


if __name__ == "__main__":
    sys.exit(main())
