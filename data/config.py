"""What decides the tokens that a run reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Data:
    """A source, how it becomes tokens, and which windows are validated on. Part of a run's
    identity.
    """

    # python_source | text | jsonl | parquet | arrow | tfds:NAME | synthetic | tokens | nanogpt |
    # llmc | megatron | npy, with fields of its own in brackets: jsonl(field=content)
    source: str = "python_source"
    # files, folders and globs, comma-separated, local or a URL; tfds: its data_dir; tokens: a
    # prepared folder
    path: str = ""
    # files that are validated on and not trained on; empty: a twentieth of the text in path
    validation_path: str = ""
    tokenizer: str = "bytes"  # bytes | sentencepiece | hf | tiktoken | ids
    tokenizer_path: str = ""  # the file of the tokenizer: .model, tokenizer.json, .tiktoken
    # several sources by name, code=python_source, web=jsonl(path=...), of which mixture takes
    # shares: code=0.3,web=0.7; they stand in the place of source and path
    sources: str = ""
    mixture: str = ""
    unique_tokens: int = 0  # train on so many tokens alone, again and again; 0: on all
    # apart: no token sees another document than its own, and positions begin anew; joined: a
    # window is one text
    documents: str = "joined"
    # fingerprint of text and tokenizer, in the place of their paths in a run's identity: filled in
    # when a run starts; other content is refused
    content: str = ""
    seed: int = 0  # order of the training windows
    validation_windows: int = 256  # at fixed places, the same for every run
    zipf: float = 0.5  # synthetic: key probabilities fall as rank^-(1 + zipf)
    # how seed and epoch become an order. 1: by seed and epoch added up, so that seeds share orders
    # in later epochs; a record without the field means it. 2: one mixed after the other
    order: int = dataclasses.field(default=2, metadata={"before": 1})


class DataError(ValueError):
    """A corpus, tokenizer or token file that cannot be used; the message says what to do."""
