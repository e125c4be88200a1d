"""Row alignment on published adapters: checkpoints of one run began at one start, other runs did not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace.adapters import load_adapter, match_modules
from subspace.geometry.row_alignment import combined, row_alignment, start_verdict

RUN_X = ("gpt2-lazie-runX-ck500", "gpt2-lazie-runX-ck4000", "gpt2-lazie-runX-ck7500")
RUN_Y, RUN_Z, OTHER = "gpt2-lazie-runY-ck1000", "gpt2-lazie-runZ-final", "gpt2-udacity-anirudh"

ONE_RUN = [
    (RUN_X[1], RUN_X[2], 12),
    (RUN_X[0], RUN_X[2], 12),
    ("mlx-gemma2b-medqa-0000100", "mlx-gemma2b-medqa-0000600", 8),
]
OTHER_RUNS = [
    (RUN_X[2], RUN_Y, 12),
    (RUN_X[2], RUN_Z, 12),
    (RUN_Y, RUN_Z, 12),
    (RUN_X[2], OTHER, 12),
    ("roberta-udacity-emotion-qv-r8", "roberta-agnews-biasall-r4-ck1200", 24),
    ("whisper-dysarthric-part-final", "whisper-dysarthric-full-final", 36),
    ("sam-vitb-r2", "sam-vitb-r16", 24),
    ("sam-vitb-r8", "sam-vitb-r16", 24),
]


@pytest.fixture(scope="module")
def alignments(real_adapters):
    entries = json.loads((real_adapters / "MANIFEST.json").read_text(encoding="utf-8"))
    files = {entry["name"]: real_adapters / entry["name"] / entry["file"] for entry in entries}

    def of(first, second):
        one, other = load_adapter(files[first]), load_adapter(files[second])
        pairs = match_modules(list(one), list(other)).pairs
        return [row_alignment(one[name].A, other[its].A) for name, its in pairs]

    return of


@pytest.mark.parametrize(("first", "second", "modules"), ONE_RUN)
def test_checkpoints_of_one_run_have_a_start_in_common_in_every_module(alignments, first, second, modules):
    found = alignments(first, second)
    assert len(found) == modules
    assert min(one.z for one in found) > 6.8  # of 7
    assert {start_verdict(one) for one in found} == {"common"} == {start_verdict(combined(found))}


@pytest.mark.parametrize(("first", "second", "modules"), OTHER_RUNS)
def test_other_runs_have_none(alignments, first, second, modules):
    found = alignments(first, second)
    z = [one.z for one in found]
    assert len(found) == modules
    assert np.max(np.abs(z)) < 3.5
    assert abs(combined(found).z) < 3
    assert start_verdict(combined(found)) == "different"
    assert "common" not in {start_verdict(one) for one in found}


def test_one_adapter_in_two_files_is_aligned_as_far_as_its_rank_goes(alignments):
    found = alignments("sd-anime-peft-faithsang", "sd-anime-diffusers-faithsang")
    assert [one.z for one in found] == pytest.approx([3.0] * 96, abs=1e-6)
    # no single module of rank 4 can tell, 96 together can
    assert {start_verdict(one) for one in found} == {"cannot_tell"}
    assert start_verdict(combined(found)) == "common"
