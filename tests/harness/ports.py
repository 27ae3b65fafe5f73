# SPDX-License-Identifier: Apache-2.0
"""Ports for servers under test."""

import random
import socket


def free_port():
    """Below the range from which the system gives out ports: neither mpirun's own sockets nor a client that knocks before
    its server is up can take it meanwhile."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randint(10000, 32000)))
                return s.getsockname()[1]
            except OSError:
                pass
