"""What the application loads before it works."""

import subprocess
import sys

from holoscan.core import Application, ConditionType, Operator, OperatorSpec

import ct_triage.application

# Seconds of processor time and hundreds of megabytes each, and of no use to a run.
NEEDLESS = ("monai", "matplotlib", "ignite", "torchvision", "torch._dynamo", "pandas", "sklearn")


def test_the_start_loads_nothing_needless() -> None:
    code = f"import sys, ct_triage.runs; print([n for n in {NEEDLESS} if n in sys.modules])"
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "ignore"}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert loaded.strip() == "[]"


def test_it_is_made_of_what_monai_deploy_hands_out() -> None:
    from monai.deploy import core

    assert core.Application is Application
    assert core.Operator is Operator
    assert core.OperatorSpec is OperatorSpec
    assert core.ConditionType is ConditionType
    assert issubclass(ct_triage.application.CTTriageApp, core.Application)
