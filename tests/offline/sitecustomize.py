"""Put this folder on PYTHONPATH and Python reaches nothing but the machine it runs on.

Loaded by Python itself at start. Chapters and tests run with it, so a cell that asks the network
for anything fails, here as on a reader's machine without one.
"""

import ipaddress
import socket

_connect, _lookup = socket.socket.connect, socket.getaddrinfo


def _local(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _refuse(host: object) -> None:
    raise OSError(f"network blocked: something asked for {host!r}; chapters must run without it")


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _local(address[0]):
        _refuse(address[0])
    return _connect(self, address)


def lookup(host, *args, **kwargs):
    if not _local(host):
        _refuse(host)
    return _lookup(host, *args, **kwargs)


socket.socket.connect, socket.getaddrinfo = connect, lookup
