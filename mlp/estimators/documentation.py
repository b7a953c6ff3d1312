"""The parameters and attributes that both estimators have, for their docstrings."""

PARAMETERS = """\
    hidden_layer_sizes : array-like of int, or int, default=(100,)
        Units of each hidden layer; a plain number is one layer, so that it can be searched.

    activation : str, mapping, object, or list of these, default='relu'
        'identity', 'logistic', 'tanh', 'relu', or any other name of
        `mlp.formulas.activations.ACTIVATIONS`; ``{"name": "leaky_relu", "slope": 0.2}``; an object
        with methods f and df; a list with one for each hidden layer.

    solver : str, mapping or object, default='adam'
        'lbfgs', 'sgd' (with momentum, as scikit-learn's), 'adam', or any other name of
        `mlp.formulas.optimizers.OPTIMIZERS`; a mapping with its settings; an object.

    alpha : float, default=0.0001
        L2 penalty: alpha/2 times the sum of the squared weights, shared over the batch's samples.

    batch_size : int, default='auto'
        Rows of a batch; 'auto' is min(200, n_samples). Not used by 'lbfgs'.

    learning_rate : str, mapping or callable, default='constant'
        'constant', and for every stochastic solver but 'adam' 'invscaling' or 'adaptive', as in
        scikit-learn; any other name of `mlp.formulas.schedules.SCHEDULES` for every stochastic
        solver; a function of (step, steps of an epoch) that gives a factor.

    learning_rate_init : float, default=0.001
        The initial learning rate.

    power_t : float, default=0.5
        Exponent of 'invscaling'.

    max_iter : int, default=200
        Epochs of the stochastic solvers, iterations of 'lbfgs'.

    shuffle : bool, default=True
        Whether each epoch has an order of its own.

    random_state : int, RandomState instance or None, default=None
        For the initial weights, the split of early stopping, the order of the rows and dropout.

    tol : float, default=1e-4
        Training stops when loss or score fail to improve by at least tol for more than
        `n_iter_no_change` epochs in a row.

    verbose : bool, default=False
        Whether to print the progress.

    warm_start : bool, default=False
        Whether `fit` starts from the weights of the last fit.

    momentum : float, default=0.9
        Of solver 'sgd'.

    nesterovs_momentum : bool, default=True
        Whether the momentum of 'sgd' is Nesterov's.

    early_stopping : bool, default=False
        Whether to stop by the score on held-out rows, and to keep the weights of the best epoch.

    validation_fraction : float, default=0.1
        The share of the rows to hold out for early stopping.

    beta_1 : float, default=0.9
        Of 'adam': decay of the mean of the gradient.

    beta_2 : float, default=0.999
        Of 'adam': decay of the mean of its square.

    epsilon : float, default=1e-8
        Of 'adam', for numerical stability; not corrected for bias.

    n_iter_no_change : int or inf, default=10
        Epochs without improvement after which training stops.

    max_fun : int, default=15000
        Most evaluations of the loss by 'lbfgs'.
"""

OWN_PARAMETERS = """\
    backend : str, Backend or None, default=None
        'numpy', 'cupy', 'cupy:1', 'torch', ...: where to compute. None: data on a device are
        trained there; others where the environment variable MLP_BACKEND says, else on NumPy.
        'auto': the same, but host data go to CuPy if a CUDA device computes.

    dtype : {{'float32', 'float64'}} or None, default=None
        Of weights and computation; None follows X, float32 for float32 and float64 for all else.

    dropout : float or list of float, default=0.0
        Share of the hidden units dropped in training, for all hidden layers or for each.
{class_weight}
    callbacks : list of callables or None, default=None
        Called with the estimator after each epoch; a true answer ends the training.

    scoring : str, callable or None, default=None
        The scorer that early stopping watches, by name or a function of (estimator, X, y);
        None is {score}.

    checkpoint : str, path, Checkpoints or None, default=None
        A folder of this fit alone, in which it is kept while it runs, as `mlp.Checkpoints` says
        how (every 60 s). A `fit` that was ended, by whatever, goes on there when it is called again
        with the same settings and data, bit for bit as if it had not stopped; others are refused by
        name, but for `max_iter`, `verbose`, `callbacks` and `backend`. One that is done gives its
        result at once. For the stochastic solvers, without `warm_start`; not for `partial_fit`.

    weight_decay : float or None, default=None
        Decoupled decay of the weights, beside the penalty `alpha`: each step begins with
        w <- (1 - rate weight_decay) w. This and the next ones are for the stochastic solvers, and
        what they are in `mlp.Settings`.

    rate_factors : dict or None, default=None
        What the learning rate of some parameters is multiplied by, 0 freezes them: by role
        ("weight", "bias"), by name ("W[0, 1]") or by number of a layer.

    clip_norm : float or None, default=None
        The largest norm of the gradient.

    clip_value : float or None, default=None
        The largest number of the gradient.

    average : {{'ema'}}, mapping, object or None, default=None
        The average of the weights that `coefs_` are, early stopping watches and the estimator
        predicts with, as ``{{"name": "swa", "start": 75}}``. Not for `partial_fit`.

    time : str, float or None, default=None
        After so long, "10 min" or seconds, no epoch begins. Not for `partial_fit`.
"""

ATTRIBUTES = """\
    loss_ : float
        The loss of the last epoch, penalty included.

    best_loss_ : float or None
        The lowest loss; None with early stopping.

    loss_curve_ : list of float
        The loss of each epoch.

    validation_losses_ : list of float or None
        The loss on the validation rows after each epoch, without penalty; None without any.

    validation_scores_ : list of float or None
        The score on the validation rows after each epoch; None without any.

    best_validation_score_ : float or None
        The highest of them.

    t_ : int
        Training rows seen.

    coefs_ : list of arrays
        Weights: the i-th, (units of layer i, units of layer i + 1). Arrays of the kind and on the
        device of the training data.

    intercepts_ : list of arrays
        Biases: the i-th, (units of layer i + 1,).

    input_scaling_ : Scaling or None
        Of the model that the estimator was made of (`mlp.to_estimator`), applied within; None after
        `fit`.

    target_scaling_ : Scaling or None
        The same for what is predicted.

    n_features_in_ : int
        Columns of the training data.

    feature_names_in_ : ndarray of str
        Their names, if X had names that are all strings.

    n_iter_ : int
        Epochs, or iterations of 'lbfgs'.

    n_layers_ : int
        Layers, input and output included.

    n_outputs_ : int
        Output units.

    out_activation_ : str
        The activation of the output units.
"""
