"""Which tokens stand out in the leading directions of the modules that read or write the residual stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.base.token_names import TokenNames, token_names
from subspace.analysis.token_tables import Table, Tables, Use, Without
from subspace.geometry.direction_shares import random_directions
from subspace.geometry.token_scores import Probe, Scores, probed
from subspace.results.explanation import DirectionExplanation, NamedToken

if TYPE_CHECKING:
    from subspace.adapters import BaseWeights
    from subspace.analysis.explained_module import Directions
    from subspace.geometry.lapack import Floats

__all__ = ["Reader", "TokenTest", "with_tokens"]

_OTHERS = 64  # directions of other modules, at most, that go through the same rows


@dataclass(frozen=True)
class TokenTest:
    """How tokens are tested.

    Attributes
    ----------
    most : tokens that are shown for each direction, at most; 0 for none
    draws : isotropic random directions
    level : p-value up to which a token stands out
    tokenizer : as `token_names` takes it
    """

    most: int
    draws: int
    level: float
    tokenizer: str = "auto"


@dataclass(frozen=True, eq=False)
class Reader:
    """The leading directions of one module (d, k), and what tokens they are compared with."""

    module: str
    use: Use
    vectors: Floats


class _Table:
    """All readers of one table: one stream of its rows."""

    def __init__(self, tables: Tables, readers: Sequence[Reader], test: TokenTest) -> None:
        self.readers, self.test = readers, test
        use = readers[0].use
        self.isotropic = random_directions(use.table.d, test.draws, seed=0)
        every = [(reader.use.layer, column) for reader in readers for column in reader.vectors.T]
        chosen = np.linspace(0, len(every) - 1, min(_OTHERS, len(every))).round().astype(int)
        self.layers = np.array([every[n][0] for n in chosen])
        others = np.array([every[n][1] for n in chosen]).T
        norms: dict[str, list[Reader]] = defaultdict(list)
        for reader in readers:
            norms[reader.use.norm].append(reader)
        self.groups = list(norms.values())
        controls = np.hstack([self.isotropic, others])
        self.probes = [
            Probe(
                np.hstack([reader.vectors for reader in group]),
                controls,
                tables.gain(group[0].use.norm),
                centre=use.side == "output" and use.centred,
            )
            for group in self.groups
        ]

    def tokens(self, matrix: object, names: TokenNames) -> dict[str, list[_Found]]:
        """Module -> what was found in each of its directions."""
        use = self.readers[0].use
        scores = probed(
            matrix,
            self.probes,
            norm=use.side == "input",
            centre=use.side == "input" and use.centred,
            most=self.test.most,
        )
        found = {}
        for group, each in zip(self.groups, scores, strict=True):
            n = 0
            for reader in group:
                k = reader.vectors.shape[1]
                found[reader.module] = [self._found(reader, each, n + i, names) for i in range(k)]
                n += k
        return found

    def _found(self, reader: Reader, scores: Scores, n: int, names: TokenNames) -> _Found:
        draws = self.test.draws
        p = scores.p(n, slice(0, draws))
        elsewhere = draws + np.flatnonzero(self.layers != reader.use.layer)
        p_modules = scores.p(n, elsewhere) if len(elsewhere) else None
        tokens = tuple(
            NamedToken(
                place=place + 1,
                id=int(scores.ids[n, place]),
                token=names[int(scores.ids[n, place])],
                score=float(scores.scores[n, place]),
                p=float(p[place]),
                p_modules=None if p_modules is None else float(p_modules[place]),
            )
            for place in range(len(p))
        )
        return _Found(reader.use.side, tokens)


@dataclass(frozen=True)
class _Found:
    side: str
    tokens: tuple[NamedToken, ...]


def with_tokens(
    rows: dict[str, list[DirectionExplanation]],
    directions: dict[str, Directions],
    base: BaseWeights,
    test: TokenTest,
) -> tuple[dict[str, list[DirectionExplanation]], str, bool]:
    """The rows with the tokens that stand out; what names these; whether embedding and unembedding are one."""
    tables = Tables(base)
    by_table: dict[tuple[Table, str, bool], list[Reader]] = defaultdict(list)
    out = dict(rows)
    for module, found in directions.items():
        use = tables.use(found.update)
        if isinstance(use, Without):
            out[module] = [replace(row, without_tokens=use.why) for row in rows[module]]
            continue
        vectors = (found.V if use.side == "input" else found.U)[:, : found.k]
        by_table[use.table, use.side, use.centred].append(Reader(module, use, vectors))
    source = ""
    for (table, _, _), readers in by_table.items():
        names = token_names(base.path, table.tokens, test.tokenizer)
        source = names.source
        streamed = base.tensors.stored(table.key)
        for module, each in _Table(tables, readers, test).tokens(streamed, names).items():
            out[module] = [_with(row, found, test) for row, found in zip(rows[module], each, strict=True)]
        base.tensors.release()
    return out, source, any(table.tied for table, _, _ in by_table)


def _with(row: DirectionExplanation, found: _Found, test: TokenTest) -> DirectionExplanation:
    if not found.tokens:
        return row
    best, out = found.tokens[0], tuple(each for each in found.tokens if each.p <= test.level)
    return replace(
        row,
        read_as=found.side,
        token=best.token if out else "none",
        token_score=best.score,
        token_p=best.p,
        token_p_modules=best.p_modules,
        tokens=out,
    )
