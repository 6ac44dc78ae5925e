"""What every test runs under: one thread, fixed seeds, no network beyond this machine."""

import errno
import ipaddress
import os
import socket
import sys

# Before numpy or torch is loaded; processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

# Audit events that leave the process, and where in their arguments the host stands.
_OUTGOING = {
    "socket.connect": lambda sock, address: _host_of(sock, address),
    "socket.sendto": lambda sock, address: _host_of(sock, address),
    "socket.getaddrinfo": lambda host, *rest: host,
}
_allowed_beyond_loopback = False


def _host_of(sock, address):
    return address[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else None


def _is_loopback(host):
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_the_network(event, args):
    """Fail as a machine without a network does, in any thread and for any library."""
    if event not in _OUTGOING or _allowed_beyond_loopback:
        return
    host = _OUTGOING[event](*args)
    if not _is_loopback(host):
        raise OSError(errno.ENETUNREACH, f"tests reach this machine only, not {host}")


sys.addaudithook(_refuse_the_network)


@pytest.fixture(autouse=True)
def _network_for_those_who_need_it(request):
    global _allowed_beyond_loopback  # an audit hook cannot be taken off again
    _allowed_beyond_loopback = request.node.get_closest_marker("network") is not None
    yield
    _allowed_beyond_loopback = False


@pytest.fixture(autouse=True)
def _seeded():
    """Seed torch where a test uses it; all else draws from generators of its own."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def float64():
    """Make float64 torch's default type for the length of a test."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)
