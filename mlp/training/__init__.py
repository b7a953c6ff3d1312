"""Training: how, from where, with what, and what it leaves.

settings.py      how to train
state.py         where a run stands
step.py          gradient and update of one batch, and the same recorded on a device
setup.py         what a run holds, written once
memory_plan.py   what that takes of a device, counted before it is asked for
run.py           a run as its callbacks see it
loop.py          `train`: epochs until they are done or something ends them
checkpoint.py    models and states on disk
"""
