"""How many CPUs there are for this process."""

import os


def usable_cpus() -> int:
    """Number of CPUs that this process may use: its affinity, where the system has that."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
