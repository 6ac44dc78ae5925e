"""The walls that tests run within hold."""

import errno
import socket

import numpy as np
import pytest
import torch


def test_tests_cannot_leave_the_machine():
    with pytest.raises(OSError, match=r"this machine only, not api\.bybit\.com") as caught:
        socket.getaddrinfo("api.bybit.com", 443)
    assert caught.value.errno == errno.ENETUNREACH
    with socket.socket() as tcp, pytest.raises(OSError, match=r"not 192\.0\.2\.1"):
        tcp.connect(("192.0.2.1", 80))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        pytest.raises(OSError, match=r"not 192\.0\.2\.1"),
    ):
        udp.sendto(b"", ("192.0.2.1", 53))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tests_can_serve_themselves(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection((host, server.getsockname()[1])) as client:
            client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


def test_torch_has_one_thread_and_the_type_asked_for(float64):
    assert torch.get_num_threads() == 1
    assert torch.zeros(1).dtype == float64


@pytest.mark.parametrize("repetition", [1, 2])
def test_every_test_draws_from_the_same_seed(repetition):
    expected = torch.randn(3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(torch.randn(3), expected)
