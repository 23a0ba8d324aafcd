"""Negative log-likelihoods of the tokens of many sequences, batch by batch and stage by stage.

The loop is over groups of batches, over stages, over the batches of a group: weights that are read
anew for each group are read once for all of its batches.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from launch.config import ConfigError, Where
from launch.devices import choice
from launch.evaluation import memory, weights
from launch.evaluation.weights import Stage, Weights
from model import account, loss
from model.block import Block
from model.config import Execution, Layer, Model
from model.lm import Embedding, Head

ROWS = 32  # sequences of a batch, at most
TOKENS = 2**14  # of a batch, at most, unless a single sequence is longer
LEAST = 32  # tokens that a batch is wide, at least
WIDTHS = (1.0, 0.75)  # of an octave: so much of its upper end are batches wide
STATES = 2**28  # bytes of states of a group of batches, at least
LOGITS = 2**28  # bytes of logits that stand at a time where the best token is asked for


class Sequence(NamedTuple):
    """tokens[1:] are predicted, those from tokens[1 + skip] on counted."""

    tokens: np.ndarray
    skip: int = 0

    @property
    def width(self) -> int:
        """Tokens that the model is given."""
        return len(self.tokens) - 1


class Scores(NamedTuple):
    """nll: of each sequence its counted tokens' negative log-likelihoods, nats. best: whether each
    is the model's most probable token, where that was asked for.
    """

    nll: list[np.ndarray]
    best: list[np.ndarray]


class Batch(NamedTuple):
    """tokens: (rows, width + 1), filled up with zeros on the right, which a causal model does not
    see; rows beyond those of `members` repeat the first. model: as it turns these sequences.
    """

    members: list[int]
    tokens: np.ndarray
    ex: Execution
    model: Model

    @property
    def shape(self) -> tuple:
        """What its programs depend on."""
        return self.model, self.ex, self.tokens.shape


def width(n: int) -> int:
    """The tokens that a batch is wide in which a sequence of `n` stands: of few widths there are
    few programs.
    """
    top = max(LEAST, 1 << (n - 1).bit_length())
    return next(int(top * w) for w in reversed(WIDTHS) if int(top * w) >= n)


def dropless(m: Model) -> Model:
    """The model whose experts drop nothing, as in decoding: what stands beside a text in a batch
    is chance, and would compete with it.
    """

    def free(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        plain = {"capacity_factor": 0.0, "routing_group": 1}
        return tuple(
            dataclasses.replace(x, mlp=dataclasses.replace(x.mlp, **plain))
            if x.mlp.n_experts
            else x
            for x in layers
        )

    return dataclasses.replace(m, first=free(m.first), pattern=free(m.pattern))


def execution(m: Model, width: int, rows: int, dtype: str) -> Execution:
    """How a batch is computed here."""
    platform, here = jax.default_backend(), dataclasses.replace(m, seq_len=width)
    ex = choice.execution(here, Where(), dtype, platform, 1, rows * width)
    return choice.evaluation(here, choice.able(ex), platform, rows)


def batches(
    models: list[Model], sets: list[list[Sequence]], dtype: str, best: bool = False
) -> list[Batch]:
    """The sequences of all sets, each set by its model, by width. Logits stand whole only where the
    best token is asked for.
    """
    sequences = [s for own in sets for s in own]
    kinds = [models.index(m) for m, own in zip(models, sets) for _ in own]
    by_width: dict[tuple[int, int], list[int]] = {}
    for i, (kind, s) in enumerate(zip(kinds, sequences)):
        wide = min(width(s.width), models[kind].seq_len)
        by_width.setdefault((wide, kind), []).append(i)
    out = []
    for (wide, kind), members in sorted(by_width.items(), reverse=True):
        m = models[kind]
        rows = _rows(m, wide, dtype, best)
        rows = min(rows, 1 << (len(members) - 1).bit_length())
        ex = execution(m, wide, rows, dtype)
        for at in range(0, len(members), rows):
            own = members[at : at + rows]
            tokens = np.zeros((rows, wide + 1), np.int32)
            for row, i in enumerate(own):
                tokens[row, : len(sequences[i].tokens)] = sequences[i].tokens
            tokens[len(own) :] = tokens[0]
            how = dataclasses.replace(ex, loss_chunk=0) if best else ex
            out.append(Batch(own, tokens, how, m))
    return out


def _rows(m: Model, wide: int, dtype: str, best: bool) -> int:
    """Sequences of a batch: a power of two."""
    here, room, rows = dataclasses.replace(m, seq_len=wide), memory.free(), ROWS
    while rows > 1:
        need = account.evaluation(here, execution(m, wide, rows, dtype), rows)
        logits = 4 * rows * wide * m.vocab_size if best else 0
        if rows * wide <= TOKENS and logits <= LOGITS and (room is None or 4 * need <= room):
            break
        rows //= 2
    return rows


class Scorer:
    """Of one model. `compile_s`: seconds that its programs took to compile; `read_s`: to bring
    weights to the device. programs: those of models before it, which serve models of equal shape,
    such as the revisions of one.
    """

    def __init__(self, held: Weights, programs: dict | None = None):
        self.weights, self.model = held, dropless(held.model)
        self.compile_s = self.read_s = 0.0
        self._programs: dict[Any, Any] = {} if programs is None else programs

    def score(self, sequences: list[Sequence], best: bool = False) -> Scores:
        """Of one set of sequences, see `together`."""
        return self.together([sequences], best)[0]

    def together(self, sets: list[list[Sequence]], best: bool = False) -> list[Scores]:
        """Of several sets, for which weights are read once. Every sequence needs a token that is
        counted, and none more tokens than the model has positions. Raises ConfigError where losses
        are not finite: of NaN no choice is the best.
        """
        if not self.weights.stream:  # else calls wait for weights, and no clock tells them apart
            for stage in weights.stages(self.model):
                self._stage(stage)
        sequences = [s for own in sets for s in own]
        nll: list = [None] * len(sequences)
        hits: list = [None] * len(sequences)
        todo = batches([self._turned(own) for own in sets], sets, self.weights.dtype, best)
        for group in self._groups(todo):
            for b, (nll_BT, hit_BT) in zip(group, self._forward(group, best)):
                for row, i in enumerate(b.members):
                    counted = slice(sequences[i].skip, sequences[i].width)
                    nll[i] = np.asarray(nll_BT[row, counted], np.float64)
                    hits[i] = hit_BT[row, counted] if best else None
        if not all(np.isfinite(x).all() for x in nll):
            raise ConfigError("its losses are not finite: it diverged or is damaged: leave it out")
        ends = np.cumsum([len(own) for own in sets]).tolist()
        return [Scores(nll[a:b], hits[a:b]) for a, b in zip([0, *ends], ends)]

    def _turned(self, own: list[Sequence]) -> Model:
        """The model as it turns a set, where its rope goes by that."""
        if not self.weights.by_call:
            return self.model
        return weights.at_length(self.model, max((s.width for s in own), default=1))

    def _groups(self, todo: list[Batch]):
        """Batches whose states fit together. Where weights are streamed a group may be large."""
        room = STATES
        if self.weights.stream:
            room = max(room, (memory.free() or 0) // 4)
        group: list[Batch] = []
        taken = 0
        for b in todo:
            size = 8 * b.tokens.size * self.model.d_model  # as they come and as they go
            if group and taken + size > room:
                yield group
                group, taken = [], 0
            group.append(b)
            taken += size
        if group:
            yield group

    def _stage(self, stage: Stage) -> dict:
        started = time.perf_counter()
        found = jax.block_until_ready(self.weights.of(stage))
        self.read_s += time.perf_counter() - started
        return found

    def _settled(self, states: list) -> None:
        """Before weights are read anew: calls wait in a queue, and would hold every layer there."""
        if self.weights.stream:
            jax.block_until_ready(states)

    def _run(self, key, call, *arguments):
        """`call` of the arguments, compiled once for their shapes."""
        if key not in self._programs:
            started = time.perf_counter()
            lowered = jax.jit(call).lower(*arguments)
            self._programs[key] = choice.compiled(lowered, jax.default_backend())
            self.compile_s += time.perf_counter() - started
        return self._programs[key](*arguments)

    def _forward(self, group: list[Batch], best: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        held = self._stage(weights.embedding(self.model))
        states = []
        for b in group:
            call, key = Embedding(b.model, b.ex).apply, (Embedding, *b.shape)
            states.append(self._run(key, call, held, b.tokens[:, :-1]))
        for stage in weights.layers(self.model):
            self._settled(states)
            del held  # before the next one comes
            held = self._stage(stage)
            for k, b in enumerate(group):

                def call(held, x_BTD, b=b, layer=stage.layer):
                    return Block(b.model, b.ex, layer).apply(held, x_BTD)[0]

                states[k] = self._run((stage.layer, *b.shape), call, held, states[k])
        self._settled(states)
        del held
        held = self._stage(weights.head(self.model))
        out = []
        for k, b in enumerate(group):

            def call(held, x_BTD, targets_BT, b=b):
                return _head(b.model, b.ex, held, x_BTD, targets_BT, best)

            found = self._run((Head, best, *b.shape), call, held, states[k], b.tokens[:, 1:])
            states[k] = None
            out.append(tuple(map(np.asarray, found)))
        return out


def _head(m: Model, ex: Execution, held, x_BTD, targets_BT, best: bool):
    """(negative log-likelihoods, whether each target is the most probable token), (B, T)."""

    def read(x_BTD, w_VD):
        if not best:
            return loss.each(x_BTD, w_VD, targets_BT, m.logit_cap, ex), targets_BT == targets_BT
        logits_BTV = loss.logits(x_BTD, w_VD, m.logit_cap)
        return loss.nll(logits_BTV, targets_BT), logits_BTV.argmax(-1) == targets_BT

    return Head(m, ex).apply(held, x_BTD, read)
