# SPDX-License-Identifier: Apache-2.0
"""note_code.py FILE PROGRAM ...: runs a rank and appends "rank code" to FILE when it ends; 128 + signal when it was killed.

mpirun kills process groups, so the rank is in this process's, but its parent, who notes the code, is not: it outlives
both.  mpirun sees this process end as the rank did.
"""

import os
import signal
import sys


def note(path, program, group):
    os.setpgid(0, 0)
    rank = os.fork()
    if rank == 0:
        os.setpgid(0, group)
        os.execvp(program[0], program)
    status = os.waitpid(rank, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    with open(path, "a", encoding="ascii") as f:
        f.write(f"{os.environ['OMPI_COMM_WORLD_RANK']} {128 - code if code < 0 else code}\n")
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


def main():
    noter = os.fork()
    if noter == 0:
        os._exit(note(sys.argv[1], sys.argv[2:], os.getppid()))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    code = os.waitstatus_to_exitcode(os.waitpid(noter, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
