"""A model: a network with its loss, its weights on a backend, and what belongs to its data.

>>> import numpy as np
>>> net = Network(2, [Dense(2, "sigmoid"), Dense(1, "sigmoid")])
>>> model = Model(net, "half_squared_error", seed=1, dtype="float64")
>>> X, t = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[1.0], [0.0]])
>>> model.predict(X).shape
(2, 1)
>>> E, g = model.value_and_gradient(X, t)
>>> W, b = net.unpack(g)
>>> W[0, 1].shape, b[2].shape
((2, 2), (1,))
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, overload

import numpy as np

from backends import PRECISIONS, Array, Backend, choose
from backends.counting_backend import Count
from mlp.data.feed import Evaluations, Feed, kind_of, sizes_of, slices
from mlp.data.finite import is_finite
from mlp.data.labels import are_numbers, are_shares, are_text, as_labels, learned_classes
from mlp.data.order import BlockOrder
from mlp.data.preprocessing import Preprocessing, inputs_of
from mlp.data.readers import Dataset
from mlp.data.row_files import Part, some
from mlp.data.samples import Samples, check_codes, check_inputs, checked
from mlp.data.scaling import Scaling, cast, constants, invert_on_device, rescale, scale_to
from mlp.data.stored import StoredDataset, labels_of
from mlp.errors import InputError, check_is, check_switch, shown
from mlp.files import PathLike, content_of
from mlp.formulas.losses import Loss, LossName, Reduction
from mlp.formulas.metrics import METRICS, Measures, MetricSpec, fitting
from mlp.layers.dense import Dense
from mlp.layers.tape import Arena, check_precision
from mlp.memory import check_host, enough_memory
from mlp.model_file import Content, content, model_file
from mlp.network.graph import Network
from mlp.network.objective import Evaluation, Objective
from mlp.parallel.crew import Crew, one_by_one
from mlp.parallel.group import ALONE, Group

__all__ = ["Dense", "Evaluator", "Model", "Network"]

SCALE = 2.0**10  # of the deltas of a single gradient in mixed precision; training adapts its own
DTYPES = ("float32", "float64")
UNORDERED = (
    "their order is not known; number them, as 0, 1, 2, or give the model's classes in order"
)
SMALLER = "give layers fewer units"
IN_CACHE = 1 << 17  # values of X that are scaled at once by a predictor: 1 MB in float64
SIZES = 8  # numbers of rows whose evaluations a predictor keeps


class Model:
    """Network, loss and weights, ready to predict, to be trained, to be saved.

    network, loss, reduction, shared_penalties: as in `mlp.network.objective.Objective`. w: the flat
    weights, (parameters,); without them fresh ones are drawn from ``seed``. backend: a name or a
    Backend; None is $MLP_BACKEND, else NumPy. dtype: of the weights, "float32" or "float64".
    precision: None computes in the dtype; "tf32" lets a GPU round the factors of products to 10
    bits; "mixed" keeps activations and deltas in float16, adds up in float32 and leaves the weights
    in float32 (GPU, half the memory; inputs must be scaled to float16's range, below 65,504);
    "mixed_bfloat16" is the same with bfloat16, which has float32's range and 7 bits of fraction.
    classes: labels of
    the outputs, in their order. columns: names of the inputs. input_scaling, target_scaling:
    applied to what comes in and undone on what goes out, so that X, t and predictions are in the
    user's own units. preprocessing: of a table whose columns are not all numbers, in place of
    columns and input_scaling; X is then such a table.
    """

    def __init__(
        self,
        network: Network,
        loss: LossName | Mapping[str, Any] | Loss,
        *,
        reduction: Reduction | None = None,
        shared_penalties: bool = False,
        w: Any = None,
        statistics: Any = None,
        seed: int = 0,
        backend: str | Backend | None = None,
        dtype: str | None = None,
        precision: str | None = None,
        classes: Any = None,
        columns: tuple[str, ...] | None = None,
        input_scaling: Scaling | None = None,
        target_scaling: Scaling | None = None,
        preprocessing: Preprocessing | None = None,
    ):
        check_is("Model: network", network, Network)
        self.network, self.loss = network, loss
        self.objective = Objective(network, loss, reduction, shared_penalties)
        self.backend = choose(backend)
        self.precision, self.dtype = _precision(precision, dtype)
        self.backend.require(self.precision)
        self.classes = None if classes is None else as_labels(classes, "classes")
        if self.classes is not None and self.objective.heads > 1 and not self.objective.ordered:
            raise InputError(
                "a loss with several outputs for each target is for numbers: no classes"
            )
        if self.classes is not None and len(self.classes) != self.objective.classes:
            cure = "one more" if self.objective.ordered else "one for each, or two for a single one"
            raise InputError(
                f"there are {len(self.classes)} classes for {network.outputs} outputs; name {cure}"
            )
        self.preprocessing = preprocessing
        if preprocessing is not None:
            check_is("Model: preprocessing", preprocessing, Preprocessing)
            if columns is not None or input_scaling is not None:
                raise InputError("preprocessing has columns and a scaling; give it alone")
            columns, input_scaling = preprocessing.names, preprocessing.scaling
            if len(columns) != network.inputs:
                raise InputError(
                    f"the preprocessing makes {len(columns)} columns, the network has "
                    f"{network.inputs} inputs"
                )
        self.columns = _columns(columns, network.inputs)
        self.input_scaling = _fitting(input_scaling, "input_scaling", network.inputs, "inputs")
        self.target_scaling = _fitting(
            target_scaling, "target_scaling", self.objective.columns, "outputs"
        )
        self._answer_scaling()  # there is one
        self._check_codes()
        self._predictors: list[Predictor] = []  # those that no thread is using
        if isinstance(self.backend, Count):  # nothing to draw: the model is to be planned with
            self._w = self.backend.empty((network.parameters,), self.dtype)
            self._statistics = self.backend.empty((network.statistics,), self.dtype)
            return
        with enough_memory(self.backend, "the weights"), self.backend.scope():
            if w is None:
                drawn = 2 * 8 * network.parameters  # float64, and those of a layer beside
                check_host(drawn, f"drawing {network.parameters:,} weights", SMALLER)
                w = network.initial_weights(seed)
            given = self._taken("w", w)
            if given.shape != (network.parameters,):
                raise InputError(
                    f"w has shape {tuple(given.shape)}, this network has {network.parameters} "
                    "parameters"
                )
            if not bool(
                self.backend.to_numpy(self.backend.xp.all(self.backend.xp.isfinite(given)))
            ):
                raise InputError("w has values that are NaN or infinite")
            self._w = self.backend.empty((network.parameters,), self.dtype)
            self.backend.copy(given, self._w)
            self._statistics = self.backend.empty((network.statistics,), self.dtype)
            self.statistics = network.initial_statistics() if statistics is None else statistics

    def _answer_scaling(self) -> Scaling | None:
        """The scaling of the targets, for the columns of predictions."""
        heads, spreads = self.objective.heads, getattr(self.objective.loss, "spreads", None)
        if self.target_scaling is None or heads == 1 or self.objective.ordered:
            return self.target_scaling
        return _repeated(self.target_scaling, tuple(spreads or (False,) * heads))

    def in_units(self, y: np.ndarray) -> np.ndarray:
        """Predictions in the user's units, of outputs (n, outputs) in scaled ones, on the host."""
        scaling, found = self._answer_scaling(), np.asarray(self.objective.answer(np, y))
        return found if scaling is None else scaling.invert(found.astype(np.float64))

    def __repr__(self) -> str:
        """The widths, what is between them, the loss, and where it computes in what."""
        network = self.network
        hidden = dict.fromkeys(layer.label for layer in network.layers[:-1])
        parts = [" ".join(["-".join(map(str, network.units)), *hidden])]
        parts.append(
            self.loss if isinstance(self.loss, str) else type(self.objective.loss).__name__
        )
        parts.append(f"{network.parameters} parameters")
        if self.classes is not None:
            parts.append(f"{len(self.classes)} classes")
        return f"Model({', '.join(parts)}, {self.precision} on {self.backend.name})"

    def _check_codes(self) -> None:
        """InputError for columns of codes that are scaled, or that other layers read as numbers."""
        codes, scaling, names = self.network.codes, self.input_scaling, self.columns
        for k, values in codes.items():
            name = k if names is None else repr(names[k])
            if scaling is not None and not scaling.leaves(k):
                raise InputError(
                    f"input_scaling changes column {name}, whose codes an embedding reads; its "
                    "scaling must be 'none'"
                )
            coded = None if self.preprocessing is None else self.preprocessing.embedded.get(k)
            if self.preprocessing is not None and (coded is None or coded > values):
                raise InputError(
                    f"layer {self.network.targets[0][0]}, embedding: column {name} "
                    + (
                        "is not coded for it"
                        if coded is None
                        else f"has {coded} codes, not {values}"
                    )
                )
        for k in () if self.preprocessing is None else self.preprocessing.embedded:
            for number in self.network.targets[0]:
                layer, name = self.network.layer(number), (names or ())[k]
                if k not in layer.codes:
                    raise InputError(
                        f"layer {number}, {layer.label}, reads the codes of column {shown(name)} "
                        "as a number; begin with an embedding"
                    )

    @property
    def given_columns(self) -> tuple[str, ...]:
        """The names of the columns that are to be given, if they have names."""
        found = self.columns if self.preprocessing is None else self.preprocessing.columns
        return found or ()

    # ------------------------------------------------------------------ weights

    @property
    def w(self) -> Array:
        """All parameters, (parameters,) on the device: weights first, then biases. Assigning to it
        copies the values in."""
        return self._w

    @w.setter
    def w(self, values: Any) -> None:
        with self.backend.scope():
            values = self._taken("w", values)
            if values.shape != self._w.shape:
                raise InputError(
                    f"w has shape {tuple(values.shape)}, this network has "
                    f"{self.network.parameters} parameters"
                )
            self.backend.copy(values, self._w)

    @property
    def statistics(self) -> Array:
        """What layers keep beside their parameters, as running means: (network.statistics,) on the
        device. Training changes it, predictions read it. Assigning to it copies the values in."""
        return self._statistics

    @statistics.setter
    def statistics(self, values: Any) -> None:
        with self.backend.scope():
            values = self._taken("statistics", values)
            if values.shape != self._statistics.shape:
                raise InputError(
                    f"statistics has shape {tuple(values.shape)}, this network has "
                    f"{self.network.statistics}"
                )
            self.backend.copy(values, self._statistics)

    def _taken(self, what: str, values: Any) -> Array:
        """Values as an array of the backend's; InputError for what is no array of numbers."""
        try:
            return self.backend.asarray(values, self.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{what} must be an array of numbers: {error}") from error

    @property
    def W(self) -> dict[tuple[int, int], Array]:
        """W[k, l], (units_k, units_l): views of w."""
        return self.network.unpack(self._w)[0]

    @property
    def b(self) -> dict[int, Array]:
        """b[l], (units_l,): views of w."""
        return self.network.unpack(self._w)[1]

    def to(
        self,
        backend: str | Backend | None = None,
        dtype: str | None = None,
        precision: str | None = None,
    ) -> "Model":
        """A copy of this model with its weights on another backend, in another dtype or precision.

        On another backend, and in another dtype, the precision is the dtype unless it is given.
        """
        other = copy.copy(self)
        other.backend = self.backend if backend is None else choose(backend)
        if precision is None and dtype is None:
            precision = self.precision if other.backend is self.backend else self.dtype
        other.precision, other.dtype = _precision(precision, dtype)
        other.backend.require(other.precision)
        with other.backend.scope():
            w, statistics = (self.backend.to_numpy(x) for x in (self._w, self._statistics))
            other._w = other.backend.empty(w.shape, other.dtype)
            other._statistics = other.backend.empty(statistics.shape, other.dtype)
            other.w, other.statistics = w, statistics
        return other

    def copy_into(self, w: Array, statistics: Array, backend: Backend | None = None) -> "Model":
        """A copy of this model with its weights and statistics in arrays like its own, which they
        are copied to: a copy that allocates nothing. backend: of these arrays, if another one."""
        other = copy.copy(self)
        other.backend = backend or self.backend
        other._w, other._statistics = w, statistics
        other.backend.copy(self._w, w)
        other.backend.copy(self._statistics, statistics)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Without the predictors, which belong to this object's w."""
        return {**self.__dict__, "_predictors": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """CuPy unpickles arrays onto the current device: w goes to the backend's."""
        self.__dict__.update(state)
        with self.backend.scope():
            self._w = self.backend.asarray(self._w, self.dtype)
            self._statistics = self.backend.asarray(self._statistics, self.dtype)

    def save(self, path: PathLike) -> None:
        """Network, loss, weights, scalings, columns and classes into one file, for `mlp.load`.

        The file is data, never code (`mlp.files`). Raises InputError for a layer, activation, loss
        or initializer that is an object of your own, or if the file cannot be written.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Model(Network(2, [Dense(1)]), "mean_squared_error").save(f"{folder}/a.safetensors")
        ...     load(f"{folder}/a.safetensors").network.depth
        1
        """
        save_model(self, path)

    # ------------------------------------------------------------------ predictions

    @overload
    def predict(self, X: np.ndarray | Sequence[Any], members: bool = False) -> np.ndarray: ...

    @overload
    def predict(self, X: Any, members: bool = False) -> Array: ...

    def predict(self, X: Any, members: bool = False) -> Array:
        """The outputs for X, (n, outputs): class shares, probabilities, or numbers in the units of
        the targets; of ordered classes their shares, of a loss with several outputs for each target
        what it says they are, as a mean and a deviation. A data frame, or what `mlp.read` gives,
        goes by the names of its columns, in any order. A host array gives a host array; one on the
        device stays there. Threads may predict at once; on a CUDA device also in streams
        of their own, each in the order of its own stream.

        members: of a net of several (`mlp.Ensemble`), whose mean the outputs are, each member's in
        place of it, (n, members, outputs); their deviation over axis 1 is their spread.

        Raises InputError for rows on which the network overflows, so that what comes to the host is
        finite; what stays on the device is not waited for, nor searched.
        """
        if members is not False:
            check_switch("predict: members", members)
        if not members:
            return self._predict(X)
        if self.network.members[-1] == 1:
            raise InputError("predict: members are those of an ensemble, which this network is not")
        y = self._predict(X, members)
        shape = -1, self.network.members[-1], y.shape[-1]
        return (
            np.reshape(y, shape) if isinstance(y, np.ndarray) else self.backend.xp.reshape(y, shape)
        )

    def _predict(self, X: Any, members: bool = False) -> Array:
        """`predict`, a row for each member."""
        backend = self.backend
        if isinstance(X, StoredDataset):
            X = replace(X, t=None, s=None)
        elif not isinstance(X, (Dataset, Samples)):
            X = inputs_of(X, self.columns, self.preprocessing)
        given = X
        if isinstance(X, (Dataset, StoredDataset, Samples)):
            X = self._checked(X).X
            given_on_device = backend.owns(X)
        else:
            given_on_device = backend.owns(X)
            X = check_inputs(backend, X, self.network.inputs, self.columns)
            check_codes(backend, X, self.network.codes, self.columns)
        with enough_memory(backend, "predict"), backend.scope():
            if members:
                y = Predictor(self, members)(X)
                xp = np if isinstance(y, np.ndarray) else backend.xp
                y = xp.reshape(y, (-1, self.network.outputs))
            else:
                try:
                    predictor = self._predictors.pop()
                except IndexError:  # the others are in use by other threads
                    predictor = Predictor(self)
                y = predictor(X)
                self._predictors.append(predictor)
            if not (given_on_device or isinstance(y, np.ndarray)):
                y = backend.to_numpy(y)
            if not isinstance(y, np.ndarray):
                y, scaling = self.objective.answer(backend.xp, y), self._answer_scaling()
                return y if scaling is None else invert_on_device(backend, y, scaling)
            if not is_finite(y):
                raise self._overflow(X, y.reshape(X.shape[0], -1), given)
            if self.target_scaling is None and not hasattr(self.objective.loss, "answer"):
                return y
            with np.errstate(over="ignore"):
                y = self.in_units(y)
            plain = self.target_scaling is None or self.target_scaling.affine
            if not (plain and self.objective.heads == 1) and not is_finite(y):  # of logarithms
                raise self._overflow(X, y.reshape(X.shape[0], -1), given)
            return y

    def classify(self, X: Any) -> np.ndarray:
        """The label of each row, (n,) on the host: the class of the largest output, or with one
        output the second class where it is above 1/2. Several labels a row: (n, outputs), 0 or 1.

        Labels are those of ``classes``, without them class numbers. Raises InputError if the loss
        is for numbers and there are no classes.

        >>> net = Network(1, [Dense(1, "sigmoid")])
        >>> model = Model(net, "half_squared_error", w=[1.0, 0.0], classes=["no", "yes"])
        >>> model.classify([[-3.0], [3.0]]).tolist()
        ['no', 'yes']
        """
        y = self.predict(X)
        if not isinstance(y, np.ndarray):
            y = self.backend.to_numpy(y)
            if not is_finite(y):
                raise self._overflow(X, y, X)
        kind, outputs = self.objective.targets, self.network.outputs
        if kind not in ("classes", "labels") and self.classes is None:
            raise InputError(
                "classify: this model's loss is for numbers; use predict, or give it classes"
            )
        if kind == "labels" and outputs > 1:
            return (y > 0.5).astype(np.int64)
        index = y.argmax(axis=1) if y.shape[1] > 1 else (y[:, 0] > 0.5).astype(np.int64)
        return index if self.classes is None else self.classes[index]

    def _overflow(self, X: Array, y: np.ndarray, given: Any) -> InputError:
        """What to say of rows whose outputs y, (n, outputs), are not all finite; given: X as the
        user gave it."""
        rows = np.flatnonzero(~np.isfinite(y).all(axis=1))
        row, largest = int(rows[0]), ""
        if isinstance(X, np.ndarray):
            units = X[row].astype(np.float64)
            if self.input_scaling is not None:
                units = (units - self.input_scaling.shift) / self.input_scaling.scale
            k = int(np.abs(units).argmax())
            column = k if self.columns is None else repr(self.columns[k])
            largest = f", whose largest value is {X[row, k]:.3g} in column {column}"
        return InputError(
            f"{getattr(given, 'source', 'X')}: the network overflows {self.precision} on "
            f"{len(rows)} of {len(y)} rows, the first of them row {row}{largest}; correct these "
            f"rows{self._wider()}"
        )

    def _loss_overflow(self, t: Any, y: np.ndarray) -> InputError:
        """What to say of targets, as in `Samples`, on which the loss is not finite while the
        outputs y, (n, outputs), are."""
        where = ""
        if t.ndim == 2 and not self.objective.ordered:
            y = np.asarray(self.objective.point(self.in_units(y.astype(np.float64))))
            row, k = np.unravel_index(np.abs(t - y).argmax(), t.shape)
            where = f", as in row {row}, column {k}: {t[row, k]:.3g}, predicted as {y[row, k]:.3g}"
        return InputError(
            f"t: the loss overflows {self.precision} on these rows{where}; correct them, scale "
            f"inputs and targets{self._wider()}"
        )

    def _wider(self) -> str:
        return "" if self.dtype == "float64" else ", or use a model of dtype float64"

    def _chunk(self) -> int:
        """Rows that are predicted at once: about a megabyte of the widest layer, and at least as
        many as products need to run at full speed."""
        return max(1024, min(2048, (1 << 18) // max(self.network.units)))

    # ------------------------------------------------------------------ loss and gradient

    def samples(
        self,
        X: Any,
        t: Any = None,
        sample_weight: Any = None,
        what: str = "",
        group: Group = ALONE,
    ) -> Samples:
        """Rows for this model, checked: what its other methods and `mlp.train` take in place of X,
        t and sample_weight, and do not search again.

        X: (n, inputs), with t; or what `mlp.read` gives, whose columns are chosen by the model's
        names. t: (n, outputs), or labels of the model's classes, (n,), or class numbers where it
        has none or they are text. sample_weight: (n,), 0 or above. what: stands before X and t in
        messages. group: processes that call it together, each of which looks through a part of
        rows on disk. Raises InputError naming what does not fit.

        >>> model = Model(Network(1, [Dense(2)]), "cross_entropy", classes=["ant", "bee"])
        >>> model.samples([[0.5], [1.5]], ["bee", "ant"]).t
        array([1, 0])
        """
        check_is("samples: group", group, Group)
        found = self._checked(X, t, sample_weight, what, group)
        if found.t is None:
            raise InputError(f"{what}t is missing: give the targets, (n, {self.objective.columns})")
        return found

    def _checked(
        self, X: Any, t: Any = None, s: Any = None, what: str = "", group: Group = ALONE
    ) -> Samples:
        names = self.columns
        if not isinstance(X, (Samples, StoredDataset)):  # which are coded
            X = inputs_of(X, names, self.preprocessing)
        with enough_memory(self.backend, f"{what}X, t" if t is not None else f"{what}X"):
            return checked(
                self.backend,
                self.objective,
                X,
                t,
                s,
                columns=names,
                classes=self.classes,
                what=what,
                group=group,
            )

    def learns(self, X: Any, t: Any = None, group: Group = ALONE) -> "Model":
        """This model, or where it has no classes and these are labels, a copy that has theirs.

        Labels in words are learned; whole numbers from 0 on are class numbers as they are, others
        are learned if `mlp.read` gave them. group: as for `samples`. Raises InputError if there are
        not as many as outputs.

        >>> model = Model(Network(1, [Dense(2)]), "cross_entropy")
        >>> model.learns([[0.5], [1.5], [2.5]], ["bee", "ant", "bee"]).classes.tolist()
        ['ant', 'bee']
        """
        data = X if isinstance(X, (Dataset, StoredDataset)) else None
        if t is None and data is not None:
            t = data.t
        outputs, kind = self.network.outputs, self.objective.targets
        on_device = hasattr(t, "__dlpack__") and not isinstance(t, np.ndarray)  # no words there
        if self.classes is not None or kind not in ("classes", "labels") or t is None or on_device:
            return self
        source = "t" if data is None else data.source
        if isinstance(t, Part):
            if t.ndim == 2 or (kind == "labels" and some(t, are_shares, group)):
                return self
            t = labels_of(t, source, group)
        numbers = not are_text(t)
        if self.objective.ordered and not numbers:
            raise InputError(f"{source} holds labels in words: {UNORDERED}")
        if numbers and (data is None or are_numbers(np.asarray(t), self.objective.classes)):
            return self
        classes = learned_classes(t, kind, source)
        if classes is None:
            return self
        if len(classes) != self.objective.classes:
            raise InputError(
                f"{source} holds {len(classes)} classes, the last layer has {outputs} units: give "
                "it one for each class, or name them all in the model's classes"
            )
        other = copy.copy(self)
        other.classes, other._predictors = classes, []
        return other

    def feed(self, samples: Samples, streamed: bool | None = None) -> Feed:
        """The samples on their way into this model's evaluations."""
        scalings = self.input_scaling, self.target_scaling
        return Feed(self.backend, self.dtype, samples, *scalings, streamed, self.input_storage)

    @property
    def input_storage(self) -> str:
        """The dtype in which inputs come to the device: narrow ones tell no large whole numbers
        apart, which layers may read."""
        integers = any(layer.integers for layer in self.network.layers)
        return self.dtype if integers else PRECISIONS[self.precision].storage

    def value_and_gradient(
        self, X: Any, t: Any = None, sample_weight: Any = None, dropout_seed: int | None = None
    ) -> tuple[float, Array]:
        """(E, g): the objective on these rows, penalties included, and its gradient.

        g has the layout of w, on the device: ``W, b = model.network.unpack(g)``. Without a dropout
        seed nothing is dropped, and no noise added. Source: `mlp.network.objective`, eq. (1).
        """
        backend = self.backend
        samples = self.samples(X, t, sample_weight)
        n = samples.n
        self.network.check_rows(n, "X")
        with enough_memory(backend, "value_and_gradient"), backend.scope():
            g = backend.empty(self._w.shape, self.dtype)
            arena = Arena(backend, self.precision, n)
            scale = (
                backend.full((1,), SCALE, self.dtype) if PRECISIONS[self.precision].scaled else None
            )
            evaluation = self.objective.gradient(
                backend, self._w, g, arena, n, samples.s is not None, scale, self._scratch()
            )
            self.feed(samples).bind(evaluation)(slice(0, n))
            draw(evaluation, dropout_seed)
            evaluation.run()
            return float(backend.to_numpy(evaluation.sums).sum(dtype=np.float64)), g

    def _delta_scale(self, value: float) -> Array | None:
        """What deltas that are stored as float16 are multiplied by, (1,)."""
        scaled = PRECISIONS[self.precision].scaled
        return self.backend.full((1,), value, self.dtype) if scaled else None

    def _scratch(self) -> Array:
        """A copy of the statistics, for a training pass that is to leave no trace."""
        copied = self.backend.empty(self._statistics.shape, self.dtype)
        self.backend.copy(self._statistics, copied)
        return copied

    def trace(self, X: Any, t: Any = None, sample_weight: Any = None) -> "Trace":
        """z, a and δ of every layer for these rows, without dropout, on the host.

        As in `mlp.network.backpropagation`, eq. (1)-(4), in the model's dtype and in scaled units;
        nothing is dropped, and the model stays as it is.

        >>> net = Network(2, [Dense(3, "tanh"), Dense(1)])
        >>> found = Model(net, "half_squared_error").trace([[1.0, 2.0]], [[0.5]])
        >>> found.z[1].shape, bool(np.allclose(found.a[1], np.tanh(found.z[1])))
        ((1, 3), True)
        >>> bool(np.allclose(found.delta[2], found.a[2] - 0.5))
        True
        """
        backend, samples = self.backend, self.samples(X, t, sample_weight)
        self.network.check_rows(samples.n, "X")
        with enough_memory(backend, "trace"), backend.scope():
            g = backend.empty(self._w.shape, self.dtype)
            arena = Arena(backend, self.precision, samples.n)
            scale = (
                backend.full((1,), 1.0, self.dtype) if PRECISIONS[self.precision].scaled else None
            )
            evaluation = self.objective.gradient(
                backend, self._w, g, arena, samples.n, samples.s is not None, scale,
                self._scratch(), keeps=True,
            )  # fmt: skip
            self.feed(samples).bind(evaluation)(slice(0, samples.n))
            draw(evaluation, None)
            evaluation.run()
            return self._trace(evaluation)

    def _trace(self, evaluation: Evaluation) -> "Trace":
        """What is in the buffers of an evaluation that keeps every quantity."""
        host, last = self.backend.to_numpy, self.network.depth
        z: dict[int, np.ndarray] = {}
        a: dict[int, Any] = {0: host(evaluation.x).copy()}
        delta: dict[int, np.ndarray] = {}
        for l, place in evaluation.places.items():
            kept = place.arena.buffers.get(("z", l))
            if kept is not None:
                z[l] = host(kept).copy()
            if l < last:
                a[l], delta[l] = host(place.y).copy(), host(place.delta).copy()
        ending = evaluation.places[last].ending
        raw = host(evaluation.places[last].y).copy()
        if ending is not None:
            raw = z[last] = raw + sum(host(b) for b in ending)
        a[last] = self.objective.unit.f(np, raw)
        delta[last] = host(evaluation.y).copy()
        return Trace(z, a, delta)

    def evaluate(
        self,
        X: Any,
        t: Any = None,
        sample_weight: Any = None,
        metrics: Iterable[MetricSpec] | None = None,
    ) -> dict[str, float]:
        """{"loss": E without penalties, and the metrics} on these rows, weighted where weights are
        given. metrics: names of `mlp.formulas.metrics.METRICS`, mappings or own objects; None are
        the usual ones.

        Raises InputError naming a row on which the network or the loss overflows.
        """
        samples = self.samples(X, t, sample_weight)
        found, y = measure(self, samples, metrics)
        if y is None and not math.isfinite(found["loss"]):
            raise InputError("the network or the loss overflows on some of these rows")
        if y is not None and not is_finite(y):
            raise self._overflow(samples.X, y, X)
        if y is not None and not math.isfinite(found["loss"]):
            raise self._loss_overflow(samples.t, y)
        return found


def measure(
    model: Model,
    samples: Samples,
    metrics: Iterable[MetricSpec] | None = None,
    also: Iterable[MetricSpec] = (),
    group: Group = ALONE,
) -> tuple[dict[str, float], np.ndarray | None]:
    """What `Model.evaluate` finds on these rows, whatever it is; and the outputs, (n, outputs), but
    for rows on disk. group: processes that find it together."""
    with enough_memory(model.backend, "evaluate"), model.backend.scope():
        with group.together():
            evaluator = Evaluator(model, model.feed(samples), samples, metrics, also, group)
        return evaluator(), evaluator.predictions


@dataclass(frozen=True)
class Trace:
    """What a pass computes on n rows: z[l] and δ[l], (n, units_l), of the layers 1..L, and a[l],
    with a[0] = X and a[L] the prediction. A layer without z (none but dense layers has one) is left
    out of it, and its δ is ∂E/∂a."""

    z: dict[int, np.ndarray]
    a: dict[int, np.ndarray]
    delta: dict[int, np.ndarray]


class Predictor:
    """The predictions of a model, chunk after chunk in buffers of its own, for one caller at a
    time. It reads the model's w where it is, so it lasts while the weights change."""

    def __init__(self, model: Model, members: bool = False):
        """members: the predictions are each member's, (n, members · outputs), not their mean."""
        # No reference to the model, which holds this: neither would be freed at once.
        self.backend, self.dtype, self.w = model.backend, model.dtype, model.w
        self.statistics = model.statistics
        self.objective, self.scaling = model.objective, model.input_scaling
        self.columns, self.members, network = model.columns, members, model.network
        self.outputs = network.outputs * (network.members[-1] if members else 1)
        self.storage = model.input_storage
        self.chunk = model._chunk()
        self.arena = Arena(model.backend, model.precision, self.chunk)
        self.host = isinstance(model.w, np.ndarray)
        self.runs: dict[int, Callable[[np.ndarray], Array]] = {}
        self.fed: dict[Any, tuple[Feed, Evaluations]] = {}  # by the kind of what they are fed with
        self.wait: Callable[[], None] | None = None  # for the last call, in whatever stream it was

    def __call__(self, X: Array) -> Array:
        """(n, outputs) in scaled units, a new array: on the backend, or on the host if the rows
        are streamed from there."""
        chunks = slices(X.shape[0], self.chunk)
        if not (self.host and isinstance(X, np.ndarray)):
            return self._fed(X, chunks)
        y = self.backend.empty((X.shape[0], self.outputs), self.dtype)
        for rows in chunks:
            self.backend.copy(self._run(rows.stop - rows.start)(X[rows]), y[rows, :])
        return y

    def _make(self, n: int) -> Evaluation:
        return self.objective.predict(
            self.backend, self.w, self.arena, n, self.host, self.statistics, self.members
        )

    def _fed(self, X: Array, chunks: list[slice]) -> Array:
        """The predictions for rows that have to be brought to the backend."""
        if self.wait is not None:
            self.wait()
        samples = Samples(X, columns=self.columns)
        kind = kind_of(self.backend, self.dtype, samples, None, self.storage, self.scaling)
        if kind in self.fed and len(self.fed[kind][1].of) <= SIZES:
            feed, runs = self.fed[kind]
            feed.load(samples)
        else:
            about = self.scaling, None, kind.streamed, self.storage
            feed = Feed(self.backend, self.dtype, samples, *about)
            runs = Evaluations(feed, (), self._make)
            self.fed[kind] = feed, runs
        runs.add(sizes_of(chunks), self._make)
        y = feed.room(self.outputs)
        for _, rows, evaluation in runs.through(chunks):
            feed.keep(evaluation.y, rows, y)
        feed.unload()
        self.wait = self.backend.mark()
        return y

    def _run(self, n: int) -> Callable[[np.ndarray], Array]:
        """A function of n host rows, that gives their predictions: rows are read where they are if
        they are as products take them, else cast and scaled into a buffer."""
        if n in self.runs:
            return self.runs[n]
        if len(self.runs) > SIZES:
            self.runs.clear()
        # Nothing here refers to this object, as above.
        backend, evaluation, scaling = self.backend, self._make(n), self.scaling
        dtype, columns = self.dtype, self.columns
        x: Any = evaluation.x
        slot = evaluation.input
        rescaled: Callable[[], None] | None = None
        scaled: tuple[np.ndarray, Callable[[], None]] | None = None
        bound = scaling is not None and scaling.affine and x.size <= IN_CACHE
        if scaling is not None and not scaling.shift.dtype == scaling.scale.dtype == np.float64:
            bound = False  # `cast` may compute in less

        def run(rows: np.ndarray) -> Array:
            nonlocal rescaled, scaled
            plain = scaling is None and rows.dtype == x.dtype and rows.flags.c_contiguous
            if plain and slot is not None:
                slot.array = rows
                evaluation.run()
                slot.array = x  # and the caller's rows are let go
                return evaluation.y
            if rows.dtype.itemsize > 2 or not (scaling is None or scaling.affine):  # none of KEPT
                if scaling is None or not bound or rows.dtype.itemsize > 8:
                    cast(rows, x, scaling, "X", columns)
                else:  # the same, as a kernel that is bound once
                    if scaled is None:
                        wide: Any = np.empty(x.shape)
                        about: Any = scaling.shift, scaling.scale
                        scaled = wide, backend.fuse(scale_to).bind(x, wide, *about)
                    np.copyto(scaled[0], rows)
                    scaled[1]()
                    if not is_finite(x):
                        cast(rows, x, scaling, "X", columns)  # says where
            else:
                backend.copy(rows, x)
                if scaling is not None:
                    if rescaled is None:
                        of_scaling = constants(backend, scaling, dtype)
                        rescaled = backend.fuse(rescale).bind(x, *of_scaling)
                    rescaled()
            evaluation.run()
            return evaluation.y

        self.runs[n] = run
        return run


class Evaluator:
    """The objective and the metrics on a data set, again and again while the weights change.

    samples: of the feed. The predictions and the losses of the chunks come to the host
    once a call, of a streamed data set the predictions chunk by chunk; ``predictions`` are those of
    the last call, (n, outputs), in scaled units. Of rows on disk they are not kept: metrics are
    taken chunk by chunk. metrics, also: as of `mlp.formulas.metrics.fitting`. group: ranks that
    share the chunks, each of which gets what all find. parts: at least so many chunks, which the
    crew runs at once, each in buffers of its own, where one rank has all and they are in memory.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        samples: Samples,
        metrics: Iterable[MetricSpec] | None = None,
        also: Iterable[MetricSpec] = (),
        group: Group = ALONE,
        crew: Crew = one_by_one,
        parts: int = 1,
    ):
        self.model, self.feed, self.t, self.s = model, feed, samples.t, samples.s
        self.group, self.crew = group, crew
        kinds: list[str] = [model.objective.targets]
        if model.classes is not None and kinds[0] not in METRICS["accuracy"].targets:
            kinds.append("classes" if model.network.outputs > 1 else "labels")
        proper = getattr(model.objective.loss, "proper", True)
        backend, objective = model.backend, model.objective
        columns = objective.classes if objective.ordered else objective.columns
        self.metrics = fitting(kinds, columns, metrics, also, proper)
        chunk = min(model._chunk(), -(-feed.n // parts))
        self.rows = slices(feed.n, chunk)
        if group.size > 1 or feed.stream is not None:
            parts = 1
        self.parts = [range(part, len(self.rows), parts) for part in range(parts)]

        def run(rows: list[slice]) -> Evaluations:
            arena, weighted = Arena(backend, model.precision, chunk), self.s is not None
            about = weighted, model.statistics
            return Evaluations(
                feed,
                sizes_of(rows),
                lambda n: objective.measure(backend, model.w, arena, n, *about),
            )

        self.runs = [run([self.rows[i] for i in part]) for part in self.parts]
        on_disk = isinstance(samples.X, Part)
        self.y = None if on_disk else feed.room(model.network.outputs)
        self.predictions: Any = None
        self.sums = backend.empty((len(self.rows), 2), model.dtype)

    def __call__(self, penalty: bool = False) -> dict[str, float]:
        """{"loss": ..., metrics}; with ``penalty`` the loss includes the penalties."""
        model, host = self.model, self.model.backend.to_numpy
        measures = [Measures(kind, chosen) for kind, chosen in self.metrics.items()]
        if self.group.size > 1:
            sums, weights = self._together(measures)
        else:
            self.crew([partial(self._run, part, measures) for part in range(len(self.parts))])
            if self.y is not None:
                self.predictions = y = self.y if self.feed.stream is not None else host(self.y)
                self._measure(measures, y, self.t, self.s)
            sums = host(self.sums).astype(np.float64)
            weights = shares(self.rows, self.s)
        loss = mean_or_sum(model.objective, sums[:, 0], weights)
        if penalty:
            loss += penalty_of_all(model.objective, sums[:, 1], weights)
        found = {"loss": float(loss)}
        for measured in measures:
            found |= measured.end()
        return found

    def _run(self, part: int, measures: Iterable[Measures]) -> None:
        """The chunks of one part, of which there is one alone for rows on disk."""
        numbers = self.parts[part]
        through = self.runs[part].through([self.rows[i] for i in numbers])
        for i, (_, rows, evaluation) in zip(numbers, through, strict=True):
            self.model.backend.copy(evaluation.sums, self.sums[i : i + 1, :])
            if self.y is None:
                y = self.model.backend.to_numpy(evaluation.y)
                self._measure(measures, y, *self._told(rows))
            else:
                self.feed.keep(evaluation.y, rows, self.y)

    def _together(self, measures: Iterable[Measures]) -> tuple[np.ndarray, np.ndarray]:
        """The sums of all chunks and their weights, as one rank would find them, and the measures
        of their predictions. Each rank runs every so manyth chunk, and alone reads its rows."""
        group, host = self.group, self.model.backend.to_numpy
        own = self.runs[0].through(self.rows[group.rank :: group.size])
        sums, weights = np.zeros((len(self.rows), 2)), np.zeros(len(self.rows))
        predictions: list[np.ndarray] = []
        for first in range(0, len(self.rows), group.size):
            error, found = None, None
            try:
                if first + group.rank < len(self.rows):
                    _, rows, evaluation = next(own)
                    told = self._told(rows) if self.y is None else (None, None)
                    weight = shares([rows], self.s)[0]
                    sums_of = host(evaluation.sums)[0].astype(np.float64)
                    found = sums_of, weight, host(evaluation.y), *told
            except Exception as caught:
                error = caught
            group.settle(error, self.model.backend)
            for i, chunk in enumerate(group.gather(found), first):
                if chunk is not None:
                    sums[i], weights[i], y, *of_rows = chunk
                    if self.y is None:
                        self._measure(measures, y, *of_rows)
                    else:
                        predictions.append(y)
        if self.y is not None:
            self.predictions = y = np.concatenate(predictions)
            self._measure(measures, y, self.t, self.s)
        return sums, weights

    def _told(self, rows: slice) -> tuple[Any, Any]:
        """The targets and the weights of these rows."""
        assert self.t is not None  # there is no loss without
        return self.t[rows], None if self.s is None else self.s[rows]

    def _measure(self, measures: Iterable[Measures], y: Any, t: Any, s: Any) -> None:
        """Take these predictions, in scaled units, into account, with their targets and weights."""
        y = self.model.objective.point(self.model.in_units(y))
        t = t[:, 0].astype(np.int64) if self.model.objective.ordered else t
        for measured in measures:
            measured.add(y, t, s)


def save_model(model: Model, path: PathLike, beside: Any = None) -> None:
    """`Model.save`, as a function. beside: what JSON can hold, kept in the same file for its
    writer; a model does without it."""
    check_is("save_model: model", model, Model)
    host, network = model.backend.to_numpy, model.network
    Content(
        network,
        model.loss,
        model.objective.reduction,
        model.objective.shared_penalties,
        model.dtype,
        model.columns,
        None if model.classes is None else model.classes.tolist(),
        host(model.w),
        host(model.statistics) if network.statistics else None,
        model.input_scaling,
        model.target_scaling,
        model.preprocessing,
        beside,
    ).write(path)


def load_model(path: PathLike, backend: str | Backend | None = None) -> Model:
    """The model of a file, on this backend. Raises InputError if it is no such file."""
    found = content(path)
    with content_of(path):
        inputs: dict[str, Any] = {"preprocessing": found.preprocessing}
        if found.preprocessing is None:
            inputs = {"columns": found.columns, "input_scaling": found.input_scaling}
        return Model(
            found.network,
            found.loss,
            reduction=found.reduction,
            shared_penalties=found.shared_penalties,
            w=found.w,
            statistics=found.statistics,
            backend=backend,
            dtype=found.dtype,
            classes=found.classes,
            target_scaling=found.target_scaling,
            **inputs,
        )


def load(path: PathLike, backend: str | Backend | None = None) -> Model:
    """The trained model of a run's folder, or of a model file, on this backend.

    A run of the command line, `Model.save` and an estimator's `save` write such files. backend: as
    for `Model`, whatever the run was trained on. Raises InputError if there is no such file.

    >>> import tempfile
    >>> model = Model(Network(2, [Dense(1)]), "mean_squared_error")
    >>> with tempfile.TemporaryDirectory() as run:
    ...     model.save(f"{run}/model.safetensors")
    ...     bool((load(run).w == model.w).all())
    True
    """
    return load_model(model_file(path), backend)


def _columns(columns: Any, inputs: int) -> tuple[str, ...] | None:
    """Names of the inputs as a tuple; InputError if they are not as many, or no names."""
    if columns is None:
        return None
    listed = isinstance(columns, (list, tuple)) and all(isinstance(name, str) for name in columns)
    if not listed or len(columns) != inputs:
        raise InputError(
            f"columns must name the network's {inputs} inputs, as ('age', ...), not "
            f"{shown(columns, 60)}"
        )
    return tuple(columns)


def _fitting(scaling: Any, what: str, width: int, columns: str) -> Scaling | None:
    """The scaling itself; InputError if it is none of so many columns."""
    if scaling is None:
        return None
    check_is(what, scaling, Scaling)
    if len(scaling.shift) != width:
        raise InputError(
            f"{what} is of {len(scaling.shift)} columns, the network has {width} {columns}"
        )
    return scaling


@lru_cache(maxsize=64)
def _repeated(scaling: Scaling, spreads: tuple[bool, ...]) -> Scaling:
    """`Scaling.repeated`, made and checked once for each scaling, not at each prediction."""
    return scaling.repeated(spreads)


def _precision(precision: str | None, dtype: str | None) -> tuple[str, str]:
    """(precision, dtype of the weights); InputError for unknown names or two that contradict."""
    if dtype is not None and not (isinstance(dtype, str) and dtype in DTYPES):
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {shown(dtype)}")
    precision = dtype or "float32" if precision is None else precision
    check_precision(precision)
    of_weights = PRECISIONS[precision].dtype
    if dtype not in (None, of_weights):
        raise InputError(
            f"precision {shown(precision)} has weights in {of_weights}, not in {dtype}"
        )
    return precision, of_weights


def shares(
    batches: Sequence[slice],
    s: np.ndarray | Part | None,
    order: np.ndarray | BlockOrder | None = None,
) -> np.ndarray:
    """The weight of each batch in a mean over samples: its rows, or its sample weights' sum.

    order: of the samples, which the batches cut; None as they are."""
    if s is None:
        weights: Iterator[float] = (rows.stop - rows.start for rows in batches)
    else:
        in_order = batches if order is None else (order[rows] for rows in batches)
        weights = (s[rows].sum(dtype=np.float64) for rows in in_order)
    return np.fromiter(weights, np.float64, len(batches))


def mean_or_sum(objective: Objective, values: np.ndarray, weights: np.ndarray) -> float:
    """The objective over batches, from its values on each of them."""
    if objective.reduction == "sum":
        return float(values.sum())
    return float((values * weights).sum() / weights.sum())


def penalty_of_all(objective: Objective, values: np.ndarray, weights: np.ndarray) -> float:
    """The penalties of the objective over all batches, from their values on each of them: the same
    on each, unless they are shared by its samples."""
    if not objective.shared_penalties:
        return float(values[0])
    most = int(weights.argmax())  # one whose weights are not all zero
    return float(values[most] * weights[most] / weights.sum())


def draw(evaluation: Evaluation, seed: int | None) -> None:
    """What an evaluation outside of training draws: step 0 of a seed; without one nothing."""
    if evaluation.noise is not None:
        evaluation.noise.begin(seed or 0, 0, factor=float(seed is not None))
