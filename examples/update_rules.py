"""The update rules that derivation 003 names, side by side: what to do with the gradient.

Algorithm 1 has two steps, the gradient and the update rule. The first is the same for all; here the
second changes, on the 10-5-10 encoder, on which Fahlman compared his Quickprop: ten patterns, each
with one 1 among ten inputs, come out again as they went in, through five hidden units.

    standard     w <- w - eta dE/dw
    momentum     the same plus a share of the last move: the "+ ..." of Algorithm 1
    Quickprop    a parabola through the last two slopes of each weight; jump to its minimum
    Rprop        only the sign of the slope; each weight has a step size of its own
    Adam         slopes divided by their own running size (later than the note)

Each rule runs as batch version (E_tot of all patterns, one step an epoch) and as stochastic version
(a step after each pattern), until E_tot <= 0.1. Quickprop and Rprop compare a slope with the one
before it. Of a whole batch these are slopes of one function; of single patterns, of two different
ones, and neither rule learns.

    python update_rules.py [--backend cupy] [--plot curves.png]
"""

import argparse

import numpy as np

import mlp

PATTERNS = np.eye(10)
EPSILON, EPOCHS = 0.1, 300

RULES = {  # name: (the library's rule, learning rate in batch, in stochastic version)
    "standard": ("sgd", 2.0, 4.0),
    "momentum": ({"name": "momentum", "momentum": 0.5}, 1.0, 2.0),
    "Quickprop": ("quickprop", 1.0, 1.0),
    "Rprop": ("rprop", 0.1, 0.1),
    "Adam": ("adam", 0.1, 0.1),
}
VERSIONS = {"batch": None, "stochastic": 1}


def run(rule, learning_rate, batch_size, backend):
    """E_tot before the first epoch and after each."""
    net = mlp.Network(10, [mlp.Dense(5, "sigmoid"), mlp.Dense(10, "sigmoid")])
    model = mlp.Model(net, "half_squared_error", seed=1, backend=backend)
    start = model.evaluate(PATTERNS, PATTERNS)["loss"]
    result = mlp.train(
        model, PATTERNS, PATTERNS, optimizer=rule, learning_rate=learning_rate,
        batch_size=batch_size, epochs=EPOCHS, target_loss=EPSILON,
    )  # fmt: skip
    return [start, *result.history["train_loss"]]


def plot(curves, path):
    """E_tot over epochs, the two versions beside each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), dpi=144, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colors = ("#8a8a8a", "#3b6ea8", "#c0392b", "#d98f2b", "#2e8b57")
    for axes, version in zip(panels, VERSIONS, strict=True):
        for name, color in zip(RULES, colors, strict=True):
            errors = curves[version, name]
            last = len(errors) - 1
            reached = errors[-1] <= EPSILON
            label = f"{name}, {last} epochs" if reached else f"{name}, not within {last}"
            dashes = (0, (5, 2)) if name == "Rprop" else "-"  # where it lies on Quickprop's
            axes.plot(range(last + 1), errors, color=color, lw=1.8, ls=dashes, label=label)
            if reached:
                axes.plot(last, errors[-1], "o", color=color, ms=5)
        axes.axhline(EPSILON, color="#444444", lw=0.8, ls=(0, (4, 3)))
        axes.set(yscale="log", xlim=(0, EPOCHS), ylim=(0.07, 12.0), xlabel="epoch")
        axes.set_title(f"{version} version", fontsize=11)
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        place = "upper right" if version == "batch" else "center right"
        axes.legend(frameon=False, fontsize=8.5, loc=place)
    panels[0].set_ylabel("E_tot, half the sum of squares")
    panels[0].set_yticks([0.1, 1.0, 10.0], ["0.1", "1", "10"])
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", help="numpy, cupy, torch, ...; default $MLP_BACKEND, or numpy")
    parser.add_argument("--plot", metavar="FILE", help="draw the error curves into a PNG")
    arguments = parser.parse_args()

    curves = {}
    print(f"10-5-10 encoder, epochs until E_tot <= {EPSILON}\n")
    print(f"{'':<11}{'batch':>16}{'stochastic':>24}")
    for name, (rule, *rates) in RULES.items():
        cells = []
        for (version, batch_size), rate in zip(VERSIONS.items(), rates, strict=True):
            errors = curves[version, name] = run(rule, rate, batch_size, arguments.backend)
            epochs = f"{len(errors) - 1:>5}" if errors[-1] <= EPSILON else f" > {EPOCHS}"
            cells.append(f"{epochs} (E_tot {errors[-1]:.2f})")
        print(f"{name:<11}{cells[0]:>20}{cells[1]:>22}")
    if arguments.plot:
        plot(curves, arguments.plot)
        print(f"\nerror curves in {arguments.plot}")


if __name__ == "__main__":
    main()
