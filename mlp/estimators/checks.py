"""scikit-learn's checks of settings and data, also where Python cannot write their message.

They answer odd arguments by a ValueError or TypeError with a message. An integer of 4,300 digits
and more is in none, and one of more than 308 in no float64: here each is one message too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError

from mlp.errors import InputError, is_finite, shown


@contextmanager
def sayable(what: str) -> Iterator[None]:
    """scikit-learn's checks of data, with one message for integers that are too long for them."""
    try:
        yield
    except (OverflowError, ValueError) as error:
        if isinstance(error, ValueError) and "int_max_str_digits" not in str(error):
            raise
        raise InputError(f"{what} has an integer that no float64 holds; divide it") from error


class SayableSettings(BaseEstimator):
    """An estimator whose settings are all named, whatever they are."""

    def _validate_params(self) -> None:
        """scikit-learn's constraints. InputError for an integer that no float holds, or that no
        message can."""
        settings = self.get_params(deep=False)
        for name, value in settings.items():
            if isinstance(value, Integral) and not isinstance(value, bool) and not is_finite(value):
                raise InputError(f"{name} is beyond the range of float64: {shown(value)}")
        try:
            super()._validate_params()
        except InvalidParameterError:
            raise
        except ValueError as error:
            said = {name: shown(value, 60) for name, value in settings.items()}
            raise InputError(f"a setting is none that can be: {said}") from error
