"""The graph and the layout of its parameters: what is built, what is refused, what is a view."""

import re

import numpy as np
import pytest

from backends import get_backend
from mlp.errors import InputError
from mlp.formulas.initializers import INITIALIZERS
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena
from mlp.network.graph import Network
from mlp.network.objective import Objective

SKIPS = Network(
    2,
    [
        Dense(3, "tanh"),
        Dense(4, "relu", bias=False),
        Dense(1, "sigmoid", sources=(0, 2, 1)),
    ],
)
CHAIN = Network(3, [Dense(5, "relu"), Dense(4, "softmax"), Dense(2)])
LONE = Network(4, [Dense(1, bias=False)])
networks = pytest.mark.parametrize("network", [SKIPS, CHAIN, LONE], ids=["skips", "chain", "lone"])


# ------------------------------------------------------------------ building


@pytest.mark.parametrize(
    ("inputs", "layers", "message"),
    [
        (0, [Dense(1)], "Network: inputs must be a whole number from 1 on, not 0"),
        (2.0, [Dense(1)], "inputs must be a whole number from 1 on, not 2.0"),
        (True, [Dense(1)], "inputs must be a whole number from 1 on, not True"),
        (2, [], "Network: give at least one layer, the output: Dense(units)"),
        (2, [Dense(3), Dense(1, sources=(2,))], "layer 2: source 2 is not a layer before it"),
        (2, [Dense(3), Dense(1, sources=(1, 5))], "layer 2: source 5 is not a layer before it"),
        (2, [Dense(1, sources=(-1,))], "layer 1: source -1 is not a layer before it; 0 (the input"),
        (2, [Dense(3), Dense(1, sources=(1, 1))], "layer 2: sources (1, 1) must name each layer"),
        (2, [Dense(3, sources=())], "layer 1: sources () must name each layer once"),
        (2, [Dense(3), Dense(4, sources=(0,)), Dense(1)], "layer 1 feeds no other layer; name it"),
        (2, [Dense(3), Dense(1, dropout=0.5)], "the last layer is the output: its dropout must"),
        (2, [Dense(3, "tanhh"), Dense(1)], "unknown activation 'tanhh'; did you mean 'tanh'?"),
    ],
)
def test_graphs_that_are_refused(inputs, layers, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Network(inputs, layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "units must be a whole number from 1 on, not 0"),
        ({"units": 2.0}, "units must be a whole number from 1 on, not 2.0"),
        ({"units": True}, "units must be a whole number from 1 on, not True"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), not 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), not -0.1"),
        ({"dropout": float("nan")}, "dropout must be in [0, 1), not nan"),
        ({"l1": -1.0}, "l1 must be 0 or above, not -1.0"),
        ({"l2": float("inf")}, "l2 must be 0 or above, not inf"),
        ({"dropout": "x"}, "dropout must be a number, not 'x'"),
        ({"bias": "no"}, "bias must be True or False, not 'no'"),
        ({"sources": 0}, "sources must list numbers of layers, as (0, 1), not 0"),
        ({"sources": ("a",)}, "sources must list numbers of layers, as (0, 1), not ('a',)"),
    ],
)
def test_layers_that_are_refused(settings, message):
    with pytest.raises(InputError, match=re.escape(f"Dense: {message}")):
        Dense(**({"units": 3} | settings))


def test_sources_and_targets_are_inverse():
    assert SKIPS.sources == {1: (0,), 2: (1,), 3: (0, 1, 2)}
    assert SKIPS.targets == {0: (1, 3), 1: (2, 3), 2: (3,), 3: ()}
    assert (SKIPS.units, SKIPS.depth, SKIPS.outputs) == ((2, 3, 4, 1), 3, 1)


def test_a_chain_needs_no_sources(backend):
    """The graph with each default source written out computes the same, bit for bit."""
    layers = [("relu", 5), ("tanh", 4), ("identity", 2)]
    chain = Network(3, [Dense(m, f, l2=0.1) for f, m in layers])
    graph = Network(3, [Dense(m, f, l2=0.1, sources=(l,)) for l, (f, m) in enumerate(layers)])
    rng = np.random.default_rng(1)
    X, t = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    found = []
    for network in (chain, graph):
        w = backend.asarray(network.initial_weights(3), "float32")
        g = backend.empty((network.parameters,), "float32")
        arena = Arena(backend, "float32", 6)
        run = Objective(network, "mean_squared_error").gradient(backend, w, g, arena, 6)
        for values, buffer in ((X, run.x), (t, run.t)):
            backend.copy(backend.asarray(values, "float32"), buffer)
        run.run()
        found.append([backend.to_numpy(x).copy() for x in (w, g, run.sums, run.y)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------ the flat vector


@networks
def test_weights_come_first_then_biases(network):
    """Layer by layer, source by source, without a gap."""
    parts = [*network.weight_slices.values(), *network.bias_slices.values()]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == network.parameters
    assert network.weights == sum(
        network.units[k] * network.units[l] for l in network.numbers() for k in network.sources[l]
    )
    assert list(network.weight_slices) == [
        (k, l) for l in network.numbers() for k in network.sources[l]
    ]
    assert list(network.bias_slices) == [l for l in network.numbers() if network.layer(l).bias]


@networks
def test_unpacked_weights_are_views(backend, network):
    w = backend.asarray(np.arange(float(network.parameters)))
    W, b = network.unpack(w)
    for number, view in enumerate((*W.values(), *b.values())):
        view[...] = -1.0 - number
    expected = np.zeros(network.parameters)
    parts = [*network.weight_slices.values(), *network.bias_slices.values()]
    for number, part in enumerate(parts):
        expected[part] = -1.0 - number
    np.testing.assert_array_equal(backend.to_numpy(w), expected)
    assert [x.shape for x in W.values()] == [(network.units[k], network.units[l]) for k, l in W]
    assert [x.shape for x in b.values()] == [(network.units[l],) for l in b]


@networks
def test_pack_undoes_unpack(network):
    w = np.random.default_rng(2).standard_normal(network.parameters)
    np.testing.assert_array_equal(network.pack(*network.unpack(w)), w)
    W, _ = network.unpack(w)
    without = w.copy()
    without[network.weights :] = 0.0
    np.testing.assert_array_equal(network.pack(W), without)


@pytest.mark.parametrize(
    ("W", "b", "message"),
    [
        ({(0, 1): np.ones((4, 1)), (0, 2): 1.0}, {}, "this network has no W[(0, 2)]"),
        ({(0, 1): np.ones((4, 1))}, {1: [0.0]}, "this network has no b[1]"),
        ({(0, 1): np.ones((1, 4))}, {}, "W[(0, 1)] has shape (1, 4), expected (4, 1)"),
        ({}, {}, "no weights given for W[(0, 1)]"),
    ],
)
def test_pack_names_what_does_not_fit(W, b, message):
    with pytest.raises(InputError, match=re.escape(message)):
        LONE.pack(W, b)


def test_unpack_names_a_wrong_length():
    with pytest.raises(InputError, match=r"w has shape \(5,\), this network has 4 parameters"):
        LONE.unpack(np.zeros(5))


@networks
def test_describe_names_every_parameter(network):
    """The words are an expression: evaluated on the views it finds that very parameter."""
    w = np.arange(float(network.parameters))
    W, b = network.unpack(w)
    words = [network.describe(index) for index in range(network.parameters)]
    assert [eval(word, {"W": W, "b": b}) for word in words] == w.tolist()
    for index in (-1, network.parameters):
        with pytest.raises(InputError, match=f"parameter {index} of {network.parameters}"):
            network.describe(index)


@networks
def test_summary_adds_up(network):
    head, *rows, total = network.summary().splitlines()
    assert head.split() == ["layer", "units", "activation", "from", "parameters"]
    assert len(rows) == network.depth + 1
    assert sum(int(row.split()[-1]) for row in rows[1:]) == network.parameters
    assert total.split() == ["total", str(network.parameters)]
    for l, row in zip(network.numbers(), rows[1:], strict=True):
        origin = ",".join(map(str, network.sources[l]))
        assert row.split()[:4] == [
            str(l),
            str(network.units[l]),
            network.layer(l).activation,
            origin,
        ]


def test_penalties_are_merged_where_they_touch():
    """One part for each run of weights with the same penalties, biases in none."""

    def layer(units, l1=0.0, l2=0.0, **more):
        return Dense(units, l1=l1, l2=l2, **more)

    network = Network(
        2,
        [
            layer(3, l2=0.1),
            layer(4, l2=0.1, sources=(0, 1)),
            layer(5),
            layer(6, l2=0.1, sources=(2, 3)),
            layer(7, l1=0.2, l2=0.1),
            layer(1, l1=0.2),
        ],
    )
    sizes = np.cumsum([0, 6 + 8 + 12, 20, 24 + 30, 42, 7])
    assert network.penalties() == [
        (slice(0, sizes[1]), 0.0, 0.1),
        (slice(sizes[2], sizes[3]), 0.0, 0.1),
        (slice(sizes[3], sizes[4]), 0.2, 0.1),
        (slice(sizes[4], sizes[5]), 0.2, 0.0),
    ]
    assert sizes[5] == network.weights
    assert CHAIN.penalties() == []


# ------------------------------------------------------------------ randomness


@networks
def test_one_seed_is_one_w_on_every_backend(backend, dtype, network):
    w = network.initial_weights(11)
    assert (w.shape, w.dtype) == ((network.parameters,), np.float64)
    np.testing.assert_array_equal(network.initial_weights(11), w)
    assert not np.array_equal(network.initial_weights(12), w)
    there = backend.to_numpy(backend.asarray(w, dtype))
    np.testing.assert_array_equal(there, w.astype(dtype))
    assert not w[network.weights :].any()


def test_fans_count_all_sources():
    """A layer fed by several others has the sum of their units as fan_in."""
    seen = []

    def note(rng, fan_in, fan_out, shape):
        seen.append((fan_in, fan_out, shape))
        return np.zeros(shape)

    layers = [Dense(3, initializer=note), Dense(4, sources=(0, 1), initializer=note)]
    Network(2, layers).initial_weights()
    assert seen == [(2, 3, (2, 3)), (5, 4, (2, 4)), (5, 4, (3, 4))]


def test_weights_are_drawn_by_each_layers_initializer():
    network = Network(20, [Dense(30, "relu"), Dense(40, initializer="zeros"), Dense(50, "tanh")])
    rng = np.random.default_rng(5)
    W, _ = network.unpack(network.initial_weights(np.random.default_rng(5)))
    expected = INITIALIZERS["he_uniform"](rng, 20, 30, (20, 30))
    np.testing.assert_array_equal(W[0, 1], expected)
    assert not W[1, 2].any()
    expected = INITIALIZERS["glorot_uniform"](rng, 40, 50, (40, 50))
    np.testing.assert_array_equal(W[2, 3], expected)


# ------------------------------------------------------------------ buffers


def test_arena_gives_views_of_one_buffer():
    backend = get_backend("numpy")
    arena = Arena(backend, "float32", 8)
    whole, part = arena.get(("z", 1), 8, 3), arena.get(("z", 1), 5, 3)
    part[...] = 2.0
    assert (part.shape, part.dtype, part.flags.c_contiguous) == ((5, 3), np.float32, True)
    assert (whole[:5] == 2.0).all()
    assert not np.shares_memory(whole, arena.get(("z", 2), 8, 3))
