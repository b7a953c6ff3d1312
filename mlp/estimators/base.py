"""What the two estimators share: settings, input, weights, answers, pickling.

`coefs_` and `intercepts_` are views of one flat vector: that of the model that computes, where it
computes on the side on which the data live, so an edit of `coefs_` in place takes effect at once,
as in scikit-learn. An `Engine` keeps that model, and in `partial_fit` its training step, from one
call to the next; it is never pickled.
"""

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from backends import Backend, choose
from mlp.data.finite import unmasked
from mlp.data.samples import Samples, check_inputs
from mlp.data.scaling import Scaling, dtype_name, widest
from mlp.errors import InputError, check_is, is_finite, shown
from mlp.estimators.arrays import FitRows, home, like, to_host
from mlp.estimators.checks import SayableSettings, sayable
from mlp.estimators.engine import Engine
from mlp.estimators.exchange import adopted, to_sklearn
from mlp.estimators.kept import Kept, kept
from mlp.estimators.lbfgs import chunks_of, fit_lbfgs
from mlp.estimators.models import ACTIVATION_NAMES, RATE_MODES, load, save
from mlp.estimators.stochastic import AROUND, SolverState, around, fit_stochastic
from mlp.files import PathLike
from mlp.formulas.activations import ACTIVATIONS, get_activation, learned, meant_before
from mlp.formulas.averages import AVERAGES
from mlp.formulas.losses import LOSSES, get_loss, heads_of
from mlp.formulas.optimizers import OPTIMIZERS
from mlp.formulas.schedules import SCHEDULES
from mlp.layers.dense import Dense
from mlp.layers.dropout import check_rate
from mlp.memory import check_host, enough_memory
from mlp.model import Model
from mlp.network.graph import Network
from mlp.parallel.group import ALONE, Group
from mlp.threads import as_pays, limited
from mlp.training.checkpoints import Checkpoints


class BaseMLP(CallbackSupportMixin, SayableSettings, BaseEstimator):
    """What classifier and regressor share."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [
            StrOptions({*ACTIVATION_NAMES, *ACTIVATIONS}),
            dict,
            list,
            tuple,
            HasMethods(["f", "df"]),
        ],
        "solver": [
            StrOptions({"lbfgs", *OPTIMIZERS}),
            dict,
            HasMethods(["update", "constants"]),
        ],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({*RATE_MODES, *SCHEDULES}), dict, callable],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "backend": [None, str, Backend],
        "dtype": [None, StrOptions({"float32", "float64"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "callbacks": [None, list, tuple],
        "scoring": [None, str, callable],
        "checkpoint": [None, str, os.PathLike, Checkpoints],
        "weight_decay": [None, Interval(Real, 0, None, closed="left")],
        "rate_factors": [None, dict],
        "clip_norm": [None, Interval(Real, 0, None, closed="neither")],
        "clip_value": [None, Interval(Real, 0, None, closed="neither")],
        "average": [
            None,
            StrOptions({*AVERAGES}),
            dict,
            HasMethods(["share_of_epoch"]),
        ],
        "time": [None, str, Interval(Real, 0, None, closed="neither")],
    }

    _engine: Engine | None = None
    _solver_state: Any = None
    n_features_in_: int
    coefs_: list[Any]
    intercepts_: list[Any]
    input_scaling_: Scaling | None = None
    target_scaling_: Scaling | None = None

    # ------------------------------------------------------------------ fitting

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """If anything fails within, the estimator stays as it was."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _fit_task(
        self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any, group: Group
    ) -> Any:
        """`fit`, as a task of scikit-learn's callback protocol, on rank 0."""
        check_is("fit: group", group, Group)
        arguments = {"estimator": self, "X": X, "y": y}
        if sample_weight is not None:
            arguments["metadata"] = {"sample_weight": sample_weight}
        context = self._init_callback_context(max_subtasks=self.max_iter)
        with group.together():
            if group.rank == 0:
                context.call_on_fit_task_begin(**arguments)
        with self._all_or_nothing():
            self._fit(X, y, sample_weight, X_val=X_val, y_val=y_val, group=group)
        with group.together():
            if group.rank == 0:
                context.call_on_fit_task_end(**arguments, reconstruction_attributes=dict)
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool = False,
        X_val: Any = None,
        y_val: Any = None,
        group: Group = ALONE,
    ) -> Any:
        held_out = None
        with group.together():
            hidden = self._hidden_sizes()
            first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
            backend = self._backend_of(X)
            data = self._checked(backend, X, y, sample_weight, incremental, first_pass)
            self.n_outputs_ = data.targets.shape[1]
            self._check_combination(incremental, X_val, y_val)
            self._check_group(group)
            if X_val is not None:
                held_out = self._checked(backend, X_val, y_val, None, True, False, "_val")
            self._random_state = check_random_state(self.random_state)
        if group.size > 1:
            self._random_state = _of_rank_0(self._random_state, group)
        with kept(self, data, held_out) as where:
            given = hidden, incremental, first_pass, where, group
            model = self._fit_rows(backend, data, held_out, *given)
            self._take_over(model, X)
        return self

    def _fit_rows(
        self,
        backend: Backend,
        data: FitRows,
        held_out: FitRows | None,
        hidden: list[int],
        incremental: bool,
        first_pass: bool,
        where: Kept | None,
        group: Group,
    ) -> Model:
        """The model of a fit to rows that are checked."""
        if first_pass:
            single = dtype_name(data.X) == "float32"
            dtype = self.dtype or ("float32" if single else widest(backend))
            self._initialize([data.X.shape[1], *hidden, self.n_outputs_], dtype)
        elif hidden != [W.shape[1] for W in self.coefs_[:-1]]:
            raise InputError(
                f"hidden_layer_sizes is {hidden}, the fitted weights are of "
                f"{[W.shape[1] for W in self.coefs_[:-1]]}: set warm_start=False, or clone the "
                "estimator"
            )
        with limited(), enough_memory(backend, "fit"), backend.scope():
            if self.solver == "lbfgs":
                data, chunks = chunks_of(data, backend, dtype_name(self.coefs_[0]))
                model = self._build(backend, self.alpha / len(chunks))
                with self._as_pays(backend, chunks[0].stop):
                    fit_lbfgs(self, model, data, chunks)
            else:
                given = held_out, incremental, where, group
                model = fit_stochastic(self, backend, data, *given)
            finite = bool(np.isfinite(backend.to_numpy(model.w)).all())
        if not finite:
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may"
                " contain large values and need to be preprocessed."
            )
        return model

    def _as_pays(self, backend: Backend, rows: int) -> AbstractContextManager[None]:
        """Products in no more threads than pay with so many rows, where they are NumPy's."""
        if backend.workers(2) == 1:
            return nullcontext()
        return as_pays(rows * math.prod(W.shape) for W in self.coefs_)

    def _check_combination(self, incremental: bool, X_val: Any, y_val: Any) -> None:
        """Settings that cannot be used together."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise InputError(f"X_val and y_val are one validation set: give {missing} too")
        if self.early_stopping and incremental and self.solver != "lbfgs":
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.checkpoint is not None:
            self._check_checkpoint(incremental)
        if self.solver == "lbfgs":
            for name, given in (
                ("dropout", np.any(self.dropout)),
                ("X_val", X_val is not None),
                ("scoring", self.scoring is not None),
                *((name, getattr(self, name) is not None) for name in AROUND),
            ):
                if given:
                    raise InputError(
                        f"{name} needs a stochastic solver, as 'adam'; 'lbfgs' runs without epochs"
                    )
        else:
            around(self)
        for name in ("average", "time"):
            if incremental and getattr(self, name) is not None:
                raise InputError(
                    f"{name} is of a whole fit, partial_fit is one epoch: set {name}=None"
                )
        watched = incremental or self.early_stopping or X_val is not None
        if self.scoring is not None and not watched:
            raise InputError(
                "scoring watches a validation set: set early_stopping=True, or give X_val and "
                "y_val to fit"
            )
        for callback in self.callbacks or ():
            if not callable(callback):
                raise InputError(
                    f"callbacks are functions of the estimator, not {shown(callback)}; "
                    "scikit-learn's go to set_callbacks"
                )

    def _check_group(self, group: Group) -> None:
        """What several ranks cannot do."""
        if group.size == 1:
            return
        if self.solver == "lbfgs":
            raise InputError(
                "group needs a stochastic solver, as 'adam': 'lbfgs' looks at all rows at each of "
                "its steps, which are SciPy's and on one process"
            )
        if self.checkpoint is not None:
            raise InputError(
                "checkpoint keeps the fit of one process: leave it out, or use mlp.train, whose "
                "checkpoints go on with any number of ranks"
            )

    def _check_checkpoint(self, incremental: bool) -> None:
        """What cannot be gone on from a folder."""
        if incremental:
            raise InputError(
                "checkpoint keeps a fit, partial_fit leaves nothing in a folder: set checkpoint="
                "None, and keep the estimator between its calls by pickling it"
            )
        if self.warm_start:
            raise InputError(
                "warm_start=True begins with the weights in the estimator, checkpoint with what is "
                "in its folder: set one of them"
            )
        if self.solver == "lbfgs":
            raise InputError(
                "checkpoint needs a stochastic solver, as 'adam': what 'lbfgs' remembers of its "
                "steps is inside SciPy, and without it the fit would go on otherwise"
            )

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = (
            list(sizes)
            if isinstance(sizes, Iterable) and getattr(sizes, "ndim", 1) == 1
            else [sizes]
        )
        for size in sizes:
            if not isinstance(size, Integral) or isinstance(size, bool) or not is_finite(size):
                raise InputError(
                    "hidden_layer_sizes must be whole numbers of units, as (100, 50), not "
                    f"{shown(self.hidden_layer_sizes)}"
                )
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    # ------------------------------------------------------------------ input

    def _backend_of(self, X: Any) -> Backend:
        """The backend asked for; without one, or with "auto", data on a device stay there."""
        if self.backend in (None, "auto"):
            name = home(X)
            if name is not None:
                return choose(name)
        return choose(self.backend)

    def _checked(
        self,
        backend: Backend,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool,
        first_pass: bool,
        part: str = "",
    ) -> FitRows:
        """The rows to fit, checked as scikit-learn checks them; or those of X_val and y_val, whose
        ``part`` is "_val"."""
        X, y = unmasked(X, f"X{part}"), unmasked(y, f"y{part}")
        sample_weight = unmasked(sample_weight, "sample_weight")
        frame = X if hasattr(X, "columns") else None
        numeric = not is_classifier(self)
        y = to_host(y)
        if _on_device(backend, X):
            X = self._checked_on_device(backend, X, first_pass)
            y = _check_y(y, multi_output=True, y_numeric=numeric, estimator=self)
            check_consistent_length(X, y)
        else:
            with sayable("X or y"):
                X, y = validate_data(
                    self,
                    to_host(X),
                    y,
                    accept_sparse=["csr", "csc"],
                    multi_output=True,
                    y_numeric=numeric,
                    dtype=self.dtype or (np.float64, np.float32),
                    reset=first_pass,
                )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = self._targets(y, incremental, watched=bool(part))
        return FitRows(Samples(X, targets, self._weights(sample_weight, X, y)), y, frame)

    def _checked_on_device(self, backend: Backend, X: Any, first_pass: bool) -> Any:
        """X, an array of the backend's, checked where it lives."""
        X = check_inputs(backend, X, X.shape[1] if X.ndim == 2 else 0)
        if first_pass:
            self.n_features_in_ = int(X.shape[1])
            self.__dict__.pop("feature_names_in_", None)
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return X

    def _weights(self, sample_weight: Any, X: Any, y: np.ndarray) -> np.ndarray | None:
        """Sample weights times class weights, (n,) float64; None if all are 1."""
        class_weight = getattr(self, "class_weight", None)
        if sample_weight is None and class_weight is None:
            return None
        with sayable("sample_weight"):
            weights = _check_sample_weight(
                to_host(sample_weight), np.empty((X.shape[0], 0)), dtype=np.float64
            )
        if class_weight is not None:
            weights = weights * compute_sample_weight(class_weight, y)
        return np.asarray(weights)

    def _targets(self, y: np.ndarray, incremental: bool, watched: bool = False) -> np.ndarray:
        """(n, n_outputs_) of what the network is to give for y; watched: of y_val."""
        raise NotImplementedError

    # ------------------------------------------------------------------ weights

    def _initialize(self, units: list[int], dtype: str) -> None:
        """Fresh weights and records; draws in scikit-learn's order."""
        self.n_layers_ = len(units)
        self.out_activation_ = self._out_activation()
        self._engine = self._solver_state = None
        self.coefs_, self.intercepts_ = [], []
        drawn = 8 * sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(units))
        check_host(2 * drawn, "drawing the weights", "use fewer units in hidden_layer_sizes")
        factor = 2.0 if self.activation == "logistic" else 6.0
        draw = self._random_state.uniform
        for fan_in, fan_out in pairwise(units):
            limit = np.sqrt(factor / (fan_in + fan_out))
            self.coefs_.append(draw(-limit, limit, (fan_in, fan_out)).astype(dtype))
            self.intercepts_.append(draw(-limit, limit, fan_out).astype(dtype))
        self._begin_records()

    def _begin_records(self) -> None:
        """Nothing is recorded yet, and nothing left of a model that this estimator was made of."""
        self.n_iter_ = 0
        self.t_ = 0
        for name in (
            *("loss_curve_", "validation_losses_", "validation_scores_"),
            *("input_scaling_", "target_scaling_"),
        ):
            self.__dict__.pop(name, None)
        if self.solver == "lbfgs":
            return
        self.loss_curve_: list[float] = []
        self.validation_losses_: list[float] | None = None
        self._no_improvement_count = 0
        if self.early_stopping:
            self.validation_scores_: list[float] | None = []
            self.best_validation_score_: float | None = -np.inf
            self.best_loss_: float | None = None
        else:
            self.best_loss_ = np.inf
            self.validation_scores_ = None
            self.best_validation_score_ = None

    def _flat_weights(self) -> np.ndarray:
        """coefs_ and intercepts_ as one flat host vector, in the layout of `mlp.network`."""
        return np.concatenate([to_host(x).reshape(-1) for x in (*self.coefs_, *self.intercepts_)])

    def _design(self, alpha: float) -> tuple[Network, Any]:
        """The network and the loss of these settings, for weights of the shapes of coefs_."""
        inputs, units = self.coefs_[0].shape[0], [W.shape[1] for W in self.coefs_]
        hidden, alpha = len(units) - 1, float(alpha)
        layers = [
            Dense(int(n), _own_name(f), dropout=check_rate(p, "dropout"), l2=alpha)
            for n, f, p in zip(
                units[:-1],
                self._for_each_layer("activation", hidden),
                self._for_each_layer("dropout", hidden),
                strict=True,
            )
        ]
        for layer in layers:
            _refuse_learned(layer)
            _try_out(layer.activation, ("f", "df"), ACTIVATIONS, "activation")
        layers.append(Dense(int(units[-1]), _own_name(self.out_activation_), l2=alpha))
        network = Network(int(inputs), layers)
        loss = self._loss()
        _try_out(loss, ("cost", "derivative"), LOSSES, "loss")
        if heads_of(get_loss(loss), 2) > 1:
            raise InputError(
                f"loss {shown(loss)} has several outputs for a target, an estimator predicts what "
                "y is: train an mlp.Model by it"
            )
        return network, loss

    def _for_each_layer(self, name: str, hidden: int) -> list[Any]:
        """A setting that is given for each hidden layer, or once for all."""
        given = getattr(self, name)
        if not isinstance(given, (list, tuple, np.ndarray)) or np.ndim(given) == 0:
            return [given] * hidden
        if len(given) != hidden:
            raise InputError(
                f"{name} has {len(given)} entries for {hidden} hidden layers; give one for each, "
                "or one for all"
            )
        return list(given)

    def _build(self, backend: Backend, alpha: float) -> Model:
        """The model of these settings with a copy of the weights in `coefs_` and `intercepts_`."""
        network, loss = self._design(alpha)
        return Model(
            network,
            loss,
            reduction="mean",
            shared_penalties=True,
            w=self._flat_weights(),
            backend=backend,
            dtype=self._dtype_on(backend),
            input_scaling=self.input_scaling_,
            target_scaling=self.target_scaling_,
        )

    def _dtype_on(self, backend: Backend) -> str:
        """The dtype of the weights, but float32 on a device without float64."""
        return "float32" if dtype_name(self.coefs_[0]) == "float32" else widest(backend)

    def _take_over(self, model: Model, X: Any) -> None:
        """coefs_ and intercepts_ from the model: views of its w, or copies on the host for X that
        lives there while the model does not. With scikit-learn's array API dispatch they are where
        X lives, whatever the backend."""
        backend = model.backend
        follow = home(X) is not None and get_config()["array_api_dispatch"]
        shared = backend.owns(X) or (isinstance(model.w, np.ndarray) and not follow)
        engine = self._engine
        if engine is not None and engine.model is model and engine.shared and shared:
            return
        w: Any = model.w if shared else np.array(backend.to_numpy(model.w))
        if follow and not shared:
            w = like(X, w)
        W, b = model.network.unpack(w)
        self.coefs_ = [W[l - 1, l] for l in model.network.numbers()]
        self.intercepts_ = [b[l] for l in model.network.numbers()]
        parts = (*self.coefs_, *self.intercepts_)
        if engine is not None and engine.model is model:
            self._engine = replace(engine, parts=parts, shared=shared)
        else:
            self._engine = Engine(model, parts, shared)

    def _engine_on(self, backend: Backend) -> Engine:
        """The engine of the fitted weights on a backend; built anew if they were replaced."""
        parts = (*self.coefs_, *self.intercepts_)
        engine = self._engine
        if engine is None or engine.model.backend is not backend or not engine.serves(parts):
            with backend.scope():
                engine = self._engine = Engine(self._build(backend, self.alpha), parts, False)
        elif not engine.shared:
            with engine.lock:
                engine.model.w = self._flat_weights()  # they may have been edited in place
        return engine

    # ------------------------------------------------------------------ answers

    def _outputs(self, X: Any, method: str) -> Any:
        """The network's outputs, (n, n_outputs_): on the host, or on the device of X if that is
        where they are computed. method: that was called, for messages."""
        self._check_fitted_for(X, method)
        backend = self._backend_of(X)
        engine = self._engine_on(backend)
        X = self._checked_X(backend, X)
        return engine.model.predict(X)

    def _check_fitted_for(self, X: Any, method: str) -> None:
        """With array API dispatch X must live where the weights do, as scikit-learn has it."""
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="_first_weights", method=method)

    @property
    def _first_weights(self) -> Any:
        return self.coefs_[0]

    def _checked_X(self, backend: Backend, X: Any) -> Any:
        X = unmasked(X, "X")
        if _on_device(backend, X):
            return self._checked_on_device(backend, X, first_pass=False)
        with sayable("X"):
            return validate_data(self, to_host(X), accept_sparse=["csr", "csc"], reset=False)

    def activations(self, X: Any) -> list[Any]:
        """What each hidden layer gives for X: a list of (n, units) arrays, where X lives.

        >>> from mlp.estimators import MLPRegressor
        >>> X = np.random.default_rng(0).normal(size=(20, 3))
        >>> reg = MLPRegressor(hidden_layer_sizes=(5, 4), activation="identity", solver="lbfgs")
        >>> reg = reg.fit(X, X[:, 0])
        >>> [a.shape for a in reg.activations(X)]
        [(20, 5), (20, 4)]
        """
        self._check_fitted_for(X, "activations")
        backend = self._backend_of(X)
        units = self._for_each_layer("activation", len(self.coefs_) - 1)
        a, scaling, found = self._checked_X(backend, X), self.input_scaling_, []
        for f, W, b in zip(units, self.coefs_, self.intercepts_, strict=False):
            one = Model(
                Network(int(W.shape[0]), [Dense(int(W.shape[1]), _own_name(f))]),
                "half_squared_error",
                w=np.concatenate([to_host(W).reshape(-1), to_host(b)]),
                backend=backend,
                dtype=self._dtype_on(backend),
                input_scaling=scaling,
            )
            a, scaling = one.predict(a), None
            found.append(a)
        return [like(X, a) if isinstance(a, np.ndarray) else a for a in found]

    # ------------------------------------------------------------------ what both answer alike

    def _out_activation(self) -> str:
        """The output unit, by scikit-learn's name."""
        raise NotImplementedError

    def _loss(self) -> Any:
        """The loss as `mlp.formulas.losses` takes it."""
        raise NotImplementedError

    def _is_squared_error(self) -> bool:
        """Whether the loss is scikit-learn's squared error, reported as the mean over outputs."""
        return isinstance(self.loss, str) and self.loss == "squared_error"

    @property
    def _optimizer(self) -> Any:
        """The stochastic solver's state, under the name it has in scikit-learn."""
        if self._solver_state is None:
            raise AttributeError("_optimizer")
        return self._solver_state

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic"
                f" optimizers. {self.solver} is not stochastic."
            )
        return True

    def to_sklearn(self) -> Any:
        """The same net as scikit-learn's own estimator; see `mlp.estimators.exchange`."""
        return to_sklearn(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    def __sklearn_array_api_convert__(self, converter: Callable[[Any], Any]) -> Any:
        """A copy with its weights elsewhere, for scikit-learn's `move_estimator_to`."""
        moved = copy.deepcopy(self)  # with every array on the host
        for name in ("coefs_", "intercepts_"):
            if hasattr(moved, name):
                setattr(moved, name, [converter(x) for x in getattr(moved, name)])
        return moved

    # Notebooks show the descriptions of parameters where there is a page to link to; the page of
    # scikit-learn's estimator has the shared ones.
    _doc_link_module = "mlp"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        return {"estimator_module": "sklearn.neural_network", "estimator_name": type(self).__name__}

    # ------------------------------------------------------------------ files and pickles

    def save(self, path: PathLike) -> None:
        """The fitted estimator as a model file: data and no code, for any machine and backend.

        `load` gives it back, and `mlp.load_model` the model in it. It predicts the same and has the
        same records and parameters. What is code and matters to training alone is left out, and is
        as usual afterwards: callbacks, functions for scoring and learning rates, own solvers and
        random generators. The solver's state is left out too: `partial_fit` goes on from the
        weights with a fresh solver. Pickles keep both.

        Raises InputError for an activation or a loss that is an object of your own, and for classes
        that are neither text nor numbers.
        """
        save(self, path)

    @classmethod
    def load(cls, path: PathLike, backend: str | Backend | None = None) -> Any:
        """The estimator of a model file, from `save`, `mlp.save_model` or a run.

        backend: where to compute, as the parameter. Of a file that no estimator wrote, the net must
        be a chain of dense layers with biases; see `mlp.to_estimator`.

        >>> import tempfile, pathlib
        >>> from mlp.estimators import MLPRegressor
        >>> X = np.random.default_rng(0).normal(size=(20, 3))
        >>> reg = MLPRegressor(hidden_layer_sizes=5, activation="identity", solver="lbfgs")
        >>> reg = reg.fit(X, X[:, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reg.save(pathlib.Path(folder) / "reg.safetensors")
        ...     loaded = MLPRegressor.load(pathlib.Path(folder) / "reg.safetensors")
        >>> bool((loaded.predict(X) == reg.predict(X)).all()), loaded
        (True, MLPRegressor(activation='identity', hidden_layer_sizes=5, solver='lbfgs'))
        """
        return load(cls, path, backend)

    def __getstate__(self) -> dict[str, Any]:
        """Without the engine, and with every array on the host: it loads without a GPU."""
        state = dict(super().__getstate__())
        state.pop("_engine", None)
        for name in ("coefs_", "intercepts_"):
            if name in state:
                state[name] = [np.array(to_host(x)) for x in state[name]]
        solver = state.pop("_solver_state", None)
        if solver is not None:
            state["_solver_state"] = solver.as_dict()
        return state | {"_names": 2}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle of this class, or of scikit-learn's own estimator (after patching)."""
        if "backend" not in state:
            state = adopted(type(self), state)
        elif "_names" not in state:  # of when the activation "gelu" was its tanh form
            state = {**state, "activation": meant_before(state["activation"])}
        state.pop("_names", None)
        state = dict.fromkeys(AROUND) | state  # of before there were these
        super().__setstate__(state)
        if self._solver_state is not None:
            self._solver_state = SolverState.of(self, self._solver_state)


# ----------------------------------------------------------------------------- small helpers


def keep_arguments(estimator: Any, arguments: dict[str, Any]) -> None:
    """Every constructor argument as an attribute of its name, untouched."""
    for name, value in arguments.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def _own_name(activation: Any) -> Any:
    """What this library calls an activation that scikit-learn may have another name for."""
    named = isinstance(activation, str)
    return ACTIVATION_NAMES.get(activation, activation) if named else activation


def _refuse_learned(layer: Dense) -> None:
    """InputError for an activation that learns."""
    if learned(get_activation(layer.activation), layer.units):
        raise InputError(
            f"activation {shown(layer.label)} learns numbers of its own, and those of an estimator "
            "are coefs_ and intercepts_; train the net by mlp.train"
        )


def _on_device(backend: Backend, X: Any) -> bool:
    return backend.owns(X) and not isinstance(X, np.ndarray)


def _try_out(own: Any, methods: tuple[str, str], table: Mapping[str, Any], kind: str) -> None:
    """Call a formula of the user's on small arrays: its results must have their shape and dtype."""
    if isinstance(own, (str, Mapping)) or any(own == entry for entry in table.values()):
        return
    x = np.linspace(0.1, 0.9, 6, dtype=np.float32).reshape(2, 3)
    first, second = methods

    def checked(method: str, *arguments: Any) -> np.ndarray:
        result = getattr(own, method)(np, *arguments)
        shape, dtype = np.shape(result), getattr(result, "dtype", type(result).__name__)
        if shape != x.shape or dtype != x.dtype:
            raise InputError(
                f"{kind} {shown(own)}: {method} gives {dtype} of shape {shape} for float32 of "
                f"shape {x.shape}; it must keep both"
            )
        return result

    if kind == "activation":
        a = checked(first, x)
        checked(second, x, None if getattr(own, "from_output", False) else x, a)
    else:
        checked(first, x, x)
        checked(second, x, x)


def _of_rank_0(random: np.random.RandomState, group: Group) -> np.random.RandomState:
    """The generator, in the state that it has on rank 0."""
    state = group.broadcast(random.get_state(legacy=False))
    if group.rank == 0:
        return random
    mine = np.random.RandomState()
    mine.set_state(state)
    return mine
