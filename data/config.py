"""What decides the tokens that a run reads."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Data:
    """A source, how it becomes tokens, and which windows are validated on. Part of a run's
    identity.
    """

    source: str = "python_source"  # python_source | text | tfds:NAME | synthetic | tokens
    path: str = (
        ""  # text: files or globs, comma-separated; tfds: its data_dir; tokens: a prepared folder
    )
    tokenizer: str = "bytes"  # bytes | sentencepiece | hf | tiktoken
    tokenizer_path: str = ""  # its file: .model, tokenizer.json, .tiktoken
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
