import numpy as np
import pytest
import torch

from subspace.checkpoints import from_memory
from subspace.errors import FormatError, SubspaceError


def test_numpy_arrays_are_not_copied():
    A = np.ones((2, 3), np.float32)
    file = from_memory({"A": A, "d": np.ones(2, ">f8"), "s": np.float64(3)}, name="mine")
    assert file.path == "mine"
    assert file.container == "memory"
    assert file.read("A") is A
    assert file.layout["d"] == ("float64", (2,))
    assert file.read("d").dtype == np.float64
    assert file.read_scalar("s") == 3


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_torch_tensors_of_every_width(dtype):
    values = torch.linspace(-2, 2, 12).reshape(3, 4).to(getattr(torch, dtype))
    file = from_memory({"A": torch.nn.Parameter(values), "t": values.t(), "e": values[:0]})
    assert file.layout["A"] == (dtype, (3, 4))
    np.testing.assert_array_equal(file.read("A"), values.double().numpy())
    np.testing.assert_array_equal(file.read("t"), values.t().double().numpy())
    assert file.stored("e").shape == (0, 4)


def test_a_torch_tensor_shares_its_memory():
    A = torch.ones(2, 3)
    assert np.shares_memory(from_memory({"A": A}).read("A"), A.numpy())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0], "a value of type list"),
        (torch.ones(2, 2).to_sparse(), "sparse_coo"),
        (torch.ones(2, device="meta"), "meta"),
        (np.array(["x"]), "<U1|str"),
        (np.array([None]), "object"),
    ],
)
def test_what_holds_no_numbers_is_named(value, reason):
    with pytest.raises(FormatError, match=reason):
        from_memory({"A": value})


@pytest.mark.filterwarnings("ignore")  # torch deprecates its quantised tensors
def test_a_quantised_tensor_is_named():
    value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(FormatError, match="quantised"):
        from_memory({"A": value})


@pytest.mark.parametrize(
    "fails",
    [
        lambda: from_memory({"q": object()}),
        lambda: from_memory({"q": np.array(["text"])}),
        lambda: from_memory({"q": torch.ones(2).to_sparse()}),
        lambda: from_memory({2: np.ones(2)}),
        lambda: from_memory({"q": np.ones(2)}).raw("v"),
        lambda: from_memory({"q": np.ones(2, np.int8)}).read("q"),
        lambda: from_memory({"q": np.ones(2)}).stored("q"),
        lambda: from_memory({"q": np.ones(2)}).read_scalar("q"),
        lambda: from_memory({"q": np.array(1j)}).read_scalar("q"),
        lambda: from_memory({"q": np.array(np.nan)}).read_scalar("q"),
    ],
)
def test_errors_name_a_source_without_a_path_in_a_way_that_reads_well(fails):
    with pytest.raises(SubspaceError, match=r", in (q of )?the state dict in memory") as caught:
        fails()
    assert "in in" not in str(caught.value)


def test_names_must_be_text():
    with pytest.raises(FormatError, match="not text: 1, in the state dict in memory"):
        from_memory({1: np.ones(2)})


def test_the_digest_depends_on_names_and_numbers_only():
    first = from_memory({"A": np.ones(2), "B": np.zeros(2)})
    second = from_memory({"B": np.zeros(2), "A": np.ones(2)})
    assert first.sha256() == second.sha256()
    assert first.sha256() != from_memory({"A": np.ones(2), "B": np.ones(2)}).sha256()
