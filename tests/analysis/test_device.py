"""The products through torch, here on its CPU: the same numbers as NumPy's within the rounding of float32."""

import numpy as np
import pytest
import torch

from subspace.analysis import device
from subspace.analysis.amplify import amplify
from subspace.analysis.device import TorchProducts, products_on, require_device
from subspace.errors import SubspaceError, ValueRangeError
from subspace.geometry.products import NumpyProducts, products, products_by
from subspace.geometry.row_chunks import Rows
from subspace.geometry.topk import leading, project


def _W(n=700, m=640, seed=0):
    return np.random.default_rng(seed).standard_normal((n, m)).astype("f4")


@pytest.fixture(params=["all of W stays", "in blocks"])
def engine(request, monkeypatch):
    if request.param == "in blocks":
        monkeypatch.setattr(device, "_BLOCK", 640 * 50)
        return TorchProducts("cpu", most=0)
    return TorchProducts("cpu", most=10**9)


def test_both_products_are_those_of_dense_float64(engine):
    W, rng = _W(), np.random.default_rng(1)
    V, U = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((640, 5), (700, 3)))
    Y, Z = engine.gram_step(Rows(W), V.astype("f4"))
    wide, scale = W.astype("f8"), np.linalg.norm(W)
    assert np.abs(Y - wide @ V).max() < 1e-6 * scale
    assert np.abs(Z - V.T @ wide.T @ wide).max() < 1e-6 * scale**2
    assert np.abs(engine.core(Rows(W), U, V) - U.T @ wide @ V).max() < 1e-6 * scale
    again = engine.gram_step(Rows(W), V.astype("f4"))
    np.testing.assert_array_equal(again[0], Y)


def test_a_search_agrees_with_that_of_numpy(engine):
    W = _W() * np.arange(1, 641, dtype="f4") ** -0.5
    here = leading(W, 6)
    with products_by(engine):
        there = leading(W, 6)
        core = project(W, here.U, here.V)
    assert not here.exact
    np.testing.assert_allclose(there.S, here.S, rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(there.V * here.V, axis=0)), 1, atol=1e-5)
    np.testing.assert_allclose(core, project(W, here.U, here.V), atol=1e-6 * here.norm)


def test_w_is_sent_once_for_all_passes_and_another_w_is_another(monkeypatch):
    sent = []
    uploaded = device._uploaded
    monkeypatch.setattr(device, "_uploaded", lambda rows, name: sent.append(1) or uploaded(rows, name))
    engine, rows, V = TorchProducts("cpu", most=10**9), Rows(_W()), np.ones((640, 2), "f4")
    first = engine.gram_step(rows, V)
    assert np.array_equal(engine.gram_step(rows, V)[0], first[0])
    assert len(sent) == 1
    other = engine.gram_step(Rows(2 * _W()), V)
    assert len(sent) == 2
    np.testing.assert_allclose(other[0], 2 * first[0], rtol=1e-6)


def test_large_and_small_numbers_are_scaled_as_without_it(engine):
    W = _W().astype("f8") * 1e30
    with products_by(engine):
        found = leading(W, 3)
        tiny = project(_W() * 1e-40, np.eye(700)[:, :2], np.eye(640)[:, :2])
    np.testing.assert_allclose(found.S, leading(W, 3).S, rtol=1e-6)
    np.testing.assert_allclose(tiny, (_W() * 1e-40)[:2, :2], rtol=1e-5)


def test_a_number_that_is_not_finite_is_the_same_error(engine):
    W = _W()
    W[5, 5] = np.nan
    with products_by(engine), pytest.raises(ValueRangeError):
        leading(W, 3)


def test_the_precision_that_others_have_asked_torch_for_is_theirs_again(engine):
    torch.set_float32_matmul_precision("medium")
    try:
        engine.core(Rows(_W()), np.ones((700, 1)), np.ones((640, 1)))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_question_asked_on_a_device_has_the_same_answer(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    W = {"a.weight": _W()}
    dW = {"a.lora_A.weight": rng.standard_normal((2, 640)), "a.lora_B.weight": rng.standard_normal((700, 2))}
    used = []
    real = device.TorchProducts

    def on_the_cpu(name):
        used.append(name)
        return real("cpu", most=10**9)

    monkeypatch.setattr(device, "TorchProducts", on_the_cpu)
    monkeypatch.setattr("subspace.analysis.against_base.require_device", lambda name: None)
    here, there = (amplify(W, dW, scale=1.0, device=name)[0].ranks[0] for name in ("cpu", "cuda"))
    assert used == ["cuda"]
    assert there.proj_delta_W == pytest.approx(here.proj_delta_W, rel=1e-5)
    assert there.proj_W == pytest.approx(here.proj_W, rel=1e-5)


def test_the_cpu_is_numpy_and_asks_nothing_of_torch():
    require_device("cpu")
    with products_on("cpu"):
        assert isinstance(products(), NumpyProducts)
    with products_by(TorchProducts("cpu")):
        assert isinstance(products(), TorchProducts)
    assert isinstance(products(), NumpyProducts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do():
    with pytest.raises(
        ValueRangeError, match=r"No device 'cuda' that torch .* can use: .*; leave `device` out"
    ):
        amplify(np.eye(3), {"A": np.eye(1, 3), "B": np.eye(3, 1)}, scale=1.0, device="cuda")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:7:7"])
def test_a_name_that_is_none_is_an_error(name):
    with pytest.raises(ValueRangeError, match="No device"):
        require_device(name)


def test_without_torch_a_device_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    require_device("cpu")
    with pytest.raises(ValueRangeError, match="The package torch is not installed"):
        require_device("cuda")


def test_a_device_without_memory_is_an_error_and_no_traceback():
    engine = TorchProducts("cpu")
    with pytest.raises(SubspaceError, match="Out of memory on the device 'cpu'"), engine._exact():
        raise torch.OutOfMemoryError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_numpy():
    W = _W(3000, 2048)
    here = leading(W, 6)
    with products_on("cuda"):
        there = leading(W, 6)
    np.testing.assert_allclose(there.S, here.S, rtol=1e-5)
