"""What every test of expressions does: evaluate one, or take what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ExpressionError
from pipeline.expression import ExpressionFault, compile_expression


@pytest.fixture
def evaluate() -> Callable[..., Any]:
    """Evaluate a text over a scope given as keywords."""

    def run(source: str, **scope: Any) -> Any:
        return compile_expression(source)(scope)

    return run


@pytest.fixture
def failure() -> Callable[..., ExpressionError]:
    """Return the error of a text that fails over a scope given as keywords."""

    def run(source: str, **scope: Any) -> ExpressionError:
        compiled = compile_expression(source)
        with pytest.raises(ExpressionError) as caught:
            compiled(scope)
        return caught.value

    return run


@pytest.fixture
def fault() -> Callable[..., ExpressionFault]:
    """Return the fault of a text that does not compile."""

    def run(source: str, **options: Any) -> ExpressionFault:
        with pytest.raises(ExpressionFault) as caught:
            compile_expression(source, **options)
        return caught.value

    return run
