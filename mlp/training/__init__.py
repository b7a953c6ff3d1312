"""Training: how, from where, with what, and what it leaves.

settings.py      how to train
state.py         where a run stands
checkpoint.py    the state on disk
checkpoints.py   the state kept while training
step.py          gradient and update of one batch, and the same recorded on a device
setup.py         what a run holds, written once
memory_plan.py   what that takes of a device, counted before it is asked for
run.py           a run as its callbacks see it
loop.py          `train`: epochs until they are done or something ends them
"""
