"""What every test runs under: one thread, fixed seeds, no network beyond this machine."""

import errno
import functools
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

_allowed_beyond_loopback = False


def _is_loopback(host):
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_the_network(host):
    """Fail as a machine without a network does, in any thread and for any library."""
    if not _allowed_beyond_loopback and not _is_loopback(host):
        raise OSError(errno.ENETUNREACH, f"tests reach this machine only, not {host}")


def _guard(method):
    """Let a socket's method reach this machine only; its last argument is the address."""

    @functools.wraps(method)
    def guarded(sock, *args):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_the_network(args[-1][0])
        return method(sock, *args)

    return guarded


def _guard_lookup(getaddrinfo):
    @functools.wraps(getaddrinfo)
    def guarded(host, *args, **kwargs):
        _refuse_the_network(host)
        return getaddrinfo(host, *args, **kwargs)

    return guarded


# Not an audit hook: under coverage one makes threads fail that start at the same time.
for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _guard(getattr(socket.socket, _name)))
socket.getaddrinfo = _guard_lookup(socket.getaddrinfo)


@pytest.fixture(autouse=True)
def _network_for_those_who_need_it(request):
    global _allowed_beyond_loopback
    _allowed_beyond_loopback = request.node.get_closest_marker("network") is not None
    yield
    _allowed_beyond_loopback = False


@pytest.fixture(autouse=True)
def _seeded():
    """Seed torch where a test uses it; all else draws from generators of its own."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _short_training():
    """What tests ask of trained models holds after few steps too."""
    from tests.short_training import STEPS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glow_bt.training.returns._STEPS", STEPS)
        yield


@pytest.fixture
def float64():
    """Make float64 torch's default type for the length of a test."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)
