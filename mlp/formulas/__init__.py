"""Formulas, each in one home: pure functions that every backend turns into one kernel.

target_kinds    what targets there are, which losses and metrics name
output_units    sigmoid and softmax, which activations and losses share
activations     f and its vector-Jacobian product
losses          the cost of an output and its derivative
metrics         how good predictions are
initializers    initial weights
schedules       the learning rate over time
optimizers      update rules
loss_scaling    what keeps float16 deltas from vanishing

A table of each kind stands at the end of its module; its rows are tested by being listed. What is
asked of an object of your own, and what may stand on it as an attribute, is in the module's
docstring and its Protocol.
"""
