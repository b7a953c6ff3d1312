"""House prices in California: missing values, a category, and the net at the end of a pipeline.

    python examples/california_housing.py california_housing.csv [--backend cupy] [--epochs 100]

The file has the columns of the 1990 census (Pace and Barry, Statistics & Probability Letters 33,
1997, in the edition with ocean_proximity): longitude, latitude, housing_median_age, total_rooms,
total_bedrooms (with gaps), population, households, median_income, median_house_value,
ocean_proximity. Of 20,640 districts a fifth is held out; R² on it is printed, beside that of a
linear model.
"""

import argparse
import warnings

import pandas as pd
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlp import MLPRegressor

TARGET, CATEGORY = "median_house_value", "ocean_proximity"


def pipeline(regressor, numbers):
    """Gaps filled by medians, numbers and target standardised, the category one-hot."""
    prepared = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [CATEGORY]),
    )
    return TransformedTargetRegressor(
        make_pipeline(prepared, regressor), transformer=StandardScaler()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the CSV")
    parser.add_argument("--backend", help="where to compute, as numpy or cupy")
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs are wanted

    table = pd.read_csv(options.file)
    X, y = table.drop(columns=TARGET), table[TARGET]
    parts = train_test_split(X, y, test_size=0.2, random_state=0)
    X_train, X_test, y_train, y_test = parts
    numbers = [name for name in X.columns if name != CATEGORY]
    print(f"{len(table)} districts, {int(X.isna().sum().sum())} missing values")

    net = MLPRegressor(
        hidden_layer_sizes=(128, 64),
        learning_rate="cosine",
        learning_rate_init=0.003,
        max_iter=options.epochs,
        n_iter_no_change=options.epochs,
        dtype="float32",
        random_state=0,
        backend=options.backend,
    )
    for name, regressor in (("linear model", LinearRegression()), ("net", net)):
        model = pipeline(regressor, numbers).fit(X_train, y_train)
        print(f"R² of the {name:<12} {model.score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
