"""scikit-learn's MLPClassifier and MLPRegressor, with its parameters, attributes and numbers, on
any backend.

For the same ``random_state`` the draws come in scikit-learn's order (initial weights layer by
layer, the split for early stopping, one shuffle an epoch), and so its conventions hold here: with
samples of weight s_p (1 if none is given) in a batch,

    E = (Σ s_p c_p + alpha/2 ΣW²) / Σ s_p                                                 (1)

penalties never on biases; the squared error is halved, averaged over outputs where the loss is
reported and summed over them in the gradient; Adam's epsilon is not corrected for bias; patience
ends when the loss has failed to fall by tol more than ``n_iter_no_change`` times in a row.

Beyond scikit-learn: ``backend``, ``dtype``, ``dropout``, ``class_weight``, own and per-layer
activations, every loss, solver and schedule of this library, ``scoring``, `validation_losses_`, an
own validation set in `fit`, and hidden activations by `activations`. Where scikit-learn clips the
log-loss at huge logits, the loss here is exact; its L-BFGS turns float32 into float64, here the
weights keep their dtype.

>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True)
>>> clf = MLPClassifier(max_iter=500, random_state=0).fit(X, y)      # backend="cupy" for the GPU
>>> clf.score(X, y) > 0.95
True
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, get_scorer, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import (
    check_random_state,
    column_or_1d,
    compute_sample_weight,
    gen_batches,
    shuffle,
)
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from backends import Array, Backend, choose
from mlp.activations import ACTIVATIONS
from mlp.errors import InputError
from mlp.feed import Feed, check_inputs
from mlp.losses import LOSSES
from mlp.model import Evaluator, Model
from mlp.network import Arena, Dense, Network
from mlp.objective import Evaluation
from mlp.optimizers import OPTIMIZERS, Adam, Momentum, Nesterov, Optimizer
from mlp.schedules import SCHEDULES
from mlp.step import Step
from mlp.tables import make

# scikit-learn's names for what has another name in this library.
ACTIVATION_NAMES = {"logistic": "sigmoid"}
LOSS_NAMES = {"squared_error": "half_squared_error", "log_loss": "cross_entropy"}
LEARNING_RATES = ("constant", "invscaling", "adaptive")


@dataclass
class SolverState:
    """What a stochastic solver remembers; it lives on through `partial_fit` and pickling."""

    rule: Optimizer
    vectors: list[Any]
    learning_rate: float
    step: int = 0


class _BaseMLP(CallbackSupportMixin, BaseEstimator):
    """What classifier and regressor share."""

    _parameter_constraints: dict[str, Any] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "solver": [
            StrOptions({"lbfgs", *OPTIMIZERS}),
            Mapping,
            HasMethods(["update", "constants"]),
        ],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({*LEARNING_RATES, *SCHEDULES}), Mapping, callable],
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
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "backend": [None, str, Backend],
        "dtype": [None, StrOptions({"float32", "float64"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "callbacks": [None, list, tuple],
        "scoring": [None, str, callable],
    }

    _solver_state: SolverState | None = None
    n_features_in_: int
    validation_scores_: Any
    best_validation_score_: Any
    best_loss_: Any

    # ------------------------------------------------------------------ fitting

    def _run_fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any) -> Any:
        """`fit`, as a task of scikit-learn's callback protocol."""
        context = self._init_callback_context(max_subtasks=self.max_iter)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self._fit(X, y, sample_weight, False, X_val, y_val)
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes=dict)
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        incremental: bool = False,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Any:
        """Fit, or leave the estimator as it was if anything fails on the way."""
        before = dict(self.__dict__)
        try:
            self._validate_params()
            return self._fit_validated(X, y, sample_weight, incremental, X_val, y_val)
        except Exception:
            running = {k: v for k, v in self.__dict__.items() if k.startswith("_callback_fit")}
            running |= {k: v for k, v in self.__dict__.items() if k.startswith("_skl_callbacks")}
            self.__dict__.clear()
            self.__dict__.update(before | running)
            raise

    def _fit_validated(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, X_val: Any, y_val: Any
    ) -> Any:
        hidden = self._hidden_sizes()
        first_pass = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        backend = self._backend_of(X)
        X, y = self._validate_input(backend, X, y, incremental, reset=first_pass)
        if sample_weight is not None or self._weighs_classes():
            sample_weight = self._sample_weight(sample_weight, X, y)
        targets = self._targets(y)
        self.n_outputs_ = targets.shape[1]
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        dtype = self.dtype or ("float32" if _dtype_name(X) == "float32" else "float64")
        self._random_state = check_random_state(self.random_state)
        units = [X.shape[1], *hidden, self.n_outputs_]
        if first_pass:
            self._initialize(units, dtype)
        with backend.scope():
            model = self._build(backend, dtype, hidden)
            if self.solver == "lbfgs":
                self._fit_lbfgs(model, X, targets, sample_weight)
            else:
                validation = None
                if X_val is not None:
                    X_val, y_val = self._validate_input(backend, X_val, y_val, True, reset=False)
                    validation = X_val, y_val, None
                self._fit_stochastic(model, X, y, targets, sample_weight, incremental, validation)
            self._take_over(model, X)
        if not all(_all_finite(x) for x in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may"
                " contain large values and need to be preprocessed."
            )
        return self

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def _backend_of(self, X: Any) -> Backend:
        """The backend asked for; without one, or with "auto", data on a device stay there."""
        if self.backend in (None, "auto"):
            home = _home(X)
            if home is not None:
                return choose(home)
        return choose(self.backend)

    def _validate_X(self, backend: Backend, X: Any, reset: bool, **checks: Any) -> Any:
        """X as the feed takes it: a NumPy array, a sparse matrix, or the backend's own array."""
        if not backend.owns(X) or isinstance(X, np.ndarray):
            return validate_data(
                self, _to_host(X), accept_sparse=["csr", "csc"], reset=reset, **checks
            )
        inputs = X.shape[1] if reset or not hasattr(self, "n_features_in_") else None
        if inputs is None and X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        X = check_inputs(backend, X, X.shape[1] if X.ndim == 2 else 0)
        if reset:
            self.n_features_in_ = X.shape[1]
            self.__dict__.pop("feature_names_in_", None)
        return X

    def _weighs_classes(self) -> bool:
        return getattr(self, "class_weight", None) is not None

    def _sample_weight(self, sample_weight: Any, X: Any, y: np.ndarray) -> np.ndarray:
        rows = np.empty((X.shape[0], 0)) if not isinstance(X, np.ndarray) else X
        weights = _check_sample_weight(_to_host(sample_weight), rows, dtype=np.float64)
        if self._weighs_classes():
            weights = weights * compute_sample_weight(self.class_weight, y)
        return np.asarray(weights)

    def _initialize(self, units: list[int], dtype: str) -> None:
        """Fresh weights and records; draws in scikit-learn's order."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(units)
        self.out_activation_ = self._out_activation()
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation == "logistic" else 6.0
        for fan_in, fan_out in zip(units, units[1:], strict=False):
            limit = np.sqrt(factor / (fan_in + fan_out))
            draw = self._random_state.uniform
            self.coefs_.append(draw(-limit, limit, (fan_in, fan_out)).astype(dtype))
            self.intercepts_.append(draw(-limit, limit, fan_out).astype(dtype))
        self._solver_state = None
        self.loss_curve_: list[float] = []
        self.validation_losses_: list[float] = []
        self._no_improvement_count = 0
        self._best_w: np.ndarray | None = None
        if self.solver == "lbfgs":
            del self.loss_curve_, self.validation_losses_
        elif self.early_stopping:
            self.validation_scores_ = []
            self.best_validation_score_ = -np.inf
            self.best_loss_ = None
        else:
            self.best_loss_ = np.inf
            self.validation_scores_ = None
            self.best_validation_score_ = None

    # ------------------------------------------------------------------ the model

    def _build(self, backend: Backend, dtype: str, hidden: Sequence[int]) -> Model:
        """The model of these settings with the weights in `coefs_` and `intercepts_`."""
        sizes = [len(self.coefs_[0]), *(c.shape[1] for c in self.coefs_)]
        if sizes[1:-1] != list(hidden):
            raise ValueError(
                f"hidden_layer_sizes is {list(hidden)}, the fitted weights are of "
                f"{sizes[1:-1]}: set warm_start=False, or clone the estimator"
            )
        dropout = np.broadcast_to(self.dropout, len(hidden)).tolist()
        layers = [
            Dense(units, activation, dropout=rate, l2=self.alpha)
            for units, activation, rate in zip(
                hidden, self._activations(len(hidden)), dropout, strict=True
            )
        ]
        loss = self._loss()
        layers.append(Dense(self.n_outputs_, self._output_unit(), l2=self.alpha))
        network = Network(sizes[0], layers)
        parts = [*self.coefs_, *self.intercepts_]
        w = np.concatenate([_to_host(x).reshape(-1) for x in parts])
        return Model(
            network,
            loss,
            reduction="mean",
            shared_penalties=True,
            w=w,
            backend=backend,
            dtype=dtype,
        )

    def _activations(self, count: int) -> list[Any]:
        """The activation of each hidden layer, by this library's names."""
        given = self.activation
        each = list(given) if isinstance(given, (list, tuple)) else [given] * count
        if len(each) != count:
            raise InputError(
                f"activation lists {len(each)} activations for {count} hidden layers; give one "
                "for each, or one for all"
            )
        return [ACTIVATION_NAMES.get(a, a) if isinstance(a, str) else a for a in each]

    def _output_unit(self) -> Any:
        return ACTIVATION_NAMES.get(self.out_activation_, self.out_activation_)

    def _take_over(self, model: Model, X: Any) -> None:
        """coefs_ and intercepts_ from the model's weights: where the data live."""
        backend = model.backend
        w = model.w if backend.owns(X) else backend.to_numpy(model.w)
        if isinstance(w, np.ndarray):
            w = w.copy()
        W, b = model.network.unpack(w)
        self.coefs_ = [W[l - 1, l] for l in model.network.numbers()]
        self.intercepts_ = [b[l] for l in model.network.numbers()]
        self._cache = (model, tuple(self.coefs_), tuple(self.intercepts_))

    def _model(self, X: Any) -> Model:
        """The fitted model, on the backend for X; built anew if the weights were replaced."""
        backend = self._backend_of(X)
        cache = getattr(self, "_cache", None)
        if cache is not None and cache[0].backend is backend:
            same = zip((*cache[1], *cache[2]), (*self.coefs_, *self.intercepts_), strict=False)
            if all(a is b for a, b in same):
                return cache[0]
        dtype = "float32" if _dtype_name(self.coefs_[0]) == "float32" else "float64"
        model = self._build(backend, dtype, [c.shape[1] for c in self.coefs_[:-1]])
        self._cache = (model, tuple(self.coefs_), tuple(self.intercepts_))
        return model

    def __getstate__(self) -> dict[str, Any]:
        """Without the built model, and with every array on the host: it loads without a GPU."""
        state = dict(super().__getstate__())
        state.pop("_cache", None)
        for name in ("coefs_", "intercepts_"):
            if name in state:
                state[name] = [np.array(_to_host(x)) for x in state[name]]
        solver = state.get("_solver_state")
        if solver is not None:
            vectors = [np.array(_to_host(v)) for v in solver.vectors]
            state["_solver_state"] = replace(solver, vectors=vectors)
        return state

    # ------------------------------------------------------------------ stochastic solvers

    @property
    def _optimizer(self) -> SolverState:
        """The stochastic solver's state, under the name it has in scikit-learn."""
        if self._solver_state is None:
            raise AttributeError("_optimizer")
        return self._solver_state

    def _rule(self) -> Optimizer:
        """The update rule, with scikit-learn's settings for its own solvers."""
        if self.solver == "sgd":
            return (Nesterov if self.nesterovs_momentum else Momentum)(self.momentum)
        if self.solver == "adam":
            return Adam(self.beta_1, self.beta_2, self.epsilon, corrected=False)
        return make(OPTIMIZERS, self.solver, "solver")

    def _fit_stochastic(
        self,
        model: Model,
        X: Any,
        y: np.ndarray,
        targets: np.ndarray,
        sample_weight: np.ndarray | None,
        incremental: bool,
        validation: tuple[Any, Any, Any] | None,
    ) -> None:
        backend, dtype = model.backend, model.dtype
        if self.early_stopping and validation is None:
            X, targets, sample_weight, validation = self._split(X, y, targets, sample_weight)
        n = X.shape[0]
        if self.batch_size == "auto":
            size = min(200, n)
        else:
            if self.batch_size > n:
                warnings.warn(
                    "Got `batch_size` less than 1 or larger than "
                    "sample size. It is going to be clipped",
                    stacklevel=4,
                )
            size = min(self.batch_size, n)
        batches = list(gen_batches(n, size))
        counts = np.array([rows.stop - rows.start for rows in batches])

        solver = self._solver_for(model, incremental)
        seed = int(self._random_state.randint(2**31)) if np.any(self.dropout) else 0
        feed = _SparseFeed if scipy.sparse.issparse(X) else Feed
        fed = feed(backend, dtype, X, model.objective.check_targets(targets, "y"), sample_weight)
        step = Step(model, fed, counts.tolist(), solver.rule, solver.vectors)
        losses = backend.full((len(batches), 2), 0.0, dtype)
        schedule = None
        if self.learning_rate not in LEARNING_RATES:
            schedule = make(SCHEDULES, self._schedule_spec(), "learning_rate")
        watcher = self._watcher(model, validation)
        index = np.arange(n, dtype=np.int64)

        # Records are copied before they grow, so that a failing fit leaves the old ones.
        self.loss_curve_ = list(self.loss_curve_)
        self.validation_losses_ = list(getattr(self, "validation_losses_", ()))
        self.validation_scores_ = list(self.validation_scores_) if self.early_stopping else None

        context = self._callback_context(X, y)
        self.n_iter_ = 0
        try:
            for _ in range(self.max_iter):
                task = context.begin() if context else None
                if self.shuffle:
                    index = shuffle(index, random_state=self._random_state)
                    rows_of = fed.rows(index)
                for i, rows in enumerate(batches):
                    solver.step += 1
                    eta = solver.learning_rate
                    if schedule is not None:
                        eta *= schedule(solver.step - 1, len(batches))
                    chosen = rows_of[rows] if self.shuffle else rows
                    step(counts[i], chosen, eta, solver.step, seed, losses[i : i + 1, :])
                self.n_iter_ += 1
                self._record(model, backend.to_numpy(losses), counts)
                self.t_ += n
                self._look(model, watcher)
                if self.learning_rate == "invscaling":
                    decay = (self.t_ + 1) ** self.power_t
                    solver.learning_rate = float(self.learning_rate_init) / decay
                stop = self._no_improvement_count > self.n_iter_no_change and self._give_up(solver)
                if context and context.end(task, model):
                    stop = True
                for callback in self.callbacks or ():
                    stop = bool(callback(self)) or stop
                if stop or incremental:
                    break
                if self.n_iter_ == self.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and "
                        "the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        if self.early_stopping and self._best_w is not None:
            model.w = self._best_w

    def _solver_for(self, model: Model, incremental: bool) -> SolverState:
        """A fresh solver, or in `partial_fit` the one before, on this backend."""
        backend, dtype, shape = model.backend, model.dtype, model.w.shape
        before = self._solver_state
        if incremental and before is not None:
            vectors = []
            for old in before.vectors:
                vectors.append(backend.empty(shape, dtype))
                backend.copy(backend.asarray(old, dtype), vectors[-1])
            self._solver_state = replace(before, vectors=vectors)
        else:
            rule, rate = self._rule(), self.learning_rate_init
            vectors = [backend.full(shape, value, dtype) for value in rule.initial(rate)]
            self._solver_state = SolverState(rule, vectors, rate)
        return self._solver_state

    def _schedule_spec(self) -> Any:
        if self.learning_rate == "cosine":
            return {"name": "cosine", "epochs": self.max_iter}
        return self.learning_rate

    def _split(
        self, X: Any, y: np.ndarray, targets: np.ndarray, sample_weight: np.ndarray | None
    ) -> tuple[Any, np.ndarray, np.ndarray | None, tuple[Any, Any, Any]]:
        """Training rows, and (X, y, sample weights) held out for early stopping."""
        stratify = targets.astype(bool) if is_classifier(self) and self.n_outputs_ == 1 else None
        train, held_out = train_test_split(
            np.arange(X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=stratify,
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        weights = [None, None]
        if sample_weight is not None:
            weights = [sample_weight[train], sample_weight[held_out]]
        validation = _rows(X, held_out), y[held_out], weights[1]
        return _rows(X, train), targets[train], weights[0], validation

    def _record(self, model: Model, losses: np.ndarray, counts: np.ndarray) -> None:
        """The epoch's loss, each batch's with its penalty, weighed by its rows."""
        data, penalty = losses.astype(np.float64).T
        if model.loss == "half_squared_error":
            data = data / self.n_outputs_  # reported as the mean over outputs
        self.loss_ = float(((data + penalty) * counts).sum() / counts.sum())
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

    def _watcher(
        self, model: Model, validation: tuple[Any, Any, Any] | None
    ) -> Callable[[], tuple[float, float]] | None:
        """A function that gives (loss, score) on the held-out rows with the weights as they are."""
        if validation is None:
            return None
        X, y, weights = validation
        dense = X.toarray() if scipy.sparse.issparse(X) else X
        targets = model.objective.check_targets(self._targets(y), "y_val")
        evaluate = Evaluator(model, dense, targets, weights)
        score = self._scorer(dense, y, weights)

        def watch() -> tuple[float, float]:
            loss = evaluate()["loss"]
            return loss, score(model, evaluate.predictions)

        return watch

    def _scorer(self, X: Any, y: Any, weights: Any) -> Callable[[Model, np.ndarray], float]:
        """Accuracy or R² from the predictions, or what ``scoring`` says of the estimator."""
        if self.scoring is None:

            def usual(model: Model, outputs: np.ndarray) -> float:
                answers = self._answers(outputs)
                if answers.dtype.kind == "f" and not np.isfinite(answers).all():
                    return float("nan")
                metric = accuracy_score if is_classifier(self) else r2_score
                return float(metric(y, answers, sample_weight=weights))

            return usual
        scorer = get_scorer(self.scoring) if isinstance(self.scoring, str) else self.scoring
        options = {} if weights is None else {"sample_weight": weights}

        def asked(model: Model, outputs: np.ndarray) -> float:
            self._take_over(model, X)
            return float(scorer(self, X, y, **options))

        return asked

    def _look(self, model: Model, watcher: Callable[[], tuple[float, float]] | None) -> None:
        """Count the epochs without improvement; keep the best weights when stopping early."""
        score = None
        if watcher is not None:
            loss, score = watcher()
            self.validation_losses_.append(loss)
        if not self.early_stopping:
            if self.loss_curve_[-1] > self.best_loss_ - self.tol:
                self._no_improvement_count += 1
            else:
                self._no_improvement_count = 0
            self.best_loss_ = min(self.best_loss_, self.loss_curve_[-1])
            return
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        if score < self.best_validation_score_ + self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        if score > self.best_validation_score_:
            self.best_validation_score_ = score
            self._best_w = np.array(model.backend.to_numpy(model.w))

    def _give_up(self, solver: SolverState) -> bool:
        """Whether training ends now that it no longer improves; adaptive rates first shrink."""
        what = "Validation score did" if self.early_stopping else "Training loss did"
        message = (
            f"{what} not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        ending = " Stopping."
        if self.learning_rate == "adaptive" and self.solver == "sgd":
            if solver.learning_rate > 1e-6:
                solver.learning_rate /= 5.0
                self._no_improvement_count = 0
                if self.verbose:
                    print(f"{message} Setting learning rate to {solver.learning_rate:f}")
                return False
            ending = " Learning rate too small. Stopping."
        if self.verbose:
            print(message + ending)
        return True

    # ------------------------------------------------------------------ L-BFGS

    def _fit_lbfgs(
        self, model: Model, X: Any, targets: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        """Full-batch descent by SciPy's L-BFGS-B; value and gradient come from the backend."""
        backend, network = model.backend, model.network
        n = X.shape[0]
        dense = X.toarray() if scipy.sparse.issparse(X) else X
        g = backend.empty((network.parameters,), model.dtype)
        arena = Arena(backend, model.xp_dtype, n)
        weighted = sample_weight is not None
        evaluation = model.objective.gradient(backend, model.w, g, arena, n, weighted)
        targets = model.objective.check_targets(targets, "y")
        fed = Feed(backend, model.dtype, dense, targets, sample_weight)
        fed.bind(evaluation)(slice(0, n))
        for mask in evaluation.masks.values():
            backend.fill(mask, 1.0)
        over = self.n_outputs_ if model.loss == "half_squared_error" else 1

        def value_and_gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
            model.w = w
            evaluation.run()
            data, penalty = backend.to_numpy(evaluation.sums)[0].astype(np.float64)
            return data / over + penalty, backend.to_numpy(g).astype(np.float64)

        found = scipy.optimize.minimize(
            value_and_gradient,
            backend.to_numpy(model.w).astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        if found.status != 0:
            warnings.warn(
                f"lbfgs failed to converge after {found.nit} iteration(s) (status={found.status}):"
                f"\n{found.message}\n\nIncrease the number of iterations (max_iter={self.max_iter}) "
                "or scale the data",
                ConvergenceWarning,
                stacklevel=4,
            )
        self.n_iter_ = min(int(found.nit), self.max_iter)
        self.loss_ = float(found.fun)
        model.w = found.x

    # ------------------------------------------------------------------ answers

    def _outputs(self, X: Any) -> Any:
        """The network's outputs, (n, n_outputs_), where X lives."""
        check_is_fitted(self)
        model = self._model(X)
        X = self._validate_X(model.backend, X, reset=False)
        if scipy.sparse.issparse(X):
            X = X.toarray()
        return model.predict(X)

    def activations(self, X: Any) -> list[np.ndarray]:
        """What each hidden layer gives for X: a list of (n, units) arrays.

        >>> X = np.random.default_rng(0).normal(size=(20, 3))
        >>> reg = MLPRegressor(hidden_layer_sizes=(5, 4), max_iter=1000, random_state=0).fit(X, X[:, 0])
        >>> [a.shape for a in reg.activations(X)]
        [(20, 5), (20, 4)]
        """
        check_is_fitted(self)
        model = self._model(X)
        X = self._validate_X(model.backend, X, reset=False)
        X = X.toarray() if scipy.sparse.issparse(X) else X
        found = []
        for depth in range(1, model.network.depth):
            part = Network(model.network.inputs, model.network.layers[:depth])
            W, b = model.network.unpack(model.backend.to_numpy(model.w))
            w = part.pack(
                {key: W[key] for key in part.weight_slices}, {l: b[l] for l in part.bias_slices}
            )
            head = Model(part, "half_squared_error", w=w, backend=model.backend, dtype=model.dtype)
            found.append(head.predict(X))
        return found

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic"
                f" optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ------------------------------------------------------------------ scikit-learn's callbacks

    def _callback_context(self, X: Any, y: Any) -> "_Callbacks | None":
        if not getattr(self, "_skl_callbacks", None) or not hasattr(self, "_callback_fit_ctx"):
            return None
        return _Callbacks(self, X, y)


class _Callbacks:
    """An epoch as a task of scikit-learn's callback protocol."""

    def __init__(self, estimator: Any, X: Any, y: Any):
        self.estimator, self.X, self.y = estimator, X, y
        self.context = estimator._callback_fit_ctx

    def begin(self) -> Any:
        task = self.context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self.estimator, X=self.X, y=self.y)
        return task

    def end(self, task: Any, model: Model) -> bool:
        """Whether a callback asks to stop."""
        estimator = self.estimator

        def fitted() -> dict[str, Any]:
            estimator._take_over(model, self.X)
            names = ("coefs_", "intercepts_", "n_iter_", "loss_", "t_")
            return {name: getattr(estimator, name) for name in names}

        return bool(
            task.call_on_fit_task_end(
                estimator=estimator, X=self.X, y=self.y, reconstruction_attributes=fitted
            )
        )


class _SparseFeed(Feed):
    """A SciPy sparse matrix: its rows become dense when their batch is gathered."""

    def __init__(self, backend: Backend, dtype: str, X: Any, t: np.ndarray, s: Any):
        stand_in = np.empty((X.shape[0], 0), dtype)
        super().__init__(backend, dtype, stand_in, t, s)
        self.sparse = X.tocsr()

    def rows(self, index: np.ndarray) -> Any:
        return index

    def bind(self, evaluation: Evaluation) -> Callable[[Any], None]:
        rest = super().bind(replace(evaluation, x=self.backend.empty((evaluation.n, 0), "float32")))

        def fill(rows: Any) -> None:
            dense = self.sparse[rows].toarray()
            self.backend.copy(self.backend.asarray(dense, self.dtype), evaluation.x)
            rest(rows if isinstance(rows, slice) else self.backend.asarray(rows))

        return fill


# --------------------------------------------------------------------------- the two estimators


class MLPClassifier(ClassifierMixin, _BaseMLP):
    """Multi-layer perceptron classifier with scikit-learn's parameters, on any backend.

    The parameters up to ``max_fun`` are those of `sklearn.neural_network.MLPClassifier`, with the
    same defaults and meanings. After them, by keyword:

    loss: "log_loss", or a name of `mlp.losses.LOSSES`, or an own object.
    backend: "numpy", "cupy", "cupy:1", "torch", ...; None: data on a device stay there, others go
    where $MLP_BACKEND says, else to NumPy; "auto": the same, but host data go to CuPy if it runs.
    dtype: "float32" or "float64"; None follows X. dropout: of the hidden layers, one number or one
    for each. class_weight: None, "balanced" or {label: weight}. callbacks: functions of the
    estimator, called after each epoch; a true answer stops. scoring: what early stopping watches.

    activation may be any name of `mlp.activations.ACTIVATIONS`, an own object, or a list with one
    for each hidden layer; solver any name of `mlp.optimizers.OPTIMIZERS`, a mapping with its
    settings, or an object; learning_rate any name of `mlp.schedules.SCHEDULES` too.
    """

    _parameter_constraints: dict[str, Any] = {
        **_BaseMLP._parameter_constraints,
        "activation": [
            StrOptions({*ACTIVATION_NAMES, *ACTIVATIONS}),
            Mapping,
            list,
            tuple,
            HasMethods(["f", "df"]),
        ],
        "loss": [
            StrOptions({"log_loss", *LOSSES}),
            Mapping,
            HasMethods(["cost", "derivative"]),
        ],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        loss: Any = "log_loss",
        backend: Any = None,
        dtype: Any = None,
        dropout: Any = 0.0,
        class_weight: Any = None,
        callbacks: Any = None,
        scoring: Any = None,
    ):
        _keep(self, locals())

    @with_callbacks
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> "MLPClassifier":
        """Fit to X (n, features) and y (n,) labels or (n, labels) of 0 and 1.

        sample_weight: (n,). X_val, y_val: an own validation set, in place of a share of X.
        """
        return self._run_fit(X, y, sample_weight, X_val, y_val)

    @available_if(lambda estimator: estimator._check_solver())
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> "MLPClassifier":
        """One epoch on X and y, going on from the weights and the solver's state as they are.

        classes: all labels that will ever come, needed in the first call.
        """
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer.fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The label of each row, (n,); with several labels a row (n, labels) of 0 and 1."""
        outputs = self._outputs(X)
        if isinstance(outputs, np.ndarray) or self.classes_.dtype.kind not in "biuf":
            return self._answers(_to_host(outputs))
        return self._backend_of(X).asarray(self._answers(_to_host(outputs)))

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, (n, classes) in the order of `classes_`, where X lives."""
        shares = self._outputs(X)
        if self.n_outputs_ > 1:
            return shares
        xp = self._backend_of(X).xp
        return xp.concat([1 - shares, shares], axis=1)

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of `predict_proba`."""
        return self._backend_of(X).xp.log(self.predict_proba(X))

    def _validate_input(
        self, backend: Backend, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, np.ndarray]:
        if isinstance(X, np.ndarray) or not backend.owns(X):
            X, y = validate_data(
                self,
                _to_host(X),
                _to_host(y),
                accept_sparse=["csr", "csc"],
                multi_output=True,
                dtype=(np.float64, np.float32),
                reset=reset,
            )
        else:
            X, y = self._validate_X(backend, X, reset), np.asarray(_to_host(y))
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y
        classes = unique_labels(y)
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """(n, n_outputs_) of 0 and 1."""
        return self._label_binarizer.transform(y).astype(np.uint8)

    def _answers(self, outputs: np.ndarray) -> np.ndarray:
        """Labels from the network's outputs."""
        outputs = outputs.ravel() if self.n_outputs_ == 1 else outputs
        return self._label_binarizer.inverse_transform(outputs)

    def _out_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _loss(self) -> Any:
        if self.loss != "log_loss":
            return self.loss
        return "cross_entropy" if self.out_activation_ == "softmax" else "binary_cross_entropy"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, _BaseMLP):
    """Multi-layer perceptron regressor with scikit-learn's parameters, on any backend.

    The parameters up to ``max_fun`` are those of `sklearn.neural_network.MLPRegressor`, with the
    same defaults and meanings; loss may also be any name of `mlp.losses.LOSSES` or an own object.
    The parameters after them are those of `MLPClassifier`, but for class_weight.
    """

    _parameter_constraints: dict[str, Any] = {
        **_BaseMLP._parameter_constraints,
        "activation": MLPClassifier._parameter_constraints["activation"],
        "loss": [
            StrOptions({"squared_error", "poisson", *LOSSES}),
            Mapping,
            HasMethods(["cost", "derivative"]),
        ],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        backend: Any = None,
        dtype: Any = None,
        dropout: Any = 0.0,
        callbacks: Any = None,
        scoring: Any = None,
    ):
        _keep(self, locals())

    @with_callbacks
    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None
    ) -> "MLPRegressor":
        """Fit to X (n, features) and y (n,) or (n, outputs).

        sample_weight: (n,). X_val, y_val: an own validation set, in place of a share of X.
        """
        return self._run_fit(X, y, sample_weight, X_val, y_val)

    @available_if(lambda estimator: estimator._check_solver())
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """One epoch on X and y, going on from the weights and the solver's state as they are."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """The predicted values, (n,), or (n, outputs) for several, where X lives."""
        return self._answers(self._outputs(X))

    def _validate_input(
        self, backend: Backend, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, np.ndarray]:
        if isinstance(X, np.ndarray) or not backend.owns(X):
            X, y = validate_data(
                self,
                _to_host(X),
                _to_host(y),
                accept_sparse=["csr", "csc"],
                multi_output=True,
                y_numeric=True,
                dtype=(np.float64, np.float32),
                reset=reset,
            )
        else:
            X, y = self._validate_X(backend, X, reset), np.asarray(_to_host(y))
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _targets(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def _answers(self, outputs: Any) -> Any:
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _out_activation(self) -> str:
        unit = getattr(LOSSES.get(self._loss_name(), self.loss), "unit", None)
        return unit or "identity"

    def _loss_name(self) -> Any:
        name = self.loss.get("name") if isinstance(self.loss, Mapping) else self.loss
        return LOSS_NAMES.get(name, name) if isinstance(name, str) else ""

    def _loss(self) -> Any:
        return self._loss_name() if isinstance(self.loss, str) else self.loss


# --------------------------------------------------------------------------------- small helpers


def _keep(estimator: Any, arguments: dict[str, Any]) -> None:
    """Every constructor argument as an attribute of its name, untouched."""
    for name, value in arguments.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def _home(X: Any) -> str | None:
    """The name of the backend on whose device X lives; None for what lives on the host."""
    library = type(X).__module__.partition(".")[0]
    if library == "cupy":
        return f"cupy:{X.device.id}"
    if library == "torch":
        return f"torch:{X.device}"
    if library == "array_api_strict":
        device = str(X.device).partition("'")[2].rstrip("')")
        return "strict" if device == "CPU_DEVICE" else f"strict:{device}"
    return None


def _to_host(X: Any) -> Any:
    """X as scikit-learn's own validation takes it; an array of a device goes to the host."""
    home = _home(X)
    return X if home is None else choose(home).to_numpy(X)


def _dtype_name(X: Any) -> str:
    return str(getattr(X, "dtype", "")).rpartition(".")[2]


def _rows(X: Any, index: np.ndarray) -> Any:
    home = _home(X)
    if home is None:
        return X[index]
    backend = choose(home)
    return backend.xp.take(X, backend.asarray(index), axis=0)


def _all_finite(x: Any) -> bool:
    return bool(np.isfinite(_to_host(x)).all())
