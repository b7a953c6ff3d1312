"""Formulas, each in one home: pure functions that every backend turns into one kernel.

    output_units.py   sigmoid and softmax, which activations and losses share
    activations.py    f and its vector-Jacobian product
    losses.py         the cost of an output and its derivative
    initializers.py   initial weights
    optimizers.py     update rules
    schedules.py      the learning rate over time
    metrics.py        how good predictions are
    loss_scaling.py   what keeps float16 deltas from vanishing
"""
