"""After each epoch: the estimator's own ``callbacks`` and scikit-learn's callback protocol."""

from typing import Any

from mlp.estimators.arrays import FitRows
from mlp.model import Model


class Tasks:
    """The epochs of a fit as tasks that callbacks watch.

    scikit-learn's callbacks (`set_callbacks`) see each epoch as a task of the fit; those in the
    parameter ``callbacks`` are called with the estimator, whose weights are those of the moment.
    """

    def __init__(self, estimator: Any, model: Model, data: FitRows, heard: bool = True):
        self.estimator, self.model, self.data = estimator, model, data
        self.own = list(estimator.callbacks or ()) if heard else []
        listened = heard and getattr(estimator, "_skl_callbacks", None)
        self.context = getattr(estimator, "_callback_fit_ctx", None) if listened else None
        self.wanted = bool(self.own) or self.context is not None
        self.arguments = {"estimator": estimator, "X": data.named_X, "y": data.y}
        if data.weights is not None:
            self.arguments["metadata"] = {"sample_weight": data.weights}

    def begin(self) -> None:
        """An epoch starts."""
        if self.context is not None:
            self.task = self.context.subcontext(task_name="epoch")
            self.task.call_on_fit_task_begin(**self.arguments)

    def end(self) -> bool:
        """An epoch has ended; whether a callback asks to stop."""
        if not self.wanted:
            return False
        answers = [self.asked()]
        if self.context is not None:
            # The protocol copies the estimator as it is: it is fitted, nothing need be added.
            answers.append(
                self.task.call_on_fit_task_end(**self.arguments, reconstruction_attributes=dict)
            )
        return any(answers)

    def asked(self) -> bool:
        """Whether a callback in the parameter asks to stop where the fit stands."""
        if not self.wanted:
            return False
        self.estimator._take_over(self.model, self.data.X)
        answers = [bool(callback(self.estimator)) for callback in self.own]
        return any(answers)
