# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one machine: namespaces for network, host name, mounts and shared memory, joined by a bridge whose ports
can be taken down.  mpirun reaches them through an agent that enters the namespaces instead of calling ssh.

Needs root, and a kernel that allows it: available() says why not.
"""

import ctypes
import os
import pathlib
import shutil
import subprocess
import threading

NAMES = ("tpsa", "tpsb")
HUB = "tpshub"
ADDRESS = "10.83.7.{}"
INIT = """hostname {name}
mount --make-rprivate /
mount -t tmpfs tmpfs /dev/shm
mount --bind {hosts} /etc/hosts
echo ready
exec sleep 100000
"""
AGENT = """#!/bin/sh
# stands in for ssh: HOST COMMAND...
host=$1
shift
exec nsenter -t "$(cat {dir}/$host.pid)" -m -u -i -n -- sh -c "$*"
"""
INTERFACE = {"oob_tcp_if_include": "eth0", "btl_tcp_if_include": "eth0"}


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Unavailable(Exception):
    """This kernel or machine cannot weaken a link so."""


def weaken(*words):
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as e:
        raise Unavailable(f"{' '.join(words[:1])}: {getattr(e, 'stderr', '') or e}".strip()) from e


def available():
    """None, or the reason why there can be no such hosts."""
    if os.geteuid() != 0:
        return "namespaces need root"
    for tool in ("ip", "nsenter", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:
        subprocess.run(["unshare", "-m", "-u", "-i", "-n", "true"], check=True, capture_output=True)
        ip("netns", "add", "tpsprobe")
        ip("-n", "tpsprobe", "link", "add", "br0", "type", "bridge")
        ip("-n", "tpsprobe", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
        return None
    except (OSError, subprocess.CalledProcessError) as e:
        return f"namespaces cannot be made: {getattr(e, 'stderr', '') or e}".strip()
    finally:
        subprocess.run(["ip", "netns", "del", "tpsprobe"], capture_output=True, check=False)


class Hosts:
    """`with Hosts(directory) as h:` launcher(n) are the words that start n ranks on each host."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.holders = []

    def __enter__(self):
        self.remove()
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        hosts = self.dir / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" +
                         "".join(f"{ADDRESS.format(i + 1)} {name}\n" for i, name in enumerate(NAMES)))
        self.agent = self.dir / "agent"
        self.agent.write_text(AGENT.format(dir=self.dir))
        self.agent.chmod(0o755)
        ip("netns", "add", HUB)
        ip("-n", HUB, "link", "add", "br0", "type", "bridge")
        ip("-n", HUB, "link", "set", "br0", "up")
        for i, name in enumerate(NAMES):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", HUB, "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", HUB, "link", "set", f"v{i}", "master", "br0", "up")
            ip("-n", name, "addr", "add", ADDRESS.format(i + 1) + "/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "unshare", "-m", "-u", "-i", "sh", "-c",
                                       INIT.format(name=name, hosts=hosts)], stdout=subprocess.PIPE, text=True)
            self.holders.append(holder)
            assert holder.stdout.readline() == "ready\n"
            (self.dir / f"{name}.pid").write_text(str(holder.pid))

    def remove(self):
        for name in (HUB, *NAMES):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def __exit__(self, *unused):
        for h in self.holders:
            h.kill()
            h.wait()
        self.holders = []
        self.remove()

    def launcher(self, each, keepalive=(5, 2, 3)):
        """keepalive: seconds to the first probe, between probes, and how many, of mpirun's own connections."""
        words = [str(self.agent), NAMES[0], "exec", "env", f"OMPI_MCA_plm_rsh_agent={self.agent}", "mpirun", "--oversubscribe",
                 "--bind-to", "none", "-np", str(2 * each), "--host", ",".join(f"{n}:{each}" for n in NAMES)]
        names = ("oob_tcp_keepalive_time", "oob_tcp_keepalive_intvl", "oob_tcp_keepalive_probes")
        for key, value in (*zip(names, keepalive), *INTERFACE.items()):
            words += ["--mca", key, str(value)]
        return words

    def cut(self):
        ip("-n", HUB, "link", "set", "v1", "down")

    def narrow(self, rate, late):
        """The second host sends and receives so little; what has to wait longer is dropped."""
        for where, name in ((NAMES[1], "eth0"), (HUB, "v1")):
            weaken("tc", "-n", where, "qdisc", "add", "dev", name, "root", "tbf", "rate", rate, "burst", "16kb", "latency", late)

    def lose(self, share):
        """Of the packets that the second host sends and receives."""
        for chain in ("INPUT", "OUTPUT"):
            weaken("ip", "netns", "exec", NAMES[1], "iptables", "-A", chain, "!", "-o" if chain == "OUTPUT" else "-i", "lo",
                   "-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP")

    def heal(self):
        ip("-n", HUB, "link", "set", "v1", "up")

    def connect(self, port, seconds):
        """A connection to a port of the first host, made by a thread that goes there for it."""
        import socket

        result = []

        def go():
            with open(f"/run/netns/{NAMES[0]}", "rb") as f:
                if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0x40000000) != 0:
                    result.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                result.append(socket.create_connection(("127.0.0.1", port), timeout=seconds))
            except OSError as e:
                result.append(e)

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if isinstance(result[0], OSError):
            raise result[0]
        return result[0]
