"""Every error this project raises on purpose, so that a caller can catch one class."""


class SymgradError(Exception):
    """Base of all errors raised on purpose. The message says what, where, and what to do."""


class TraceError(SymgradError):
    """The forward does what a symbolic trace cannot record: an unknown op, `.item()`, data-dependent control flow."""


class ExampleError(TraceError):
    """The forward has a parameter of which nothing says what tensor it is."""


class ShapeError(TraceError):
    """Two sizes that an op needs to be equal are not."""


class DerivationError(SymgradError):
    """An index expression whose derivative or whose tensor form is outside of what the algebra covers."""


class InputError(SymgradError):
    """A program was given inputs of the wrong number, shape or dtype."""


class TargetError(SymgradError):
    """A command-line TARGET that names nothing, or something that cannot be loaded."""


class DataError(SymgradError):
    """A data file that is missing, empty, not UTF-8, or has characters the vocabulary lacks."""


class CheckpointError(SymgradError):
    """A checkpoint that is missing, truncated, corrupted, or from another model."""


class TrainingError(SymgradError):
    """Training cannot go on: a non-finite loss, or a folder that cannot be written."""


class OutputError(SymgradError):
    """A file or folder that cannot be written, or what stands in its place that cannot be read."""
