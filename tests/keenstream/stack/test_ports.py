import socket
from collections.abc import Iterator

import pytest

from keenstream.stack.ports import LOCAL, PortPool, free_ports, holder, is_free
from schemas.errors import UsageError


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_replaced_by_a_free_one(taken_port: int) -> None:
    chosen = PortPool().choose(taken_port, fixed=False, setting="kafka.bootstrap")
    assert chosen != taken_port
    assert is_free(chosen)


def test_a_taken_port_that_the_user_fixed_is_an_error_that_names_its_holder(taken_port: int) -> None:
    with pytest.raises(UsageError, match=rf"port {taken_port} \(kafka.bootstrap\) is held by .*\(pid \d+\)"):
        PortPool().choose(taken_port, fixed=True, setting="kafka.bootstrap")


def test_a_free_port_is_taken_as_wished() -> None:
    (wished,) = free_ports(1)
    assert PortPool().choose(wished, fixed=True, setting="api.port") == wished


def test_a_port_is_given_out_once_even_before_anything_listens_there() -> None:
    (wished,) = free_ports(1)
    pool = PortPool()
    assert pool.choose(wished, fixed=False, setting="a") == wished
    assert pool.choose(wished, fixed=False, setting="b") != wished


def test_free_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    ports = free_ports(200)
    assert len(set(ports)) == 200
    assert max(ports) < 32_768


def test_the_holder_is_named(taken_port: int) -> None:
    assert "pid" in holder(taken_port)
