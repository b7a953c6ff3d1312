"""What the docstrings of both estimators say alike."""

PARAMETERS = """
    n_members : int, default=8
        How many nets there are, at most one for each row or group; with fewer than 5 each learns
        from four fifths of the rows.

    time_limit : str, float or None, default=None
        The longest that `fit` may take: "10 min", or seconds. Epochs, then members are made fewer
        so that it is enough.

    hidden_layer_sizes : array-like of int, default=(128, 128, 128)
        Units of the hidden layers.

    activation, learning_rate, batch_size, epochs : default=None
        Of the training; None chooses them by the task and the number of rows (`recipe_`).

    dropout : float, default=0.15
        The rate of dropout of hidden units in the first half of the training.

    weight_decay : float, default=0.02
        Decoupled decay of weights in the first half of the training.

    embedding : int, default=12
        Learned curves of each number in every other member, 0 for none.

    bins : int or None, default=None
        Their straight pieces at most; None is one for 160 rows, 8 to 48.

    columns : mapping or None, default=None
        By name or pattern ("lab_*"), a kind or an `mlp.ColumnPlan`, where the kind that is found is
        not the one that is meant.

    backend : str, Backend or None, default=None
        Where it computes, as 'cupy'; None is $MLP_BACKEND, else NumPy.

    n_jobs : int or None, default=None
        Members that learn at once on NumPy; None is one for each core, but one where others run
        already side by side. It changes nothing in the results.

    random_state : int, RandomState or None, default=None
        Of the folds and of each member.

    verbose : bool, default=False
        Whether a line is printed for each member, with the time left.
"""

ANSWERS = """
    members_ : list of Member
        The trained nets.

    recipe_ : Recipe
        What each of them is and how it learned.

    tried_ : dict
        What was tried on the first member, and the figure that each had.

    stopped_ : str
        Why it ended before its time; "" where it did not.

    preprocessing_ : Preprocessing
        The kinds of the columns and how they are coded.

    feature_importances_ : ndarray of shape (n_columns,)
        What the metric gets worse by if a column is shuffled, on held-out rows.
"""
