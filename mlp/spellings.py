"""What others call what is here: names of Keras, PyTorch and scikit-learn, and everyday ones.

An unknown name is answered with ours. Upper and lower case, `_` and `-` make no difference, and a
foreign name counts only where ours is among the names that are known there: `linear` is `identity`
among activations and `dense` among layers.
"""

from collections.abc import Iterable, Mapping

# Ours, and what says the same.
SAME = {
    # activations
    "identity": "linear, none, purelin",
    "sigmoid": "logistic, logsig, expit",
    "tanh": "tansig, hyperbolic_tangent",
    "relu": "rectifier, rectified_linear, ramp",
    "silu": "swish, SiLU",
    "exp": "exponential",
    "softmax": "multinomial",
    "leaky_relu": "LeakyReLU",
    "gelu_tanh": "gelu_new, gelu_pytorch_tanh, gelu_approximate",
    "hard_sigmoid": "hardsigmoid",
    "hard_swish": "hardswish, hard_silu",
    "hard_tanh": "hardtanh, satlins",
    "sine": "sin, siren",
    "square": "quadratic",
    "log_softmax": "LogSoftmax",
    # losses
    "half_squared_error": "sum_of_squares",
    "mean_squared_error": "mse, MSELoss, squared_error, squared_loss, quadratic, l2_loss, mse_loss",
    "mean_absolute_error": "mae, L1Loss, l1_loss, absolute_error, absolute_loss",
    "huber": "HuberLoss, huber_loss",
    "log_cosh": "LogCoshLoss, log_cosh_loss, logcosh",
    "quantile": "pinball, pinball_loss, quantile_loss, mean_pinball_loss, quantile_regression",
    "gaussian": "GaussianNLLLoss, gaussian_nll, gaussian_nll_loss, heteroscedastic, mean_variance",
    "ordinal": "cumulative_link, coral, corn, proportional_odds, ordinal_regression, ordered_logit",
    "cosine_distance": "cosine_similarity, CosineEmbeddingLoss, cosine_embedding_loss, cosine_loss",
    "binary_cross_entropy": (
        "BCELoss, BCEWithLogitsLoss, bce, binary_crossentropy, sigmoid_cross_entropy, "
        "MultiLabelSoftMarginLoss, multilabel_soft_margin_loss, "
        "sigmoid_binary_cross_entropy, binary_cross_entropy_with_logits, logistic_loss, bernoulli"
    ),
    "cross_entropy": (
        "CrossEntropyLoss, categorical_crossentropy, sparse_categorical_crossentropy, ce, "
        "categorical_cross_entropy, softmax_cross_entropy, log_loss, logloss, NLLLoss, nll_loss, "
        "negative_log_likelihood, categorical, xent"
    ),
    "binary_focal": "binary_focal_crossentropy, sigmoid_focal_loss, binary_focal_loss",
    "focal": "categorical_focal_crossentropy, focal_loss",
    "hinge": "hinge_loss, binary_hinge",
    "multiclass_hinge": "MultiMarginLoss, multi_margin_loss, multi_margin, weston_watkins",
    "poisson": "PoissonNLLLoss, poisson_nll_loss, poisson_deviance, mean_poisson_deviance",
    "gamma": "gamma_deviance, mean_gamma_deviance, gamma_nll",
    "tweedie": "tweedie_deviance, mean_tweedie_deviance",
    # optimizers
    "sgd": "gd, gradient_descent, stochastic_gradient_descent, backprop, backpropagation",
    "momentum": "sgd_momentum, heavy_ball, classical_momentum",
    "nesterov": "nag, nesterov_momentum, nesterovs_momentum, sgd_nesterov",
    "rprop": "irprop, irprop-, irprop_minus, resilient_backpropagation",
    "amsgrad": "ams_grad, adam_amsgrad",
    "nadam": "nesterov_adam",
    "radam": "rectified_adam",
    "lion": "evolved_sign_momentum",
    # averages of the weights
    "ema": "exponential_moving_average, polyak, polyak_averaging, use_ema, ModelEmaV2",
    "swa": "stochastic_weight_averaging, SWALR, AveragedModel",
    # initializers
    "glorot_uniform": "xavier_uniform, xavier, glorot",
    "glorot_normal": "xavier_normal",
    "he_uniform": "kaiming_uniform, kaiming, he, he_init",
    "he_normal": "kaiming_normal",
    "uniform": "random_uniform",
    "lecun_uniform": "lecun",
    "normal": "random_normal, gaussian",
    "truncated_normal": "trunc_normal",
    "zeros": "zero",
    # schedules
    "constant": "ConstantLR, fixed, none",
    "step": "StepLR, step_decay",
    "exponential": "ExponentialLR, exponential_decay",
    "cosine": "CosineAnnealingLR, cosine_annealing, cosine_decay",
    "cosine_restarts": "CosineAnnealingWarmRestarts, cosine_decay_restarts, sgdr, warm_restarts",
    "inverse_scaling": "invscaling, inverse_time_decay, inverse_time",
    "one_cycle": "OneCycleLR, one_cycle_policy, 1cycle",
    "plateau": "ReduceLROnPlateau, reduce_on_plateau",
    "polynomial": "PolynomialLR, polynomial_decay, LinearLR, linear",
    "flat_cosine": "flat_cos, flat_then_cosine, flat_anneal",
    "lbfgs": "L-BFGS-B, bfgs",
    "levenberg_marquardt": "trainlm, lm, marquardt, levenberg",
    # layers
    "dense": "linear, fully_connected, fc, affine, inner_product",
    "accumulate": (
        "accumulate_grad_batches, gradient_accumulation_steps, accumulation_steps, accum_iter"
    ),
    "activation": "act, activation_function, nonlinearity, transfer_function",
    "add": "residual, skip, skip_connection, shortcut",
    "batch_norm": "BatchNormalization, batch_normalisation, BatchNorm1d, bn",
    "embedding": "embed, lookup, entity_embedding, embedding_table",
    "ensemble": "batch_ensemble, BatchEnsemble, tabm, members",
    "gated": "glu, GLU, swiglu, geglu, gated_linear_unit",
    "maxout": "max_out",
    "layer_norm": "LayerNormalization, layer_normalisation, ln",
    "periodic": "plr, PLR, pbld, PBLD, periodic_embeddings, PeriodicEmbeddings, fourier_features",
    "piecewise_linear": "ple, PLE, PiecewiseLinearEmbeddings, PiecewiseLinearEncoding",
    "rms_norm": "RMSNormalization, rms_normalisation, root_mean_square_norm",
    "scale": "rescaling, scaling_layer",
    # words of single settings
    "standard": "StandardScaler, standardize, zscore, z_score",
    "range": "MinMaxScaler, minmax",
    "mean": "average, avg",
    "validation_loss": "val_loss",
    "float32": "single, float, f32, fp32",
    "float64": "double, f64, fp64",
    "mixed": "amp, float16, half, fp16, mixed_float16, 16_mixed",
    "mixed_bfloat16": "bfloat16, bf16, bf16_mixed, amp_bfloat16",
    # metrics
    "accuracy": "acc, accuracy_score, categorical_accuracy, sparse_categorical_accuracy",
    "average_precision": "pr_auc, auprc, average_precision_score",
    "balanced_accuracy": "balanced_accuracy_score, uar",
    "brier": "brier_score, brier_score_loss",
    "calibration_error": "ece, expected_calibration_error",
    "f1": "f1_score, f_score, f_measure",
    "mae": "mean_absolute_error, MeanAbsoluteError",
    "mcc": "matthews_corrcoef, matthews_correlation",
    "median_error": "median_absolute_error, medae",
    "pinball": "mean_pinball_loss",
    "r2": "r2_score, r_squared",
    "rmse": "root_mean_squared_error",
    "roc_auc": "auc, auroc, roc_auc_score",
    "top_k": "top_k_accuracy, top_k_categorical_accuracy",
    "gamma_deviance": "mean_gamma_deviance",
    # keys
    "count": "k, members, n_members, ensemble_size, n_ens",
    "size": "embedding_dim, output_dim, dim, d_embedding",
    "bins": "n_bins, num_bins, n_quantiles",
    "frequencies": "n_frequencies, num_frequencies",
    "values": "num_embeddings, input_dim, vocabulary_size, n_values, cardinality",
    "backend": "device",
    "batch_size": "batch, minibatch, minibatch_size, bs",
    "beta_1": "b1",
    "beta_2": "b2",
    "bias": "use_bias, fit_intercept",
    "clip_norm": (
        "global_clipnorm, clipnorm, max_grad_norm, clip_grad_norm, gradient_clip_val, grad_clip"
    ),
    "clip_value": "clipvalue, clip_grad_value, max_grad_value",
    "decay": "ema_momentum",
    "dropout": "dropout_rate",
    "deviation": "stddev, std, sigma, noise, frequency_scale, frequency_init_scale",
    "mixup": "mixup_alpha, alpha_mixup, mix_up",
    "dropout_schedule": "drop_schedule, p_drop_sched",
    "class_weight": "class_weights, classes_weight",
    "epochs": "max_iter, n_epochs, num_epochs, nb_epoch, max_epochs, n_iter, iterations",
    "epsilon": "eps",
    "every": "step_size",
    "delta": "beta",
    "factor": "gamma",
    "exclude": "drop, ignore, leave_out",
    "file": "path, filename, data_file, train_file, csv, dataset",
    "initializer": "init, kernel_initializer, weight_init",
    "inputs": "features, x, predictors",
    "kind": "type, layer_type",
    "l1": "l1_penalty, lasso",
    "l2": "alpha, weight_decay, l2_penalty, ridge",
    "layers": "layer, hidden_layers, network, net",
    "learning_rate": "lr, learning_rate_init, eta, eta0",
    "loss": "loss_function, criterion, cost, cost_function, objective",
    "max_norm": "kernel_constraint, max_value, maxnorm, renorm, weight_constraint",
    "min_delta": "tol",
    "optimizer": "solver, optim, algorithm",
    "patience": "n_iter_no_change, early_stopping",
    "pos_weight": "positive_weight, scale_pos_weight",
    "power": "variance_power, tweedie_variance_power",
    "precision": "dtype",
    "q": "quantiles, tau, quantile_levels, levels",
    "rate": "p, dropout_rate",
    "restore_best": "restore_best_weights",
    "sam_radius": "sam, rho",
    "scale_inputs": "normalize, standardize, scaler, scale, scaling",
    "schedule": "scheduler, lr_schedule, lr_scheduler",
    "seed": "random_state, random_seed",
    "slope": "negative_slope, alpha",
    "target": "label, labels, y, output, outcome, response, target_column, label_column",
    "test": "test_size, test_split, test_fraction",
    "threads": "n_jobs, num_threads",
    "time": "max_time, time_limit, timeout, max_runtime",
    "training": "train, fit",
    "units": "hidden_layer_sizes, hidden, neurons, nodes, hidden_units, hidden_size, n_units, size",
    "validation": "validation_fraction, validation_split, val, val_split",
    "warmup": "warmup_epochs",
    "weight_decay": "wd, decoupled_weight_decay",
    "average": "weight_averaging, averaging",
    "watch": "monitor",
}

# Ours, and what is not here, to which it is the nearest.
NEAR = {
    "tanh": "lecun_tanh, tanhshrink",
    "sigmoid": "log_sigmoid",
    "leaky_relu": "rrelu",
    "relu": "relu6, thresholded_relu",
    "softmax": "softmin, sparsemax",
    "mean_squared_error": (
        "mape, mean_absolute_percentage_error, msle, mean_squared_logarithmic_error, rmse, "
        "root_mean_squared_error"
    ),
    "huber": "SmoothL1Loss, smooth_l1_loss",
    "mean_absolute_error": "epsilon_insensitive, squared_epsilon_insensitive",
    "half_squared_error": "sse, sum_squared_error",
    "hinge": "SoftMarginLoss, soft_margin_loss, modified_huber",
    "multiclass_hinge": "categorical_hinge, crammer_singer, MultiLabelMarginLoss",
    "cross_entropy": "KLDivLoss, kl_div, kl_divergence, kullback_leibler_divergence",
    "adam": "adafactor, ftrl",
    "adamw": "lamb",
    "step": "MultiStepLR, piecewise_constant",
    "plateau": "adaptive",
    "glorot_uniform": "variance_scaling",
    "dropout": "AlphaDropout, GaussianDropout, SpatialDropout1D",
}


def fold(name: object) -> str:
    """The name without what makes no difference: case, `_`, `-` and the like.

    >>> fold("LeakyReLU") == fold("leaky_relu")
    True
    """
    return "".join(c for c in str(name).casefold() if c.isalnum())


def ours(name: object, known: Iterable[str], table: Mapping[str, str] = SAME) -> str | None:
    """The known name that this is another spelling of, by the table or letter by letter; a module
    before it makes no difference.

    >>> ours("nn.BCELoss", ["cross_entropy", "binary_cross_entropy"])
    'binary_cross_entropy'
    >>> ours("lr", ["epochs"]) is None
    True
    """
    asked = {fold(name), fold(str(name).rpartition(".")[2])} - {""}
    for own in known if asked else ():
        others = table[own].split(", ") if own in table else ()
        if not asked.isdisjoint(map(fold, (own, *others))):
            return own
    return None
