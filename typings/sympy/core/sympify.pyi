from collections.abc import Callable
from typing import Any

converter: dict[type, Callable[[Any], Any]]
