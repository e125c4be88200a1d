"""The same numbers from a Dask cluster and from Ray as from one process, whatever dies meanwhile."""

import os
import signal
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner
from joblib.parallel import get_active_backend
from made_collections import Made, Slow, killed, random_adapters

from subspace.analysis.all_pairs import all_pairs
from subspace.analysis.backends import backend
from subspace.analysis.workers import in_order
from subspace.cli.backend_options import backend_options
from subspace.errors import SubspaceError, ValueRangeError


def collection(kind=Made, layers=2):
    modules = [f"layers.{layer}.self_attn.{part}_proj" for layer in range(layers) for part in "qv"]
    return kind(random_adapters(9, modules, ranks=(4, 2)))


def equal(one, other):
    for side in ("a", "b"):
        for name in ("phi_full", "phi_control", "chordal"):
            np.testing.assert_array_equal(getattr(one.sides[side], name), getattr(other.sides[side], name))
    np.testing.assert_array_equal(one.cosine, other.cosine)
    np.testing.assert_array_equal(one.z, other.z)
    np.testing.assert_array_equal(one.modules, other.modules)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "spark"}, "Unknown back end 'spark': `backend` is one of local, dask, ray"),
        ({"jobs": 0}, "Too few processes: 0; give `jobs` of at least 1"),
        ({"scheduler": "tcp://x:1"}, "A scheduler without its back end: 'tcp://x:1'; give `backend` too"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(wrong, message):
    with pytest.raises(ValueRangeError, match=message), backend(**wrong):
        pass


def test_this_machine_takes_one_job_unless_more_are_asked_for():
    before = type(get_active_backend()[0])
    with backend() as jobs, backend(jobs=3) as more:
        assert (jobs, more) == (1, 3)
        assert type(get_active_backend()[0]) is before


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_says_how_to_get_it(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    wanted = f"The package {package} is not installed.*pip install 'lora-subspace\\[{name}\\]'"
    with pytest.raises(SubspaceError, match=wanted), backend(name, scheduler="tcp://127.0.0.1:1"):
        pass


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("subspace.analysis.backends._SECONDS", 0.3)
    with pytest.raises(SubspaceError, match=r"scheduler cannot be reached: 'tcp://127\.0\.0\.1:9'"):
        backend("dask", scheduler="tcp://127.0.0.1:9").__enter__()
    with pytest.raises(SubspaceError, match="No Dask scheduler: give `scheduler`"):
        backend("dask").__enter__()


def test_the_options_put_a_back_end_in_place():
    @click.command()
    @backend_options
    def count(workers):
        with workers as jobs:
            click.echo(jobs)

    run = CliRunner().invoke
    assert run(count, []).output == "1\n"
    assert run(count, ["--jobs", "3"]).output == "3\n"
    assert "Invalid value for '--backend'" in run(count, ["--backend", "spark"]).output
    assert "--scheduler ADDRESS" in run(count, ["--help"]).output


def _square(task):
    return task * task


def test_results_come_in_portions_from_a_back_end_that_hands_out_none_before_it_has_all():
    from joblib import parallel_config, register_parallel_backend
    from joblib.parallel import ThreadingBackend

    class Whole(ThreadingBackend):
        supports_return_generator = False

    register_parallel_backend("whole", Whole)
    with parallel_config("whole"):
        assert list(in_order(_square, range(30), jobs=2)) == [n * n for n in range(30)]


@pytest.fixture
def cluster(monkeypatch):
    """Three worker processes of one thread each, which find this file and what it imports."""
    distributed = pytest.importorskip("distributed")
    paths = [path for path in sys.path if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None
    ) as found:
        yield found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dask_worker_that_is_killed_in_the_middle_costs_nothing_but_time(cluster):
    from distributed import Client

    one = all_pairs(collection(layers=6), panel=4)
    victims = []
    with Client(cluster) as client:
        before = client.run(os.getpid)

        def kill_one(done, total):
            if done == 2:
                assert total > 10
                busy = [address for address, tasks in client.processing().items() if tasks]
                victims.append(before[busy[0]])
                os.kill(victims[0], signal.SIGKILL)

        with backend("dask", scheduler=cluster.scheduler_address) as jobs:
            assert jobs == 3
            found = all_pairs(collection(Slow, layers=6), panel=4, jobs=jobs, progress=kill_one)
        equal(one, found)
        client.wait_for_workers(3, timeout=60)
        assert victims
        assert victims[0] not in client.run(os.getpid).values()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_kills_every_dask_worker_is_given_up(cluster):
    with (
        pytest.raises(SubspaceError, match="Dask workers were lost with one task 4 times"),
        backend("dask", scheduler=cluster.scheduler_address) as jobs,
    ):
        list(in_order(killed, range(2), jobs=jobs))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_finds_the_same_bits(monkeypatch):
    pytest.importorskip("ray")
    paths = [path for path in sys.path if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    try:
        with backend("ray", jobs=2) as jobs:
            found = all_pairs(collection(), panel=4, jobs=jobs)
    except SubspaceError as error:
        pytest.skip(f"Ray does not start here: {error}")
    equal(all_pairs(collection(), panel=4), found)
