import collections
import io
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from containers import ORDERED, SIXTEEN, call, mapping, name, number, storage, tensor, text, torch_zip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subspace.checkpoints import open_tensors
from subspace.errors import FileError, FormatError, SubspaceError, UnsafeFileError

DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int64",
    "uint8",
    "bool",
]


def saved(root, *, legacy=False):
    buffer = io.BytesIO()
    torch.save(root, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(DTYPES), min_size=1)
)
def test_round_trip_with_torch(tmp_path, legacy, names):
    if legacy:
        names = {key: dtype for key, dtype in names.items() if "float8" not in dtype} or {"A": "float32"}
    tensors = {
        key: (torch.arange(6).reshape(2, 3) - 2).to(getattr(torch, dtype)) for key, dtype in names.items()
    }
    path = tmp_path / "x.pt"
    path.write_bytes(saved(tensors, legacy=legacy))
    file = open_tensors(path)
    assert file.container == ("torch legacy" if legacy else "torch zip")
    assert list(file.layout) == list(tensors)
    for key, value in tensors.items():
        assert file.layout[key] == (names[key], (2, 3))
        if value.dtype.is_floating_point:
            np.testing.assert_array_equal(file.read(key), value.double().numpy())
            np.testing.assert_array_equal(file.stored(key).full(np.float64), value.double().numpy())
        else:
            np.testing.assert_array_equal(file.raw(key), value.numpy())


@pytest.mark.parametrize("legacy", [False, True])
def test_views_parameters_empty_tensors_and_module_versions(written, legacy):
    layer = torch.nn.Linear(3, 2)
    base = torch.arange(24.0)
    state = layer.state_dict()  # carries _metadata as an attribute
    state["parameter"] = torch.nn.Parameter(base[:6].reshape(2, 3))
    state["transposed"] = base[6:12].reshape(2, 3).t()
    state["empty"] = torch.empty(0, 4)
    file = open_tensors(written(saved(state, legacy=legacy)))
    for key, value in state.items():
        np.testing.assert_array_equal(file.read(key), value.detach().numpy())


@pytest.mark.parametrize(
    ("root", "keys", "skipped"),
    [
        ([torch.ones(2), torch.ones(3)], ["0", "1"], []),
        (torch.ones(2, 2), [""], []),
        ({"state_dict": {"A": torch.ones(2)}, "epoch": 3}, ["A"], ["epoch"]),
        (
            {"model": {"state_dict": {"A": torch.ones(2)}}, "optimizer": {"m": torch.ones(1)}},
            ["A"],
            ["optimizer"],
        ),
        ({"unheard of": {"A": torch.ones(2)}, "step": 1.5}, ["A"], ["step"]),
        ({"A": torch.ones(2), "r": 4, "note": None, 7: torch.ones(1)}, ["A"], ["7", "note", "r"]),
        ({"a": {"b": {"c": {"d": {"e": {"A": torch.ones(2)}}}}}}, ["a.b.c.d.e.A"], []),
    ],
)
def test_where_the_tensors_of_a_checkpoint_are(written, root, keys, skipped):
    file = open_tensors(written(saved(root)))
    assert list(file.layout) == keys
    assert sorted(file.skipped) == skipped


def test_a_trainer_checkpoint_with_its_optimizer(written):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    root = {
        "epoch": 1, "global_step": 2**40, "pytorch-lightning_version": "2.4.0", "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"best": {"score": torch.tensor(0.5), "path": "x"}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-3, "size": torch.Size([2, 3]), "d": torch.float16,
        "device": torch.device("cuda", 1), "flags": (True, None)}, "bytes": b"\xff\x00",
    }  # fmt: skip
    file = open_tensors(written(saved(root)))
    assert list(file.layout) == ["weight", "bias"]
    assert set(file.skipped) == set(root) - {"state_dict"}


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (
            {"first": {"A": torch.ones(2)}, "second": {"A": torch.ones(2)}},
            "Several state dicts.*first, second",
        ),
        ({1: torch.ones(2)}, "under text keys"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}, "under text keys"),
        ([], "No tensors "),
        (None, "No tensors "),
        ({"A": "text"}, "No tensors "),
    ],
)
def test_a_checkpoint_without_one_place_of_tensors(written, root, reason):
    with pytest.raises(FormatError, match=reason):
        open_tensors(written(saved(root)))


REFUSED = {
    "views past the storage": (mapping(A=tensor(size=(1000, 1000), stride=(1000, 1))), "1000000 elements"),
    "stride 0": (mapping(A=tensor(size=(4, 10**12), stride=(0, 0))), "over a storage of 16"),
    "offset past the storage": (mapping(A=tensor(offset=1)), "reaches beyond"),
    "stride past the storage": (mapping(A=tensor(stride=(5, 1))), "reaches beyond"),
    "negative offset": (mapping(A=tensor(offset=-1)), "offset"),
    "negative size": (mapping(A=tensor(size=(-4, 4))), "negative"),
    "negative stride": (mapping(A=tensor(stride=(-4, 1))), "negative"),
    "size and stride differ": (mapping(A=tensor(stride=(1,))), "a tensor of 16 elements"),
    "negative numel": (mapping(A=tensor(storage(numel=-1))), "without a key, a location and a length"),
    "hooks": (mapping(A=tensor(hooks=ORDERED + number(0) + number(1) + b"s")), "hooks"),
    "two descriptions": (mapping(A=tensor(), B=tensor(storage(numel=8))), "describes the storage 0 twice"),
    "no storage": (mapping(A=b"(" + text("module") + b"NNNNtQ"), "not a storage"),
    "system": (
        mapping(A=call("os", "system", text("true"))),
        "could run code.*: its pickle refers to os.system",
    ),
    "eval": (mapping(A=call("builtins", "eval", text("1"))), "refers to builtins.eval"),
    "python 2 eval": (mapping(A=call("__builtin__", "eval", text("1"))), "refers to __builtin__.eval"),
    "bytearray": (mapping(A=call("builtins", "bytearray", number(2**36))), "builtins.bytearray"),
    "uninitialised": (mapping(A=call("torch", "FloatTensor", number(4))), "torch.FloatTensor"),
    "storage called": (
        mapping(A=call("torch", "FloatStorage", number(10**12))),
        "could run code.* calls torch.FloatStorage",
    ),
    "codec": (mapping(A=call("_codecs", "encode", text("x"), text("punycode"))), "encoded as punycode"),
    "rebuild from type": (mapping(A=name("torch._tensor", "_rebuild_from_type_v2")), "_rebuild_from_type_v2"),
    "shadowed methods": (
        b"\x80\x02" + ORDERED + b"}" + text("items") + number(1) + b"sb.",
        "sets attributes",
    ),
    "state of a tensor": (b"\x80\x02" + tensor() + b"}b.", "sets attributes"),
    "object": (b"\x80\x02(" + name("collections", "OrderedDict") + b"o.", "opcode OBJ"),
    "instance": (b"(ios\nsystem\n.", "opcode INST"),
    "stack global": (b"\x80\x04" + text("os") + text("system") + b"\x93.", "opcode STACK_GLOBAL"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "new object": (b"\x80\x02" + name("torch", "Size") + b")\x81.", "opcode NEWOBJ"),
    "deep": (b"\x80\x02" + b"N" + b"\x85" * 200 + b".", "nests containers more than 100"),
    "wide stack": (b"\x80\x02" + b"]" * 60_000 + b".", "at once"),
    "odd key": (b"\x80\x02})Ns.", "a key that is neither"),
    "items into a number": (b"\x80\x02K\x01NNs.", "not a dict"),
    "a key that is a tuple of tuples": (
        mapping(
            A=tensor(),
            x=name("collections", "OrderedDict")
            + b"]K\x01\x85"
            + b"q\x01h\x01\x86" * 60
            + b"K\x01\x86a\x85R",
        ),
        "a key that is neither text nor a number",
    ),
    "keys of one hash": (
        mapping(A=tensor(), x=b"}" + number(2**61 - 1) + b"Ns"),
        "a key that is a number of 61 bits",
    ),
    "a list in itself": (mapping(A=tensor(), x=b"]q\x01h\x01a"), "a container that contains itself"),
    "a dict in a list in itself": (
        mapping(A=tensor(), x=b"]q\x01}" + text("k") + b"h\x01sa"),
        "contains itself",
    ),
    "thirty-three dimensions": (mapping(A=tensor(size=(1,) * 33, stride=(1,) * 33)), "33 dimensions"),
    "no elements of a size beyond any": (
        mapping(A=tensor(size=(0, 2**62), stride=(1, 1))),
        "no array can have",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_unsafe_request_is_refused_by_name(written, case):
    pickled, reason = REFUSED[case]
    with pytest.raises(UnsafeFileError, match=reason) as caught:
        open_tensors(written(torch_zip(pickled)))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "pickled",
    [b"", b"\x80\x02}", b"\x80\x02R.", b"\x80\x02h\x05.", b"\x80\x02u.", b"\x80\x02X\x02\0\0\0\xff\xfe.", b"\xff.",
     b"\x80\x02(q\x00.", b"\x80\x02}(N" + b"u.", b"\x80\x02.", b"\x80\x02(.", b"\x80\x02NQ.", b"\x80\x02}NR.",
     mapping(A=call("collections", "OrderedDict", number(1), number(2), number(3)))],
)  # fmt: skip
def test_malformed_pickles_are_damage(written, pickled):
    with pytest.raises(FileError, match=r"Damaged pickle|more than plain tensors|not a name"):
        open_tensors(written(torch_zip(pickled)))


GOOD = mapping(A=tensor())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (torch_zip(GOOD, records=()), "no bytes for the storage 0 of 64 bytes"),
        (torch_zip(GOOD, records=[("0", SIXTEEN[:-4])]), "60 bytes for the storage 0 of 64 bytes"),
        (torch_zip(mapping(A=tensor(storage("../../etc/passwd")))), "no bytes for the storage"),
        (torch_zip(GOOD, extra=[("../x", b"")]), "a member has the name ../x"),
        (torch_zip(GOOD, extra=[("/x", b"")]), "a member has the name /x"),
        (torch_zip(GOOD, extra=[("archive/..\\x", b"")]), "a member has the name"),
        (torch_zip(GOOD, extra=[("archive/DATA.pkl", b"")]), "two members have the same name"),
        (torch_zip(GOOD, extra=[("archive/constants.pkl", b"")]), "TorchScript"),
        (torch_zip(GOOD, extra=[("archive/code/x.py", b"")]), "TorchScript"),
        (torch_zip(GOOD, extra=[("other/data.pkl", b"N.")]), "exactly one"),
        (torch_zip(GOOD, extra=[("other/x", b"")]), "exactly one"),
        (
            torch_zip(GOOD, extra=[(f"archive/x{i}", b"") for i in range(40_000)]),
            "Too many members in an archive",
        ),
        (
            torch_zip(GOOD, records=[("0", bytes(2**27))], compression=zipfile.ZIP_DEFLATED),
            "Too many bytes after decompression",
        ),
        (torch_zip(GOOD, compression=zipfile.ZIP_BZIP2), "compression method"),
        (torch_zip(GOOD)[:-30], "cut short or corrupt"),
        (b"PK\x05\x06" + bytes(18), "it holds no files"),
    ],
)
def test_each_dishonest_archive_is_refused(written, raw, reason):
    with pytest.raises(SubspaceError, match=reason):
        open_tensors(written(raw))


def test_two_directories_for_two_readers_are_refused(written):
    raw = torch_zip(GOOD)
    directory, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    # a second copy of the directory before the end record, which still points at the first
    with pytest.raises(UnsafeFileError, match="not where its end record says"):
        open_tensors(written(raw[:end] + raw[directory:end] + raw[end:]))
    with pytest.raises(UnsafeFileError, match="not where its end record says"):
        open_tensors(written(raw[:directory] + b"PK\x03\x04" + raw[directory:]))


def test_a_zip64_archive_is_read(written, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    raw = torch_zip(GOOD)
    assert b"PK\x06\x06" in raw
    np.testing.assert_array_equal(open_tensors(written(raw)).read("A"), np.arange(16).reshape(4, 4))
    end = raw.index(b"PK\x06\x06")
    with pytest.raises(FileError, match="cut short or corrupt"):
        open_tensors(written(raw[:end] + b"PK\x06\x00" + raw[end + 4 :]))


def test_an_encrypted_member_is_refused(written):
    raw = bytearray(torch_zip(GOOD))
    raw[raw.find(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(UnsafeFileError, match="encrypted"):
        open_tensors(written(bytes(raw)))


def test_a_wrong_checksum_is_damage(written):
    raw = bytearray(torch_zip(GOOD))
    raw[raw.find(b"PK\x01\x02") + 16] ^= 1
    with pytest.raises(FileError, match="another checksum or size in front"):
        open_tensors(written(bytes(raw)))
    raw[14] ^= 1  # in the header in front of the member too
    with pytest.raises(FileError, match=r"a data\.pkl that cannot be unpacked"):
        open_tensors(written(bytes(raw)))


def test_a_deflated_archive_of_honest_size_is_read(written):
    file = open_tensors(written(torch_zip(GOOD, compression=zipfile.ZIP_DEFLATED)))
    np.testing.assert_array_equal(file.read("A"), np.arange(16).reshape(4, 4))


def legacy_parts():
    raw = saved({"A": torch.arange(4.0)}, legacy=True)
    reader, ends = io.BytesIO(raw), []
    for _ in range(3):
        pickle.load(reader)  # our own bytes: magic number, protocol, system
        ends.append(reader.tell())
    return raw, ends


def evil(canary):
    return b"\x80\x02" + call("os", "system", text(f"touch {canary}")) + b"."


@pytest.mark.parametrize("place", range(4))
def test_a_payload_in_any_pickle_of_a_legacy_file_never_fires(written, tmp_path, place):
    raw, ends = legacy_parts()
    canary = tmp_path / "fired"
    start = [0, *ends][place]
    with pytest.raises(UnsafeFileError):
        open_tensors(written(raw[:start] + evil(canary) + raw[start:]))
    assert not canary.exists()


def test_a_legacy_file_cut_anywhere_is_an_error(written):
    raw, _ = legacy_parts()
    for length in range(0, len(raw), 7):
        with pytest.raises(SubspaceError):
            open_tensors(written(raw[:length]))


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("file_name", ["x.pt", "x.safetensors", "x", "adapter_model.bin", "x.npz"])
def test_a_payload_beside_good_tensors_never_fires_whatever_the_name(written, tmp_path, file_name):
    canary = tmp_path / "fired"
    root = {"A": torch.ones(2), "x": Payload(canary)}
    for raw in (saved(root), saved(root, legacy=True), pickle.dumps(root, 2), pickle.dumps(root, 4)):
        with pytest.raises(UnsafeFileError):
            open_tensors(written(raw, file_name))
    assert not canary.exists()


def test_ordered_dicts_keep_their_order(written):
    names = ["b", "a", "c"]
    root = collections.OrderedDict((key, torch.ones(1)) for key in names)
    assert list(open_tensors(written(saved(root))).layout) == names


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_end_in_an_error_of_ours_or_none(written, seed, legacy):
    rng = random.Random(seed)
    raw = bytearray(saved({f"l.{i}.A": torch.ones(2, 3) for i in range(3)}, legacy=legacy))
    for _ in range(rng.randint(1, 20)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    try:
        file = open_tensors(written(bytes(raw)))
        for key in file.layout:
            file.read(key)
    except SubspaceError as error:
        assert "\n" not in str(error)
