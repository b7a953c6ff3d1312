"""Several processes that train one net: ranks, and how they add up, tell each other and agree.

`group` is the one class that training knows, for one process alone; `mpi` and `nccl` are what it is
on several; `launch` finds them. `shards` cuts a batch, runs the passes and adds their gradients.
See docs/parallel.md.
"""

from mlp.parallel.group import Group
from mlp.parallel.launch import world

__all__ = ["Group", "world"]
