"""The networks a run takes place in: loopback, or veth pairs between three network namespaces.

    loopback      client, proxy and backend on 127.0.0.1, packets of 64 KiB, no device in between
    veth          a namespace each, joined by veth pairs of MTU 1500 with their offloads as they
                  come (TSO and GSO on): what a container on the proxy's own machine sees
    veth-plain    the same with TSO, GSO and GRO off: every packet is a packet, as on a plain
                  network card; TCP's checksums stay offloaded, as on every card

A namespace has no name. The lab holds it by a descriptor, the programs by running in it; so the
kernel removes it with its devices when they have ended, even when the lab was killed.

Loopback flatters splice: its packets have up to 64 KiB. On veth the receiving half of the network
stack runs where the sender runs, so that a proxy's own CPU time misses work that it causes:
compare `machine_cpu_seconds` there.
"""

import ctypes
import fcntl
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

from processes import LIBC, Failure

CLONE_NEWNET = 0x40000000
MTU = 1500
SIOCETHTOOL = 0x8946
# Name of the offload → ETHTOOL_G…, ETHTOOL_S… of linux/ethtool.h.
OFFLOADS = {"tso": (0x1E, 0x1F), "gso": (0x23, 0x24), "gro": (0x2B, 0x2C)}
# Pairs of devices: client and proxy, proxy and backend, and past the proxy for `direct`.
WIRES = (("client", "proxy", "192.0.2"), ("proxy", "backend", "198.51.100"),
         ("client", "backend", "203.0.113"))
# A namespace starts with the kernel's own settings; these decide numbers and are the machine's.
INHERITED = """net/core/somaxconn net/ipv4/tcp_rmem net/ipv4/tcp_wmem net/ipv4/ip_local_port_range
               net/ipv4/tcp_congestion_control""".split()


def _checked(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Network:
    """A network namespace without a name."""

    def __init__(self):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            _checked(LIBC.unshare(CLONE_NEWNET))
            self.descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
            _checked(LIBC.setns(home, CLONE_NEWNET))
        finally:
            os.close(home)

    @property
    def path(self):
        """What ip(8) knows it by, while the lab runs."""
        return "/proc/%d/fd/%d" % (os.getpid(), self.descriptor)

    def enter(self):
        """Moves this process into it for good."""
        _checked(LIBC.setns(self.descriptor, CLONE_NEWNET))

    @contextmanager
    def entered(self):
        """Sockets made meanwhile belong to it."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            self.enter()
            yield
        finally:
            _checked(LIBC.setns(home, CLONE_NEWNET))
            os.close(home)

    def close(self):
        os.close(self.descriptor)


class Loopback:
    """The machine as it is."""

    name = "loopback"
    client = proxy = backend = None
    proxy_host = backend_host = direct_host = "127.0.0.1"

    def missing(self):
        return None

    def open(self):
        pass

    def close(self):
        pass

    def facts(self):
        return {"mtu": int(Path("/sys/class/net/lo/mtu").read_text())}

    def wire(self):
        """Packets and bytes on the client's devices so far; None where others use them as well."""
        return None


class Veth:
    """Three namespaces, a wire between every two of them."""

    proxy_host, backend_host, direct_host = "192.0.2.2", "198.51.100.2", "203.0.113.2"

    def __init__(self, name, offloads):
        self.name, self.offloads = name, offloads
        self.ends = {}

    def __getattr__(self, role):
        if role in ("client", "proxy", "backend"):
            return self.ends[role]
        raise AttributeError(role)

    def missing(self):
        """Why this machine cannot have it."""
        if not shutil.which("ip"):
            return "needs ip(8)"
        if os.geteuid() != 0:
            return "needs root"
        try:
            Network().close()
        except OSError as error:
            return "needs network namespaces: %s" % error.strerror
        return None

    def open(self):
        self.ends = {role: Network() for role in ("client", "proxy", "backend")}
        settings = {name: Path("/proc/sys", name).read_text() for name in INHERITED
                    if Path("/proc/sys", name).exists()}
        # By default only loopback may use a port again that is in TIME_WAIT (2): the same for all.
        settings["net/ipv4/tcp_tw_reuse"] = "1"
        for network in self.ends.values():
            with network.entered():
                self._ip("link set dev lo up")
                for name, value in settings.items():
                    self._set(name, value)
        for left, right, subnet in WIRES:
            self._wire(left, right, subnet)

    def close(self):
        for network in self.ends.values():
            network.close()
        self.ends = {}

    def _wire(self, left, right, subnet):
        # Both are made in the left one's namespace, so no other run's device can have their names.
        with self.ends[left].entered():
            self._ip("link add %s mtu %d type veth peer name %s mtu %d netns %s" % (
                right, MTU, left, MTU, self.ends[right].path))
        for here, device, host in ((left, right, 1), (right, left, 2)):
            with self.ends[here].entered():
                if not self.offloads:
                    for offload in OFFLOADS:
                        set_offload(device, offload, False)
                self._ip("address add %s.%d/24 dev %s" % (subnet, host, device))
                self._ip("link set dev %s up" % device)

    def _set(self, name, value):
        try:
            Path("/proc/sys", name).write_text(value)
        except OSError:
            # Not every setting is a namespace's own; the machine's then holds in it.
            pass

    def _ip(self, arguments):
        done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            raise Failure("ip %s: %s" % (arguments, done.stderr.strip()))

    def facts(self):
        """What the devices say of themselves, for machine.json."""
        with self.proxy.entered():
            offloads = {name: offload(WIRES[0][0], name) for name in OFFLOADS}
        return {"mtu": MTU, **offloads}

    def wire(self):
        with self.client.entered():
            lines = Path("/proc/self/net/dev").read_text().splitlines()
        packets = carried = 0
        for line in lines:
            device, _, numbers = line.partition(":")
            if device.strip() in ("proxy", "backend"):
                fields = [int(number) for number in numbers.split()]
                carried += fields[0] + fields[8]
                packets += fields[1] + fields[9]
        return packets, carried


def set_offload(device, name, value):
    _ethtool(device, OFFLOADS[name][1], int(value))


def offload(device, name):
    return bool(_ethtool(device, OFFLOADS[name][0], 0))


def _ethtool(device, command, value):
    """What `ethtool -K` does, without having to install it; `device` is of this namespace."""
    order = (ctypes.c_uint32 * 2)(command, value)
    request = ctypes.create_string_buffer(40)
    request[:len(device)] = device.encode()
    ctypes.c_void_p.from_buffer(request, 16).value = ctypes.addressof(order)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return order[1]


def all_shapes():
    """Every shape by name."""
    shapes = [Loopback(), Veth("veth", True), Veth("veth-plain", False)]
    return {shape.name: shape for shape in shapes}
