"""Leading directions of base weights that are kept: the same to the bit, of this very weight, and never in the way."""

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_base
from subspace.analysis import known_directions
from subspace.analysis.known_directions import KnownDirections, directory, nothing_known, trimmed
from subspace.analysis.one_module import Site
from subspace.checkpoints import open_tensors
from subspace.geometry.topk import leading

_D = 600


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.setattr(known_directions, "_SMALLEST", 0)
    return KnownDirections(str(tmp_path / "kept"))


def _weights(path, seed=0):
    W = np.random.default_rng(seed).standard_normal((_D, _D + 20)).astype("f4")
    save_file({"q.weight": W, "p.weight": W + 1}, path)
    return W


def _asked(known, path, *, k=4, tol=None, key="q.weight"):
    site = Site(load_base(path), None, None, known)  # only the matrix is asked for
    return site.leading(k, tol=tol, W=open_tensors(path).stored(key))


def _same(one, other):
    arrays = all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("U", "S", "V"))
    plain = ("sigma_next", "error", "passes", "norm", "fourth_moment", "exact")
    return arrays and all(
        getattr(one, n) == getattr(other, n) and type(getattr(one, n)) is type(getattr(other, n))
        for n in plain
    )


def _searches(monkeypatch):
    """Count the searches from here on."""
    seen = []
    monkeypatch.setattr(
        "subspace.analysis.one_module.leading",
        lambda *given, **more: seen.append(1) or leading(*given, **more),
    )
    return seen


def test_what_was_found_is_found_again_to_the_bit_and_not_searched_for(known, tmp_path, monkeypatch):
    W = _weights(tmp_path / "w.safetensors")
    seen = _searches(monkeypatch)
    first, second = (_asked(known, tmp_path / "w.safetensors") for _ in range(2))
    assert len(seen) == 1
    assert _same(first, second)
    assert _same(first, leading(W, 4))
    assert second.U.flags.c_contiguous
    assert first.U.flags.c_contiguous


@pytest.mark.parametrize(
    "change",
    [
        lambda path: {"k": 5},
        lambda path: {"tol": 1e-6},
        lambda path: {"key": "p.weight"},
        lambda path: os.utime(path, ns=(1, 1)) or {},
        lambda path: _weights(path, seed=1) is None or {},
    ],
)
def test_another_question_or_another_weight_is_not_taken_for_it(known, tmp_path, monkeypatch, change):
    path = tmp_path / "w.safetensors"
    _weights(path)
    _asked(known, path)
    seen = _searches(monkeypatch)
    _asked(known, path, **change(path))
    assert len(seen) == 1


def test_other_numbers_with_the_old_time_are_seen_by_their_rows(known, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    _weights(path)
    stamp = path.stat()
    _asked(known, path)
    with path.open("r+b") as file:  # the same file on the disk, of the same size
        file.seek(0)
        whole = bytearray(file.read())
        whole[-4 * _D * _D :] = b"\x00" * (4 * _D * _D)
        file.seek(0)
        file.write(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    seen = _searches(monkeypatch)
    _asked(known, path)
    assert len(seen) == 1


def test_another_device_and_another_version_search_anew(known, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    _weights(path)
    _asked(known, path)
    seen = _searches(monkeypatch)
    _asked(KnownDirections(known.folder, "cuda"), path)
    monkeypatch.setattr(known_directions, "__version__", "0.0")
    _asked(known, path)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:20], lambda b: b[:-30], lambda b: b[:2000] + b"####" + b[2004:]]
)
def test_a_damaged_entry_is_made_again(known, tmp_path, monkeypatch, damage):
    path = tmp_path / "w.safetensors"
    _weights(path)
    first = _asked(known, path)
    (entry,) = (tmp_path / "kept").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    seen = _searches(monkeypatch)
    assert _same(_asked(known, path), first)
    assert _same(_asked(known, path), first)
    assert len(seen) == 1


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path, known):
    (tmp_path / "kept").write_text("a file")
    _weights(tmp_path / "w.safetensors")
    assert _asked(known, tmp_path / "w.safetensors").norm > 0
    assert (tmp_path / "kept").read_text() == "a file"


def test_what_is_in_memory_or_small_is_not_kept(tmp_path, monkeypatch):
    known = KnownDirections(str(tmp_path / "kept"))
    _weights(tmp_path / "w.safetensors")  # fewer numbers than are worth it
    _asked(known, tmp_path / "w.safetensors")
    monkeypatch.setattr(known_directions, "_SMALLEST", 0)
    known.of(np.eye(30), lambda: leading(np.eye(30), 2), asked=("leading", 2, None))
    assert not (tmp_path / "kept").exists()


def test_the_entries_that_were_used_longest_ago_go_first(known, tmp_path):
    path = tmp_path / "w.safetensors"
    _weights(path)
    for n, k in enumerate((1, 2, 3)):
        before = set(tmp_path.glob("kept/*"))
        _asked(known, path, k=k)
        (new,) = set(tmp_path.glob("kept/*")) - before
        os.utime(new, ns=(n, n))
    _asked(known, path, k=1)  # which makes it the newest
    size = max(entry.stat().st_size for entry in tmp_path.glob("kept/*"))
    trimmed(known.folder, most=size)
    (left,) = tmp_path.glob("kept/*")
    assert left.stat().st_mtime_ns > 10
    trimmed(str(tmp_path / "nowhere"))
    trimmed(None)


def test_the_directory_is_the_users_or_none(monkeypatch, tmp_path):
    monkeypatch.setenv("SUBSPACE_CACHE", str(tmp_path))
    assert directory() == str(tmp_path / "directions")
    with nothing_known():
        assert directory() is None
    for word in ("off", "0", "", "OFF"):
        monkeypatch.setenv("SUBSPACE_CACHE", word)
        assert directory() is None
    monkeypatch.delenv("SUBSPACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert directory() == str(tmp_path / "subspace" / "directions")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert directory() == str(tmp_path / ".cache" / "subspace" / "directions")
