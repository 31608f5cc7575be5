"""The MONAI Deploy application: the pipeline's steps as operators.

``monai.deploy.core`` hands out Holoscan's own classes under its name. They are taken from where
they are defined: importing ``monai`` first would load all of MONAI, which costs more processor
time than everything else at the start and which nothing here uses.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holoscan.conditions import CountCondition
from holoscan.core import Application, ConditionType, Operator, OperatorSpec

from ct_triage.pipeline import RESULT_STEP, Pipeline, parameters_of

logger = logging.getLogger(__name__)


class StepOperator(Operator):
    """Run one step: its parameters are the input ports, its result the only output port.

    ``on_end`` is called with the step's name and its result, or the exception. In the latter
    case nothing is emitted, so no later step starts and the application ends.
    """

    def __init__(
        self,
        fragment: Application,
        *conditions: CountCondition,
        name: str,
        step: Callable[..., Any],
        on_end: Callable[[str, Any], None],
    ) -> None:
        self.step = step
        self.inputs = parameters_of(step)
        self.on_end = on_end
        super().__init__(fragment, *conditions, name=name)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the ports."""
        for port in self.inputs:
            spec.input(port)
        # Without a condition an operator whose result nobody waits for would never run.
        spec.output(self.name).condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:  # noqa: ARG002
        """Run the step on what has arrived."""
        arguments = {port: op_input.receive(port) for port in self.inputs}
        start = time.perf_counter()
        try:
            result = self.step(**arguments)
        except Exception as error:
            self.on_end(self.name, error)
            return
        self.on_end(self.name, result)
        logger.info("%-9s %6.2f s", self.name, time.perf_counter() - start)
        op_output.emit(result, self.name)


class CTTriageApp(Application):
    """From a study folder to a DICOM SEG, a TID 1500 report and ``result.json``.

    Parameters
    ----------
    pipeline : Pipeline
        The steps and what they work on.

    Attributes
    ----------
    files : tuple of Path
        The results, in the end.
    result : dict
        The findings as in ``result.json``, in the end.
    failure : Exception or None
        Why the run ended early; None once every step has run.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.files: tuple[Path, ...] = ()
        self.result: dict[str, Any] = {}
        self.failure: Exception | None = RuntimeError("the application was not run")
        super().__init__()

    def compose(self) -> None:
        """Connect every step to those whose results it names as parameters."""
        operators: dict[str, StepOperator] = {}
        for name, step in self.pipeline.steps().items():
            inputs = parameters_of(step)
            # A step without inputs would be scheduled for ever.
            once = () if inputs else (CountCondition(self, 1),)
            operator = StepOperator(self, *once, name=name, step=step, on_end=self._end)
            self.add_operator(operator)
            for source in inputs:
                self.add_flow(operators[source], operator, {(source, source)})
            operators[name] = operator
        self._last_step = name

    def _end(self, step: str, result: Any) -> None:
        # The scheduler ends quietly when a step never starts: only the last one clears the way.
        if isinstance(result, Exception):
            self.failure = result
        elif step == RESULT_STEP:
            self.result = result
        elif step == self._last_step:
            self.files, self.failure = result, None
